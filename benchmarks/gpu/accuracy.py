"""What number formats cost a classifier: accuracy on labelled data in every mode of TensorRT, and as emulated.

    python -m benchmarks.gpu.accuracy MODEL --data PATH --labels FILE
        [--calibration-data PATH] [--modes trt=fp16 ...] [--out FILE]

A mode is a runner and its value, as on the command line: ``trt``, ``trt=int8,minmax``, ``emulate=int8``. As one command
it would be ``compare MODEL --onnxrt --trt --trt=fp16 --trt=int8,minmax ... --labels FILE --metric top1``; here each
mode is compared by itself, so that every result is written as soon as it is there. With ``--twice``: does an engine
give the same bits twice, and do two builds of one network?
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner, TrtRunner, open_data
from layerdiff.graph.load import load
from layerdiff.runners.contract.runner import Runner
from layerdiff.runners.contract.workload import Workload

from benchmarks.kit.pages import table
from benchmarks.kit.results import Results, add_options

CALIBRATIONS = ("int8", "int8,entropy", "int8,minmax", "int8,qdq-max", "int8,qdq-percentile", "int8,qdq-entropy")
MODES = ["trt", "trt=tf32", "trt=fp16", *(f"trt={c}" for c in CALIBRATIONS), "emulate=fp16", "emulate=int8"]
COLUMNS = ("top1", "difference", "disagree", "samples", "rel_l2", "gpu_ms", "formats", "open_s")


def runner_of(mode: str, tactic_sources: str | None, level: int) -> Runner:
    flag, _, value = mode.partition("=")
    if flag == "emulate":
        return EmulateRunner.from_value(value or None)
    return TrtRunner.from_value(value or None, tactic_sources=tactic_sources, optimization_level=level)


def measure(mode: str, runner: Runner, arguments: argparse.Namespace) -> list[dict]:
    """The reference's accuracy and that of one mode."""
    begin = time.perf_counter()
    calibrated = runner.arithmetic.is_integer and arguments.calibration_data
    report = Comparator(
        arguments.model,
        [OnnxrtRunner(), runner],
        data_loader=open_data(arguments.data),
        calibration_data=open_data(arguments.calibration_data) if calibrated else None,
        labels=arguments.labels,
        metric="top1",
        latency=arguments.latency,
    ).compare()
    error = "; ".join(r.error for r in report.runners if r.error)
    if error:
        return [{"mode": mode, "error": error}]
    found = []
    for accuracy, name in zip(report.accuracy, ("onnxrt", mode), strict=True):
        judged = next(r for r in report.runners if r.name == accuracy.runner)
        output = next((o for o in report.outputs if o.candidate == accuracy.runner), None)
        found.append(
            {
                "model": Path(arguments.model).stem,
                "mode": name,
                "top1": accuracy.value,
                "difference": accuracy.difference,
                "disagree": accuracy.disagreements,
                "samples": accuracy.samples,
                "verdict": output.verdict if output else None,
                "rel_l2": output.metrics["rel_l2"] if output and output.metrics else None,
                "gpu_ms": ((judged.latency or {}).get("gpu") or {}).get("median"),
                "formats": judged.options.get("formats"),
                "open_s": judged.open_seconds,
                "seconds": time.perf_counter() - begin,
                "notes": list(judged.notes),
            }
        )
    return found


def row(result: dict) -> list[str]:
    if result.get("error"):
        return [result["mode"], result["error"]]
    texts = {
        "top1": "not finite" if result["top1"] is None else f"{result['top1']:.2%}",
        "difference": "" if result["difference"] is None else f"{100 * result['difference']:+.2f}",
        "rel_l2": "" if result["rel_l2"] is None else f"{result['rel_l2']:.1e}",
        "gpu_ms": "" if result["gpu_ms"] is None else f"{result['gpu_ms']:.3f}",
        "open_s": f"{result['open_s']:.1f}",
        "formats": ", ".join(f"{n} {f}" for f, n in (result["formats"] or {}).items()),
    }
    return [result["mode"], *(texts.get(c, str(result[c])) for c in COLUMNS)]


def twice(arguments: argparse.Namespace) -> dict[str, float]:
    """Greatest differences between two runs of one FP16 engine, and between two builds."""
    model = load(arguments.model)
    samples = open_data(arguments.data).bind(model)
    feed = next(iter(samples))
    work = Workload(samples=lambda: iter([feed]))
    results = {}
    for cache, label in (("off", "without a timing cache"), (None, "with one timing cache")):
        runs = []
        for _ in range(2):
            runner = TrtRunner(
                fp16=True,
                timing_cache=cache,
                tactic_sources=arguments.tactic_sources,
                optimization_level=arguments.optimization_level,
            )
            with runner.open(model, workload=work) as session:
                runs += [next(iter(session.infer(feed).values())) for _ in range(2)]
        results["one engine, two runs"] = float(np.max(np.abs(runs[0] - runs[1])))
        results[f"two builds {label}"] = float(np.max(np.abs(runs[0] - runs[2])))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--calibration-data", help="what INT8 is calibrated on; the data, if not given")
    parser.add_argument("--modes", nargs="+", default=MODES)
    parser.add_argument("--out", type=Path, default=Path("accuracy.jsonl"))
    parser.add_argument("--latency", type=int, default=100)
    add_options(parser, limit=500)
    parser.add_argument("--twice", action="store_true")
    arguments = parser.parse_args()
    results = Results(arguments.out, arguments.limit)
    for mode in arguments.modes:
        if results.over(mode):
            continue
        try:
            found = measure(mode, runner_of(mode, arguments.tactic_sources, arguments.optimization_level), arguments)
        except Exception as error:
            found = [{"mode": mode, "error": f"{type(error).__name__}: {error}"}]
        for result in found[1:] if results.kept and len(found) > 1 else found:
            results.add(result)
            print(*row(result), sep=" | ", flush=True)
    print(table(("mode", *COLUMNS), map(row, results.kept)))
    if arguments.twice:
        print(twice(arguments))


if __name__ == "__main__":
    main()
