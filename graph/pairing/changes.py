"""What may differ between two matched nodes: other operators, attributes, inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from ..printable import being, listed
from ..specs import Dim

OpName = tuple[str, str]
"""Operator and name of a node; the name is empty where which of several nodes it is cannot be told."""


SHORT = 60
"""Characters up to which a value is shown as a whole."""


@dataclass(frozen=True)
class OperatorChange:
    """Other operators: those of the reference and those of the candidate; one of the two may have none."""

    reference: tuple[OpName, ...]
    candidate: tuple[OpName, ...]

    @property
    def alone(self) -> tuple[OpName, ...]:
        """The operators that one of the two has, where the other has none."""
        return () if self.reference and self.candidate else self.reference or self.candidate

    @property
    def in_another_order(self) -> bool:
        """Whether both have the same operators, one after the other in another order."""
        mine, theirs = ([op for op, _ in ops] for ops in (self.reference, self.candidate))
        return mine != theirs and sorted(mine) == sorted(theirs)

    def __str__(self) -> str:
        if not self.candidate:
            return f"{being(_named(self.reference))} missing in the candidate"
        if not self.reference:
            return f"{being(_named(self.candidate))} in the candidate alone"
        if len(self.reference) == len(self.candidate) == 1 and self.reference[0][1] != self.candidate[0][1]:
            return f"{_listed(self.reference)} against {_listed(self.candidate)}"
        mine, theirs = (
            ", ".join(op for op, _ in ops[:8]) + (", ..." if len(ops) > 8 else "")
            for ops in (self.reference, self.candidate)
        )
        return f"{mine} against {theirs}"


@dataclass(frozen=True)
class NotMerged(OperatorChange):
    """An adapter that one of the two alone has, and that is not merged into the other's weights either.

    Attributes:
        into: The product of the other one, whose weights it adapts.
    """

    into: OpName

    def __str__(self) -> str:
        side = "reference" if self.candidate else "candidate"
        return f"{super().__str__()}, and not merged into {' '.join(self.into)} of the {side} either"


@dataclass(frozen=True)
class Resized(OperatorChange):
    """Operators that one of the two alone has, behind which tensors have other sizes.

    Attributes:
        behind: The next operator that both have.
        shape, candidate_shape: What it gives.
    """

    behind: OpName
    shape: tuple[Dim, ...]
    candidate_shape: tuple[Dim, ...]

    def __str__(self) -> str:
        mine, theirs = ("x".join(map(str, shape)) for shape in (self.shape, self.candidate_shape))
        return f"{super().__str__()}; behind it, {self.behind[0]} {self.behind[1]} gives {mine} against {theirs}"


@dataclass(frozen=True)
class AttributeChange:
    """Another value of an attribute; None where a side has none. ``of``: the node that makes a weight, where the
    attribute is one of that, or the nodes that together have the value; ``given``: what the two have in place of it,
    from which it follows."""

    name: str
    reference: Any
    candidate: Any
    of: str = ""
    given: tuple[str, str] = ("", "")

    @property
    def shown(self) -> str:
        """The reference's value."""
        return _shown(self.reference)

    @property
    def short(self) -> bool:
        """Whether the reference has a value that is shown as a whole."""
        plain = isinstance(self.reference, (int, float, str, list)) and not self.of and not any(self.given)
        return plain and max(len(str(self.reference)), len(str(self.candidate))) <= SHORT and self.shown != str(None)

    def __str__(self) -> str:
        of = f"{self.of}: " if self.of else ""
        lists = isinstance(self.reference, (list, tuple)) and isinstance(self.candidate, (list, tuple))
        if lists and max(len(str(self.reference)), len(str(self.candidate))) > SHORT:
            return f"{of}{self.name} {_long(self.reference, self.candidate)}"
        values = (
            f"{_shown(value)}{f' by the {given}' if given else ''}"
            for value, given in zip((self.reference, self.candidate), self.given, strict=True)
        )
        return f"{of}{self.name} {' against '.join(values)}"


