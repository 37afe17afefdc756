"""What comparing outputs costs beside two bare sessions: ``python benchmarks/outputs/run.py`` writes docs/outputs.md.

A ResNet-50 with random weights (102 MB) on ONNX Runtime twice. *Bare*: two `InferenceSession`, and each sample run on
both. *Compared*: `Comparator.compare`, the graph optimized once as deployed and once not at all; the bare pair has the
same settings. Both are run in turns, in one process, after one round that does not count.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import layerdiff
import numpy as np
import onnx
import onnxruntime
from layerdiff import Comparator, DataLoader, OnnxrtRunner
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
BAR = 1.15
_BARE = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
sessions = [onnxruntime.InferenceSession(sys.argv[1], options) for _ in range(2)]
rng = numpy.random.default_rng(0)
for _ in range(int(sys.argv[2])):
    x = rng.random((1, 3, 224, 224), numpy.float32)
    one, other = (session.run(None, {"x": x})[0] for session in sessions)
"""


def resnet50(path: Path) -> None:
    """Writes ResNet-50 with random weights (He, damped last scale in each block), opset 17."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def conv(x: str, name: str, cin: int, cout: int, size: int, stride: int, gain: float = 1.0) -> str:
        w = rng.standard_normal((cout, cin, size, size)) * np.sqrt(2 / (cin * size * size))
        pads = [size // 2] * 4
        nodes.append(
            helper.make_node(
                "Conv", [x, weight(f"{name}.w", w)], [f"{name}.c"], f"{name}/conv", strides=[stride] * 2, pads=pads
            )
        )
        scale = gain * (1 + 0.1 * rng.standard_normal(cout))
        parts = (scale, 0.1 * rng.standard_normal(cout), 0.1 * rng.standard_normal(cout), rng.uniform(0.5, 1.5, cout))
        names = [weight(f"{name}.bn{i}", part) for i, part in enumerate(parts)]
        nodes.append(helper.make_node("BatchNormalization", [f"{name}.c", *names], [f"{name}.b"], f"{name}/bn"))
        return f"{name}.b"

    def op(kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], f"{name}/{kind}", **attributes))
        return name

    x = op("Relu", [conv("x", "stem", 3, 64, 7, 2)], "stem.r")
    x = op("MaxPool", [x], "stem.p", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(blocks):
            name, stride = f"s{stage}b{block}", 2 if block == 0 and stage > 1 else 1
            y = op("Relu", [conv(x, f"{name}.1", channels, width, 1, 1)], f"{name}.1r")
            y = op("Relu", [conv(y, f"{name}.2", width, width, 3, stride)], f"{name}.2r")
            y = conv(y, f"{name}.3", width, 4 * width, 1, 1, 0.3)
            if block == 0:
                x = conv(x, f"{name}.0", channels, 4 * width, 1, stride)
            x = op("Relu", [op("Add", [y, x], f"{name}.a")], f"{name}.r")
            channels = 4 * width
    x = op("Flatten", [op("GlobalAveragePool", [x], "pool")], "flat")
    w = weight("fc.w", rng.standard_normal((channels, 1000)) / np.sqrt(channels))
    nodes.append(helper.make_node("Gemm", [x, w, weight("fc.b", np.zeros(1000))], ["y"], "fc"))
    graph = helper.make_graph(
        nodes,
        "resnet50",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1000])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def bare(path: Path, samples: int) -> None:
    """Two sessions, loaded and run on the same inputs as `compared`."""
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    sessions = []
    for _ in range(2):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
    rng = np.random.default_rng(0)
    for _ in range(samples):
        x = rng.random((1, 3, 224, 224), np.float32)
        for session in sessions:
            session.run(None, {"x": x})


def compared(path: Path, samples: int) -> None:
    """The same through the comparator, verdict included."""
    loader = DataLoader(samples=samples, float_range=(0.0, 1.0), shapes={"x": (1, 3, 224, 224)})
    report = Comparator(path, [OnnxrtRunner(), OnnxrtRunner()], data_loader=loader).compare()
    assert report, report


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def command(path: Path, samples: int) -> tuple[float, float]:
    """Seconds of two whole processes: a script with two bare sessions, and the command."""
    one = seconds(lambda: subprocess.run([sys.executable, "-c", _BARE, path, str(samples)], check=True))
    words = ["--onnxrt", "--onnxrt", "--samples", str(samples), "--shape", "x:1x3x224x224", "-q"]
    run = [sys.executable, "-m", "layerdiff", str(path), *words]
    other = seconds(lambda: subprocess.run(run, check=True, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir()))
    return one, other


def row(label: str, pairs: list[tuple[float, float]]) -> str:
    """The fastest of each, which other work on the machine disturbs least, and the median ratio of the turns."""
    one, other = (min(side) for side in zip(*pairs, strict=True))
    median = statistics.median(b / a for a, b in pairs)
    return f"| {label} | {one:.2f} | {other:.2f} | {other / one:.2f} | {median:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "outputs.md")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.onnx"
        resnet50(path)
        for samples in arguments.samples:
            bare(path, 1), compared(path, 1)
            pairs = [
                (seconds(lambda n=samples: bare(path, n)), seconds(lambda n=samples: compared(path, n)))
                for _ in range(arguments.repeats)
            ]
            rows.append(row(f"in one process, {samples} sample{'s'[: samples != 1]}", pairs))
            print(rows[-1])
        pairs = [command(path, 8) for _ in range(arguments.repeats)]
        rows.append(row("as a command, 8 samples, interpreter and imports included", pairs))
        print(rows[-1])
        megabytes = path.stat().st_size / 1e6
    table = "\n".join(
        [
            "# What comparing outputs costs",
            "",
            "Written by `python benchmarks/outputs/run.py`. ResNet-50 with random weights "
            f"({megabytes:.0f} MB), batch 1, ONNX Runtime twice:",
            "two bare sessions (load and run) against the whole comparison (load, verdict and report",
            f"included), in turns; the fastest of {arguments.repeats} each. The bar is {BAR}.",
            "What does not grow with the samples, reading the graph (its weights stay in the file) and choosing the",
            "data, is small. A ratio under 1: the comparison lets no thread of one session spin while the other runs,",
            "which two bare sessions do.",
            "",
            f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
            f"onnxruntime {onnxruntime.__version__}, layerdiff {layerdiff.__version__}.",
            "",
            "| | bare (s) | compared (s) | ratio | median ratio of the turns |",
            "|---|---:|---:|---:|---:|",
            *rows,
            "",
        ]
    )
    arguments.out.write_text(table, "utf-8")


if __name__ == "__main__":
    main()
