"""What comparing outputs costs beside two bare sessions: ``python -m benchmarks.outputs`` writes docs/outputs.md.

A ResNet-50 with random weights (102 MB) on ONNX Runtime twice. *Bare*: two `InferenceSession`, and each sample run on
both. *Compared*: `Comparator.compare`; the bare pair has the same settings. Where both sides are set up alike, the
outputs are equal and nothing is asked further; where one is run without optimizations, they differ by rounding, and the
error that rounding explains is measured. Both are run in turns, in one process, after one round that does not count.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from layerdiff import Comparator, DataLoader, OnnxrtRunner

from benchmarks.kit.pages import DOCS, machine, table, write_page, written_by
from benchmarks.kit.resnet50 import resnet50

BAR, MEASURED_BAR = 1.15, 2.5
_BARE = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
sessions = [onnxruntime.InferenceSession(sys.argv[1], options) for _ in range(2)]
rng = numpy.random.default_rng(0)
for _ in range(int(sys.argv[2])):
    x = rng.random((1, 3, 224, 224), numpy.float32)
    one, other = (session.run(None, {"x": x})[0] for session in sessions)
"""


def bare(path: Path, samples: int, batch: int = 1, *, alike: bool = True) -> None:
    """Two sessions, loaded and run on the same inputs as `compared`."""
    levels = onnxruntime.GraphOptimizationLevel
    sessions = []
    for level in (levels.ORT_ENABLE_ALL, levels.ORT_ENABLE_ALL if alike else levels.ORT_DISABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
    rng = np.random.default_rng(0)
    for _ in range(samples):
        x = rng.random((batch, 3, 224, 224), np.float32)
        for session in sessions:
            session.run(None, {"x": x})


def compared(path: Path, samples: int, batch: int = 1, *, alike: bool = True) -> None:
    """The same through the comparator, verdict included."""
    loader = DataLoader(samples=samples, float_range=(0.0, 1.0), shapes={"x": (batch, 3, 224, 224)})
    other = OnnxrtRunner() if alike else OnnxrtRunner(optimization="disable")
    report = Comparator(path, [OnnxrtRunner(), other], data_loader=loader).compare()
    assert report, report
    assert (report.outputs[0].expected is None) == alike, report


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


def row(label: str, pairs: list[tuple[float, float]]) -> list[str]:
    """The fastest of each, which other work on the machine disturbs least, and the median ratio of the turns."""
    one, other = (min(side) for side in zip(*pairs, strict=True))
    median = statistics.median(b / a for a, b in pairs)
    return [label, f"{one:.2f}", f"{other:.2f}", f"{other / one:.2f}", f"{median:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=DOCS / "outputs.md")
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
            print(*rows[-1])
        bare(path, 1, 8, alike=False), compared(path, 1, 8, alike=False)
        pairs = [
            (
                seconds(lambda: bare(path, 4, 8, alike=False)),
                seconds(lambda: compared(path, 4, 8, alike=False)),
            )
            for _ in range(arguments.repeats)
        ]
        rows.append(row("the error of rounding measured: batch 8, 4 samples, one side without optimizations", pairs))
        print(*rows[-1])
        pairs = [command(path, 8) for _ in range(arguments.repeats)]
        rows.append(row("as a command, 8 samples, interpreter and imports included", pairs))
        print(*rows[-1])
        megabytes = path.stat().st_size / 1e6
    head = ["", "bare (s)", "compared (s)", "ratio", "median ratio of the turns"]
    text = f"""# What comparing outputs costs

{written_by("benchmarks.outputs")}

ResNet-50 with random weights ({megabytes:.0f} MB), batch 1 where nothing else is said, ONNX Runtime twice: two bare
sessions (load and run) against the whole comparison (load, verdict and report included), in turns; the fastest of
{arguments.repeats} each. The bar is {BAR}, and {MEASURED_BAR} where the error that rounding explains is measured. What
does not grow with the samples, reading the graph (its weights stay in the file) and choosing the data, is small. A
ratio under 1: the comparison lets no thread of one session spin while the other runs, which two bare sessions do.

{machine("onnxruntime")}.

{table(head, rows, numbers=True)}"""
    write_page(arguments.out, text)


if __name__ == "__main__":
    main()