@dataclass(frozen=True)
class GroupsChange(AttributeChange):
    """Another number of groups of channels that are normalized together, as a Reshape before an InstanceNormalization
    makes them: its scale and bias have as many values.

    Attributes:
        normalizes: The InstanceNormalization, in the reference and in the candidate.
    """

    normalizes: tuple[OpName, OpName] = (("", ""), ("", ""))

    @property
    def short(self) -> bool:
        """See `AttributeChange`: more than this is to be set."""
        return False

    def __str__(self) -> str:
        mine, theirs = self.reference[1], self.candidate[1]
        return f"GroupNorm with {mine} groups against {theirs}, by {super().__str__()}"

    def remedy(self, node: str) -> str:
        """What to do. ``node``: the candidate's Reshape."""
        op, name = self.normalizes[1]
        return (
            f"normalize in {self.reference[1]} groups in the second file: set {self.name} of {node} to {self.shown}, "
            f"and give {op} {name} the first file's scale and bias, which have a value for each group"
        )


@dataclass(frozen=True)
class WeightsAbsent:
    """Weights that only one of the two nodes has.

    Attributes:
        name: The weight input.
        size: How many values there are.
        value: The value, where it is one.
        in_candidate: Whether it is the candidate that lacks them.
        noun: What they are called, as `constants.noun_of` has it.
    """

    name: str
    size: int
    value: float | None
    in_candidate: bool
    noun: str = "weights"

    def __str__(self) -> str:
        amount = f"{self.size:,} values" if self.value is None else f"{self.value!r}"
        if self.noun in ("biases", "scales", "zero points"):
            one = "bias" if self.noun == "biases" else self.noun.removesuffix("s")
            amount = f"{self.size:,} {self.noun}" if self.value is None else f"{one} {amount}"
            return f"{amount} against none" if self.in_candidate else f"none against {amount}"
        sides = (amount, "absent") if self.in_candidate else ("absent", amount)
        return f"{self.name} {sides[0]} against {sides[1]}"


@dataclass(frozen=True)
class InputsExchanged:
    """The same tensors, read in another order by an operator to which the order matters.

    Attributes:
        op: The operator.
        order: Inputs of the reference's node -> inputs of the candidate's node that read the same tensor, by the names
            of the operator's schema; those alone that are not one.
    """

    op: str
    order: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        order = [tuple(name.removeprefix("inputs") or name for name in pair) for pair in self.order]
        if len(order) == 2:
            return f"inputs {order[0][0]} and {order[1][0]} of {self.op} exchanged"
        moved = ", ".join(f"input {mine} as input {theirs}" for mine, theirs in order)
        return f"{self.op} reads {moved}"


@dataclass(frozen=True)
class OtherInputs:
    """A node reads other tensors at several of its inputs than its counterpart: all of them are tensors of both.

    Attributes:
        op: The operator.
        reference: What the reference's node reads, in order.
        candidate: What the candidate's node reads.
        meant: What the candidate calls the tensors that the reference's node reads.
        reader: The candidate's node.
    """

    op: str
    reference: tuple[str, ...]
    candidate: tuple[str, ...]
    meant: tuple[str, ...]
    reader: str

    @property
    def others(self) -> frozenset[str]:
        """What one of the two alone reads."""
        return frozenset(self.candidate) ^ frozenset(self.meant)

    def __str__(self) -> str:
        theirs, mine = (" and ".join(f"'{name}'" for name in names) for names in (self.candidate, self.reference))
        there = ""
        if self.meant != self.reference:
            meant = " and ".join(f"'{name}'" for name in self.meant)
            there = f", which are {meant} in the candidate"
        return f"{self.op} {self.reader} reads {theirs} in the candidate, and {mine} in the reference{there}"

    @property
    def remedy(self) -> str:
        """What to do."""
        meant = " and ".join(f"'{name}'" for name in self.meant)
        return f"let {self.op} {self.reader} read {meant} in the second file, in this order"


@dataclass(frozen=True)
class OtherInput:
    """A node reads another tensor than its counterpart: one that the reference has too, and reads elsewhere.

    Attributes:
        op: The operator.
        reference: What the reference's node reads.
        candidate: What the candidate's node reads in place of it.
        meant: What the candidate calls the tensor that the reference's node reads.
        reader: The candidate's node.
        alike: The candidate's nodes that read the same in place of the same: itself, and others.
        exchanged: The candidate's nodes that read, in place of what this one reads, what it is meant to read.
        beside: Those that do so, and read the rest in another order, too.
    """

    op: str
    reference: str
    candidate: str
    meant: str
    reader: str
    alike: tuple[str, ...] = ()
    exchanged: tuple[str, ...] = ()
    beside: tuple[OtherInputs, ...] = ()

    def __str__(self) -> str:
        if self.candidate == self.reference:
            return (
                f"{self.op} reads the tensor '{self.candidate}' on both sides, which are two: the reference's is "
                f"'{self.meant}' in the candidate"
            )
        there = f", which is '{self.meant}' in the candidate" if self.meant != self.reference else ""
        told = (
            f"{self.op} reads the tensor '{self.candidate}' in the candidate, and '{self.reference}' in the reference"
            f"{there}"
        )
        return "; ".join([told, *map(str, self.beside)])


