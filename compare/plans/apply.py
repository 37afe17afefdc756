"""A plan's file applied to the candidate that it is for, before anything is compared."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.errors import UsageError
from ...graph.rounding.kept import named_nodes
from ..report.model import Notice
from ..sides import Side, Sides
from .file import applicable, read

if TYPE_CHECKING:
    from ...graph.model import Model


def applied(sides: Sides, path: str) -> tuple[Sides, tuple[Notice, ...]]:
    """The sides, with the plan's nodes in FP32 on the candidate that computes in the plan's format.

    Args:
        sides: Who is compared.
        path: The plan's file.

    Returns:
        The sides, and what to say of a plan that was made for another network.

    Raises:
        UsageError: The file is no plan, no candidate fits it, or the network lacks its nodes.
    """
    content = read(path)
    applicable(content, path)
    fmt = content["format"]
    able = [side for side in sides.candidates if side.runner.narrows]
    fitting = [side for side in able if side.runner.arithmetic.name == fmt]
    if len(fitting) != 1:
        runs = ", ".join(side.name for side in able) or "none"
        how = "and no candidate is in it" if not fitting else "and several candidates are in it"
        raise UsageError(f"--plan {path}: the plan is for {fmt}, {how}; those that take a plan: {runs}.")
    (side,) = fitting
    names = [*side.runner.kept, *content["keep"]]
    found = named_nodes(side.model.index, names, f"--plan {path}", side.model.source) if names else ()
    changed: Side = replace(side, runner=side.runner.keeping(found))
    others = tuple(changed if other is side else other for other in sides.candidates)
    return replace(sides, candidates=others), _told(content["origin"], side.model, path)


def _told(origin: dict[str, str], model: Model, path: str) -> tuple[Notice, ...]:
    if origin.get("digest") in (None, model.digest):
        return ()
    text = (
        f"The plan {path} was made for another network ({origin.get('source')}): its nodes are there, no more is known."
    )
    return (Notice("plan-of-another", path, text),)
