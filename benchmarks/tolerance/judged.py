"""Healthy networks in several formats, and broken ones: what becomes of their outputs.

In a module of its own: a spawned process does not import the ``__main__`` of a package.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from layerdiff import Comparator, EmulateRunner, LayerdiffError, OnnxrtRunner
from layerdiff.compare.outputs.formula import formula
from layerdiff.compare.report.model import OutputResult
from layerdiff.dataloaders import as_source
from layerdiff.graph.formats import FORMATS as NUMBER_FORMATS
from layerdiff.graph.formats import NumberFormat
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.load import load

from benchmarks import trained
from benchmarks.kit.results import Results
from benchmarks.kit.runtime import Feed

from .faults import KINDS, faults
from .networks import Network, makers
from .small import CASES, build

FORMATS = ("fp32", "tf32", "fp16", "bf16")
JUDGED = ("fp32", "fp16")
RANK = {"pass": 0, "undecided": 1, "fail": 2}
SEEN = 4.0
"""Times the expected noise of 64 neighbouring elements that a fault's effect must come to, to be a case."""


@dataclass
class Tally:
    """What became of the faults of one kind, by format: planted, found, and found by the formula alone."""

    planted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(JUDGED, 0))
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(JUDGED, 0))
    by_formula: dict[str, int] = field(default_factory=lambda: dict.fromkeys(JUDGED, 0))
    drowned: dict[str, int] = field(default_factory=lambda: dict.fromkeys(JUDGED, 0))

    def add(self, other: Tally) -> None:
        """Counts what another one counted, too."""
        for mine, theirs in (
            (self.planted, other.planted),
            (self.found, other.found),
            (self.by_formula, other.by_formula),
            (self.drowned, other.drowned),
        ):
            for fmt in mine:
                mine[fmt] += theirs[fmt]


def candidate(fmt: str) -> OnnxrtRunner | EmulateRunner:
    """What computes in a format: between FP32 runtimes, ONNX Runtime without optimizations."""
    return OnnxrtRunner(optimization="disable") if fmt == "fp32" else EmulateRunner(format=fmt)


def healthy(network: Network) -> Iterator[list[object]]:
    """A row for each output and format of a healthy network; the last cell says how the formula alone decides."""
    for fmt in FORMATS:
        runners = [OnnxrtRunner(), candidate(fmt)]
        try:
            report = Comparator(network.proto, runners, data_loader=network.feeds).compare()
        except LayerdiffError as error:
            print(f"  {fmt}: {str(error).splitlines()[0][:150]}", file=sys.stderr)
            continue
        formula_fails = _formula_finds(network, network.proto, network.feeds, fmt)
        for output in report.outputs:
            alone = "fail" if output.tensor in formula_fails else "pass"
            yield [network.name, f"`{output.tensor}`", fmt.upper(), output.verdict, *numbers(output), alone]


def numbers(output: OutputResult) -> list[str]:
    """What a table says of an output."""
    expected, metrics = output.expected or {}, output.metrics or {}
    found = (metrics.get("rel_l2"), expected.get("rel_l2"), expected.get("rms_z"), output.use)
    return ["-" if n is None else f"{n:.2g}" for n in found]


def broken(network: Network, found: dict[str, Tally], share: int = 0, shares: int = 1) -> None:
    """Plants a share of all faults and judges them, on the first sample, as an FP32 and an FP16 runtime's."""
    feeds = network.feeds[:1]
    for fault in islice(faults(network.proto), share, None, shares):
        tally = found[fault.kind]
        for fmt in JUDGED:
            effect = _effect(network, fault.proto, feeds, fmt)
            if effect is None:
                continue
            if effect <= SEEN:
                tally.drowned[fmt] += 1
                continue
            tally.planted[fmt] += 1
            tally.by_formula[fmt] += bool(_formula_finds(network, fault.proto, feeds, fmt))
            runners = [OnnxrtRunner(), candidate(fmt)]
            report = Comparator(network.proto, runners, candidate_model=fault.proto, data_loader=feeds).compare()
            verdicts = {o.verdict for o in report.outputs if o.candidate.startswith(report.outputs[-1].candidate)}
            if "fail" in verdicts:
                tally.found[fmt] += 1
            else:
                print(f"  {fmt} passes: {fault.kind} at {fault.node}: {effect:.3g} times", file=sys.stderr)


