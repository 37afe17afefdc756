"""Outputs that rounding changes by jumps: what a network decides, and what it picks by such decisions.

An ArgMax, a TopK, a comparison, a Cast to integers, a quantizer give the same result until rounding carries a value
over an edge, and then another one altogether. No error is expected of them; but where the network with random roundings
(`graph.rounding.random_rounding`) decides otherwise, a candidate may decide otherwise, too. So a place may differ if it
differs in some of the draws, and if some of the draws gave its value there. What was computed exactly from exact values
differs in none of them. Draws differ from what their own network gives without noise: that need not be the reference,
of whose network nothing may be known.

The draws are made with roundings twice as large as expected (`DECISION_GAIN`): few draws of the right size would miss
edges that a candidate may cross.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ...graph.cutting.fusion import static_tensors
from ...graph.nodes import attribute_string, subgraphs
from ...graph.operators import CASTS, CONTRIB_DOMAIN, JUMPS, LOOKUPS, NUMERIC, PICKS, QUANTIZERS, SCORES, operator
from ...graph.specs import is_float

if TYPE_CHECKING:
    from ...graph.index import GraphIndex

DECISION_GAIN = 2.0
"""By how much roundings are enlarged where a network decides."""
JUMP = 8.0
"""Standard deviations from which on a value has jumped."""
SPARE = 0.02
"""Of the places that differ in a typical draw, how many may differ elsewhere: draws are few."""
STEPS = 32
"""Unit roundoffs of a number that it may be off by where it is rounded to an integer."""
TYPICAL = 3.0
"""Times the most places that differ in a draw, how many may differ in a candidate."""


def jumping_tensors(index: GraphIndex) -> frozenset[str]:
    """Tensors of a graph that rounding may change by a jump."""
    static = static_tensors(index)
    found: set[str] = set()
    for position, node in enumerate(index.nodes):
        reads = [n for n in index.reads[position] if n not in static]
        if any(n in found for n in reads) or _jumps(node, index, reads):
            values_alone = node.op_type == "TopK" and not any(n in found for n in reads)
            found.update(name for name in node.output[1 if values_alone else 0 :] if name)
        elif node.op_type == "MaxPool" and reads:
            found.update(name for name in node.output[1:] if name)
    return frozenset(found)


def numbers(index: GraphIndex) -> frozenset[str]:
    """Tensors of a graph that are numbers: floats, and integers that floats are rounded to (pixels, counts).

    What chooses, tells places, or is looked up at places that floats decide, is none: there a small difference is no
    better than a large one.
    """
    static = static_tensors(index)
    picked: set[str] = set()
    rounded: set[str] = set()
    for position, node in enumerate(index.nodes):
        reads, op = [n for n in index.reads[position] if n not in static], operator(node)
        looks_up = op in LOOKUPS and any(n in rounded for n in node.input[op != "OneHot" : 2])
        if op in PICKS or looks_up or any(n in picked for n in reads):
            own = not any(n in picked for n in reads)
            picked.update(node.output[own and op == "TopK" : 1 if own and op in SCORES else None])
        elif op in CASTS | QUANTIZERS and reads and (_is_float(index, reads[0]) or reads[0] in rounded):
            rounded.update(node.output[:1])
        elif op in NUMERIC and reads and all(n in rounded for n in reads):
            rounded.update(node.output)
    integers = {name for name in rounded if name in index.specs and index.specs[name].dtype.kind in "iu"}
    floats = {name for name, spec in index.specs.items() if is_float(spec.dtype)}
    return frozenset((floats | integers) - picked)


def _is_float(index: GraphIndex, name: str) -> bool:
    return name in index.specs and is_float(index.specs[name].dtype)


def _jumps(node: onnx.NodeProto, index: GraphIndex, reads: Sequence[str]) -> bool:
    if any(_inside(inner) for body in subgraphs(node) for inner in body.node):
        return True
    if node.op_type == "GridSample" and attribute_string(node, "mode", "linear") != "nearest":
        return False
    if operator(node) in JUMPS or (node.domain == CONTRIB_DOMAIN and node.op_type.startswith(("Q", "Dynamic"))):
        return any(name not in index.specs or is_float(index.specs[name].dtype) for name in reads)
    if node.op_type in ("Cast", "CastLike"):
        made = index.specs.get(node.output[0])
        return (
            made is not None
            and not is_float(made.dtype)
            and any(name not in index.specs or is_float(index.specs[name].dtype) for name in reads)
        )
    return False


def _inside(node: onnx.NodeProto) -> bool:
    return operator(node) in JUMPS or any(_inside(inner) for body in subgraphs(node) for inner in body.node)


@dataclass(frozen=True)
class Decisions:
    """Places of one sample that differ, held against draws.

    Attributes:
        different: How many differ.
        unexplained: How many of them differ in no draw, beyond what may be by chance; of a count that no draw comes
            near, all.
        unseen: How many others have a value there that no draw gave.
        expected: How many differ in a typical draw.
        first: Position of the first unexplained or unseen place in C order; -1 without one.
    """

    different: int
    unexplained: int = 0
    unseen: int = 0
    expected: float = 0.0
    first: int = -1


def hold_decisions(
    reference: np.ndarray, candidate: np.ndarray, draws: Sequence[np.ndarray], base: np.ndarray | None = None
) -> Decisions:
    """Holds integers, booleans or strings against draws of the same shape.

    Args:
        reference, candidate: The outputs.
        draws: What the network with random roundings gave.
        base: What that network gives without noise, of the same shape; None: the reference.
    """
    y, c = reference.reshape(-1), candidate.reshape(-1)
    b = y if base is None else base.reshape(-1)
    places = np.flatnonzero(y != c)
    if not len(places):
        return Decisions(0)
    seen = np.array([d.reshape(-1)[places] for d in draws]) if draws else np.empty((0, len(places)), y.dtype)
    moved = seen != b[places]
    given = np.ones(len(places), bool)
    for side in (y[places], c[places]):
        given &= (side == b[places]) | (seen == side).any(axis=0)
    # where draws hardly agree with each other, many values are possible that few draws do not give
    alternatives = np.array([len(np.unique(column)) for column in seen.T]) if seen.size else np.zeros(len(places))
    given |= 3 * alternatives > len(draws)
    counts = [int(np.count_nonzero(d.reshape(-1) != b)) for d in draws]
    return _decided(places, moved.any(axis=0), given, counts)


def _decided(places: np.ndarray, moved: np.ndarray, given: np.ndarray, counts: Sequence[int]) -> Decisions:
    expected, most = float(np.mean(counts)) if counts else 0.0, max(counts, default=0)
    unmoved = np.flatnonzero(~moved)
    by_chance = int(SPARE * expected)
    unexplained = max(0, len(unmoved) - by_chance)
    if len(places) > TYPICAL * most + 2:
        unexplained = len(places)
        unmoved = np.arange(len(places))
    unseen = np.flatnonzero(moved & ~given)
    first = unmoved if unexplained else unseen
    return Decisions(len(places), unexplained, len(unseen), expected, int(places[first[0]]) if len(first) else -1)


def relative_error(reference: np.ndarray, candidate: np.ndarray, u: float) -> float:
    """The relative L2 error of numbers, some of which have jumped.

    Of integers it is infinite where more of them differ than roundings explain that are `STEPS` unit roundoffs wide:
    then values lie at the edges between integers.
    """
    y, c = reference.reshape(-1).astype(np.float64), candidate.reshape(-1).astype(np.float64)
    finite = np.isfinite(y) & np.isfinite(c)
    y, error = y[finite], c[finite] - y[finite]
    size, different = float(np.linalg.norm(y)), np.count_nonzero(error)
    if not different:
        return 0.0
    many = different > STEPS * u * size * math.sqrt(y.size)  # the root mean square, times how many there are
    return math.inf if not size or (many and not is_float(reference.dtype)) else float(np.linalg.norm(error)) / size


def hold_jumps(
    error: np.ndarray, draws: np.ndarray, floor: np.ndarray | float
) -> tuple[Decisions, np.ndarray, np.ndarray]:
    """Separates jumps of floating-point values from their noise, in a candidate and in draws.

    Args:
        error: Candidate minus reference.
        draws: Errors of draws, ``(D, *shape)``.
        floor: Standard deviation of what no draw shows.

    Returns:
        The jumps held against the draws', and error and draws with zeros where draws jump too.
    """
    e, d = error.reshape(-1), draws.reshape(len(draws), -1)
    # half of the draws may jump at a place before their median does
    usual = np.median(np.abs(d), axis=0) / 0.6745
    usual = np.maximum(usual, np.broadcast_to(floor, error.shape).reshape(-1))
    edge = JUMP * np.maximum(usual, 1e-300)
    jumped = np.abs(d) > edge
    places = np.flatnonzero(np.abs(e) > edge)
    given = (np.abs(e[places] - d[:, places]) <= edge[places]).any(axis=0) if len(places) else np.zeros(0, bool)
    many = np.count_nonzero(jumped[:, places], axis=0) > len(draws) / 2
    moved = jumped[:, places].any(axis=0)
    # what jumps where no draw does stays in the error, and is held against its noise
    found = _decided(places[moved], moved[moved], (given | many)[moved], [int(j.sum()) for j in jumped])
    calm = e.copy()
    calm[places[moved]] = 0.0
    return found, calm.reshape(error.shape), np.where(jumped, 0.0, d).reshape(draws.shape)
