"""Layer by layer beside Polygraphy: ``python -m benchmarks.layerwise`` writes docs/layerwise.md.

ResNet-50 with random weights, batch 8, every tensor of 175 nodes, two runners on ONNX Runtime. *Polygraphy* runs the
same file twice with all tensors marked. *layerdiff* compares the file with a copy in which one of 25 million weights
differs, so nothing is saved by equal bytes: local and cumulative error of every tensor, judged, diagnosed, with
contributions. *Floor*: both models loaded and run once without graph optimizations and without observing anything, plus
one read of all tensors at memory speed. Each is a process of its own, run in turns; seconds are the fastest turn,
imports included, from modules that are compiled to bytecode, as pip leaves them.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import layerdiff
import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.outputs.run import resnet50

ROOT = Path(__file__).resolve().parents[2]
BATCH = 8
SPEED, MEMORY = 10.0, 1 / 3
_FLOOR = """
import sys, time, numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
x = np.random.default_rng(0).random((8, 3, 224, 224), np.float32)
for path in sys.argv[1:3]:
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": x})
    del session
tensors = np.ones(1 << 28, np.uint8).view(np.float32)  # 256 MiB, read as often as it takes for both sides
for _ in range(int(sys.argv[3]) >> 28):
    float(tensors @ tensors)
"""


@dataclass
class Run:
    """Fastest of the turns of one way: seconds, seconds of CPU, and the most memory that a turn took (bytes)."""

    seconds: float = float("inf")
    cpu: float = float("inf")
    memory: int = 0

    def take(self, words: list[str], folder: Path, log: Path) -> None:
        """Runs a command once more."""
        begun = time.perf_counter()
        with log.open("wb") as output:
            process = subprocess.Popen(words, cwd=folder, stdout=output, stderr=output)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1):
            raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {log.read_text()[-2000:]}")
        self.seconds = min(self.seconds, time.perf_counter() - begun)
        self.cpu = min(self.cpu, usage.ru_utime + usage.ru_stime)
        self.memory = max(self.memory, usage.ru_maxrss * 1024)


def changed(path: Path, other: Path) -> str:
    """Writes a copy of a model in which one weight differs; returns the node that reads it."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == "s2b2.3.w")
    values = numpy_helper.to_array(tensor).copy()
    values[256, 0, 0, 0] += 0.5
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, other)
    return next(node.name for node in model.graph.node if tensor.name in node.input)


def tensor_bytes(path: Path) -> int:
    """Bytes of all tensors of the network at this batch, both sides."""
    from layerdiff.graph.cutting.propagate import propagate
    from layerdiff.graph.load import load

    model = load(path)
    shapes = propagate(model, {"x": (BATCH, 3, 224, 224)})
    made = [o for node in model.proto.graph.node for o in node.output]
    return 2 * sum(4 * int(np.prod(shapes[name])) for name in made if shapes.get(name))


def main() -> int:
    """Runs all three in turns and writes the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layerwise", description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3, help="turns (default: 3)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "layerwise.md", help="file to write")
    options = parser.parse_args()
    compileall.compile_dir(Path(layerdiff.__file__).parent, quiet=2)
    ours, theirs, floor = Run(), Run(), Run()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        resnet50(folder / "m.onnx")
        node = changed(folder / "m.onnx", folder / "changed.onnx")
        size = tensor_bytes(folder / "m.onnx")
        shape = f"x:{BATCH}x3x224x224"
        command = ["m.onnx", "changed.onnx", "--onnxrt", "--layers=all", "--samples", "1", "--shape", shape]
        polygraphy = ["run", "m.onnx", "--onnxrt", "--onnxrt", "--onnx-outputs", "mark", "all"]
        polygraphy += ["--input-shapes", f"x:[{BATCH},3,224,224]"]
        for _ in range(options.turns):
            log = folder / "log"
            floor.take([sys.executable, "-c", _FLOOR, "m.onnx", "changed.onnx", str(size)], folder, log)
            ours.take([sys.executable, "-m", "layerdiff", *command], folder, log)
            theirs.take([str(Path(sys.executable).with_name("polygraphy")), *polygraphy], folder, log)
        # once more, not timed, for what it found: Polygraphy writes no report either
        Run().take([sys.executable, "-m", "layerdiff", *command, "--json", "report.json"], folder, log)
        report = json.loads((folder / "report.json").read_text())
    named = [c["node"] for c in report["culprits"]]
    text = table(ours, theirs, floor, size, len(report["layers"]), named == [node])
    options.output.write_text(text)
    print(text)
    return 0 if named == [node] and theirs.seconds / ours.seconds >= SPEED else 1


def table(ours: Run, theirs: Run, floor: Run, size: int, layers: int, right: bool) -> str:
    """The page, as Markdown."""
    rows = [
        f"| {name} | {run.seconds:.1f} s | {run.cpu:.1f} s | {run.memory / 1e9:.2f} GB "
        f"| {theirs.seconds / run.seconds:.1f} | {run.memory / theirs.memory:.2f} |"
        for name, run in (("polygraphy", theirs), ("layerdiff", ours), ("floor", floor))
    ]
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("polygraphy", "onnxruntime", "numpy"))
    return "\n".join(
        [
            "# Layer by layer, beside Polygraphy",
            "",
            "<!-- Written by `python -m benchmarks.layerwise`. Do not edit. -->",
            "",
            *__doc__.split("\n\n", 1)[1].strip().splitlines(),
            "",
            f"{layers} tensors, {size / 2**30:.1f} GiB on both sides. {platform.machine()}, {os.cpu_count()} cores, "
            f"Python {platform.python_version()}, {versions}.",
            "",
            "| | time | CPU time | memory | times faster than polygraphy | share of its memory |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"layerdiff takes {ours.seconds / floor.seconds:.1f} times the floor. The changed weight's layer is "
            f"{'the one culprit' if right else 'NOT the one culprit'}; Polygraphy names none, as its two runs are of "
            "one file.",
            f"Bars: {SPEED:.0f} times faster: {'met' if theirs.seconds / ours.seconds >= SPEED else 'missed'}; "
            f"a third of the memory: {'met' if ours.memory <= MEMORY * theirs.memory else 'missed'}.",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
