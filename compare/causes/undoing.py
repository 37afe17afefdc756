"""Does a layer's error go away where a difference of the two files is undone? What differs need not be what is wrong: a
bias a few steps off makes next to nothing of the error of a layer whose input is cut off.

The candidate computes the layer once more, from the same values, with other constants, and is judged anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.slices import with_weights
from ...graph.operators import AFFINE_STEPS, operator
from ...graph.pairing.constants import constant_value, in_levels_of
from ...graph.pairing.differences import Difference, DifferenceKind
from ...graph.pairing.normal_form import inputs_alike
from ...graph.pairing.turned import turned
from ...graph.specs import is_float
from .case import LayerCase
from .ranges import format_loss

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.model import Model
    from ...graph.specs import Arrays

LEFT = 0.7
"""Share of a layer's error from which on most of it is left: half of its power."""


def stays(case: LayerCase, others: Arrays) -> bool | None:
    """Whether most of a layer's error is left where the candidate has other constants; None where it cannot be told.

    Args:
        case: The layer.
        others: The constants, by the candidate's names.
    """
    fmt = case.formats.narrow
    given = (case.values[n] for n in case.pair.reference.inputs if n in case.values)
    if not others or (fmt is not None and any(format_loss(value, fmt) == "overflow" for value in given)):
        return None  # what the candidate cannot be given tells nothing of its constants
    found = case.judged_with(partial(with_constants, others=others))
    return None if found is None else found.exceeds_noise and not found.relative <= LEFT * case.judgement.relative


def weights_stay(case: LayerCase, found: Iterable[Difference]) -> bool:
    """Whether weights that differ are known to make little of a layer's error: most of it is left where the candidate
    has the reference's."""
    weights = [d for d in found if d.kind is DifferenceKind.WEIGHTS]
    others = None if _folds(case) else _references(case, weights)
    return others is not None and stays(case, others) is True


def _folds(case: LayerCase) -> bool:
    """Whether one of the files has a normalization of fixed statistics that the other has in its weights."""
    parts = zip(case.graphs, (case.pair.reference, case.pair.candidate), strict=True)
    counts = [sum(_fixed(index, p) for p in part.nodes) for index, part in parts]
    return counts[0] != counts[1]


def _fixed(index: GraphIndex, position: int) -> bool:
    """Whether a node scales or shifts what it reads by constants: the product of two branches does not."""
    node = index.nodes[position]
    return operator(node) in AFFINE_STEPS and any(constant_value(index, name) is not None for name in node.input)


def _references(case: LayerCase, found: Iterable[Difference]) -> Arrays | None:
    """The reference's constants at some differences, by the candidate's names; None where they do not correspond one by
    one (another shape, or what was folded in), where the candidate's types do not hold them, and where the graphs have
    the same: it is a program that has others than its export."""
    others: dict[str, np.ndarray] = {}
    differ = False
    for n, m in dict.fromkeys((d.node, d.candidate_node) for d in found):
        place = case.graphs[0], n, case.graphs[1], m
        before, turns = len(others), turned(*place)
        for name, twin in inputs_alike(*place):
            mine, theirs = (constant_value(index, n) for index, n in zip(case.graphs, (name, twin), strict=True))
            if mine is None or theirs is None:
                continue
            mine = in_levels_of(case.graphs[0], n, mine, theirs.dtype)
            mine = mine.T if twin == turns else mine
            if mine.size != theirs.size or (mine.shape != theirs.shape and mine.size > 1):
                return None
            if is_float(mine.dtype) != is_float(theirs.dtype):  # a table of integers, whose rows are scaled behind it
                return None
            with np.errstate(over="ignore"):
                others[twin] = mine.reshape(theirs.shape).astype(theirs.dtype)
            if is_float(theirs.dtype) and not np.isfinite(others[twin]).all():
                return None
            differ = differ or not np.array_equal(others[twin], theirs)
        if len(others) == before:
            return None
    return others if differ else None


def with_constants(part: Model, others: Arrays) -> Model | None:
    """A piece of a graph with other constants; None where it does not have all of them.

    Args:
        part: The piece.
        others: The constants, by name.
    """
    graph = part.proto.graph
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    made = {name for node in graph.node if len(node.output) == 1 for name in node.output}
    known = all(name in made or shapes.get(name) == value.shape for name, value in others.items())
    return with_weights(part, others) if known else None
