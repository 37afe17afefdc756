"""Comparing large outputs on the GPU that both runtimes ran on, against downloading them.

    python -m benchmarks.gpu.ondevice [--candidate trt] [--libraries cupy torch]
        [--megabytes 4 16 128] [--runs 3] [--limit SECONDS]

One convolution makes an output of so many megabytes in FP32. The reference is ONNX Runtime on CUDA; the candidate is
TensorRT, or ONNX Runtime on CUDA without graph optimization. Each row holds the median time of running both and of
comparing them, in milliseconds, beside the first comparison, which loads the library and compiles kernels. All numbers
of both ways are compared with each other, and the greatest relative difference is printed. A markdown table comes last.
"""

from __future__ import annotations

import argparse
import statistics as median_of
import time

import numpy as np
import onnx
from layerdiff import Comparator, Runner
from layerdiff.compare.outputs.tolerance import Tolerance
from layerdiff.compare.statistics import device as ondevice
from layerdiff.compare.statistics import libraries
from layerdiff.compare.statistics.statistics import Statistics
from layerdiff.graph.model import Model
from layerdiff.runners.contract.workload import ShapeRange, Workload
from layerdiff.runners.onnxrt.runner import OnnxrtRunner
from layerdiff.runners.trt import cuda
from layerdiff.runners.trt.runner import TrtRunner

from benchmarks.kit.pages import table
from benchmarks.kit.results import Results, add_options

SHAPE = (4, 3, 256, 256)

MAKERS = libraries.MAKERS["cuda"]


def network(megabytes: int) -> Model:
    """A convolution with an output of 4 x C x 256 x 256."""
    channels = max(1, megabytes * 2**20 // (4 * 4 * 256 * 256))
    rng = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(rng.normal(size=(channels, 3, 3, 3)).astype(np.float32) / 5, "w"),
        onnx.numpy_helper.from_array(rng.normal(size=channels).astype(np.float32), "b"),
    ]
    nodes = [onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", pads=[1, 1, 1, 1])]
    value = onnx.helper.make_tensor_value_info
    inputs = [value("x", onnx.TensorProto.FLOAT, SHAPE)]
    outputs = [value("y", onnx.TensorProto.FLOAT, (4, channels, 256, 256))]
    graph = onnx.helper.make_graph(nodes, "large", inputs, outputs, weights)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    return Model(made, source=f"{megabytes} MB")


def read(pair, rule) -> Statistics:
    reference, candidate = pair
    return Statistics().update(reference, candidate, rule)


def timed(runs: int, infer, rule) -> tuple[float, list[float], list[float], Statistics]:
    """Milliseconds of the first comparison, then of every run and comparison, and what was found."""
    pair = infer()
    start = time.perf_counter()
    found = read(pair, rule)
    first = 1e3 * (time.perf_counter() - start)
    run, compare = [], []
    for _ in range(runs):
        start = time.perf_counter()
        pair = infer()
        run.append(1e3 * (time.perf_counter() - start))
        if not found.device:  # nothing to warm up, and slow
            compare = [first]
            continue
        start = time.perf_counter()
        found = read(pair, rule)
        compare.append(1e3 * (time.perf_counter() - start))
    return first, run, compare, found


def use(library: str | None) -> None:
    """Lets statistics on the device be computed by this library alone; None: by none."""
    libraries.MAKERS["cuda"] = {} if library is None else {library: MAKERS[library]}
    libraries.LIBRARIES.clear()


def difference(one: Statistics, other: Statistics) -> float:
    """Greatest relative difference of any metric; infinite where counts, histograms or places differ."""
    exact = ("count", "finite", "mismatched", "broken", "nan", "inf", "max_ulp", "histogram", "broken_at")
    differing = [key for key in exact if getattr(one, key) != getattr(other, key)]
    places = [(getattr(one, k), getattr(other, k)) for k in ("max_abs_at", "max_rel_at", "use_at")]
    differing += [
        f"{a} / {b}"
        for a, b in places
        if (a and (a.index, a.reference, a.candidate)) != (b and (b.index, b.reference, b.candidate))
    ]
    if differing:
        print("  differ:", *differing)
        return float("inf")
    mine, theirs = one.measures(), other.measures()
    level = {"bias": theirs["mean_abs"]}
    worst = 0.0
    for key, value in theirs.items():
        if isinstance(value, (int, float)) and np.isfinite(value) and value:
            worst = max(worst, abs(mine[key] - value) / (level.get(key) or abs(value)))
    return worst


def outputs_of(megabytes: int, args: argparse.Namespace, other: Runner, results: Results) -> None:
    """The rows of one size: downloaded, then by each library."""
    model, x = network(megabytes), sample()
    rule = Tolerance(1e-5, 1e-5)
    work = Workload(samples=lambda: iter([x]), shapes={"x": ShapeRange(SHAPE, SHAPE, SHAPE)})
    with OnnxrtRunner(provider="cuda").open(model, workload=work) as one, other.open(model, workload=work) as two:
        plain = None
        for library in (None, *args.libraries):
            if results.over(f"{megabytes} MB, {library}"):
                return
            use(library)
            if library is None:
                found = timed(args.runs, lambda: (one.infer(x)["y"], two.infer(x)["y"]), rule)
            else:
                found = timed(args.runs, lambda: (one.infer_on_device(x)["y"], two.infer_on_device(x)["y"]), rule)
            first, run, compare, statistics = found
            plain = plain or statistics
            where = statistics.device or "the CPU"
            assert bool(statistics.device) == (library is not None), f"computed on {where}"
            result = {"megabytes": megabytes, "library": library or "downloaded, NumPy", "first": first}
            result |= {"run": median_of.median(run), "compare": median_of.median(compare)}
            results.add({**result, "difference": difference(statistics, plain) if library else None})
            print(*results.kept[-1].values(), where, f"use {statistics.use:.3g}", flush=True)


def whole(args: argparse.Namespace, other: Runner, library: str | None) -> None:
    """A whole comparison of three samples."""
    use(library)
    start = time.perf_counter()
    runners = [OnnxrtRunner(provider="cuda"), other]
    report = Comparator(network(args.whole), runners, data_loader=[sample()] * 3).compare()
    seconds = time.perf_counter() - start
    verdict = [(o.verdict, o.use) for o in report.outputs] or [r.error for r in report.runners]
    where = report.runners[-1].options.get("statistics_on", "host memory")
    print(f"Comparator, 3 samples of {args.whole} MB: {seconds:.2f} s, {where}: {verdict}", flush=True)


def sample() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)}


