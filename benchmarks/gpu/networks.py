"""Networks on TensorRT in several modes: error at the output, latency, fused layers, build time.

    python networks.py FOLDER [--names resnet50 ...] [--modes fp32 tf32 fp16 int8] [--out FILE] [--limit SECONDS]

FOLDER holds what export.py wrote. INT8 allows FP16 too, ``int8_alone`` does not; it is calibrated on the images that
are compared, ``--batches`` of 8. Each result is one line of JSON in FILE as soon as it is there; a markdown table is
printed last. The reference is ONNX Runtime on the CPU in FP32.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
from layerdiff.graph.model import load
from layerdiff.runners._trt import inspector
from layerdiff.runners.base import ShapeRange, Workload
from layerdiff.runners.latency import measure
from layerdiff.runners.trt import TrtRunner

MODES = {
    "fp32": {},
    "tf32": {"tf32": True},
    "fp16": {"fp16": True},
    "int8": {"int8": True, "fp16": True},
    "int8_alone": {"int8": True},
}
COLUMNS = ("network", "mode", "rel_l2", "max_abs", "top1", "gpu_ms", "host_ms", "nodes", "parsed", "engine", "build_s")


Data = Callable[[], Iterator[dict[str, np.ndarray]]]


def images(side: int, count: int, batch: int = 8) -> Data:
    rng = np.random.default_rng(1)
    made = [{"x": rng.normal(size=(batch, 3, side, side)).astype(np.float32)} for _ in range(count)]
    return lambda: iter(made)


def run(name: str, path: Path, mode: str, runner: TrtRunner, data: Data, cache: dict) -> dict:
    model = load(path)
    if name not in cache:
        options = onnxruntime.SessionOptions()
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        cache[name] = [session.run(["y"], dict(feed))[0] for feed in data()]
    shape = next(data())["x"].shape
    work = Workload(samples=data, shapes={"x": ShapeRange(shape, shape, shape)})
    start = time.perf_counter()

    def told(phrase: str) -> None:
        print(f"  {name} {mode}, {time.perf_counter() - start:.1f} s: {phrase}", flush=True)

    with replace(runner, **MODES[mode]).open(model, workload=work, progress=told) as session:
        build = time.perf_counter() - start
        results = [session.infer(feed)["y"] for feed in data()]
        latency = measure(session, next(data()), 100)
        layers = session.layers()
        options, notes = session.info.options, session.info.notes
    got, want = np.concatenate(results), np.concatenate(cache[name])
    return {
        "network": name,
        "mode": mode,
        "rel_l2": float(np.linalg.norm(got - want) / np.linalg.norm(want)),
        "max_abs": float(np.max(np.abs(got - want))),
        "top1": float(np.mean(got.argmax(1) == want.argmax(1))),
        "gpu_ms": latency.gpu.median,
        "host_ms": latency.host.median,
        "latency": latency.as_dict(),
        "nodes": len(model.index.nodes),
        "parsed_all": options["layers_parsed"],
        "parsed": options["layers_computing"],
        "engine_all": len(layers),
        "engine": inspector.computing(layers),
        "groups": len(inspector.groups(layers, model)),
        "formats": {
            f: sum(x.precision == f for x in layers if not x.passive) for f in sorted({x.precision for x in layers})
        },
        "build_s": build,
        "notes": list(notes),
    }


def row(result: dict) -> str:
    def text(value: object) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return "| " + " | ".join(text(result[c]) for c in COLUMNS) + " |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", nargs="+", default=["resnet50", "inception_v3", "vgg19"])
    parser.add_argument("--modes", nargs="+", default=["fp32", "tf32", "fp16", "int8"], choices=list(MODES))
    parser.add_argument("--batches", type=int, default=4, help="of 8 images each")
    parser.add_argument("--out", type=Path, default=Path("networks.jsonl"))
    parser.add_argument("--limit", type=float, default=540)
    parser.add_argument("--level", type=int, default=2)
    parser.add_argument("--tactic-sources", default=None)
    parser.add_argument("--inspector", type=Path, help="folder for the raw inspector text")
    arguments = parser.parse_args()
    runner = TrtRunner(tactic_sources=arguments.tactic_sources, optimization_level=arguments.level)
    begin, cache, done = time.perf_counter(), {}, []
    for name in arguments.names:
        for mode in arguments.modes:
            spent = time.perf_counter() - begin
            longest = max([r["build_s"] for r in done if r["network"] == name] or [40])
            if spent + 1.3 * longest > arguments.limit:
                print(f"skipped {name} {mode}: {spent:.0f} s spent", flush=True)
                continue
            data = images(299 if name == "inception_v3" else 224, arguments.batches)
            try:
                result = run(name, arguments.folder / f"{name}.onnx", mode, runner, data, cache)
            except Exception as error:
                print(f"{name} {mode}: {type(error).__name__}: {error}", flush=True)
                continue
            done.append(result)
            print(row(result), flush=True)
            with arguments.out.open("a") as file:
                file.write(json.dumps(result) + "\n")
    print("| " + " | ".join(COLUMNS) + " |")
    for result in done:
        print(row(result))


if __name__ == "__main__":
    main()
