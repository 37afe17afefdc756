"""Which tensor of one graph is which tensor of another, when names, order, folds, casts and opsets differ.

Every node gets two labels: one hashed from what lies before it, one from what lies behind it. Nodes whose labels are
equal and unique are matched; a matched node then passes its own identity on instead of a hash, so that a fault breaks
the labels around itself and nowhere else, and the labels are computed again until nothing new is found. This is done
first on a skeleton (products, recurrences, joins), in which whatever has a single source of data is invisible: folded
normalizations, other ways to write an activation, inserted casts and transpositions; then on all nodes. Names come
before structure where structure does not contradict them; weights' values break ties; what is still tied stays
unmatched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..index import GraphIndex
from ..nodes import attribute_int
from ..operators import EPILOGUES, MOVEMENT, RESHAPES, WINDOWED, operator
from ..quantized.float_form import FloatForm
from ..quantized.quantizers import kept_within
from .changes import InputsExchanged, OperatorChange, OtherInput, OtherInputs, OtherOutput, ReadTwice
from .computed_once import computed_once
from .differences import Difference, DifferenceKind, node_differences, setting_differences
from .exchanged import with_holders
from .folds import Folds, folds
from .limits import LimitsInARow, limits_in_rows
from .matcher import match_nodes
from .normal_form import CAPTURED, spelled
from .other_inputs import other_inputs
from .own_copies import own_copies
from .pairs import Pairing
from .read_twice import read_twice
from .regions import padding_moved, region_difference, regions, scattered_otherwise
from .resized import resized
from .roles import as_read, made_of, roles, scaled_otherwise, tensor_names
from .shapes import follow_shapes
from .stored_steps import stored_steps
from .sums import other_terms
from .unfused import read_as
from .view import LIMITS


@dataclass(frozen=True)
class Matching:
    """What corresponds in two graphs.

    Attributes:
        tensors: Reference tensor -> candidate tensor. Several may map to one (what the candidate leaves out).
        nodes: Position in the reference -> position in the candidate.
        differences: What differs between matched nodes without running them.
        steps: Weight of the reference -> the distance between neighbouring values that the candidate stores it in,
            shaped to broadcast against it; only of weights that are stored as scaled integers.
        float_form: The candidate's graph in float operators, where it alone is quantized.
    """

    tensors: Mapping[str, str]
    nodes: Mapping[int, int]
    differences: tuple[Difference, ...] = ()
    steps: Mapping[str, np.ndarray] = field(default_factory=dict)
    float_form: FloatForm | None = None


def match(reference: GraphIndex, candidate: GraphIndex) -> Matching:
    """Finds what corresponds in two graphs, and compares attributes and weights of what does, reading all weights once.

    Graph inputs and graph outputs correspond by exact name only.

    Args:
        reference: The graph that is believed.
        candidate: The graph that is judged.
    """
    if reference is candidate or reference.proto is candidate.proto:
        names = [*reference.inputs, *(o for n in reference.nodes if n.op_type != "Constant" for o in n.output if o)]
        return Matching({name: name for name in names}, {p: p for p in range(len(reference.nodes))})
    pairing = match_nodes(reference, candidate)
    files, reference, candidate = (reference, candidate), pairing.r.index, pairing.c.index
    partial = {
        n: m
        for n, m in pairing.nodes.items()
        if _has_epilogue(reference, n) != _has_epilogue(candidate, m)
        or scaled_otherwise(pairing, n, m)
        or not pairing.same_factor(pairing.r.first(n), pairing.c.first(m))
    }
    pairs, folded = _tensors(pairing, partial)
    # written with other operands (x * 0.5 against half * gate): the output is the same tensor, the node is not
    partial |= {
        n: m
        for n, m in pairing.nodes.items()
        if n not in folded.nodes - partial.keys()
        and len(pairing.r.forms[n].data) != len(pairing.c.forms[m].data)
        and pairing.r.forms[n].commutative
    }
    partial |= {n: m for n, m in pairing.nodes.items() if _moved_elsewhere(pairing, n, m, pairs)}
    rows = list(limits_in_rows(pairing))
    for row in rows:
        row.corrected(reference, candidate, pairs)
    _without_padded(pairing, pairs)
    tensors = tensor_names(pairing, pairs)
    nodes = {**pairing.nodes, **folded.products}
    exchanged = follow_shapes(pairing, nodes, tensors)
    tensors |= _match_skipped(pairing, nodes, pairs)
    differences = [*_differences(pairing, pairs, folded, partial, rows), *exchanged]
    mine, theirs = (None if form is None else form.origins for form in pairing.forms)
    ordered = sorted(differences, key=lambda d: d.node)
    placed = [
        [_placed(_named(pairing, files[0], one), mine, theirs) for one in (d, _unlimited(pairing, d, pairs))]
        for d in ordered
    ]
    return Matching(
        tensors,
        {_origin(n, mine): _origin(m, theirs) for n, m in sorted(nodes.items())},
        tuple(left for d, rest in placed if (left := _without_limits(pairing, files[1], d, rest)) is not None),
        stored_steps(pairing, nodes, folded.steps),
        pairing.forms[1] if pairing.quantized[1] else None,
    )


def _moved_elsewhere(pairing: Pairing, n: int, m: int, pairs: Mapping[str, str]) -> bool:
    """Whether two nodes move data of tensors that are not one, of which one graph may have moved some before: how they
    differ says nothing without that. ``pairs``: roots that stand for each other."""
    forms, nodes = (pairing.r.forms[n], pairing.c.forms[m]), (pairing.r.fine.nodes[n], pairing.c.fine.nodes[m])
    if not {form.op for form in forms} <= MOVEMENT - RESHAPES or forms[0].settings == forms[1].settings:
        return False
    if not all(node.inputs for node in nodes):
        return False
    (_, name), (_, other) = (node.inputs[0] for node in nodes)
    return pairs.get(name) != other and not pairing.paired(name, other)


def _origin(position: int, origins: tuple[int, ...] | None) -> int:
    """The position in the file's graph of a node of its float form."""
    return position if origins is None or position < 0 else origins[position]


