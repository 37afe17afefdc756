"""What the two graphs say: another attribute, other weights, another operator.

Looks at: the static differences of the layer's nodes (`graph.pairing`). Proves: together with a local error beyond the
noise, that the candidate was told to compute something else. A difference alone proves nothing: a weight that differs
by rounding may be all there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...graph.operators import AFFINE_PRODUCTS, AFFINE_STEPS, MOVEMENT, RESHAPES, operator
from ...graph.pairing.broadcasts import RunsOtherwise
from ...graph.pairing.changes import AttributeChange, OperatorChange, OtherInput, OtherInputs, Resized
from ...graph.pairing.constant_steps import OtherSteps
from ...graph.pairing.constants import constant_value, in_levels_of
from ...graph.pairing.differences import Difference, DifferenceKind
from ...graph.pairing.normal_form import inputs_alike
from ...graph.pairing.regions import PADDING
from ...graph.pairing.turned import turned
from ...graph.pairing.weight_changes import WeightChange, weight_change
from ...graph.pairing.weight_patterns import StoredScaled
from ...graph.printable import counted
from ...graph.specs import is_float
from ..report.model import Cause, Fact
from . import heads, permutation, same_functions, softmax_extent
from .case import DOMINANT, LayerCase, LoudLayer
from .diagnosis import Diagnosis
from .undoing import weights_stay

if TYPE_CHECKING:
    from ...graph.index import GraphIndex

EXPLAINS = 0.5
"""Share of a layer's error that a difference must make by itself, for it to be the cause."""
TOLD = 3
"""How many differences are told beside the first."""
_WEIGHT = {
    DifferenceKind.OPERATOR: 3,
    DifferenceKind.INPUTS: 2,
    DifferenceKind.ATTRIBUTE: 1,
    DifferenceKind.WEIGHTS: 0,
}
"""Which of several differences is told first: the one that nothing else in the layer can excuse."""
_CAUSES = {
    DifferenceKind.ATTRIBUTE: Cause.ATTRIBUTE,
    DifferenceKind.WEIGHTS: Cause.WEIGHTS,
    DifferenceKind.OPERATOR: Cause.WRONG_OP,
    DifferenceKind.INPUTS: Cause.WRONG_OP,
}


@dataclass(frozen=True)
class GraphsDiffer:
    """A difference between a node of the reference and its counterpart.

    Attributes:
        difference: What differs.
        node: Operator and name of the node, where it is not the one that is named as the culprit.
        weight: Which of the node's weights it is, where several differ: the name in the operator's schema.
    """

    difference: Difference
    node: str = ""
    weight: str = ""

    @property
    def text(self) -> str:
        """See `Fact`."""
        detail = f"{self.weight}: {self.difference.detail}" if self.weight else self.difference.detail
        return f"{self.node} too: {detail}" if self.node else detail


@dataclass(frozen=True)
class MoreDiffer:
    """Differences of a layer that are not told one by one.

    Attributes:
        count: How many.
        nodes: At how many nodes.
    """

    count: int
    nodes: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        what = counted(self.count, "more difference")
        return f"{what} at {counted(self.nodes, 'node')} of this layer"


def weights_read(graphs: tuple[GraphIndex, GraphIndex], found: Iterable[Difference]) -> dict[str, np.ndarray]:
    """What the candidate's nodes read at some differences in place of the reference's constants, by the names of
    these; numbers in the rank that they have there, and weights that one side transposes laid as they are there."""
    theirs: dict[str, np.ndarray] = {}
    for difference in found:
        place = graphs[0], difference.node, graphs[1], difference.candidate_node
        turns = turned(*place)
        for name, twin in inputs_alike(*place):
            own, other = (constant_value(index, n) for index, n in zip(graphs, (name, twin), strict=True))
            if own is not None and other is not None:
                other = in_levels_of(graphs[1], difference.candidate_node, other, own.dtype)
                other = other.T if twin == turns else other
                theirs[name] = other.reshape(own.shape) if own.size == other.size == 1 else other
    return theirs


def explained(case: LayerCase, made: np.ndarray) -> bool:
    """Whether most of a layer's error is no more, held against what the reference makes with the candidate's weights:
    of values that are finite on both sides."""
    if made.shape != case.y.shape or case.y.shape != case.c.shape:
        return False
    finite = np.isfinite(case.c) & np.isfinite(case.y)
    wide, narrow, weighted = (a[finite].astype(np.float64) for a in (case.y, case.c, made))
    return bool(np.linalg.norm(narrow - weighted) <= EXPLAINS * np.linalg.norm(narrow - wide))


def in_graphs(case: LayerCase) -> Diagnosis | None:
    """What the graphs say of a layer; None where they say the same."""
    found = case.differences
    if case.formats.quantized:  # within half a step, which the expected noise has
        found = tuple((p, d) for p, d in found if d.expected_by_format != "int8")
    return stated(case.graphs[0], found)


