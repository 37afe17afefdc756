"""Sums of several tensors, which may be added up in any order: (x + y) + bias and x + (y + bias)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .pairs import Pairing
from .view import GraphView


@dataclass(frozen=True)
class OtherTerms:
    """The terms of two sums that do not stand for each other.

    Attributes:
        reference, candidate: Tensors, each with the node that reads it.
    """

    reference: tuple[tuple[str, int], ...]
    candidate: tuple[tuple[str, int], ...]


def other_terms(pairing: Pairing, n: int, m: int) -> OtherTerms | None:
    """The terms in which the sums of tensors differ that two matched nodes are part of; None of nodes that are no part
    of any with a third term.

    Args:
        pairing: The graphs.
        n, m: A node of the reference, and one of the candidate.
    """
    if not pairing.r.forms[n].op == pairing.c.forms[m].op == "Add":
        return None
    ends = _last(pairing.r, n), _last(pairing.c, m)
    mine, theirs = list(_terms(pairing.r, ends[0])), list(_terms(pairing.c, ends[1]))
    if {p for _, p in mine} == {n} and {p for _, p in theirs} == {m}:
        return None
    left = []
    for name, reader in mine:
        twin = next((term for term in theirs if pairing.paired(name, term[0])), None)
        if twin is None:
            left.append((name, reader))
        else:
            theirs.remove(twin)
    return OtherTerms(tuple(left), tuple(theirs))


def _last(view: GraphView, position: int) -> int:
    """The node that makes the whole sum of which a node makes a part."""
    while (reader := _reader(view, position)) is not None:
        position = reader
    return position


def _reader(view: GraphView, position: int) -> int | None:
    """The node of the same operator that alone reads what a node makes."""
    name = view.first(position)
    readers = [] if name in view.index.outputs else view.fine.consumers.get(name, [])
    alike = len(readers) == 1 and view.forms[readers[0][0]].op == view.forms[position].op
    return readers[0][0] if alike else None


def _terms(view: GraphView, position: int) -> Iterator[tuple[str, int]]:
    """The tensors that a node adds up, with those of the sums before it that it alone reads."""
    waiting = [position]
    while waiting:
        reader = waiting.pop()
        for _, name in view.fine.nodes[reader].inputs:
            before = view.index.producer.get(name, -1)
            if before in view.forms and _reader(view, before) == reader:
                waiting.append(before)
            else:
                yield name, reader