def _placed(difference: Difference, mine: tuple[int, ...] | None, theirs: tuple[int, ...] | None) -> Difference:
    """A difference with positions in the files' graphs in place of those in their float forms."""
    began = difference.origin, difference.candidate_origin
    return replace(
        difference,
        node=_origin(difference.node, mine),
        candidate_node=_origin(difference.candidate_node, theirs),
        origin=None if began[0] is None else _origin(began[0], mine),
        candidate_origin=None if began[1] is None else _origin(began[1], theirs),
    )


def _named(pairing: Pairing, reference: GraphIndex, difference: Difference) -> Difference:
    """A difference of weights with what the operator of the reference's file calls them."""
    form, node = pairing.forms[0], difference.node
    if form is None or node not in pairing.r.forms:
        return difference
    weight = pairing.r.forms[node].weights.get(difference.name, "")
    return replace(difference, read_as=read_as(reference.nodes[form.origins[node]], weight))


def _without_limits(
    pairing: Pairing, candidate: GraphIndex, difference: Difference, rest: Difference
) -> Difference | None:
    """A difference, or ``rest`` where what the candidate lacks beside is a Relu or a Clip, whose result it keeps as
    integers that stand for nothing beyond its limits; None where that is all of it."""
    change, position = difference.change, difference.candidate_node
    if not isinstance(change, OperatorChange) or position < 0:
        return difference
    limiting = [name for name in change.reference if name[0] in LIMITS]
    if not limiting or (rest == difference and change.candidate):
        return difference
    index, limits = pairing.r.index, [(-math.inf, math.inf)]
    for p in (p for p in pairing.r.live if (index.nodes[p].op_type, index.names[p]) in limiting):
        known = pairing.r.limits(p)
        if known is None:
            return difference
        limits.append(known)
    low, high = max(a for a, _ in limits), min(b for _, b in limits)
    if not kept_within(candidate, candidate.nodes[position].output[0], low, high):
        return difference
    return rest if change.candidate else None


