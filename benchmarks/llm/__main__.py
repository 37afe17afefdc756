"""Measures what a language model costs, and how far formats are apart on one: ``python -m benchmarks.llm``.

A decoder of 8 GB of weights is made in ``--folder`` and compared, layer by layer, with a candidate of which one matrix
was rounded to FP16, in a control group of 3 GiB; the run must name that matrix. The small decoder of ``examples`` is
run in every format. The tables go into docs/llm.md, between the two marks there; ``--dry`` prints them instead.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.dataloaders import Prompts

from benchmarks.kit.pages import DOCS, machine, table, write_section
from benchmarks.kit.process import memory_group
from benchmarks.memory.__main__ import check
from examples.tiny_decoder import Size, decoder, prompts

from .networks import large_pair

DOC = DOCS / "llm.md"
LARGE = Size(layers=46, heads=16, width=128, vocabulary=16384, context=64)
"""46 blocks of 168 MB, and two matrices of 134 MB: 8.0 GB."""
STALE = ("layer20.up", "layer20.wide")
"""A matrix, and the node that reads it."""
LIMIT = 3 << 30
TOLERANCE = 1e-6
"""What decides the outputs, so that the network is not run again for what rounding explains; it must be exceeded."""
FORMATS = ("fp16", "bf16", "int8", "e4m3", "e5m2")


def large(folder: Path) -> str:
    """What a decoder costs that is larger than the memory it may use."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="layerdiff-llm-") as name:
        place = Path(name)
        paths = large_pair(place, LARGE, STALE[0])
        size = (place / "weights.bin").stat().st_size
        options = ("--samples", "1", "--metric", "logits", "--rtol", "0", "--atol", str(TOLERANCE))
        with memory_group(LIMIT) as group:
            budget = () if group is not None else ("--memory", "512MB")
            found, report = check(paths, STALE[1], *options, *budget, group=group)
    told = (
        f"control group of {LIMIT >> 30} GiB"
        if group is not None
        else "no control group to be had here, --memory 512MB"
    )
    row = [f"{size / 1e9:.2f}", told, len(report["layers"]), f"{found.seconds:.0f}", f"{found.cpu:.0f}"]
    peaks = [found.peak >> 20, found.anonymous >> 20, found.files >> 20]
    head = ["GB of weights", "within", "layers", "seconds", "CPU seconds", "peak MiB", "of its own", "of files"]
    return table(head, [[*row, *peaks]], numbers=True)


def formats() -> str:
    """The metric on the small decoder in every format."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "tokens.jsonl"
        vocabulary = Size().vocabulary
        lines = [
            [(7 * i + len(word) + n) % vocabulary for i, word in enumerate(words)]
            for n, words in enumerate(prompts(16))
        ]
        path.write_text("\n".join(map(str, lines)), encoding="utf-8")
        for fmt in FORMATS:
            runners = [OnnxrtRunner(), EmulateRunner(format=fmt)]
            report = Comparator(decoder(), runners, data_loader=Prompts(path=path), metric="logits").compare()
            found = report.accuracy[1].logits
            assert found is not None
            margin = "" if found.flip_margin_expected is None else f"{found.flip_margin_expected:.1f}"
            rows.append(
                [fmt, report.verdict, f"{found.kl_mean:.2g}", f"{found.kl_p99:.2g}", f"{found.change_abs_mean:.2g}",
                 f"{found.change_abs_max:.2g}", f"{found.top1:.1%}", f"{found.top5:.1%}",
                 f"{found.perplexity_ratio:.4f}", f"{found.flips} of {found.positions}", margin]
            )  # fmt: skip
    head = ["format", "verdict", "KL mean", "KL 99%", "change of log p, mean", "greatest", "top 1", "top 5",
            "perplexity ratio", "flips", "largest lead / expected error"]  # fmt: skip
    return table(head, rows, numbers=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the model is made")
    parser.add_argument("--dry", action="store_true", help="print the tables, leave docs/llm.md alone")
    options = parser.parse_args()
    text = f"""Measured on {machine("onnxruntime")}.

### A decoder of 8 GB

{LARGE.layers} blocks of width {LARGE.hidden}, a vocabulary of {LARGE.vocabulary:,}; 2 x 8 random tokens,
`--layers --metric logits --rtol 0 --atol {TOLERANCE:g}`. The one culprit is the matrix that was rounded to FP16.

{large(options.folder)}

### Formats

The decoder of `examples/tiny_decoder.py`, 16 prompts, `--metric logits`.

{formats()}"""
    write_section(DOC, text, dry=options.dry)


if __name__ == "__main__":
    main()
