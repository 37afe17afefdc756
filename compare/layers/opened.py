"""The networks of two sides as they are walked: bit by bit what the files compute, with more tensors to look at."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.blocked import with_plain_borders
from ...graph.operators import CONTRIB_DOMAIN, STANDARD_DOMAINS
from ...graph.rounding.inlined import inlined

if TYPE_CHECKING:
    from ..sides import Side

RUNTIMES_OWN = frozenset({*STANDARD_DOMAINS, CONTRIB_DOMAIN})
"""Domains of operators that a runtime computes itself, whatever a function of that name says."""


def opened(reference: Side, candidate: Side) -> tuple[Side, Side]:
    """Both sides, where they run two networks: without local functions, and with tensors of a blocked layout also in a
    plain one. Functions stay where a side narrows its network: what is to be kept are nodes of its file.

    Args:
        reference, candidate: Who is compared.
    """
    if candidate.model.same_network(reference.model):
        return reference, candidate
    whole = reference.runner.narrows or candidate.runner.narrows
    return _opened(reference, whole), _opened(candidate, whole)


def _opened(side: Side, functions: bool) -> Side:
    if not side.runner.capabilities.pieces or side.model.engine is not None:  # it runs its own network
        return side
    model = side.model if functions else inlined(side.model, but=RUNTIMES_OWN)
    return replace(side, model=with_plain_borders(model))