def _unlimited(pairing: Pairing, difference: Difference, pairs: Mapping[str, str]) -> Difference:
    """What else differs where the reference limits what a node makes and the candidate has that node alone; the
    difference itself where nothing is known of it."""
    change = difference.change
    if not isinstance(change, OperatorChange) or len(change.candidate) != 1 or len(change.reference) < 2:
        return difference
    (first, *behind), (own,) = change.reference, change.candidate
    if first[0] != own[0] or not {op for op, _ in behind} <= LIMITS:
        return difference
    n, m = (
        next((p for p in view.live if (view.index.nodes[p].op_type, view.index.names[p]) == name), None)
        for view, name in ((pairing.r, first), (pairing.c, own))
    )
    other = None if n is None or m is None else _other_input(pairing, n, m, pairs)
    return difference if n is None or m is None or other is None else Difference(n, m, other)


def _has_epilogue(index: GraphIndex, position: int) -> bool:
    """Whether a node does more than the operator of its family."""
    return operator(index.nodes[position]) in EPILOGUES


def _tensors(pairing: Pairing, partial: Mapping[int, int]) -> tuple[dict[str, str], Folds]:
    """Roots that stand for each other, and what was folded. ``partial``: nodes of which one does more."""
    expected = roles(pairing)
    pairs: dict[str, str] = dict(pairing.inputs)
    for n, m in sorted(pairing.nodes.items()):
        if n in partial:
            continue
        for a, b in zip(pairing.r.index.nodes[n].output, pairing.c.index.nodes[m].output, strict=False):
            if a and b:
                pairs[a] = as_read(pairing, a, b, n, m, expected)
    folded = folds(pairing, expected, pairs)
    made = {b: a for a, b in pairs.items()}
    for a, b in expected.items():
        # what the candidate leaves out is behind what it has; else its reader was given something wrong
        known = a in pairing.r.classes and b in pairing.c.classes
        if known and (b not in made or made_of(pairing, made[b], a)):
            pairs.setdefault(a, b)
    return pairs, folded


def _without_padded(pairing: Pairing, pairs: dict[str, str]) -> None:
    """Takes back what a Pad makes that the other graph has in the window operator behind it: that has no such tensor.
    Where the candidate has the Pad, what the reference's operator reads is what the Pad reads."""
    for n, m in pairing.nodes.items():
        read = [view.fine.nodes[p].inputs[:1] for view, p in ((pairing.r, n), (pairing.c, m))]
        if not all(read):
            continue
        (_, name), (_, other) = read[0][0], read[1][0]
        pads = [view.index.producer.get(made, -1) for view, made in ((pairing.r, name), (pairing.c, other))]
        own = [pads[0] not in pairing.nodes and pads[0] >= 0, pads[1] not in pairing.taken and pads[1] >= 0]
        padded = padding_moved(pairing, n, m)[0] if any(own) else set()
        if own[0] and pads[0] in padded:
            pairs.pop(name, None)
        elif own[1] and pads[1] in padded and pairs.get(name) == other:
            pairs[name] = pairing.c.fine.nodes[pads[1]].inputs[0][1]


