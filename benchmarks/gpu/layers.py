"""What ``--layers`` adds to a comparison on TensorRT in FP16, beside the time of a build, stage by stage.

    python -m benchmarks.gpu.layers OUT_FILE [MODEL ...] [--turns 2] [--runner trt|emulate] [--limit SECONDS]

Without a MODEL: ResNet-50 and a transformer encoder of 6 layers, with random weights, batch 8. The reference is ONNX
Runtime on the CPU; every comparison begins without kernel timings. The commands with and without ``--layers`` run in
turns; the fastest of each counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from layerdiff import Comparator, OnnxrtRunner, Runner
from layerdiff.compare.progress import Progress

from benchmarks.kit.pages import table
from benchmarks.kit.resnet50 import resnet50
from benchmarks.kit.results import Results, add_options
from benchmarks.layerwise.networks import LENGTH, WIDTH, encoder

from .networks import add_runner, fp16

SHAPES = {"resnet50": (8, 3, 224, 224), "encoder": (8, LENGTH, WIDTH)}

HEAD = ("network", "layers", "build, s", "without, s", "--layers, s", "added, in builds", "culprits")


class Stages(Progress):
    """Adds up the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last, self._begun = "start", time.perf_counter()

    def stage(self, text: str) -> None:
        """Ends the stage before."""
        now = time.perf_counter()
        self.seconds[self._last] += now - self._begun
        self._last, self._begun = text, now


def turn(model: Path, candidate: Runner, layers: bool) -> dict[str, Any]:
    """One comparison: seconds, of them the build of the deployed engine, and those of each stage."""
    stages, begun = Stages(), time.perf_counter()
    rules: dict[str, Any] = {"layers": "guilty"} if layers else {}
    if model.stem in SHAPES:
        rules["shapes"] = {"x": SHAPES[model.stem]}
    report = Comparator(model, [OnnxrtRunner(), candidate], progress=stages, **rules).compare()
    seconds = time.perf_counter() - begun
    stages.stage("end")
    runner = report.candidates[0]
    return {
        "network": model.stem,
        "with_layers": layers,
        "seconds": seconds,
        "build": runner.open_seconds,
        "layers": len(report.layers),
        "verdict": report.verdict,
        "error": runner.error,
        "culprits": [f"{c.node}: {c.cause}" for c in report.culprits],
        "stages": dict(stages.seconds),
    }


def row(results: list[dict[str, Any]]) -> list[str]:
    """The fastest turns of a network, as cells."""
    plain = min((r for r in results if not r["with_layers"]), key=lambda r: r["seconds"])
    deep = min((r for r in results if r["with_layers"]), key=lambda r: r["seconds"])
    build = plain["build"] or 0.0
    added = deep["seconds"] - plain["seconds"]
    times = [f"{t:.1f}" for t in (build, plain["seconds"], deep["seconds"])]
    share = f"{added / build:.2f}" if build else "-"
    culprits = ", ".join(deep["culprits"]) or deep["error"] or "none"
    return [plain["network"], str(deep["layers"]), *times, share, culprits]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--turns", type=int, default=2)
    add_runner(parser)
    add_options(parser, limit=500)
    options = parser.parse_args()
    results = Results(options.out, options.limit)
    candidate = fp16(options)
    with tempfile.TemporaryDirectory() as folder:
        models = options.models
        if not models:
            models = [Path(folder) / f"{name}.onnx" for name in SHAPES]
            resnet50(models[0])
            encoder(models[1])
        for model in models:
            for number in range(2 * options.turns):

                def work(model: Path = model, layers: bool = bool(number % 2)) -> None:
                    results.add(turn(model, candidate, layers))
                    last = results.kept[-1]
                    longest = sorted(last["stages"].items(), key=lambda s: -s[1])[:8]
                    print(f"{model.stem} layers={layers}: {last['seconds']:.1f} s,", longest, flush=True)

                results.attempt(f"{model.stem}, turn {number}", work)
    names = dict.fromkeys(r["network"] for r in results.kept)
    both = [[r for r in results.kept if r["network"] == name] for name in names]
    print(table(HEAD, [row(b) for b in both if len({r["with_layers"] for r in b}) == 2]))


if __name__ == "__main__":
    main()