def resized(case: LayerCase) -> Diagnosis | None:
    """Operators that one graph alone has, behind which tensors have other sizes: all else that differs in a layer with
    them comes of that. Heads of another size are no matter of the operators before them."""
    found = [(p, d) for p, d in case.differences if isinstance(d.change, Resized)]
    told, index = stated(case.graphs[0], found), case.graphs[0]
    for position, change in ((p, d.change) for p, d in found if isinstance(d.change, Resized)):
        split = heads.of_shapes(change.shape, change.candidate_shape)
        if told is not None and split is not None and heads.attends(index, index.nodes[position].output):
            return replace(told, facts=(split,), candidate_node=None)
    return told


def beyond_formats(found: Iterable[tuple[int, Difference]]) -> tuple[tuple[int, Difference], ...]:
    """Without what is no more than weights that the candidate stores in another number format."""
    return tuple((position, difference) for position, difference in found if difference.expected_by_format is None)


def stated(index: GraphIndex, found: Sequence[tuple[int, Difference]]) -> Diagnosis | None:
    """What some differences come to, the first that is told first; None where there are none. Weights that are computed
    from what another one of them changes are not told beside it.

    Args:
        index: The reference's graph.
        found: Positions in it, and what differs there.
    """
    told = {p for p, _ in found}
    found = [(p, d) for p, d in found if d.origin in (None, p) or d.origin not in told]
    found = [(p, d) for p, d in found if not _stretched(index, p, d.change)]
    if not found:
        return None
    position, difference = max(found, key=lambda item: (_rank(index, *item), item[1].cut_off))
    rounded = _rounded(difference)
    others = [(p, d) for p, d in found if (d.cut_off or not difference.cut_off) and _rounded(d) <= rounded]
    named = position if difference.origin is None else difference.origin
    cause = _cause(index, named, difference)
    weight = _weight(difference, [d for p, d in found if p == position])
    first = Diagnosis(
        cause,
        (GraphsDiffer(difference, weight=weight),),
        named,
        clamped=difference.cut_off,
        candidate_node=difference.candidate_origin,
    )
    return with_others(first, index, others, position)


def _rounded(difference: Difference) -> bool:
    """Whether weights are rounded to another format, and no more."""
    return isinstance(difference.change, WeightChange) and difference.change.rounded


def _rank(index: GraphIndex, position: int, difference: Difference) -> int:
    """Which of several differences is told first: the greatest. Two ways to move data (a Split, and Slices) are the
    last, which says nothing of what they move. Other operators may compute the same; integers that are stored of other
    values are these, whatever reads them."""
    change = difference.change
    if isinstance(change, OperatorChange) and change.alone:
        return len(_WEIGHT) + 1
    if isinstance(change, WeightChange) and change.beyond_steps:
        return len(_WEIGHT)
    if _rounded(difference):
        return -1
    moves = operator(index.nodes[position]) in MOVEMENT
    if moves and isinstance(change, OperatorChange) and not change.alone:
        moves = {op for op, _ in (*change.reference, *change.candidate)} <= MOVEMENT
        return -1 if moves else _WEIGHT[difference.kind]
    unsaid = isinstance(change, AttributeChange) and None in (change.reference, change.candidate)
    return -1 if moves and unsaid else _WEIGHT[difference.kind]


def _stretched(index: GraphIndex, position: int, change: object) -> bool:
    """Whether one of two Reshapes has more axes, all of one element, which moves nothing: an Unsqueeze was merged."""
    if not isinstance(change, AttributeChange) or operator(index.nodes[position]) not in RESHAPES:
        return False
    sizes = change.reference, change.candidate
    if not all(isinstance(size, list) for size in sizes) or len(sizes[0]) == len(sizes[1]):
        return False  # among as many axes, a row may have become a column
    one, other = ([d for d in size if d != 1] for size in sizes)
    return one == other


def _weight(difference: Difference, beside: Sequence[Difference]) -> str:
    """The name of a weight as the operator's schema has it, where several of a node differ; else nothing."""
    weights = [d for d in beside if d.kind is DifferenceKind.WEIGHTS]
    if difference.read_as:
        return difference.read_as
    if difference.kind is not DifferenceKind.WEIGHTS or len(weights) < 2:
        return ""
    return difference.name.upper() if len(difference.name) == 1 else difference.name


