"""Holds outputs of healthy and of broken networks against the error that rounding is expected to make.

``python -m benchmarks.tolerance``; ``--quick`` leaves out the onnx package's networks and the trained ones. The tables
go into docs/tolerance.md, between the two marks there; ``--dry`` prints them instead.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from layerdiff import Comparator, EmulateRunner, LayerdiffError, OnnxrtRunner
from layerdiff.compare.report.model import OutputResult
from layerdiff.dataloaders import as_source

from benchmarks import trained
from benchmarks.kit.pages import DOCS, table, write_section

from .faults import KINDS, faults
from .networks import Network, networks
from .small import small

DOC = DOCS / "tolerance.md"
FORMATS = ("fp32", "tf32", "fp16", "bf16")
JUDGED = ("fp32", "fp16")
SEEN = 4.0
"""Times the expected noise of 64 neighbouring elements that a fault's effect must come to, to be a case."""


@dataclass
class Tally:
    """What became of the faults of one kind, by format: planted and found."""

    planted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(JUDGED, 0))
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(JUDGED, 0))
    drowned: dict[str, int] = field(default_factory=lambda: dict.fromkeys(JUDGED, 0))


def candidate(fmt: str) -> OnnxrtRunner | EmulateRunner:
    """What computes in a format: between FP32 runtimes, ONNX Runtime without optimizations."""
    return OnnxrtRunner(optimization="disable") if fmt == "fp32" else EmulateRunner(format=fmt)


def healthy(network: Network) -> Iterator[list[object]]:
    """A row for each output and format of a healthy network."""
    for fmt in FORMATS:
        runners = [OnnxrtRunner(), candidate(fmt)]
        try:
            report = Comparator(network.proto, runners, data_loader=network.feeds).compare()
        except LayerdiffError as error:
            print(f"  {fmt}: {str(error).splitlines()[0][:150]}", file=sys.stderr)
            continue
        for output in report.outputs:
            yield [network.name, f"`{output.tensor}`", fmt.upper(), output.verdict, *_numbers(output)]


def on_real_inputs() -> Iterator[list[object]]:
    """A row for each trained network and format, and for each pair of files, of the output that takes most."""
    for network in trained.networks():
        try:
            files = trained.fetch(network.name)
        except trained.Unavailable as error:
            print(f"  {network.name}: {error}", file=sys.stderr)
            continue
        for fmt in FORMATS:
            yield from _worst(
                network.name,
                fmt,
                Comparator(files.model, [OnnxrtRunner(), candidate(fmt)], data_loader=as_source(files.data)),
            )
    for one, other in trained.PAIRS:
        try:
            mine, theirs = trained.fetch(one), trained.fetch(other)
        except trained.Unavailable:
            continue
        pair = Comparator(mine.model, [OnnxrtRunner()], candidate_model=theirs.model, data_loader=as_source(mine.data))
        yield from _worst(f"{one}, {other}", "fp32", pair)


def _worst(name: str, fmt: str, comparator: Comparator) -> Iterator[list[object]]:
    began = time.perf_counter()
    try:
        outputs = comparator.compare().outputs
    except LayerdiffError as error:
        print(f"  {name} {fmt}: {str(error).splitlines()[0][:150]}", file=sys.stderr)
        return
    if outputs:
        rank = {"pass": 0, "undecided": 1, "fail": 2}
        worst = max(outputs, key=lambda o: (rank.get(o.verdict, 3), o.use or 0.0))
        yield [name, len(outputs), fmt.upper(), worst.verdict, *_numbers(worst)]
        print(f"{name} {fmt}: {worst.verdict}, {time.perf_counter() - began:.0f} s", file=sys.stderr)


def _numbers(output: OutputResult) -> list[str]:
    expected, metrics = output.expected or {}, output.metrics or {}
    numbers = (metrics.get("rel_l2"), expected.get("rel_l2"), expected.get("rms_z"), output.use)
    return ["-" if n is None else f"{n:.2g}" for n in numbers]


def broken(network: Network, found: dict[str, Tally]) -> None:
    """Plants every fault and judges it, on the first sample, as an FP32 and an FP16 runtime's."""
    feeds = network.feeds[:1]
    for fault in faults(network.proto):
        tally = found[fault.kind]
        for fmt in JUDGED:
            effect = _effect(network, fault.proto, feeds, fmt)
            if effect is None:
                continue
            if effect <= SEEN:
                tally.drowned[fmt] += 1
                continue
            tally.planted[fmt] += 1
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
    from layerdiff.graph.load import load
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


TEXT = """\
Healthy networks: relative L2 error, the one that rounding is expected to make, the first over the second, and the
largest share of a limit that a statistic takes (1 is the limit).

{}

Trained networks on real inputs (`benchmarks/trained`), of each the output that takes most:

{}

Planted faults whose effect is more than {:.0f} times the expected noise somewhere in 64 neighbouring elements: {} of {}
are found in FP32, {} of {} in FP16. The others are drowned in rounding (a scale in front of a normalization, a bias of
1e-7, a dead channel, the same axis counted from the other end), and are no cases.

{}"""


def measure(quick: bool) -> str:
    """All tables."""
    rows: list[list[object]] = []
    found = {kind: Tally() for kind in KINDS}
    for network in chain(networks(light=not quick), small()):
        began = time.perf_counter()
        rows += healthy(network)
        broken(network, found)
        print(f"{network.name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    totals = [sum(getattr(t, what)[f] for t in found.values()) for f in JUDGED for what in ("found", "planted")]
    numbers = ["format", "verdict", "rel. L2", "expected", "ratio", "use"]
    used = table(["network", "output", *numbers], rows)
    real = table(["network", "outputs", *numbers], [] if quick else list(on_real_inputs()))
    kinds = [
        [kind, *(c for f in JUDGED for c in (t.planted[f], t.found[f], t.drowned[f]))] for kind, t in found.items()
    ]
    heads = [f"{what} {f.upper()}" for f in JUDGED for what in ("planted", "found", "drowned")]
    return TEXT.format(used, real, SEEN, *totals, table(["fault", *heads], kinds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the onnx package's and trained networks")
    parser.add_argument("--dry", action="store_true", help="print the tables, leave docs/tolerance.md alone")
    options = parser.parse_args()
    write_section(DOC, measure(options.quick), dry=options.dry)


if __name__ == "__main__":
    main()
