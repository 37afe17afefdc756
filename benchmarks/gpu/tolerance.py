"""TensorRT's FP16 held against the error that rounding explains, build by build, beside emulated FP16.

    python -m benchmarks.gpu.tolerance OUT.jsonl FILE.onnx [...] [--builds 3] [--seeds 4] [--optimization-level 1]
        [--tactic-sources NAMES] [--limit S] [--runner trt|emulate|narrow]

Every build chooses its kernels anew (no timing cache). Data are random inputs of several seeds, as ``compare`` draws
them, and ``FILE.npz`` beside a network (``heldout.npz`` beside digits). One line of JSON for each network, build and
data, as soon as it is there; the emulations' lines, ``emulated`` and ``narrow``, come after the builds'. The reference
is ONNX Runtime on the CPU in FP32. ``--runner`` takes an emulation for TensorRT, to rehearse without a GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from layerdiff.compare.comparison import Comparison, Rules
from layerdiff.compare.outputs.decide import decide
from layerdiff.compare.outputs.judge import Judge
from layerdiff.compare.outputs.measuring import measure as measured
from layerdiff.compare.runs.run import RunLog, RunnerLog
from layerdiff.compare.sides import Side, choose_sides
from layerdiff.dataloaders import DataLoader, as_source
from layerdiff.graph.errors import DataError
from layerdiff.graph.load import load
from layerdiff.graph.model import Model
from layerdiff.runners.contract.runner import Runner
from layerdiff.runners.contract.session import Session
from layerdiff.runners.contract.workload import Workload, seen_ranges
from layerdiff.runners.emulate import EmulateRunner
from layerdiff.runners.onnxrt.runner import OnnxrtRunner
from layerdiff.runners.trt.runner import TrtRunner

from benchmarks.kit.inputs import stored
from benchmarks.kit.pages import table
from benchmarks.kit.results import Results, add_options

Feed = dict[str, np.ndarray]


def data(path: Path, model: Model, arguments: argparse.Namespace) -> dict[str, list[Feed]]:
    """Samples by what they are called."""
    real = stored(path, arguments.rows)
    real = real if set(real) == {spec.name for spec in model.inputs} else {}
    shapes = {name: (None, *array.shape[1:]) for name, array in real.items()}
    found = {}
    for seed in range(arguments.seeds):
        try:
            found[f"seed {seed}"] = list(DataLoader(seed=seed, samples=arguments.samples, shapes=shapes).bind(model))
        except DataError as problem:  # one symbol for several dimensions
            print(f"  {path.stem}, seed {seed}: {problem}", flush=True)
    return {**found, "stored": [real]} if real else found


class Reference:
    """ONNX Runtime's outputs for every sample, each computed once."""

    def __init__(self, model: Model, samples: dict[str, list[Feed]]) -> None:
        self.side = Side("onnxrt", OnnxrtRunner(), model)
        self.session = self.side.runner.open(model)
        self.outputs = {name: [self.session.infer(feed) for feed in feeds] for name, feeds in samples.items()}

    def judge(self, candidate: Side, session: Session, name: str, feeds: list[Feed]) -> dict:
        """What one candidate's outputs on one set of samples come to."""
        sides = choose_sides((self.side.runner, candidate.runner), (self.side.model, candidate.model))
        (other,) = sides.candidates
        comparison = Comparison(sides, as_source(feeds).bind(self.side.model), Workload(), Rules())
        ran = RunnerLog(other.name, session.info)
        log = RunLog(sides.reference.name, (other.name,), (RunnerLog(sides.reference.name), ran))
        judge = Judge(sides, Rules())
        for number, feed in enumerate(feeds):
            judge.take(sides.reference.name, number, self.outputs[name][number])
            judge.take(other.name, number, session.infer(feed))
        count = len(feeds)
        evidence = judge.evidence(count, {sides.reference.name: count, other.name: count})
        evidence = measured(comparison, log, evidence, judge.kept)
        return {
            result.tensor: {
                "verdict": result.verdict,
                "use": result.use,
                "expected": result.expected,
                "rel_l2": (result.metrics or {}).get("rel_l2"),
                "max_abs": (result.metrics or {}).get("max_abs"),
            }
            for result in map(decide, evidence)
        }


