"""Emulated FP16 against TensorRT's: the error at the output of each, on the same network and inputs.

    python emulation.py OUT_FILE FILE.onnx [...] [--tactic-sources NAMES] [--format fp16]

Inputs are ``FILE.npz`` beside a network where there is one, else 8 random images. The reference is ONNX Runtime on the
CPU in FP32.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from layerdiff.graph.model import load
from layerdiff.runners.base import ShapeRange, Workload
from layerdiff.runners.emulate import EmulateRunner
from layerdiff.runners.onnxrt import OnnxrtRunner
from layerdiff.runners.trt import TrtRunner


def inputs(path: Path, model) -> dict:
    stored = path.with_suffix(".npz")
    if stored.is_file():
        return {k: v[:64] for k, v in np.load(stored).items()}
    (entry,) = model.inputs
    shape = tuple(d if isinstance(d, int) else 8 for d in entry.shape)
    return {entry.name: np.random.default_rng(1).normal(size=shape).astype(np.float32)}


def error(got: dict, want: dict) -> float:
    return max(float(np.linalg.norm(got[n] - want[n]) / np.linalg.norm(want[n])) for n in want)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tactic-sources", default=None)
    parser.add_argument("--format", default="fp16")
    parser.add_argument("--limit", type=float, default=500)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    for path in arguments.files:
        if time.perf_counter() - begin > arguments.limit:
            print(f"skipped {path.stem}", flush=True)
            continue
        model = load(path)
        feed = inputs(path, model)
        shapes = {n: ShapeRange(*(3 * [a.shape])) for n, a in feed.items()}
        work = Workload(samples=lambda feed=feed: iter([feed]), shapes=shapes)
        found = {}
        try:
            for runner in (
                OnnxrtRunner(),
                EmulateRunner(format=arguments.format),
                TrtRunner(**{arguments.format: True}, tactic_sources=arguments.tactic_sources, optimization_level=2),
            ):
                start = time.perf_counter()
                with runner.open(model, workload=work) as session:
                    found[runner.flag] = (session.infer(feed), time.perf_counter() - start, session.info)
        except Exception as problem:
            print(f"{path.stem}: {type(problem).__name__}: {problem}", flush=True)
            continue
        want = found["onnxrt"][0]
        emulated, real = error(found["emulate"][0], want), error(found["trt"][0], want)
        result = {
            "network": path.stem,
            "nodes": len(model.index.nodes),
            "format": arguments.format,
            "emulated": emulated,
            "tensorrt": real,
            "ratio": emulated / real if real else None,
            "formats": found["trt"][2].options["formats"],
            "notes": list(found["trt"][2].notes),
            "emulate_s": found["emulate"][1],
            "trt_s": found["trt"][1],
        }
        with arguments.out.open("a") as file:
            file.write(json.dumps(result) + "\n")
        ratio = f"{result['ratio']:.2f}" if result["ratio"] else "-"
        print(f"| {path.stem} | {emulated:.2e} | {real:.2e} | {ratio} | {result['formats']} |", flush=True)


if __name__ == "__main__":
    main()
