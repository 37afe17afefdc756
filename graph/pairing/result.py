"""What a matching of two graphs found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .differences import Difference


@dataclass(frozen=True)
class Region:
    """Nodes of the two graphs that do the same between matched tensors, in different ways.

    Attributes:
        nodes: Positions in the reference; empty where the candidate has something more.
        candidate_nodes: Positions in the candidate; empty where it has nothing there.
        inputs: Matched tensors that are read, as (reference, candidate).
        outputs: Matched tensors that are made, as (reference, candidate).
        fold: Whether the candidate's nodes are the reference's with constants multiplied out, or the reverse.
    """

    nodes: tuple[int, ...]
    candidate_nodes: tuple[int, ...]
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    fold: bool = False


@dataclass(frozen=True)
class Matching:
    """What corresponds in two graphs.

    Attributes:
        tensors: Reference tensor -> candidate tensor. Several may map to one (what the candidate leaves out).
        nodes: Position in the reference -> position in the candidate.
        unmatched_reference: Tensors of the reference that depend on its inputs and correspond to nothing.
        unmatched_candidate: The same for the candidate.
        differences: What differs between matched nodes without running them.
        regions: Where nodes do not correspond one to one, but the tensors around them do.
        ambiguous: Sets of tensors that structure and weights cannot tell apart; values at run time can.
    """

    tensors: Mapping[str, str]
    nodes: Mapping[int, int]
    unmatched_reference: tuple[str, ...] = ()
    unmatched_candidate: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    regions: tuple[Region, ...] = ()
    ambiguous: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()


def classes(left: Mapping[int, Any], right: Mapping[int, Any]) -> list[tuple[list[int], list[int]]]:
    """Nodes of both sides with equal keys."""
    a: dict[Any, list[int]] = {}
    b: dict[Any, list[int]] = {}
    for n, key in left.items():
        a.setdefault(key, []).append(n)
    for m, key in right.items():
        b.setdefault(key, []).append(m)
    return [(nodes, b[key]) for key, nodes in a.items() if key in b]


def compatible(a: Sequence[Any] | None, b: Sequence[Any] | None) -> bool:
    """Whether two shapes can be the same; unknown and symbolic dimensions can be anything."""
    if a is None or b is None:
        return True
    return len(a) == len(b) and all(
        not isinstance(x, int) or not isinstance(y, int) or x == y for x, y in zip(a, b, strict=True)
    )


def distance(a: Any, b: Any) -> float:
    """Greatest difference of two affine maps, relative to their greatest weight and greatest bias."""
    if a.weight.shape != b.weight.shape:
        return float("inf")
    largest = max(float(np.abs(a.weight).max(initial=0)), 1e-30)
    offset = max(float(a.scale.max(initial=0)), float(b.scale.max(initial=0)), 1e-30)
    return max(
        float(np.abs(a.weight - b.weight).max(initial=0)) / largest,
        float(np.abs(a.bias - b.bias).max(initial=0)) / offset,
    )