def builds(arguments: argparse.Namespace) -> Iterator[tuple[str, Runner]]:
    """The candidates, those that need the GPU first."""
    for number in range(arguments.builds):
        if arguments.runner == "trt":
            yield (
                f"build {number}",
                TrtRunner(
                    fp16=True,
                    timing_cache="off",
                    tactic_sources=arguments.tactic_sources,
                    optimization_level=arguments.optimization_level,
                ),
            )
        else:
            yield f"build {number}", EmulateRunner(format="fp16", fp16_accumulation=arguments.runner == "narrow")
    yield "emulated", EmulateRunner(format="fp16")
    yield "narrow", EmulateRunner(format="fp16", fp16_accumulation=True)


def kernels(session: Session) -> list[dict]:
    """Each matrix product of an engine and the format it adds in."""
    layers = session.layers() if hasattr(session, "layers") else ()
    return [{"nodes": x.nodes, "accumulator": x.accumulator} for x in layers if getattr(x, "accumulator", "")]


def measure(path: Path, arguments: argparse.Namespace, results: Results) -> Iterator[dict]:
    model = load(path)
    samples = data(path, model, arguments)
    reference = Reference(model, samples)
    feeds = [feed for some in samples.values() for feed in some]
    names = [spec.name for spec in model.inputs]
    work = Workload(samples=lambda: iter(feeds), shapes=seen_ranges(feeds, names))
    for build, runner in builds(arguments):
        if results.over(f"{path.stem}, {build}"):
            continue
        start = time.perf_counter()
        side = Side(runner.name, runner, model)
        try:
            with runner.open(model, workload=work) as session:
                opened = time.perf_counter() - start
                found = kernels(session)
                for name, some in samples.items():
                    outputs = reference.judge(side, session, name, some)
                    yield {
                        "network": path.stem,
                        "build": build,
                        "runner": runner.name,
                        "data": name,
                        "shape": {k: v.shape for k, v in some[0].items()},
                        "outputs": outputs,
                        "formats": session.info.options.get("formats"),
                        "accumulators": session.info.options.get("accumulators"),
                        "by_profile": session.info.options.get("by_profile"),
                        "sums": session.info.options.get("sums"),
                        "kernels": found,
                        "notes": list(session.info.notes),
                        "open_s": opened,
                    }
                    if results.over(f"what comes after {path.stem}, {build}, {name}"):
                        break
        except Exception as problem:
            print(f"{path.stem}, {build}: {type(problem).__name__}: {problem}", flush=True)


def use(result: dict) -> float:
    return max((o["use"] or 0.0 for o in result["outputs"].values()), default=float("nan"))


def rows(done: list[dict]) -> Iterator[list[str]]:
    """A row for each network and build."""
    for network, build in dict.fromkeys((r["network"], r["build"]) for r in done):
        some = [r for r in done if (r["network"], r["build"]) == (network, build)]
        random = sorted(use(r) for r in some if r["data"] != "stored") or [float("nan")]
        own = next((f"{use(r):.1%}" for r in some if r["data"] == "stored"), "-")
        shares = [f"{v:.1%}" for v in (random[0], float(np.median(random)), random[-1])]
        ratios = [o["expected"]["rms_z"] for r in some for o in r["outputs"].values() if o["expected"]]
        ratio = max((z for z in ratios if z is not None), default=float("nan"))
        yield [network, build, adds(some[0]), *shares, own, f"{ratio:.2f}"]


def adds(result: dict) -> str:
    """Formats that products add in."""
    return str(result["accumulators"] if result["accumulators"] is not None else result["sums"])


def keep(path: Path, arguments: argparse.Namespace, results: Results) -> None:
    """Measures one network, and prints each result as it comes."""
    for result in measure(path, arguments, results):
        results.add(result)
        verdicts = ", ".join(o["verdict"] for o in result["outputs"].values())
        text = f"  {result['network']}, {result['build']}, {result['data']}: {verdicts}, {use(result):.1%}"
        print(f"{text} of the limits, adds {adds(result)}, {results.spent:.0f} s", flush=True)


HEAD = ("network", "build", "adds in", "least", "median", "greatest share, random", "stored", "error over expected")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--builds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--samples", type=int, default=4, help="of each seed")
    parser.add_argument("--rows", type=int, default=64, help="at most so many of the stored inputs")
    parser.add_argument("--runner", choices=["trt", "emulate", "narrow"], default="trt")
    add_options(parser, limit=500, level=1)
    arguments = parser.parse_args()
    results = Results(arguments.out, arguments.limit)
    for path in arguments.files:
        results.attempt(path.stem, lambda path=path: keep(path, arguments, results))
    print(table(HEAD, rows(results.kept)))


if __name__ == "__main__":
    main()
