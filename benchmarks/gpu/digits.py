"""The digits network on TensorRT in every mode: top-1 on its held-out images, against ONNX Runtime.

    python digits.py [--out FILE] [--tactic-sources NAMES]

INT8 is calibrated on the first 100 held-out images, as each calibrator and each way of finding ranges does it. Then: is
one engine deterministic, are two builds of the same network?
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
from layerdiff.graph.model import load
from layerdiff.runners._trt import inspector
from layerdiff.runners.base import ShapeRange, Workload
from layerdiff.runners.latency import measure
from layerdiff.runners.trt import TrtRunner

HERE = Path(__file__).parents[2] / "examples" / "digits"
MODES = [
    {},
    {"tf32": True},
    {"fp16": True},
    {"int8": True, "calibrator": "entropy2"},
    {"int8": True, "calibrator": "entropy"},
    {"int8": True, "calibrator": "minmax"},
    {"int8": True, "fp16": True},
    {"int8_qdq": "max"},
    {"int8_qdq": "percentile"},
    {"int8_qdq": "entropy"},
]
COLUMNS = ("mode", "top1", "difference", "disagree", "rel_l2", "gpu_ms", "engine", "build_s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("digits.json"))
    parser.add_argument("--tactic-sources", default=None)
    arguments = parser.parse_args()
    model = load(HERE / "digits.onnx")
    stored = np.load(HERE / "heldout.npz")
    (entry,) = model.inputs
    images = np.asarray(stored[entry.name], entry.dtype)
    labels = np.load(HERE / "labels.npy")
    session = onnxruntime.InferenceSession(str(HERE / "digits.onnx"), providers=["CPUExecutionProvider"])
    want = session.run(None, {entry.name: images})[0]
    batches = [images[i : i + 20] for i in range(0, 100, 20)]
    shape = images.shape[1:]
    work = Workload(
        samples=lambda: iter([{entry.name: b} for b in batches]),
        shapes={entry.name: ShapeRange((1, *shape), (20, *shape), (len(images), *shape))},
    )
    base = TrtRunner(tactic_sources=arguments.tactic_sources)
    top1 = float(np.mean(want.argmax(1) == labels))
    results = [{"mode": "onnxrt", "top1": top1, "difference": 0.0, "disagree": 0, "rel_l2": 0.0}]
    for options in MODES:
        runner = replace(base, **options)
        label = " ".join([runner.name, options.get("calibrator", ""), options.get("int8_qdq", "")]).split()
        try:
            with runner.open(model, workload=work) as opened:
                got = next(iter(opened.infer({entry.name: images}).values()))
                again = next(iter(opened.infer({entry.name: images}).values()))
                latency = measure(opened, {entry.name: images[:20]}, 200)
                layers = inspector.computing(opened.layers())
                seconds = opened.info.options["build_seconds"]
        except Exception as error:
            print(f"{' '.join(label)}: {type(error).__name__}: {error}", flush=True)
            continue
        correct = float(np.mean(got.argmax(1) == labels))
        results.append(
            {
                "mode": " ".join(label),
                "top1": correct,
                "difference": correct - top1,
                "disagree": int(np.sum(got.argmax(1) != want.argmax(1))),
                "rel_l2": float(np.linalg.norm(got - want) / np.linalg.norm(want)),
                "gpu_ms": latency.gpu.median,
                "engine": layers,
                "build_s": seconds,
                "deterministic": bool(np.array_equal(got, again)),
            }
        )
    twice = []
    for cache in ("off", "off", None, None):
        with replace(base, fp16=True, timing_cache=cache).open(model, workload=work) as opened:
            twice.append(next(iter(opened.infer({entry.name: images}).values())))
    builds = {
        "two builds, no timing cache": float(np.max(np.abs(twice[0] - twice[1]))),
        "two builds, one timing cache": float(np.max(np.abs(twice[2] - twice[3]))),
    }
    arguments.out.write_text(json.dumps({"images": len(images), "results": results, "builds": builds}, indent=1))
    print(f"{len(images)} held-out images")
    print("| " + " | ".join(COLUMNS) + " |")
    for result in results:
        cells = [result.get(c, "") for c in COLUMNS]
        print("| " + " | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells) + " |")
    print(builds, {r["mode"]: r["deterministic"] for r in results[1:]})


if __name__ == "__main__":
    main()
