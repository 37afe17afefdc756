"""Beside a constant that is too small for a format: which tensors before it the format loses values of, too.

A floor or an epsilon stands where values may be next to nothing, and what makes them has rounded them already. Of each
layer it is known how the values that it makes lie (`statistics.portrait`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..causes.given import BecomesZero
from ..causes.underflow import LostBefore, SmallConstant

if TYPE_CHECKING:
    from ...graph.formats import NumberFormat
    from ...graph.index import GraphIndex
    from ..causes.diagnosis import Diagnosis
    from .observation import LayerObservation

FEWEST = 0.01
"""Share of a tensor's values from which on it is not by chance that they are small."""
MOST = 8
"""Most tensors that are told."""


def told(
    culprits: Sequence[LayerObservation], layers: Sequence[LayerObservation], index: GraphIndex
) -> list[LayerObservation]:
    """Culprits, those that hold a constant too small for a format with the tensors that are lost before it.

    Args:
        culprits: The culprits.
        layers: What was seen of all layers.
        index: The reference's graph.
    """
    makers = {name: s for s in layers for name in s.pair.reference.outputs}
    return [s if s.diagnosis is None else _told(s, s.diagnosis, makers, index) for s in culprits]


def _told(
    s: LayerObservation, diagnosis: Diagnosis, makers: Mapping[str, LayerObservation], index: GraphIndex
) -> LayerObservation:
    small = next((fact for fact in diagnosis.facts if isinstance(fact, SmallConstant | BecomesZero)), None)
    lost = [] if small is None else list(_before(s, makers, small.format))[:MOST]
    if small is None or not lost:
        return s
    lost.sort(key=lambda one: one[0].number)
    nodes = tuple(index.names[maker.pair.main] for maker, _ in lost)
    fact = LostBefore(small.format, nodes, tuple(name for _, name in lost))
    return replace(s, diagnosis=diagnosis.adding(fact))


def _before(
    s: LayerObservation, makers: Mapping[str, LayerObservation], fmt: NumberFormat
) -> Iterator[tuple[LayerObservation, str]]:
    """The layers before one, and what they make that a format loses values of, as far back as each is made of such."""
    waiting, seen = [s], set[str]()
    while waiting:
        for name in waiting.pop(0).pair.reference.inputs:
            maker = makers.get(name)
            if name not in seen and maker is not None and loses(maker.portraits.get(name), fmt):
                seen.add(name)
                waiting.append(maker)
                yield maker, name


def loses(portrait: Mapping[str, Any] | None, fmt: NumberFormat) -> bool:
    """Whether a format loses values of a tensor that has none below zero: probabilities, powers. Of what has both
    signs, a few values are small by chance.

    Args:
        portrait: How its values lie; see `distribution`.
        fmt: The format.
    """
    if not portrait or fmt.is_integer:
        return False
    side = portrait["sides"]["reference"]
    least = math.frexp(fmt.smallest_normal)[1] - 1
    small = sum(count for exponent, count in side["magnitudes"].items() if int(exponent) < least)
    return not side["negative"] and small > FEWEST * side["elements"]
