"""The onnx package's backend models, compared in several ways: ``python -m benchmarks.corpus`` writes docs/corpus.md.

Two runtimes on given data (ONNX Runtime and the reference evaluator), ONNX Runtime with itself layer by layer, and with
an emulated FP16 layer by layer. Of each comparison: does it agree, disagree, is it undecided, does a side not run the
model. What must not be is a crash, a report that is lost to localizing, or a culprit of ONNX Runtime against itself.
``--every N`` takes each N-th model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layerdiff import Comparator, DataLoader, EmulateRunner, OnnxrtRunner, ReferenceEvaluatorRunner
from layerdiff.graph.errors import LayerdiffError
from layerdiff.runners.contract.runner import Runner

from benchmarks.corpus.models import DATA, CorpusModel, corpus
from benchmarks.kit.pages import DOCS, machine, table, write_page, written_by

ORT = OnnxrtRunner(threads=1)
OUTCOMES = ("agree", "disagree", "undecided", "unsupported", "crash", "lost")


@dataclass(frozen=True)
class Way:
    """One way to compare a model with itself.

    Attributes:
        label: As on the command line.
        candidate: What is compared with ONNX Runtime.
        given: Whether the data that come with the model are used where there are any.
        layers: See `Rules.layers`.
    """

    label: str
    candidate: Runner
    given: bool = False
    layers: str | None = None


WAYS = (
    Way("--onnxrt --reference-evaluator, given data", ReferenceEvaluatorRunner(), given=True),
    Way("--onnxrt --onnxrt --layers=all", OnnxrtRunner(threads=1), layers="all"),
    Way("--onnxrt --emulate fp16 --layers", EmulateRunner(format="fp16", threads=1), layers="guilty"),
)


@dataclass(frozen=True)
class Outcome:
    """What came of one comparison.

    Attributes:
        kind, model, way: What was compared.
        what: One of `OUTCOMES`.
        why: The reason of the first output that does not agree, or the error.
        culprits: Layers that were named, as ``node: cause``.
    """

    kind: str
    model: str
    way: str
    what: str
    why: str = ""
    culprits: tuple[str, ...] = ()


def compared(entry: CorpusModel, way: Way) -> Outcome:
    """Compares one model in one way."""

    def outcome(what: str, why: str = "", culprits: tuple[str, ...] = ()) -> Outcome:
        line = next(iter(why.replace(f"{DATA}/", "").strip().splitlines()), "")
        return Outcome(entry.kind, entry.name, way.label, what, line, culprits)

    try:
        model = entry.model()
        sample = entry.sample(model) if way.given else None
        data: Any = DataLoader(samples=1) if sample is None else [sample]
        options: dict[str, Any] = {"nan_equal": True, "layers": way.layers}
        report = Comparator(model, [ORT, way.candidate], data_loader=data, **options).compare()
    except LayerdiffError as error:
        return outcome("unsupported", str(error))
    except Exception as error:
        return outcome("crash", f"{type(error).__name__}: {error}")
    culprits = tuple(f"{c.node}: {c.cause.value}" for c in report.culprits)
    failed = [r.error for r in report.runners if r.error]
    if failed or not report.outputs:
        return outcome("unsupported", next(iter(failed), "no output to compare") or "")
    lost = [n.text for n in report.notices if n.code == "layers-not-compared"]
    if lost:
        return outcome("lost", lost[0], culprits)
    verdicts = [o.verdict for o in report.outputs]
    bad = next((o for o in report.outputs if o.verdict != "pass"), None)
    what = "agree" if bad is None else "disagree" if set(verdicts) - {"pass", "undecided"} else "undecided"
    return outcome(what, "" if bad is None else f"{bad.tensor}: {bad.reason}", culprits)


def page(outcomes: Sequence[Outcome], every: int, seconds: float) -> str:
    """docs/corpus.md."""
    rows, lists = [], []
    for way in WAYS:
        mine = [o for o in outcomes if o.way == way.label]
        counts = Counter(o.what for o in mine)
        named = [o for o in mine if o.culprits and o.what == "agree"]
        rows.append([f"`{way.label}`", len(mine), *(counts[what] for what in OUTCOMES), len(named)])
        for what in ("disagree", "crash", "lost"):
            lines = [f"- {o.model}: {o.why}" for o in mine if o.what == what]
            if lines:
                lists.append(f"### `{way.label}`: {what}\n\n" + "\n".join(lines))
        if named:
            lines = [f"- {o.model}: {', '.join(o.culprits)}" for o in named]
            lists.append(f"### `{way.label}`: culprits though the outputs agree\n\n" + "\n".join(lines))
    which = "All of the" if every == 1 else f"One in {every} of the"
    head = ["", "models", *OUTCOMES, "culprits though outputs agree"]
    return "\n".join(
        [
            "# The onnx package's backend models",
            "",
            written_by("benchmarks.corpus"),
            "",
            f"{which} models that the onnx package tests backends with (single operators, converted PyTorch layers,",
            "networks with constant weights), each compared with itself; NaN equals NaN. *Unsupported*: a side does",
            "not run the model, or its inputs or outputs are no tensors. *Lost*: localizing failed, and the report is",
            "one of the outputs alone.",
            f"{machine('onnx', 'onnxruntime', 'numpy')}; {seconds / 60:.0f} minutes.",
            "",
            table(head, rows, numbers=True),
            "",
            "\n\n".join(lists),
        ]
    )


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take each N-th model")
    parser.add_argument("--json", type=Path, help="append every outcome to a file, one a line")
    parser.add_argument("--dry", action="store_true", help="print the page instead of writing it")
    asked = parser.parse_args(words)
    begun, outcomes = time.perf_counter(), []
    for number, entry in enumerate(corpus()):
        if number % asked.every:
            continue
        for way in WAYS:
            outcomes.append(compared(entry, way))
            if asked.json is not None:
                with asked.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(outcomes[-1])) + "\n")
    write_page(DOCS / "corpus.md", page(outcomes, asked.every, time.perf_counter() - begun), dry=asked.dry)
    return int(any(o.what in ("crash", "lost") for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