@dataclass(frozen=True)
class ReadTwice:
    """A node reads one tensor twice, where its counterpart reads another one, too, which the candidate does not have.

    Attributes:
        op: The operator.
        reference: What the reference's node reads.
        candidate: What the candidate's node reads in place of it, beside reading it anyway.
        reader: The candidate's node.
        lacking: What makes the tensor in the reference, as far as the candidate does not do it.
    """

    op: str
    reference: str
    candidate: str
    reader: str
    lacking: tuple[OpName, ...]

    def __str__(self) -> str:
        verb, does = ("is", "makes") if len(_named(self.lacking)) == 1 else ("are", "make")
        return (
            f"{self.op} reads the tensor '{self.candidate}' twice in the candidate, and '{self.reference}' beside it "
            f"in the reference; {_listed(self.lacking)}, which {does} that, {verb} missing in the candidate or not used"
        )

    @property
    def remedy(self) -> str:
        """What to do."""
        first, last = (" ".join(self.lacking[place]) for place in (0, -1))
        made = f"{last} makes" if len(self.lacking) == 1 else f"operators from {first} to {last} make"
        return f"let {self.op} {self.reader} read what the first file's {made}, in place of one '{self.candidate}'"


@dataclass(frozen=True)
class ComputedOnce:
    """Nodes that the candidate has once for two of the reference, which read different tensors there.

    Attributes:
        ops: The nodes that it lacks.
        twins: Those that it has in place of them.
        reference: What the lacking ones read.
        candidate: What those in place of them read, as the candidate calls it.
        meant: What the candidate calls the tensor that the lacking ones read.
    """

    ops: tuple[OpName, ...]
    twins: tuple[OpName, ...]
    reference: str
    candidate: str
    meant: str

    def __str__(self) -> str:
        verb = "reads" if len(self.ops) == 1 else "read"
        return (
            f"{_listed(self.ops)} {verb} the tensor '{self.candidate}' in the candidate, and '{self.reference}' in the "
            f"reference: the candidate computes what {_listed(self.twins[-1:])} gives once, for both"
        )


@dataclass(frozen=True)
class OtherOutput:
    """An output of the graphs is another tensor in the candidate: one that the reference has too.

    Attributes:
        name: The output.
        reference, candidate: What makes it on each side.
        meant: What makes in the candidate what the output is in the reference.
    """

    name: str
    reference: str
    candidate: str
    meant: str

    def __str__(self) -> str:
        return f"the output '{self.name}' is {self.candidate} in the candidate, and {self.reference} in the reference"


def _long(mine: Sequence[Any], theirs: Sequence[Any]) -> str:
    """How two lists differ that are too long to be shown."""
    if len(mine) != len(theirs):
        return f"of {len(mine):,} values against {len(theirs):,}"
    off = [i for i, (x, y) in enumerate(zip(mine, theirs, strict=True)) if x != y]
    values = " against ".join(_shown(side[off[0]]) for side in (mine, theirs)) if off else ""
    return f"differs in {len(off):,} of {len(mine):,} values, first at [{off[0]}]: {values}" if off else "differs"


def _shown(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, onnx.TensorProto):
        array = onnx.numpy_helper.to_array(value)
        return _shown(array.item()) if array.size == 1 else "a constant"
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, float) for v in value):
        value = f"[{', '.join(f'{v:.7g}' for v in value)}]"
    text = str(value)
    return text if len(text) <= SHORT else f"{text[:57]}..."


def of_files(ops: Sequence[OpName]) -> list[OpName]:
    """Operators of one name after the other as the one node of the file that they are written apart from: a product
    and the number that a FusedMatMul multiplies by."""
    found: list[OpName] = []
    for op, name in ops:
        if found and name and found[-1][1] == name:
            found[-1] = f"{found[-1][0]}+{op}", name
        else:
            found.append((op, name))
    return found


def _named(ops: tuple[OpName, ...]) -> list[str]:
    return [f"{op} {name}".rstrip() for op, name in of_files(ops)]


def _listed(ops: tuple[OpName, ...]) -> str:
    return listed(_named(ops))
