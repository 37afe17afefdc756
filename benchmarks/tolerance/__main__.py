"""Measures the automatic tolerance on healthy and on broken networks: ``python -m benchmarks.tolerance``.

``--quick`` leaves out the onnx package's networks (half a minute instead of ten). The tables go into
docs/tolerance.md, between the two marks there; ``--dry`` prints them instead.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass, field

from layerdiff import EmulateRunner, LayerdiffError, Model
from layerdiff.compare.outputs.tolerance import Depth, Tolerance, automatic, depths
from layerdiff.graph.formats import BF16, FP16, FP32, TF32, NumberFormat
from layerdiff.graph.index import GraphIndex

from benchmarks.kit.pages import DOCS, table, write_section

from .faults import KINDS, faults
from .networks import Network, networks
from .running import run
from .shares import DROWNED, Behind, Outputs, off, use
from .small import exact, small

DOC = DOCS / "tolerance.md"
EMULATED = (TF32, FP16, BF16)


@dataclass
class Healthy:
    """One output of a healthy network."""

    network: str
    output: str
    shape: tuple[int, ...]
    depth: Depth
    uses: dict[str, str] = field(default_factory=dict)


@dataclass
class Tally:
    """What became of the faults of one kind."""

    planted: int = 0
    broken: dict[str, int] = field(default_factory=dict)
    drowned: int = 0
    least: float = math.inf


def show(value: float, tolerance: Tolerance) -> str:
    """A share, or why there is none."""
    return f"{value:.2f}" if tolerance.decidable else f"undecided (t = {tolerance.t:.2f}, used {value:.2f})"


def healthy(
    network: Network, index: GraphIndex, deep: dict[str, Depth], reference: Outputs, behind: Behind
) -> list[Healthy]:
    """What each output of a healthy network uses, format by format."""
    rows = {n: Healthy(network.name, n, v.shape, deep.get(n, Depth())) for n, v in reference[0].items()}
    for fmt in (FP32, *EMULATED):
        try:
            candidate = run(network.proto, network.feeds, optimize=True) if fmt is FP32 else emulate(network, fmt)
        except LayerdiffError as error:
            print(f"  {fmt}: {str(error).splitlines()[0][:150]}", file=sys.stderr)
            for row in rows.values():
                row.uses[fmt.name] = "not run"
            continue
        for name, row in rows.items():
            tolerance = automatic(index, name, [FP32, fmt], reference[0][name].dtype, depths=deep)
            most = use(reference, candidate, name, tolerance, behind)
            row.uses[fmt.name] = show(most, tolerance)
            if most > 1:
                row.uses[fmt.name] += f" (off by {off(reference, candidate, name):.2g})"
    return list(rows.values())


def emulate(network: Network, fmt: NumberFormat) -> Outputs:
    """The network in another format."""
    with EmulateRunner(format=fmt.name).open(Model(network.proto)) as session:
        return [session.infer(feed) for feed in network.feeds]


def broken(
    network: Network,
    index: GraphIndex,
    deep: dict[str, Depth],
    reference: Outputs,
    behind: Behind,
    found: dict[str, Tally],
) -> None:
    """Plants every fault, judges the outputs of the first sample as those of an FP32, FP16 and BF16 runtime."""
    feeds, reference = network.feeds[:1], reference[:1]
    rules = {
        fmt: {n: automatic(index, n, [FP32, fmt], v.dtype, depths=deep) for n, v in reference[0].items()}
        for fmt in (FP32, FP16, BF16)
    }
    noise = run(network.proto, feeds, optimize=True)
    for fault in faults(network.proto):
        tally = found[fault.kind]
        try:
            changed = run(fault.proto, feeds)
            candidate = run(fault.proto, feeds, optimize=True)
        except Exception as error:  # the fault made a graph that ONNX Runtime refuses: no case
            print(f"  {fault.kind} at {fault.node}: {str(error).splitlines()[0][:120]}", file=sys.stderr)
            continue
        most = {
            fmt: max(use(reference, candidate, n, rule, behind) for n, rule in of.items()) for fmt, of in rules.items()
        }
        effect = max(use(reference, changed, n, rule, behind) for n, rule in rules[FP32].items())
        rounding = max(use(reference, noise, n, rule, behind) for n, rule in rules[FP32].items())
        if effect <= DROWNED * rounding:
            tally.drowned += 1
            continue
        tally.planted += 1
        tally.least = min(tally.least, most[FP32])
        for fmt, value in most.items():
            tally.broken[fmt.name] = tally.broken.get(fmt.name, 0) + (value > 1)
        if most[FP32] <= 1:
            print(f"  passes: {fault.kind} at {fault.node}: uses {most[FP32]:.2f}", file=sys.stderr)


def asking(network: Network) -> list[str]:
    """What a network with small outputs uses: by its values alone where those suffice, else also by its terms."""
    index, deep, reference, behind = known(network)
    cells = []
    candidates: list[tuple[NumberFormat, Outputs]] = [
        (FP32, run(network.proto, network.feeds, optimize=True)),
        (FP32, exact(network)),
        *((fmt, emulate(network, fmt)) for fmt in EMULATED),
    ]
    for fmt, candidate in candidates:
        tolerance = automatic(index, "y", [FP32, fmt], reference[0]["y"].dtype, depths=deep)
        own = use(reference, candidate, "y", tolerance, None)
        by_terms = use(reference, candidate, "y", tolerance, behind, always=True)
        cell = f"{own:.2f}" if own <= 1 else f"{own:.3g} → {by_terms:.2g}"
        cells.append(cell if min(own, by_terms) <= 1 else f"{cell} (off by {off(reference, candidate, 'y'):.2g})")
    return cells


HEALTHY = """\
Healthy networks: the greatest share of the tolerance that an element uses (1 is the limit). Where it is more, the
format is too coarse for what is left of the output, and the relative L2 error of the worst sample follows.

