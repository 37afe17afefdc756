"""The onnx package's backend models, compared in several ways: ``python -m benchmarks.corpus`` writes docs/corpus.md.

Two runtimes (ONNX Runtime and the reference evaluator) on given and on random data; layer by layer ONNX Runtime with
itself, with an emulated FP16, and with an emulated INT8. Of each comparison: does it agree, disagree, is it undecided,
does a side not run the model. What must not be is a crash, a report that is lost to localizing, or a culprit of ONNX
Runtime against itself. ``--every N`` takes each N-th model.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.kit.pages import DOCS, machine, table, write_page, written_by
from benchmarks.kit.pool import spread

from .ways import OUTCOMES, WAYS, Outcome, outcomes, share

LOOKED_INTO = {
    "test_attention_4d_with_past": "one masks with the lowest number, the other with -infinity: two implementations",
    "test_training_dropout": "each runtime draws a mask of its own",
    "test_range_": "the evaluator gives one dimension too many",
    "test_resize_downsample_scales": "two implementations of the aligned grid",
    "test_maxunpool": "two implementations of where a value goes that the given shape moves",
    "test_onehot": "indices that are no integers (0.7): ONNX Runtime cuts off, the evaluator knows no such class",
    "test_atanh": "a wrong culprit: close to 1, rounding the input moves the result by more than its slope there says",
    "test_cast": "ONNX Runtime rounds to 4 and 2 bits, the evaluator cuts off",
    "light_densenet121": "the variance of a dead channel, 2e-12, is below the smallest number of FP16",
    "light_": "overflows FP16, as the culprits say: all weights are 0.02, and activations grow",
}
"""What was found out about models that do not agree, by the beginnings of their names."""


def _line(outcome: Outcome, what: str) -> str:
    why = next((text for name, text in LOOKED_INTO.items() if outcome.model.startswith(name)), "not looked into")
    return f"- {outcome.model}: {what} *{why[0].upper()}{why[1:]}.*"


def page(found: Sequence[Outcome], every: int, seconds: float) -> str:
    """docs/corpus.md."""
    rows, lists = [], []
    for way in WAYS:
        mine = [o for o in found if o.way == way.label]
        counts = Counter(o.what for o in mine)
        named = [o for o in mine if o.culprits and o.what == "agree"]
        rows.append([f"`{way.label}`", len(mine), *(counts[what] for what in OUTCOMES), len(named)])
        for what in ("disagree", "crash", "lost"):
            lines = [_line(o, f"{o.why}.") for o in mine if o.what == what]
            if lines:
                lists.append(f"### `{way.label}`: {what}\n\n" + "\n".join(lines))
        if named:
            lines = [_line(o, f"{', '.join(o.culprits)}.") for o in named]
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
            f"{machine('onnx', 'onnxruntime', 'numpy')}{f'; {seconds / 60:.0f} minutes' if seconds else ''}.",
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
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--json", type=Path, help="append every outcome to a file, one a line; goes on")
    parser.add_argument("--dry", action="store_true", help="print the page instead of writing it")
    parser.add_argument("--again", action="store_true", help="run nothing: write the page of the outcomes in --json")
    asked = parser.parse_args(words)
    begun = time.perf_counter()
    if asked.again:
        found = [] if asked.json is None else outcomes(asked.json)
    else:
        parts = [(number * asked.every, asked.every * asked.jobs, asked.json) for number in range(asked.jobs)]
        found = [outcome for part in spread(share, parts, asked.jobs) for outcome in part]
    write_page(
        DOCS / "corpus.md",
        page(found, asked.every, 0 if asked.again else time.perf_counter() - begun),
        dry=asked.dry,
    )
    return int(any(o.what in ("crash", "lost") for o in found))


if __name__ == "__main__":
    sys.exit(main())
