"""What every rewriting of a graph returns."""

from __future__ import annotations

from dataclasses import dataclass

from ..model import Model


@dataclass(frozen=True)
class Note:
    """What the user should know about a rewritten graph.

    Attributes:
        text: A sentence.
        setting: The rewriter's argument that would make it otherwise, if there is one.
    """

    text: str
    setting: str = ""


@dataclass(frozen=True)
class Rewrite:
    """A rewritten model.

    Attributes:
        model: The rewritten graph. Tensors that were there before kept their names.
        notes: What the user should know about it.
        nodes: Names of the nodes (`GraphIndex.names`) that the rewriting was about: those that were quantized, that
            add in FP16. Empty where it was about all.
        roundings: How many tensors are rounded; None where nobody counts them.
    """

    model: Model
    notes: tuple[Note, ...] = ()
    nodes: frozenset[str] = frozenset()
    roundings: int | None = None
