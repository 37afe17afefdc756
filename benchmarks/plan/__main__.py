"""Precision plans, measured: ``python -m benchmarks.plan`` writes the section *Measured* of docs/plan.md.

Without an accelerator: formats are emulated. Trained networks are downloaded as packages (``benchmarks.trained``).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Sequence

from benchmarks.kit.pages import DOCS, machine, table, write_section, written_by

from . import faults, small, trained
from .beside import Beside
from .running import Planned

PAGE = DOCS / "plan.md"
HEAD = ("case", "layers", "kept", "judged runs", "probes", "error before", "with the plan", "expected", "seconds")


def percent(error: float | None) -> str:
    """A relative error."""
    return "not finite" if error is None else f"{error:.2%}"


def row(found: Planned) -> tuple[object, ...]:
    """One plan, in the columns of `HEAD`."""
    plan = found.plan
    before = plan.before.relative if plan.before is not None else None
    if plan.status != "found" or plan.after is None or plan.predicted is None:
        return (found.name, plan.layers, plan.status, "", "", percent(before), "", "", f"{found.seconds:.0f}")
    minimal = "" if plan.minimal else " (not 1-minimal)"
    return (
        found.name,
        plan.layers,
        f"{len(plan.kept)}{minimal}",
        plan.runs,
        plan.probes,
        percent(before),
        percent(plan.after.relative),
        percent(plan.predicted.error),
        f"{found.seconds:.0f}",
    )


def exact() -> tuple[str, list[Planned]]:
    """Small networks beside the cheapest plan there is."""
    rows, plans, ratios = [], [], []
    for found, ratio, runs in small.measured():
        print(f"{found.name}: {ratio}", file=sys.stderr)
        plans.append(found)
        ratios += [] if ratio is None else [ratio]
        cost = "-" if ratio is None else f"{ratio:.2f}"
        rows.append((found.name, found.plan.layers, len(found.plan.kept), cost, found.plan.runs, runs))
    head = ("network", "layers", "kept", "cost, the least = 1", "judged runs", "runs of the exhaustive search")
    text = f"""### Beside the cheapest plan there is

Small chains of products with a planted weakness, or with half of the error that the format makes as the tolerance. The
exhaustive search runs sets of layers in the order of their cost until one passes. Cost kept over the least: median
{statistics.median(ratios):.2f}, at worst {max(ratios):.2f}.

{table(head, rows, numbers=True)}"""
    return text, plans


def planted() -> tuple[str, list[Planned]]:
    """Planted faults, beside another tool."""
    rows, plans = [], []
    for found, beside in faults.measured():
        print(f"{found.name}: {found.plan.status}, {beside}", file=sys.stderr)
        plans.append(found)
        rows.append((*row(found), *_beside(beside)))
    head = (*HEAD, "auto_mixed_precision: nodes kept", "runs", "error on a device")
    good = sum(p.plan.status == "found" for p in plans)
    minimal = sum(p.plan.minimal for p in plans)
    text = f"""### Planted faults, beside onnxconverter-common

The first emulated fault of each kind in each network of [faults.md](faults.md), FP16: overflow, underflow,
cancellation. {good} of {len(plans)} are fixed, {minimal} of the plans are 1-minimal. `auto_mixed_precision` of
onnxconverter-common is asked for the same networks, the first sample, and the error that passes here (1.6 %). It tries
its files on ONNX Runtime's CPU, which computes FP16 nodes in FP32: the last column is the error of its file where its
types are law.

{table(head, rows, numbers=True)}"""
    return text, plans


def _beside(found: Beside | None) -> tuple[object, ...]:
    if found is None:
        return ("", "", "")
    if found.kept is None:
        return ("crashed" if "crashed" in found.failure else "gave up", found.runs or "", "")
    return (found.kept, found.runs, percent(found.error))


def real() -> tuple[str, list[Planned]]:
    """Trained networks."""
    plans = []
    for found in trained.measured():
        print(f"{found.name}: {found.plan.status}, {found.seconds:.0f} s", file=sys.stderr)
        plans.append(found)
    text = f"""### Trained networks

On real inputs ([the collection](../benchmarks/trained)); in INT8 the tolerance is half of the largest difference
that INT8 makes at each output. Seconds are those of the whole command, layer by layer included.

{table(HEAD, [row(p) for p in plans], numbers=True)}"""
    return text, plans


def expected(plans: Sequence[Planned]) -> str:
    """How far expected errors are off the measured ones."""
    off = sorted(p.off for p in plans if p.off is not None)
    within = sum(o <= 1.5 for o in off)
    return (
        f"Over all of these plans, the error that was expected is within a factor of 1.5 of the measured one in "
        f"{within} of {len(off)}; the median is {statistics.median(off):.2f}, the worst {off[-1]:.1f}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parts = {"small": exact, "faults": planted, "trained": real}
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: all of {', '.join(parts)}")
    parser.add_argument("--dry", action="store_true", help="print the section instead of writing it")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(parts)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    warnings.simplefilter("ignore")
    texts, plans = [], []
    for name in arguments.parts or parts:
        text, found = parts[name]()
        texts.append(text)
        plans += found
    where = machine("onnx", "onnxruntime", "onnxconverter-common", "scipy")
    text = "\n\n".join([written_by("benchmarks.plan"), f"On {where}.", expected(plans), *texts])
    write_section(PAGE, text, dry=arguments.dry or bool(arguments.parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