def with_others(
    found: Diagnosis, index: GraphIndex, more: Iterable[tuple[int, Difference]], position: int = -1
) -> Diagnosis:
    """A diagnosis with what else differs, each at the node where it does; the one at ``position`` needs no name."""
    told = [fact.difference for fact in found.facts if isinstance(fact, GraphsDiffer)]
    more = list(more)
    others = []
    for p, difference in more:
        if not any(difference is one for one in told):
            told.append(difference)
            others.append((p, difference))
    facts: list[Fact] = []
    untold: list[int] = []
    for p, difference in others:
        node = "" if p == position else f"{index.nodes[p].op_type} {index.names[p]}"
        if node and sum(isinstance(fact, GraphsDiffer) and bool(fact.node) for fact in facts) >= TOLD:
            untold.append(p)
        else:
            weight = _weight(difference, [d for other, d in more if other == p])
            facts.append(GraphsDiffer(difference, node, weight))
    return found.adding(*facts, *([MoreDiffer(len(untold), len(set(untold)))] if untold else []))


def guilt(case: LayerCase) -> tuple[bool, bool, float]:
    """How guilty a node of a layer is: what differs in the graphs is the best evidence, another function before all
    else; then the greatest excess, the earlier node between equals."""
    return in_graphs(case) is not None, same_functions.replaced_by_others(case), case.judgement.excess


def of_loudest(layer: LoudLayer) -> Diagnosis | None:
    """What the graphs say of the layer that makes most of the error, be it no more than rounding may make there."""
    return layer.stated if layer.contribution >= DOMINANT else None


def _first(found: Diagnosis) -> Difference:
    """The difference that is told first."""
    first = found.facts[0]
    assert isinstance(first, GraphsDiffer)
    return first.difference


def _cause(index: GraphIndex, position: int, difference: Difference) -> Cause:
    op, made = index.nodes[position].op_type, index.specs.get(index.nodes[position].output[0])
    if difference.kind is DifferenceKind.WEIGHTS and op == "Loop" and difference.inside is None:
        return Cause.ATTRIBUTE
    if difference.kind is DifferenceKind.WEIGHTS and op in ("QuantizeLinear", "DequantizeLinear"):
        return Cause.QUANTIZATION
    if difference.cut_off:
        return Cause.OVERFLOW
    if isinstance(difference.change, OtherSteps):
        return Cause.WRONG_OP
    if isinstance(difference.change, RunsOtherwise):
        return Cause.LAYOUT
    if difference.of_one_value and op in ("Mul", "Div") and (made is None or is_float(made.dtype)):
        return Cause.SCALE
    return _CAUSES[difference.kind]


def find(case: LayerCase) -> Diagnosis | None:
    """An attribute or weights that differ, or inputs in another order, with what that did to the values.

    Weights that the candidate stores in a narrow format, and that differ by no more than that, are told last: what is
    beyond the noise of such a layer may be that the format cannot hold them.
    """
    found = stated(case.graphs[0], beyond_formats(case.differences))
    if found is None or _first(found).kind is DifferenceKind.OPERATOR or _makes_little(case, found):
        return None
    moved = permutation.find(case) if _first(found).kind is DifferenceKind.INPUTS else None
    return found if moved is None else replace(found.adding(*moved.facts), cause=moved.cause)


def of_stored_weights(case: LayerCase) -> Diagnosis | None:
    """Weights that a quantized file stores with another scale than theirs, where that alone explains the error.

    What a product makes of weights that are f times as large is f times as large: the error of the layer is |f - 1|,
    relative to its output, and in proportion to the root of how many channels have a factor.
    """
    found = [(p, d) for p, d in case.differences if (scaled := d.stored_scaled) and _moves(scaled, case)]
    return None if weights_stay(case, (d for _, d in found)) else stated(case.graphs[0], found)


def _makes_little(case: LayerCase, found: Diagnosis) -> bool:
    """Whether what is told first are weights, and all that differ in a layer make little of its error."""
    return _first(found).kind is DifferenceKind.WEIGHTS and weights_stay(case, (d for _, d in case.differences))


def _moves(scaled: StoredScaled, case: LayerCase) -> bool:
    share = 1.0 if scaled.axis is None else scaled.count / scaled.channels
    moved = abs(scaled.factor - 1) * share**0.5
    return case.judgement.reason == "slice" or moved > EXPLAINS * case.judgement.relative


def of_constant(case: LayerCase) -> Diagnosis | None:
    """Another value of a constant that the graphs give as an output, such as the classes behind a ZipMap."""
    names = case.tensor, case.twin
    node, other = (index.producer[name] for index, name in zip(case.graphs, names, strict=True))
    if {case.graphs[0].nodes[node].op_type, case.graphs[1].nodes[other].op_type} != {"Constant"}:
        return None
    change = weight_change(case.y, case.c)
    if change is None:
        return None
    change = replace(change, noun="values")  # of no product
    return Diagnosis(Cause.WEIGHTS, (GraphsDiffer(Difference(node, other, change)),))


