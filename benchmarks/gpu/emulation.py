"""Emulated FP16, with sums in FP32 and in FP16, against TensorRT's: the error of each at the output.

    python -m benchmarks.gpu.emulation OUT_FILE FILE.onnx [...] [--tactic-sources NAMES] [--format fp16] [--samples N]

Inputs are ``FILE.npz`` beside a network where there is one, else 8 random images. The reference is ONNX Runtime on the
CPU in FP32. Each error is printed as soon as it is there, those of FP16 sums last.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from layerdiff.graph.load import load
from layerdiff.runners.contract.runner import Runner
from layerdiff.runners.contract.workload import ShapeRange, Workload
from layerdiff.runners.emulate import EmulateRunner
from layerdiff.runners.onnxrt.runner import OnnxrtRunner
from layerdiff.runners.trt.runner import TrtRunner

from benchmarks.kit.inputs import stored
from benchmarks.kit.pages import table
from benchmarks.kit.results import Results, add_options


def inputs(path: Path, model, samples: int) -> dict:
    own = stored(path, samples)
    if own:
        return own
    (entry,) = model.inputs
    shape = tuple(d if isinstance(d, int) else 8 for d in entry.shape)
    return {entry.name: np.random.default_rng(1).normal(size=shape).astype(np.float32)}


def error(got: dict, want: dict) -> float:
    return max(float(np.linalg.norm(got[n] - want[n]) / np.linalg.norm(want[n])) for n in want)


def runners(arguments: argparse.Namespace) -> dict[str, Runner]:
    fmt = arguments.format
    trt = TrtRunner(
        **{fmt: True}, tactic_sources=arguments.tactic_sources, optimization_level=arguments.optimization_level
    )
    found = {"onnxrt": OnnxrtRunner(), "emulate": EmulateRunner(format=fmt), "trt": trt}
    if fmt == "fp16":
        found["narrow"] = EmulateRunner(format=fmt, fp16_accumulation=True)
    return found


def measure(path: Path, arguments: argparse.Namespace) -> dict:
    """The error of every runner on one network; each is printed as soon as it is there."""
    model, found = load(path), {}
    feed = inputs(path, model, arguments.samples)
    shapes = {n: ShapeRange(*(3 * [a.shape])) for n, a in feed.items()}
    work = Workload(samples=lambda: iter([feed]), shapes=shapes)
    for key, runner in runners(arguments).items():
        start = time.perf_counter()
        with runner.open(model, workload=work) as session:
            found[key] = (session.infer(feed), time.perf_counter() - start, session.info)
        away = error(found[key][0], found["onnxrt"][0])
        print(f"  {path.stem}, {key}: {away:.3e}, {found[key][1]:.1f} s", flush=True)
    want = found["onnxrt"][0]
    emulated, real = error(found["emulate"][0], want), error(found["trt"][0], want)
    narrow = error(found["narrow"][0], want) if "narrow" in found else None
    return {
        "network": path.stem,
        "nodes": len(model.index.nodes),
        "format": arguments.format,
        "emulated": emulated,
        "narrow_sums": narrow,
        "tensorrt": real,
        "ratio": emulated / real if real else None,
        "ratio_narrow": narrow / real if real and narrow is not None else None,
        "accumulators": found["trt"][2].options["accumulators"],
        "formats": found["trt"][2].options["formats"],
        "notes": list(found["trt"][2].notes),
        "samples": len(next(iter(feed.values()))),
        "emulate_s": found["emulate"][1],
        "narrow_s": found["narrow"][1] if "narrow" in found else None,
        "trt_s": found["trt"][1],
    }


def row(result: dict) -> list[str]:
    errors = [result[key] for key in ("emulated", "narrow_sums", "tensorrt")]
    ratios = [result["ratio"], result["ratio_narrow"]]
    shown = ["" if e is None else f"{e:.2e}" for e in errors] + ["-" if r is None else f"{r:.2f}" for r in ratios]
    return [result["network"], *shown, f"{result['formats']} {result['accumulators']}"]


HEAD = ("network", "emulated, FP32 sums", "FP16 sums", "TensorRT", "ratio", "ratio, FP16 sums", "formats, accumulators")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--format", default="fp16")
    parser.add_argument("--samples", type=int, default=64, help="at most so many of the stored inputs")
    add_options(parser, limit=500)
    arguments = parser.parse_args()
    results = Results(arguments.out, arguments.limit)
    for path in arguments.files:
        results.attempt(path.stem, lambda path=path: results.add(measure(path, arguments)))
    print(table(HEAD, map(row, results.kept)))


if __name__ == "__main__":
    main()
