"""What TensorRT for RTX's parser and builder say of the architectures that people deploy: no GPU is needed.

    PYTHONPATH=FOLDER python -m benchmarks.gpu.rtx_exports [--only NAME] [--formats fp32,fp16,bf16,int8+fp16,fp8+bf16]

The networks of `benchmarks.exported`, by both of PyTorch's exporters, are compared with ONNX Runtime layer by layer as
`--trt-rtx --layers` does it. Every engine, of the whole network and of its layers, is parsed and built by the library;
what it would compute, ONNX Runtime computes emulated. Refusals of engines are told one by one on standard error; the
table counts networks whose engine was built, and their layers.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from layerdiff import Comparator, OnnxrtRunner
from layerdiff.graph.errors import LayerdiffError
from layerdiff.graph.load import load
from layerdiff.graph.model import Model
from layerdiff.runners.contract.session import Session
from layerdiff.runners.contract.workload import Workload
from layerdiff.runners.emulate import EmulateRunner
from layerdiff.runners.trt.trt_rtx import RtxRunner

from benchmarks.exported.architectures import ARCHITECTURES, Architecture
from benchmarks.exported.conversions import exported
from benchmarks.kit.pages import table

FORMATS = ("fp32", "fp16", "bf16", "int8+fp16", "fp8+bf16")
COLUMNS = ("networks", "built", "layers", "layers compared", "engines", "engines refused")
CARD = ("8.9",)


@dataclass(frozen=True)
class Computed(RtxRunner):
    """TensorRT for RTX, whose engines are built for a card that is not there, and computed by ONNX Runtime."""

    def open(
        self,
        model: Model,
        *,
        fetch: Sequence[str] = (),
        workload: Workload | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Session:
        """Builds the engine, and gives a session that emulates its formats."""
        try:
            with super().open(model, fetch=fetch, workload=workload, progress=progress) as built:
                info = built.info
            ENGINES["engines"] += 1
        except LayerdiffError as error:
            ENGINES["engines refused"] += 1
            print(f"  {self.name}: {error}", file=sys.stderr)
            raise
        found = None if info.calibration is None else tuple(info.calibration.ranges.items())
        session = self._emulated(found).open(model, fetch=fetch, workload=workload)
        session.info = replace(info, not_run="")
        return session

    def _emulated(self, ranges: tuple[tuple[str, float], ...] | None) -> OnnxrtRunner | EmulateRunner:
        formats = {"int8": self.int8, "e4m3": self.fp8, "fp16": self.fp16, "bf16": self.bf16}
        chosen = next((name for name, on in formats.items() if on), None)
        return OnnxrtRunner() if chosen is None else EmulateRunner(format=chosen, ranges=ranges)


ENGINES: Counter[str] = Counter()


def judged(path: Path, architecture: Architecture, formats: str) -> dict[str, int]:
    """What came of one network: counts by `COLUMNS`."""
    ENGINES.clear()
    modes = {} if formats == "fp32" else dict.fromkeys(formats.split("+"), True)
    runner = Computed(**modes, compute_capability=CARD)
    comparator = Comparator(load(path), [OnnxrtRunner(), runner], data_loader=[architecture.feed()], layers="all")
    report = comparator.compare()
    lost = [notice.text for notice in report.notices if notice.code == "layers-not-compared"]
    print(*lost, *(r.error for r in report.runners if r.error), sep="\n", end="", file=sys.stderr)
    built = all(r.error is None for r in report.runners)
    found = {"layers": len(report.layers), "layers compared": sum(layer.local is not None for layer in report.layers)}
    return {"networks": 1, "built": int(built), **found, **ENGINES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="architectures whose name holds this")
    parser.add_argument("--formats", default=",".join(FORMATS))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    found: dict[str, Counter[str]] = {formats: Counter() for formats in options.formats.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        for architecture in (a for a in ARCHITECTURES if options.only in a.name):
            for dynamo in (False, True):
                path = Path(folder) / "network.onnx"
                try:
                    exported(architecture, architecture.feed(), path, dynamo=dynamo)
                except Exception as error:
                    print(f"{architecture.name}: not exported: {type(error).__name__}", file=sys.stderr)
                    continue
                for formats, counts in found.items():
                    print(f"{architecture.name}, {'newer' if dynamo else 'older'} exporter, {formats}", file=sys.stderr)
                    counts.update(judged(path, architecture, formats))
    rows = [(formats, *(f"{counts[column]:,}" for column in COLUMNS)) for formats, counts in found.items()]
    print(table(("formats", *COLUMNS), rows))


if __name__ == "__main__":
    main()