def _differences(
    pairing: Pairing,
    pairs: Mapping[str, str],
    folded: Folds,
    partial: Mapping[int, int],
    rows: Sequence[LimitsInARow],
) -> list[Difference]:
    found = list(folded.differences)
    limiting = {n: row for row in rows for n in row.nodes}
    absorbed = {p for row in rows for p in (row.nodes if len(row.nodes) > 1 else row.candidate_nodes)}
    """Nodes that the other graph has in another one: a Pad in the window operator behind it, a limit in a Clip."""
    for n, m in sorted(pairing.nodes.items()):
        windowed = pairing.r.forms[n].op == pairing.c.forms[m].op in WINDOWED
        if n in partial or (n in folded.nodes and not windowed):
            continue
        place = pairing.r.index, n, pairing.r.forms[n], pairing.c.index, m, pairing.c.forms[m]
        exchanged = None if n in folded.nodes else _other_inputs(pairing, n, m)
        differences = node_differences(*place) if n not in folded.nodes else []
        if n in folded.nodes:  # where its window runs is no matter of the weights, which are compared
            differences = [*setting_differences(*place)]
        elif exchanged is not None:  # then a weight is at another input, too, and an input that may be left out
            there = DifferenceKind.WEIGHTS, DifferenceKind.INPUTS
            differences = [d for d in differences if d.kind not in there]
            found.append(Difference(n, m, exchanged))
        else:
            found.extend(own_copies(pairing, n, m))
        differs = any(d.name == "pads" for d in differences)
        padded, change = padding_moved(pairing, n, m) if differs else (set(), None)
        absorbed |= padded
        if n in limiting:
            differences = [d for d in differences if d.name not in ("min", "max")]
            found.extend(Difference(n, m, change, change.name) for change in limiting[n].changes)
        found.extend(d for d in differences if d.name != "pads" or not padded)
        found.extend([Difference(n, m, change, "pads")] if change is not None else [])
    for region in regions(pairing, pairs, folded, partial):
        difference = computed_once(pairing, pairs, region) or region_difference(pairing, pairs, region)
        if difference is not None and not absorbed.intersection(region.nodes or region.candidate_nodes):
            found.append(scattered_otherwise(pairing, region) or difference)
    found.extend(_other_outputs(pairing))
    size = resized(pairing)
    if size is not None:
        found.append(size)
    return with_holders(pairing, _with_exchanged(found))


def _with_exchanged(found: list[Difference]) -> Iterator[Difference]:
    """Differences, each node that reads another tensor with those that read what it is meant to."""
    others = [d.change for d in found if isinstance(d.change, OtherInput)]
    several = [d.change for d in found if isinstance(d.change, OtherInputs)]
    for difference in found:
        change = difference.change
        if isinstance(change, OtherInput):
            ways = (change.candidate, change.meant), (change.meant, change.candidate)
            both = ([o.reader for o in others if (o.candidate, o.meant) == way] for way in ways)
            alike, back = (tuple(dict.fromkeys(readers)) for readers in both)
            beside = tuple(dict.fromkeys(c for c in several if c.others == {change.candidate, change.meant}))
            difference = replace(difference, change=replace(change, alike=alike, exchanged=back, beside=beside))
        yield difference


def _other_inputs(pairing: Pairing, n: int, m: int) -> InputsExchanged | OtherInput | OtherInputs | ReadTwice | None:
    """What else a node of the candidate reads than the one of the reference."""
    one = _inputs_exchanged(pairing, n, m) or _other_input(pairing, n, m) or read_twice(pairing, n, m)
    return one or other_inputs(pairing, n, m)


def _inputs_exchanged(pairing: Pairing, n: int, m: int) -> InputsExchanged | None:
    """Whether two nodes of one operator read the same tensors by other inputs; not where some of them have no pair."""
    mine, theirs = pairing.r.fine.nodes[n], pairing.c.fine.nodes[m]
    if mine.kind != theirs.kind or len(mine.inputs) != len(theirs.inputs):
        return None
    order = []
    for slot, name in mine.inputs:
        if slot.startswith(CAPTURED):  # in the order in which a body happens to read them
            continue
        others = [other for other, twin in theirs.inputs if pairing.paired(name, twin)]
        if not others:
            return None
        if slot not in others:
            order.append((spelled(pairing.r.index, n, slot), spelled(pairing.r.index, n, others[0])))
    if len(order) == 1 and len(pairing.r.index.nodes[n].input) == 2:  # of two inputs, the other one is a constant
        order.append(order[0][::-1])
        order.sort()
    return InputsExchanged(pairing.r.forms[n].op, tuple(order)) if order else None


