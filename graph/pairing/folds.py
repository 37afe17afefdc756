"""Products into which one of two graphs has multiplied what the other does in nodes of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..operators import AFFINE_PRODUCTS
from .affine import Affine, affine, distance
from .branches import chain
from .changes import OperatorChange
from .differences import Difference, op_names
from .merged import OTHER_MAP, Merged, alone, half_stored, merged
from .pairs import Pairing
from .stored_steps import unfolded_step
from .view import GraphView
from .weight_changes import COARSE, folded_changes, numbers_of

SAME_MAP = 1e-6
"""Relative distance up to which two affine maps are the same."""


@dataclass
class Folds:
    """What was folded.

    Attributes:
        nodes: Nodes of the reference that are part of a fold.
        candidate_nodes: The same for the candidate.
        differences: Weights that differ beyond what folding explains; nodes that one graph has and the other has not,
            nor multiplied in.
        steps: Weights of the reference -> the steps in which they are stored, with what was multiplied in.
        products: Of what was merged, the product in the reference -> that in the candidate.
    """

    nodes: set[int] = field(default_factory=set)
    candidate_nodes: set[int] = field(default_factory=set)
    differences: list[Difference] = field(default_factory=list)
    steps: dict[str, np.ndarray] = field(default_factory=dict)
    products: dict[int, int] = field(default_factory=dict)

    def take(self, beside: Merged) -> None:
        """Takes down what was merged."""
        self.nodes.update(beside.nodes)
        self.candidate_nodes.update(beside.candidate_nodes)
        self.differences.extend(beside.differences)


@dataclass(frozen=True)
class _Chains:
    """A product and the scalings and shifts after it, in both graphs, up to tensors that stand for each other."""

    left: list[int]
    right: list[int]
    products: tuple[Affine, Affine]
    """What the products alone do."""
    wholes: tuple[Affine, Affine]
    """What the chains do."""


def folds(pairing: Pairing, roles: Mapping[str, str], pairs: dict[str, str]) -> Folds:
    """Finds products with scalings and shifts multiplied into them on one side.

    Args:
        pairing: The matched nodes.
        roles: See `roles`.
        pairs: Tensors that stand for each other, which is corrected in place.
    """
    found = Folds()
    matched = ((n, m, merged(pairing, roles, n, m)) for n, m in pairing.nodes.items())
    for n, m, beside in sorted([*matched, *alone(pairing, roles, pairs)], key=lambda place: place[0]):
        if beside is not None:
            found.take(beside)
            found.products[n] = m
            pairs.pop(pairing.r.first(n), None)
            pairs[beside.made[0]] = beside.made[1]
            continue
        chains = _chains(pairing, roles, n, m)
        if chains is None:
            continue
        left, right = chains.left, chains.right
        before, after = distance(*chains.products), distance(*chains.wholes)
        pairs[pairing.r.first(left[-1])] = pairing.c.first(right[-1])
        if before < SAME_MAP and after > OTHER_MAP and _other_steps(pairing, chains, found):
            continue
        inside = len(right) == 1 and after > OTHER_MAP  # the candidate's one product does all of it otherwise
        if len(left) > 1 and (before > SAME_MAP or inside):
            pairs.pop(pairing.r.first(n), None)
        found.nodes.update(left)
        found.candidate_nodes.update(right)
        form = pairing.r.forms[n]
        step = unfolded_step(form, chains.products[0], chains.wholes[0], chains.wholes[1])
        if step is not None:
            found.steps[form.weights["w" if "w" in form.weights else "b"]] = step
        parts = left if len(right) == 1 else []
        found.differences.extend(_differences(pairing, (n, m), chains.wholes, parts))
    return found


def _differences(
    pairing: Pairing, place: tuple[int, int], wholes: tuple[Affine, Affine], parts: Sequence[int]
) -> Iterator[Difference]:
    """How a product differs from what nodes of the reference make when they are multiplied together.

    Args:
        pairing: The matched nodes.
        place: The two products.
        wholes: What they do with all that was multiplied in.
        parts: The nodes of the reference that the candidate has in the one product.
    """
    names = tuple(pairing.r.index.names[p] for p in parts)
    for name, change in folded_changes(*wholes, half_stored(pairing, place[1])):
        yield Difference(*place, replace(change, parts=names), name)


def _chains(pairing: Pairing, roles: Mapping[str, str], n: int, m: int) -> _Chains | None:
    """The chains that begin with two matched products, if one may be the other with constants multiplied out."""
    if pairing.r.forms[n].op not in AFFINE_PRODUCTS or pairing.c.forms[m].op not in AFFINE_PRODUCTS:
        return None
    left, right = chain(pairing.r, n), chain(pairing.c, m)
    if len(left) == len(right) == 1 and pairing.r.forms[n].op == pairing.c.forms[m].op:
        return None
    ends = [pairing.c.first(p) for p in right]
    at = next((i for i in reversed(range(len(left))) if roles.get(pairing.r.first(left[i])) in ends), None)
    if at is not None:
        end = ends.index(roles[pairing.r.first(left[at])])
        left, right = left[: at + 1], right[: end + 1]
    elif len(right) == 1:
        left = _folded(pairing.r, left, affine(pairing.c.index, [m], pairing.c.forms))
    elif len(left) == 1:
        right = _folded(pairing.c, right, affine(pairing.r.index, [n], pairing.r.forms))
    if at is None and (not left or not right or len(left) == len(right)):
        return None
    if len(left) == len(right) and all(_one_for_one(pairing, a, b) for a, b in zip(left, right, strict=True)):
        return None
    wholes = affine(pairing.r.index, left, pairing.r.forms), affine(pairing.c.index, right, pairing.c.forms)
    products = affine(pairing.r.index, [n], pairing.r.forms), affine(pairing.c.index, [m], pairing.c.forms)
    if wholes[0] is None or wholes[1] is None or products[0] is None or products[1] is None:
        return None
    if wholes[0].weight.shape != wholes[1].weight.shape:
        return None
    return _Chains(left, right, (products[0], products[1]), (wholes[0], wholes[1]))


def _one_for_one(pairing: Pairing, n: int, m: int) -> bool:
    """Whether two nodes are matched whose weights are compared one by one: not those of a Gemm and a MatMul."""
    return pairing.nodes.get(n) == m and pairing.r.forms[n].op == pairing.c.forms[m].op


def _folded(view: GraphView, nodes: list[int], theirs: Affine | None) -> list[int]:
    """As much of a chain as a product of the other graph does whose weights are those of the chain multiplied out, or
    these in steps. That tells where it ends where no reader of it is matched. Nothing where the product does that of
    the chain alone."""
    same = SAME_MAP if theirs is None or numbers_of(theirs.weight) is None else COARSE
    for end in range(len(nodes), 1, -1):
        mine = affine(view.index, nodes[:end], view.forms)
        if mine is None or theirs is None or mine.weight.shape != theirs.weight.shape:
            continue
        if theirs.step is not None and _in_steps(mine, theirs):
            return nodes[:end]
        alone = affine(view.index, nodes[:1], view.forms)
        if theirs.step is None and alone is not None and distance(mine, theirs) < same < distance(alone, theirs):
            return nodes[:end]
    return []


def _in_steps(mine: Affine, theirs: Affine) -> bool:
    return all(change.quantized for name, change in folded_changes(mine, theirs, half=False) if name == "weights")


def _more_constants(pairing: Pairing, n: int, m: int) -> bool:
    """Whether a product of the candidate reads more constants than that of the reference."""
    return len(pairing.c.forms[m].weights) > len(pairing.r.forms[n].weights)


def _other_steps(pairing: Pairing, chains: _Chains, found: Folds) -> bool:
    """Takes down that nothing was multiplied in: one graph has steps that the other has not, has elsewhere, or has in
    another order."""
    left, right = chains.left, chains.right
    extra, others = left[1:], right[1:]
    if len(left) != len(right):
        extra = [p for p in extra if p not in pairing.nodes and len(left) > len(right)]
        others = [p for p in others if p not in pairing.taken and len(left) < len(right)]
        forms = [pairing.r.forms[p] for p in extra]
        if forms and all(f.op == "Add" for f in forms) and _more_constants(pairing, left[0], right[0]):
            return False  # what they add has a place in the candidate's product: its bias
    change = OperatorChange(op_names(pairing.r.index, extra), op_names(pairing.c.index, others))
    if not change.alone and not change.in_another_order:
        return len(left) != len(right)
    behind = right[right.index(others[0]) - 1] if others else right[0]  # what the candidate alone has stands behind it
    node = extra[-1] if extra else pairing.taken.get(behind, left[0])
    found.differences.append(Difference(node, right[-1], change))
    found.nodes.update(extra)
    found.candidate_nodes.update(others)
    return True
