"""The networks of two sides as they are walked: bit by bit what the files compute, with more tensors to look at."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.blocked import with_plain_borders
from ...graph.operators import CONTRIB_DOMAIN, STANDARD_DOMAINS
from ...graph.rounding.inlined import inlined

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..sides import Side

RUNTIMES_OWN = frozenset({*STANDARD_DOMAINS, CONTRIB_DOMAIN})
"""Domains of operators that a runtime computes itself, whatever a function of that name says."""


def opened(reference: Side, candidate: Side) -> tuple[Side, Side]:
    """Both sides, where they run two networks: without local functions, and with tensors of a blocked layout also in a
    plain one.

    Args:
        reference, candidate: Who is compared.
    """
    if candidate.model.same_network(reference.model):
        return reference, candidate
    return replace(reference, model=_opened(reference.model)), replace(candidate, model=_opened(candidate.model))


def _opened(model: Model) -> Model:
    if model.engine is not None or model.tf is not None:
        return model
    return with_plain_borders(inlined(model, but=RUNTIMES_OWN))
