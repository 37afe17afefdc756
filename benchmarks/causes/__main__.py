"""Writes ``docs/causes.md``. See ``python -m benchmarks.causes --help``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare.report.model import Cause, Culprit, Report

from benchmarks.faults import cases
from benchmarks.faults.case import Case
from benchmarks.faults.plants import KINDS
from benchmarks.kit.networks import NETWORKS
from benchmarks.kit.pages import DOCS, machine, write_page, written_by

PAGE = DOCS / "causes.md"

MEANING = {
    Cause.OVERFLOW: "Values, weights, or what is computed inside the layer lie above the format's greatest value.",
    Cause.UNDERFLOW: "Values that matter are too small for the format, and become zero or lose their digits.",
    Cause.SATURATION: "Values stop at an end of a range: calibration saw smaller ones, or the format ends there.",
    Cause.QUANTIZATION: "A scale or a zero point is wrong, or one scale has to serve channels of very different sizes.",
    Cause.WEIGHTS: "The two files hold other weights in a layer that corresponds.",
    Cause.ATTRIBUTE: "The same operator with another setting.",
    Cause.SCALE: "The result is a constant factor, or an offset, away.",
    Cause.BIAS: "A bias of integers that its operands' scales do not fit.",
    Cause.LAYOUT: "The same values in other places.",
    Cause.WRONG_OP: "No rounding does this: another operator, or a kernel that computes something else.",
    Cause.NARROW_ACCUMULATOR: "Sums of products were kept in FP16 or BF16.",
    Cause.CANCELLATION: "Nearly equal numbers are subtracted: what is left is the rounding of the layers before.",
    Cause.AMPLIFIED: "Rounding that is as it must be, and that the layers behind it enlarge.",
    Cause.SPREAD: "No layer is to blame: the format is too coarse for the tolerance that was asked for.",
    Cause.NAN: "One side alone has values that are not finite, and no overflow explains them.",
}
"""What a cause means, in one sentence."""

LOOK = {
    Cause.OVERFLOW: "bars of the reference right of the format's greatest value, where the candidate has none",
    Cause.UNDERFLOW: "bars of the reference left of the format's smallest value, and the candidate's zeros beside them",
    Cause.SATURATION: "a tower of the candidate's bars at one end, where the reference's go on",
    Cause.QUANTIZATION: "the error of each channel: a few channels with small values err most",
    Cause.LAYOUT: "the same bars on both sides, and an error of 1 or more all over the map",
    Cause.WEIGHTS: "a step of the local error at one layer; what follows inherits it",
}
"""What to look at in the HTML page, where there is a picture of it."""


PICTURES = {Cause.OVERFLOW: "overflow", Cause.QUANTIZATION: "int8-outlier", Cause.WEIGHTS: "broken-export"}
"""Pictures of ``benchmarks.pictures``."""


def report_of(case: Case, folder: Path) -> Report:
    """The comparison of a case, layer by layer."""
    reference, candidate = case.write(folder)
    other = EmulateRunner(format=case.emulate) if case.emulate else OnnxrtRunner(**case.runner)
    runners = [OnnxrtRunner(), other] if candidate is None else [OnnxrtRunner()]
    return Comparator(
        reference, runners, candidate_model=candidate, data_loader=case.feeds(), layers="guilty"
    ).compare()


def examples() -> dict[Cause, tuple[str, Culprit]]:
    """One culprit for each cause that a planted fault has: what was planted, and what was found."""
    found: dict[Cause, tuple[str, Culprit]] = {}
    for kind in KINDS.values():
        case = next((c for name in NETWORKS for c in cases.generate([kind.name], [name])), None)
        if case is None or (case.candidate is not None and (case.emulate or case.runner)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            report = report_of(case, Path(folder))
        for culprit in report.culprits[:1]:
            if culprit.cause not in found:
                found[culprit.cause] = kind.title, culprit
                print(f"{culprit.cause}: {kind.name}", file=sys.stderr, flush=True)
    return found


def markdown(found: dict[Cause, tuple[str, Culprit]]) -> str:
    """The page."""
    parts = [
        "# What each cause looks like",
        written_by("benchmarks.causes"),
        "Under each cause stands a fault that was planted for it in a small network ([faults.md](faults.md)), and the "
        "lines of the report that name it. How causes are told apart: [layers.md](layers.md#causes); what helps: "
        "[index.md](index.md#my-fp16-engine-is-wrong-what-now).",
        machine("onnxruntime", "onnx", "numpy") + ".",
    ]
    for cause, meaning in MEANING.items():
        if cause not in found:
            continue
        title, culprit = found[cause]
        lines = [f"culprit 1: {culprit.node} ({culprit.op}) on {culprit.candidate}: {culprit.cause}"]
        lines += [f"  {culprit.evidence}", *(f"  try: {remedy.text}" for remedy in culprit.remedies[:1])]
        parts += [
            f"## {cause}",
            f"{meaning} Planted: {title[:1].lower()}{title[1:]}.",
            "```text\n" + "\n".join(lines) + "\n```",
        ]
        if cause in LOOK:
            parts.append(f"In the HTML page: {LOOK[cause]}.")
        if cause in PICTURES:
            parts.append(f"![The page of a network with this cause](pictures/{PICTURES[cause]}.png)")
    parts.append(
        "A layer that none of these fits is `unknown`: the evidence gives the greatest difference and its place. "
        "Outputs "
        "that carry each other's names are `exchanged-outputs`, and a side that gives other bits each time is "
        "`nondeterminism`."
    )
    return "\n\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.causes", description=__doc__)
    parser.add_argument("--dry", action="store_true", help="print the page")
    write_page(PAGE, markdown(examples()), dry=parser.parse_args().dry)
    return 0


if __name__ == "__main__":
    sys.exit(main())
