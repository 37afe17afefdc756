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
import json
import sys
import tempfile
from pathlib import Path

import layerdiff
import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.kit.pages import DOCS, machine, table, write_page, written_by
from benchmarks.kit.process import Measured, measure
from benchmarks.kit.resnet50 import resnet50

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


class Turns:
    """The turns of one way."""

    def __init__(self) -> None:
        self.turns: list[Measured] = []

    def take(self, words: list[str], folder: Path) -> None:
        """Runs a command once more."""
        found = measure(words, folder=folder)
        if found.status not in (0, 1):
            raise RuntimeError(f"{' '.join(words)} ended with {found.status}: {found.stderr[-2000:]}")
        self.turns.append(found)

    @property
    def seconds(self) -> float:
        """Wall-clock time of the fastest turn."""
        return min(turn.seconds for turn in self.turns)

    @property
    def cpu(self) -> float:
        """Seconds of CPU of the turn that took fewest."""
        return min(turn.cpu for turn in self.turns)

    @property
    def memory(self) -> int:
        """Bytes of the turn that took most."""
        return max(turn.peak for turn in self.turns)


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
    parser.add_argument("--output", type=Path, default=DOCS / "layerwise.md", help="file to write")
    options = parser.parse_args()
    compileall.compile_dir(Path(layerdiff.__file__).parent, quiet=2)
    ours, theirs, floor = Turns(), Turns(), Turns()
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
            floor.take([sys.executable, "-c", _FLOOR, "m.onnx", "changed.onnx", str(size)], folder)
            ours.take([sys.executable, "-m", "layerdiff", *command], folder)
            theirs.take([str(Path(sys.executable).with_name("polygraphy")), *polygraphy], folder)
        # once more, not timed, for what it found: Polygraphy writes no report either
        Turns().take([sys.executable, "-m", "layerdiff", *command, "--json", "report.json"], folder)
        report = json.loads((folder / "report.json").read_text())
    named = [c["node"] for c in report["culprits"]]
    text = page(ours, theirs, floor, size, len(report["layers"]), named == [node])
    write_page(options.output, text)
    print(text)
    return 0 if named == [node] and theirs.seconds / ours.seconds >= SPEED else 1


def page(ours: Turns, theirs: Turns, floor: Turns, size: int, layers: int, right: bool) -> str:
    """The page, as Markdown."""
    rows = [
        [
            *(name, f"{run.seconds:.1f} s", f"{run.cpu:.1f} s", f"{run.memory / 1e9:.2f} GB"),
            *(f"{theirs.seconds / run.seconds:.1f}", f"{run.memory / theirs.memory:.2f}"),
        ]
        for name, run in (("polygraphy", theirs), ("layerdiff", ours), ("floor", floor))
    ]
    told = (__doc__ or "").split("\n\n", 1)[1].strip()
    head = ["", "time", "CPU time", "memory", "times faster than polygraphy", "share of its memory"]
    faster, smaller = theirs.seconds / ours.seconds >= SPEED, ours.memory <= MEMORY * theirs.memory
    return f"""# Layer by layer, beside Polygraphy

{written_by("benchmarks.layerwise")}

{told}

{layers} tensors, {size / 2**30:.1f} GiB on both sides. {machine("polygraphy", "onnxruntime", "numpy")}.

{table(head, rows)}

layerdiff takes {ours.seconds / floor.seconds:.1f} times the floor. The changed weight's layer is \
{"the one culprit" if right else "NOT the one culprit"}; Polygraphy names none, as its two runs are of one file.
Bars: {SPEED:.0f} times faster: {"met" if faster else "missed"}; a third of the memory: \
{"met" if smaller else "missed"}."""


if __name__ == "__main__":
    sys.exit(main())
