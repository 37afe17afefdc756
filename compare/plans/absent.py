"""What puts right a second file that lacks operators of the first one: each by its name, with the number that it
computes with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...graph.operators import AFFINE_STEPS, PRODUCTS
from ...graph.pairing.changes import OperatorChange, OpName, of_files
from ...graph.pairing.constants import constant_value
from ...graph.printable import counted, listed
from ..report.model import Cause

if TYPE_CHECKING:
    from ...graph.index import GraphIndex

FEW = 4
"""Most operators that are named one by one."""


def ops(nodes: Sequence[OpName]) -> str:
    """Operators with their names."""
    return listed([f"{op} {name}" for op, name in of_files(nodes)])


def put_there(cause: Cause, changes: Sequence[object], beside: Sequence[object], index: GraphIndex) -> str:
    """The operators that the second file lacks; empty where they have no names, or where what is wrong is another
    thing.

    Args:
        cause: Another operator, or the scale that one leaves that is missing.
        changes: What differs at the culprit's node, what is told first before all else.
        beside: What differs at other nodes of its layer.
        index: The first file's graph.
    """
    told = [c for c in changes if isinstance(c, OperatorChange)]
    if cause is Cause.SCALE:  # constants of operators that both have may be wrong
        told = [c for c in told if not {op for op, _ in c.candidate} & (AFFINE_STEPS | PRODUCTS)]
    elif cause is not Cause.WRONG_OP or told[:1] != list(changes[:1]):
        return ""
    missing = told[0].reference if told else ()
    if not missing or not all(name for _, name in missing):
        return ""
    if len(of_files(missing)) > FEW:
        named = f"{counted(len(of_files(missing)), 'operator')} from {ops(missing[:1])} to {ops(missing[-1:])}"
    else:
        named = listed([_numbered(index, *each) for each in of_files(missing)])
    moved = [n for c in beside if isinstance(c, OperatorChange) and not c.reference for n in c.candidate]
    leave = f", and leave {ops(moved)} out" if {op for op, _ in moved} & {op for op, _ in missing} else ""
    return f"put the first file's {named} there{leave}"


def _numbered(index: GraphIndex, op: str, name: str) -> str:
    """An operator with its name and, where it adds or multiplies by one number, that number."""
    position = index.names.index(name) if op in AFFINE_STEPS and name in index.names else None
    read = [] if position is None else [constant_value(index, n) for n in index.nodes[position].input if n]
    numbers = [value for value in read if value is not None and value.size == 1]
    return f"{op} {name} (with {float(numbers[0].reshape(-1)[0]):.6g})" if len(numbers) == 1 else f"{op} {name}"
