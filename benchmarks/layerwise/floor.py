"""What passes cost that no comparison can do without: ``python floor.py FEED.npz BYTES MODEL LEVEL RUNS [...]``.

A file of its own without imports from this package: NumPy and ONNX Runtime, and nothing else. Loads each model once at
a graph optimization level, runs it so many times, and reads as many bytes of tensors as there are once, at the speed of
memory.
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime as ort


def main(feed: str, size: str, *models: str) -> None:
    """Runs the models."""
    with np.load(feed) as stored:
        samples = [{name.split("/", 1)[1]: stored[name] for name in names} for names in _by_sample(stored.files)]
    for path, level, runs in zip(*(iter(models),) * 3, strict=True):
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(int(runs)):
            for sample in samples:
                session.run(None, sample)
        del session
    tensors = np.ones(1 << 28, np.uint8).view(np.float32)  # 256 MiB, read as often as it takes for both sides
    for _ in range(int(size) >> 28):
        float(tensors @ tensors)


def _by_sample(names: list[str]) -> list[list[str]]:
    """Names like ``0/x`` by what stands before the slash."""
    numbers = sorted({int(name.split("/", 1)[0]) for name in names})
    return [[name for name in names if name.startswith(f"{number}/")] for number in numbers]


if __name__ == "__main__":
    main(*sys.argv[1:])
