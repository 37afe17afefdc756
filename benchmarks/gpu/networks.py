"""Networks on TensorRT in several modes: verdict, error at the output, latency, fused layers, build time.

    python -m benchmarks.gpu.networks FOLDER [--names resnet50 ...]
        [--modes fp32 tf32 fp16 int8] [--out FILE] [--limit SECONDS]

FOLDER holds what export.py wrote. INT8 allows FP16 too, ``int8_alone`` does not; it is calibrated on the images that
are compared, ``--batches`` of 8. Each result is one line of JSON in FILE as soon as it is there; a markdown table is
printed last. The reference is ONNX Runtime on the CPU in FP32.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from layerdiff import Comparator
from layerdiff.compare.progress import Progress
from layerdiff.graph.load import load
from layerdiff.runners.contract.runner import Runner
from layerdiff.runners.emulate import EmulateRunner
from layerdiff.runners.onnxrt.runner import OnnxrtRunner
from layerdiff.runners.trt.runner import TrtRunner

from benchmarks.kit.pages import table
from benchmarks.kit.results import Results, add_options

MODES = {
    "fp32": {},
    "tf32": {"tf32": True},
    "fp16": {"fp16": True},
    "int8": {"int8": True, "fp16": True},
    "int8_alone": {"int8": True},
}
COLUMNS = (
    *("network", "mode", "verdict", "use", "rel_l2", "max_abs", "gpu_ms", "host_ms"),
    *("nodes", "parsed", "engine", "formats", "build_s"),
)


def add_runner(parser: argparse.ArgumentParser) -> None:
    """The option that says what runs in FP16."""
    parser.add_argument("--runner", choices=("trt", "emulate"), default="trt", help="emulate: to rehearse")


def fp16(options: argparse.Namespace) -> Runner:
    """What runs in FP16: TensorRT as it is asked for, or the emulation."""
    if options.runner == "emulate":
        return EmulateRunner(format="fp16")
    sources, level = options.tactic_sources, options.optimization_level
    return TrtRunner(fp16=True, tactic_sources=sources, optimization_level=level)


class Told(Progress):
    """Progress on the screen, with seconds: a build takes minutes."""

    def __init__(self, what: str) -> None:
        self.what, self.start = what, time.perf_counter()

    def stage(self, text: str) -> None:
        """Prints it."""
        print(f"  {self.what}, {time.perf_counter() - self.start:.1f} s: {text}", flush=True)


def images(side: int, count: int, batch: int = 8) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(batch, 3, side, side)).astype(np.float32)} for _ in range(count)]


def run(name: str, path: Path, mode: str, runner: Runner, data: list[dict[str, np.ndarray]]) -> dict:
    """One network in one mode.

    Raises:
        RuntimeError: The candidate failed.
    """
    model = load(path)
    compared = Comparator(
        model, [OnnxrtRunner(), runner], data_loader=data, latency=30, progress=Told(f"{name} {mode}")
    ).compare()
    (output,) = compared.outputs
    candidate = next(r for r in compared.runners if r.name == output.candidate)
    if candidate.error is not None or output.metrics is None:
        raise RuntimeError(candidate.error or output.reason)
    latency, options = dict(candidate.latency or {}), candidate.options
    return {
        "network": name,
        "mode": mode,
        "runner": candidate.name,
        "verdict": output.verdict,
        "reason": output.reason,
        "use": output.use,
        "rel_l2": output.metrics["rel_l2"],
        "max_abs": output.metrics["max_abs"],
        "nan": output.metrics["nan"],
        "inf": output.metrics["inf"],
        "gpu_ms": (latency.get("gpu") or {}).get("median"),
        "host_ms": (latency.get("host") or {}).get("median"),
        "latency": latency,
        "nodes": len(model.index.nodes),
        "parsed": options.get("layers_computing"),
        "parsed_all": options.get("layers_parsed"),
        "engine": options.get("layers_engine"),
        "formats": options.get("formats"),
        "accumulators": options.get("accumulators"),
        "build_s": options.get("build_seconds", math.nan),
        "notes": list(candidate.notes),
    }


def row(result: dict) -> list[str]:
    def text(value: object) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return [text(result[c]) for c in COLUMNS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", nargs="+", default=["resnet50", "inception_v3", "vgg19"])
    parser.add_argument("--modes", nargs="+", default=["fp32", "tf32", "fp16", "int8"], choices=list(MODES))
    parser.add_argument("--batches", type=int, default=4, help="of 8 images each")
    parser.add_argument("--out", type=Path, default=Path("networks.jsonl"))
    add_options(parser, limit=540)
    parser.add_argument("--runner", choices=["trt", "emulate"], default="trt", help="emulate: to rehearse, in FP16")
    arguments = parser.parse_args()
    trt = TrtRunner(tactic_sources=arguments.tactic_sources, optimization_level=arguments.optimization_level)
    results = Results(arguments.out, arguments.limit)
    for name in arguments.names:
        for mode in arguments.modes:
            runner = replace(trt, **MODES[mode]) if arguments.runner == "trt" else EmulateRunner(format="fp16")
            longest = max([r["build_s"] for r in results.kept if r["network"] == name] or [40])
            data = images(299 if name == "inception_v3" else 224, arguments.batches)
            path = arguments.folder / f"{name}.onnx"

            def keep(name=name, path=path, mode=mode, runner=runner, data=data) -> None:
                results.add(run(name, path, mode, runner, data))
                print(*row(results.kept[-1]), sep=" | ", flush=True)

            results.attempt(f"{name} {mode}", keep, 1.3 * longest)
    print(table(COLUMNS, map(row, results.kept)))


if __name__ == "__main__":
    main()