def _other_input(pairing: Pairing, n: int, m: int, pairs: Mapping[str, str] | None = None) -> OtherInput | None:
    """Whether the one input in which two nodes of one operator differ is, in the candidate, another tensor of the
    reference; not where one of the two has no counterpart, and what is read may be the same, made otherwise. ``pairs``:
    roots that stand for each other, be they made by other nodes."""
    mine, theirs = pairing.r.fine.nodes[n], pairing.c.fine.nodes[m]
    if mine.kind != theirs.kind or len(mine.inputs) != len(theirs.inputs):
        return None
    left, right = list(mine.inputs), list(theirs.inputs)
    for same_slot in (True, False):
        for one in list(left):
            twin = next((t for t in right if pairing.paired(one[1], t[1]) and (t[0] == one[0] or not same_slot)), None)
            if twin is not None:
                left.remove(one)
                right.remove(twin)
    if len(left) != 1 or len(right) != 1 or left[0][0] != right[0][0] or left[0][0].startswith(CAPTURED):
        return None
    name, other, reader = left[0][1], right[0][1], m
    terms = other_terms(pairing, n, m)
    if terms is not None and len(terms.reference) == len(terms.candidate) < 2:  # in whatever order they are added up
        if not terms.reference or terms.reference[0][1] != n:
            return None
        (name, _), (other, reader) = terms.reference[0], terms.candidate[0]
    meant = pairing.counterpart(name) or (pairs or {}).get(name)
    if meant is None or meant == other or not pairing.known(other):
        return None
    return OtherInput(pairing.r.forms[n].op, name, other, meant, pairing.c.index.names[reader])


def _other_outputs(pairing: Pairing) -> Iterator[Difference]:
    """Outputs of the graphs that are, in the candidate, another tensor of the reference."""
    for name in pairing.outputs:
        one, other = (view.alias.get(name, name) for view in (pairing.r, pairing.c))
        meant = pairing.counterpart(one)
        n, m = (view.index.producer.get(name) for view in (pairing.r, pairing.c))
        if meant is None or meant == other or not pairing.known(other) or n is None or m is None:
            continue
        told = (_made(pairing.r.index, one), _made(pairing.c.index, other), _made(pairing.c.index, meant))
        yield Difference(n, m, OtherOutput(name, *told))


def _made(index: GraphIndex, name: str) -> str:
    """A tensor, as what makes it."""
    position = index.producer.get(name)
    if position is None:
        return f"the input '{name}'"
    node = index.nodes[position]
    which = f"output {list(node.output).index(name)}" if len(node.output) > 1 else "the output"
    return f"{which} of {node.op_type} {index.names[position]}"


def _match_skipped(pairing: Pairing, nodes: dict[int, int], pairs: Mapping[str, str]) -> dict[str, str]:
    """Matches Identity, Cast and Dropout nodes that both graphs have on the same tensor, and those that limit it alike.

    Returns:
        What the latter make, which is another tensor.
    """
    taken, limited = set(nodes.values()), {}
    for p in pairing.r.skipped:
        node = pairing.r.index.nodes[p]
        other = pairs.get(pairing.r.alias[node.output[0]])
        twins = []
        for q in pairing.c.skipped:
            twin = pairing.c.index.nodes[q]
            same = twin.op_type == node.op_type and attribute_int(twin, "to") == attribute_int(node, "to")
            if same and pairing.c.alias[twin.output[0]] == other:
                twins.append(q)
        named = [q for q in twins if pairing.c.index.nodes[q].output[0] == node.output[0]]
        choice = named or twins
        if len(choice) == 1 and choice[0] not in taken:
            nodes[p] = choice[0]
            taken.add(choice[0])
            if operator(node) in LIMITS and pairing.r.limits(p) == pairing.c.limits(choice[0]) is not None:
                limited[node.output[0]] = pairing.c.index.nodes[choice[0]].output[0]
    return limited