def _effect(network: Network, changed: object, feeds: list, fmt: str) -> float | None:
    """What a fault does to the outputs in FP32, in times the noise of a format: the worst 64 neighbours'."""
    from layerdiff.compare.comparison import Comparison, Rules
    from layerdiff.compare.outputs.expectation import Expectation
    from layerdiff.compare.sides import choose_sides
    from layerdiff.runners.contract.workload import Workload

    model, other = load(network.proto), load(changed)
    runners = [OnnxrtRunner(), candidate(fmt)]
    sides = choose_sides(runners, [model, model])
    comparison = Comparison(sides, as_source(feeds).bind(model), Workload(), Rules())
    try:
        with OnnxrtRunner().open(model) as one, OnnxrtRunner().open(other) as two:
            mine, theirs = one.infer(feeds[0]), two.infer(feeds[0])
    except LayerdiffError:  # the fault made a graph that ONNX Runtime refuses: no case
        return None
    pairs = {n: (mine[n], theirs[n]) for n in mine if mine[n].shape == theirs[n].shape}
    with Expectation(comparison, sides.candidates[0]) as expectation:
        held = expectation.judge(0, feeds[0], pairs)
    if len(pairs) < len(mine):
        return math.inf
    return max(
        math.inf if m.unexplained else max(m.statistics.get("slice", 0.0), m.statistics.get("rms", 0.0))
        for m in held.values()
    )


def _formula_finds(network: Network, changed: object, feeds: Sequence[Feed], fmt: str) -> set[str]:
    """The outputs at which an error exceeds what the formula of depth and format allows."""
    model, found = load(network.proto), set()
    formats = [NUMBER_FORMATS["fp32"], *([NUMBER_FORMATS[fmt]] if fmt != "fp32" else [])]
    with OnnxrtRunner().open(model) as one, candidate(fmt).open(load(changed)) as two:
        for feed in feeds:
            mine, theirs = one.infer(feed), two.infer(feed)
            found.update(name for name in mine if not _allowed(model.index, name, formats, mine[name], theirs[name]))
    return found


def _allowed(index: GraphIndex, name: str, formats: Sequence[NumberFormat], y: np.ndarray, c: np.ndarray) -> bool:
    if y.shape != c.shape or y.dtype.kind != "f":
        return np.array_equal(y, c)
    with np.errstate(invalid="ignore"):
        error = np.abs(c.astype(np.float64) - y.astype(np.float64))
    return bool(np.all(error <= formula(index, name, formats, y.dtype).allowed(y)))


def judged(name: str, share: int, shares: int, path: Path | None) -> dict[str, Any]:
    """The rows of a healthy network, and what became of a share of the faults in it, by kind.

    Args:
        name: The network.
        share, shares: Which of how many shares; the rows are in the first.
        path: Of a file that the result is appended to, as a line of JSON.
    """
    began = time.perf_counter()
    network = _network(name)
    found = {kind: Tally() for kind in KINDS}
    rows = [] if share else list(healthy(network))
    broken(network, found, share, shares)
    print(f"{name}, {share + 1} of {shares}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    tallies = {kind: asdict(tally) for kind, tally in found.items()}
    result = {"id": f"{name} {share}/{shares}", "network": name, "share": share, "rows": rows, "found": tallies}
    Results(path, math.inf).add(result)
    return result


def real_jobs() -> list[tuple[str, str, str]]:
    """Each trained network in each format, and pairs of files of one: a name, the other file's name or "", a format."""
    every = [(network.name, "", fmt) for network in trained.networks() for fmt in FORMATS]
    return [*every, *((one, other, "fp32") for one, other in trained.PAIRS)]


def job_name(name: str, other: str, fmt: str) -> str:
    """What the result of a job of `real_jobs` is called."""
    return f"{name}, {other} {fmt}" if other else f"{name} {fmt}"


def on_real_inputs(name: str, other: str, fmt: str, path: Path | None) -> dict[str, Any]:
    """A trained network on its real inputs: a row of the output that takes most of what is allowed, if any.

    Args:
        name, other, fmt: One of `real_jobs`.
        path: Of a file that the result is appended to, as a line of JSON.
    """
    began = time.perf_counter()
    row: list[object] = []
    try:
        files = trained.fetch(name)
        runners = [OnnxrtRunner()] if other else [OnnxrtRunner(), candidate(fmt)]
        theirs = trained.fetch(other).model if other else None
        comparator = Comparator(files.model, runners, candidate_model=theirs, data_loader=as_source(files.data))
        outputs = comparator.compare().outputs
        worst = max(outputs, key=lambda o: (RANK.get(o.verdict, 3), o.use or 0.0))
        both = f"{name}, {other}" if other else name
        row = [both, len(outputs), fmt.upper(), worst.verdict, *numbers(worst)]
    except (LayerdiffError, trained.Unavailable) as error:
        print(f"  {name} {fmt}: {str(error).splitlines()[0][:150]}", file=sys.stderr)
    print(f"{job_name(name, other, fmt)}: {row[3:4]}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    result = {"id": job_name(name, other, fmt), "row": row}
    Results(path, math.inf).add(result)
    return result


@lru_cache(maxsize=1)
def _network(name: str) -> Network:
    return build(name, CASES[name]) if name in CASES else makers()[name]()