def other_operator(case: LayerCase) -> Diagnosis | None:
    """An operator that differs, or weights in another format, where the values do not tell what that comes to."""
    found = in_graphs(case)
    if found is None or _makes_little(case, found):
        return None
    told = (softmax_extent.find(case) or same_functions.find(case)) if found.cause is Cause.WRONG_OP else None
    return found if told is None else found.adding(told)


def moved_by_another(case: LayerCase) -> Diagnosis | None:
    """Another operator that puts the same values in other places, by more than an exchange of axes; or one that one
    graph alone has, which computes what happens to be that: the other sign of what is symmetric."""
    moved = permutation.find(case) if replaced(case) or moves_alone(case) or _computes_alone(case) else None
    if moved is not None and not replaced(case) and not moves_alone(case):
        return in_graphs(case)
    found = None if moved is None else in_graphs(case)
    if found is None or moved is None:
        return None
    first = _first(found)
    if permutation.axes_exchanged(case, moved):  # by what moves them, where that is all that either side does
        told = replace(found.adding(*moved.facts), cause=moved.cause)
        return told if _moves_otherwise(first.change) else None
    alone = isinstance(first.change, OperatorChange) and not first.change.reference
    return replace(found.adding(*moved.facts), candidate_node=first.candidate_node if alone else None)


def _moves_otherwise(change: object) -> bool:
    """Whether both sides move data, with other operators."""
    if not isinstance(change, OperatorChange) or change.alone:
        return False
    return {op for op, _ in (*change.reference, *change.candidate)} <= MOVEMENT


def reads_another(found: Diagnosis | None) -> bool:
    """Whether a diagnosis says that a node reads another tensor than in the first file, which tells more than values;
    not that it reads others throughout, as nodes do that are exchanged."""
    facts = () if found is None else found.facts
    stated = (f.difference for f in facts if isinstance(f, GraphsDiffer))
    return any(d.kind is DifferenceKind.INPUTS and not isinstance(d.change, OtherInputs) for d in stated)


def replaced(case: LayerCase) -> bool:
    """Whether the graphs say that both sides compute a layer, with other operators."""
    changes = (d.change for _, d in case.differences if isinstance(d.change, OperatorChange))
    return any(not change.alone for change in changes)


def _computes_alone(case: LayerCase) -> bool:
    """Whether the graphs say that one of them alone has an operator that does more than to move values."""
    changes = (d.change for _, d in case.differences if isinstance(d.change, OperatorChange))
    return any(op not in MOVEMENT for change in changes for op, _ in change.alone)


def moves_alone(case: LayerCase) -> bool:
    """Whether the graphs say that one of them alone has operators in a layer, and all that these do is to move data."""
    if case.pair.random or case.pair.drawn:
        return False
    changes = [d.change for _, d in case.differences if isinstance(d.change, OperatorChange)]
    return bool(changes) and all(change.alone and {op for op, _ in change.alone} <= MOVEMENT for change in changes)


def joined(diagnoses: Mapping[int, Diagnosis]) -> dict[int, list[int]]:
    """Layers that read one tensor in place of another one, or the reverse, or all lack one Pad: one fault, at the first
    of them.

    Args:
        diagnoses: What was found of guilty layers, by their numbers.

    Returns:
        The first, and the others.
    """
    found: dict[frozenset[str], list[int]] = {}
    for number in sorted(diagnoses):
        first = next(iter(diagnoses[number].facts), None)
        change = first.difference.change if isinstance(first, GraphsDiffer) else None
        if isinstance(change, OtherInput):
            found.setdefault(frozenset((change.candidate, change.meant)), []).append(number)
        elif isinstance(change, OtherInputs) and len(change.others) == 2:
            found.setdefault(change.others, []).append(number)
        elif isinstance(change, AttributeChange) and change.name == PADDING:
            found.setdefault(frozenset(change.given), []).append(number)
    return {first: others for first, *others in found.values() if others}


def other_operators(case: LayerCase) -> tuple[GraphsDiffer, ...]:
    """What the graphs say of operators that one of them alone has, or has in place of others."""
    return tuple(GraphsDiffer(d) for _, d in case.differences if isinstance(d.change, OperatorChange))


def replaces_scaling(case: LayerCase) -> bool:
    """Whether the graphs say that another operator stands there, and not one whose absence is a matter of scale."""
    found = in_graphs(case)
    change = None if found is None else _first(found).change
    if found is None or not isinstance(change, OperatorChange):
        return False
    if (
        same_functions.replaced_by_others(case)
        or change.in_another_order
        or not {op for op, _ in change.alone} <= AFFINE_STEPS
    ):
        return True
    index = case.graphs[0]
    node = index.nodes[case.pair.main if found.node is None else found.node]
    constant = any(index.weight(name) is not None for name in node.input if name)
    products = AFFINE_PRODUCTS - {"ConvTranspose"}
    return not (node.op_type in products or (constant and node.op_type in AFFINE_STEPS))