{}

Planted faults: {} of {} break the FP32 tolerance. {} more changed the outputs by less than
{:.0f} times what a second FP32 run does (*drowned*: a scale in front of a normalization, a bias of 1e-7, a dead
channel, the same axis counted from the other end), and are no cases.

{}"""
SMALL = """\
Networks whose outputs are smaller than the terms they are made of, without a fault. Where two numbers stand, the first
is what an element uses by its own scale, the second what it uses by the size of its terms; where that is more than 1,
terms do not count for as much as rounding does, and the relative L2 error of the worst sample follows. *FP32* is ONNX
Runtime with all optimizations, *FP32 against FP64* the same network computed in FP64.

{}

The faults above, planted in these: {} of {} break the FP32 tolerance; {} more are
drowned."""


def measure(quick: bool) -> str:
    """All tables."""
    rows: list[Healthy] = []
    found = {kind: Tally() for kind in KINDS}
    for network in networks(light=not quick):
        began = time.perf_counter()
        index, deep, reference, behind = known(network)
        rows += healthy(network, index, deep, reference, behind)
        broken(network, index, deep, reference, behind, found)
        print(f"{network.name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    used = HEALTHY.format(healthy_table(rows), *totals(found), DROWNED, faulty_table(found))
    asked = table(
        ["network", "FP32", "FP32 against FP64", *(f.name.upper() for f in EMULATED)],
        [[n.name, *asking(n)] for n in small()],
    )
    more = {kind: Tally() for kind in KINDS}
    for network in small():
        broken(network, *known(network), more)
    return f"{used}\n\n{SMALL.format(asked, *totals(more))}"


def known(network: Network) -> tuple[GraphIndex, dict[str, Depth], Outputs, Behind]:
    """The index, depths and FP32 outputs of a network, and the sizes of the terms of its outputs."""
    index, reference = GraphIndex(network.proto), run(network.proto, network.feeds)
    return index, depths(index), reference, Behind(network, index, reference)


def healthy_table(rows: list[Healthy]) -> str:
    """Outputs, and what they use in each format."""
    formats = [f.name for f in (FP32, *EMULATED)]
    return table(
        ["network", "output", "shape", "depth", "terms", *(f.upper() for f in formats)],
        [
            [r.network, f"`{r.output}`", "x".join(map(str, r.shape)), int(r.depth), f"{r.depth.terms:.0f}"]
            + [r.uses[f] for f in formats]
            for r in rows
        ],
    )


def faulty_table(found: dict[str, Tally]) -> str:
    """Kinds of faults, and how many of each break what a format allows."""
    return table(
        ["fault", "planted", "break FP32", "least use in FP32", "break FP16", "break BF16", "drowned"],
        [
            [kind, t.planted, t.broken.get("fp32", 0), f"{t.least:.3g}" if t.planted else "-"]
            + [t.broken.get(f, 0) for f in ("fp16", "bf16")]
            + [t.drowned]
            for kind, t in found.items()
        ],
    )


def totals(found: dict[str, Tally]) -> tuple[int, int, int]:
    """Faults that break the FP32 tolerance, all that were planted, and those that drowned."""
    tallies = found.values()
    return tuple(sum(n) for n in zip(*((t.broken.get("fp32", 0), t.planted, t.drowned) for t in tallies), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the onnx package's networks")
    parser.add_argument("--dry", action="store_true", help="print the tables, leave docs/tolerance.md alone")
    options = parser.parse_args()
    write_section(DOC, measure(options.quick), dry=options.dry)


if __name__ == "__main__":
    main()
