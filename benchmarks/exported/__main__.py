"""Architectures that people deploy, converted soundly: ``python -m benchmarks.exported`` writes docs/exported.md.

Small networks of Transformers and torchvision, with random weights and statistics of their own, are exported by both of
PyTorch's exporters, and the file is optimized, fused, folded, cast to FP16 and quantized by the tools that people use.
Each result is compared with the file that it was made of, layer by layer on one sample, and so is an emulated FP16,
BF16 and INT8. All of it is sound: a culprit is a false one, unless the conversion does lose something.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.kit.pages import DOCS, machine, table, write_page, written_by
from benchmarks.kit.pool import spread

from .architectures import ARCHITECTURES
from .conversions import CONVERSIONS, EMULATIONS, OTHER_EXPORTER
from .ways import OUTCOMES, Outcome, share

LOSES = {
    "become the same": "a mask takes the calibrated range: the scores beside it are lost, as it says",
    "has one scale for": "what it says is so: the first in the list of what to leave in floating point",
    "alone explains an error": "the quantized layer that makes most of the error, which is its step's",
    "times that of the data": "true: each step of a scan is quantized with the range of all steps",
    "above FP16's greatest": "true: statistics that were drawn at random make values of that size",
    "below": "layer scales of 1e-6 are below the smallest number of FP16, as it says",
}
"""What was found out about culprits, by what their evidence says."""


def page(found: Sequence[Outcome]) -> str:
    """docs/exported.md."""
    ways = [OTHER_EXPORTER, *CONVERSIONS, *(f"--emulate {fmt}" for fmt in EMULATIONS)]
    rows, lines = [], []
    for way in ways:
        mine = [o for o in found if o.way == way]
        counts = Counter(o.what for o in mine)
        named = [o for o in mine if o.culprits]
        false = [o for o in named if _why(o) is None]
        rows.append([way, *(counts[what] for what in OUTCOMES), len(named), len(false)])
        silent = [o for o in mine if o.what in ("fail", "lost") and not o.culprits]
        lines += [f"- {o.architecture}, {way}: {o.what}: {o.why}" for o in silent]
        lines += [_named(o) for o in named]
    told = (__doc__ or "").split("\n\n", 1)[1].strip()
    head = ["", *OUTCOMES, "with culprits", "false ones"]
    return "\n".join(
        [
            "# Architectures that people deploy",
            "",
            written_by("benchmarks.exported"),
            "",
            told,
            "",
            "*Not made*: the tool fails. *Not run*: ONNX Runtime refuses its file. *Lost*: layerdiff does not come to",
            "an end, or not to layers. Quantized files are *undecided* without a tolerance or a metric.",
            f"{len({o.architecture for o in found})} architectures; "
            f"{machine('onnx', 'onnxruntime', 'torch', 'transformers', 'onnxscript', 'onnxconverter-common')}.",
            "",
            table(head, rows, numbers=True),
            "",
            "\n".join(lines),
        ]
    )


def _why(outcome: Outcome) -> str | None:
    return next((why for text, why in LOSES.items() if text in outcome.evidence), None)


def _named(outcome: Outcome) -> str:
    first, *others = outcome.culprits
    more = f" and {len(others)} more" if others else ""
    why = _why(outcome) or "not looked into"
    return f"- {outcome.architecture}, {outcome.way}: {first}{more}. *{why[0].upper()}{why[1:]}.*"


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exported", description=__doc__)
    parser.add_argument("--only", default="", help="take the architectures whose name holds this, and print the page")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--json", type=Path, help="append every outcome to a file, one a line; goes on")
    asked = parser.parse_args(words)
    if not any(asked.only in one.name for one in ARCHITECTURES):
        known = "; ".join(one.name for one in ARCHITECTURES)
        parser.error(f"no architecture has {asked.only!r} in its name. Those that there are: {known}")
    parts = [(number, asked.jobs, asked.json, asked.only) for number in range(asked.jobs)]
    found = [outcome for part in spread(share, parts, asked.jobs) for outcome in part]
    write_page(DOCS / "exported.md", page(found), dry=bool(asked.only))
    return int(any(_why(o) is None if o.culprits else o.what in ("fail", "lost") for o in found))


if __name__ == "__main__":
    sys.exit(main())
