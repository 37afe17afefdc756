"""Shapes that sessions on pieces must be ready for, where a runtime builds for shapes.

A piece's inputs are inner tensors, of which the first sample shows one shape. What other samples will bring follows
from the shapes of the model's inputs: each profile of the whole model becomes a profile of every piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ...graph.cutting.propagate import propagate
from ...runners.contract.workload import ShapeRange, Workload, seen_ranges

if TYPE_CHECKING:
    import numpy as np

    from ..sides import Side

Ranges = Mapping[str, ShapeRange]


def profiles_of(side: Side, workload: Workload) -> tuple[Ranges, ...]:
    """Shape ranges of all tensors of a side's model, a set for each profile of the whole model.

    Empty where its runner takes any shape, or where only one can come. A tensor whose shape does not follow from those
    of the inputs, or does not grow with them, is left out.
    """
    if not side.runner.capabilities.builds_for_shapes:
        return ()
    specs = {s.name: s for s in side.model.inputs}
    open_inputs = [n for n, s in specs.items() if s.shape is None or not all(isinstance(d, int) for d in s.shape)]
    if not open_inputs:
        return ()
    seen = seen_ranges(workload.samples(), open_inputs) if workload.samples is not None else {}
    sets = side.runner.engine_profiles(side.model) or workload.shape_sets
    inputs = [{n: shapes.get(n) or seen.get(n) for n in open_inputs} for shapes in sets]
    if any(r is None for ranges in inputs for r in ranges.values()):
        return ()
    known = [{n: r for n, r in ranges.items() if r is not None} for ranges in inputs]
    if len(known) == 1 and all(r.min == r.max for r in known[0].values()):
        return ()
    return tuple(_follow(side, ranges) for ranges in known)


def _follow(side: Side, inputs: Ranges) -> Ranges:
    low, best, high = (
        propagate(side.model, {name: getattr(r, which) for name, r in inputs.items()})
        for which in ("min", "opt", "max")
    )
    found = {}
    for name, least in low.items():
        usual, most = best[name], high[name]
        if least is None or usual is None or most is None or not len(least) == len(usual) == len(most):
            continue
        if all(a <= b <= c for a, b, c in zip(least, usual, most, strict=True)):
            found[name] = ShapeRange(least, usual, most)
    return found


def sets_for(feed: Mapping[str, np.ndarray], profiles: Iterable[Ranges], before: Iterable[Ranges]) -> list[dict]:
    """The sets of shape ranges to open a session with, so that it runs ``feed``.

    Args:
        feed: What it will be given first.
        profiles: What is known of the model's tensors.
        before: The sets that were not wide enough, where a session is opened anew.
    """
    sets: list[dict[str, ShapeRange]] = []
    for ranges in before or profiles or ({},):
        one = {}
        for name, array in feed.items():
            now = ShapeRange(array.shape, array.shape, array.shape)
            one[name] = ranges.get(name, now)
        if one not in sets:
            sets.append(one)
    if not any(fits(one, feed) for one in sets):
        sets = [{name: _widened(one[name], feed[name].shape) for name in one} for one in sets]
    return sets


def workload_of(feed: Mapping[str, np.ndarray] | None, sets: Sequence[Ranges]) -> Workload:
    """What a session is opened for.

    Args:
        feed: What it will be given first; None: that is not known yet.
        sets: See `sets_for`.
    """
    samples = None if feed is None else lambda: iter([feed])
    return Workload(samples=samples, shapes=sets[0], profiles=tuple(sets) if sets[1:] else ())


def fits(ranges: Ranges, feed: Mapping[str, np.ndarray]) -> bool:
    """Whether shapes lie in their ranges."""
    return all(
        len(r.min) == feed[name].ndim
        and all(a <= d <= c for a, d, c in zip(r.min, feed[name].shape, r.max, strict=True))
        for name, r in ranges.items()
        if name in feed
    )


def _widened(r: ShapeRange, shape: tuple[int, ...]) -> ShapeRange:
    if len(r.min) != len(shape):
        return ShapeRange(shape, shape, shape)
    return ShapeRange(tuple(map(min, r.min, shape)), r.opt, tuple(map(max, r.max, shape)))