def row(result: dict) -> list[str]:
    run, compare, gap = result["run"], result["compare"], result["difference"]
    times = [f"{run:.1f} ms", f"{compare:.1f} ms", f"{run + compare:.1f} ms", f"{result['first'] / 1e3:.2f} s"]
    return [f"{result['megabytes']} MB", result["library"], *times, "" if gap is None else f"{gap:.0e}"]


HEAD = ("output", "statistics by", "both runs", "comparison", "together", "first comparison", "largest difference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidate", choices=("trt", "onnxrt"), default="trt")
    parser.add_argument("--libraries", nargs="*", choices=("cupy", "torch"), default=["cupy"])
    parser.add_argument("--megabytes", nargs="*", type=int, default=[4, 16, 128, 1024])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--whole", type=int, default=128, help="megabytes of the output of a whole comparison")
    add_options(parser, limit=100, level=1)
    args = parser.parse_args()
    ondevice.SMALL = 1  # to see what is worth it
    other = (
        TrtRunner(tactic_sources=args.tactic_sources, optimization_level=args.optimization_level)
        if args.candidate == "trt"
        else OnnxrtRunner(provider="cuda", optimization="disable")
    )
    results = Results(None, args.limit)
    for megabytes in args.megabytes:
        outputs_of(megabytes, args, other, results)
    for library in (None, *args.libraries[:1]):
        if not results.over("whole comparisons"):
            whole(args, other, library)
    print(f"\nonnxrt:cuda against {other.name}, {cuda.gpu()}\n")
    print(table(HEAD, map(row, results.kept)))


if __name__ == "__main__":
    main()
