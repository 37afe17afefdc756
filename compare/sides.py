"""Who is judged against whom: the reference, the candidates, and the name of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..graph.errors import UsageError
from ..runners.contract.naming import distinct_names

if TYPE_CHECKING:
    from ..graph.model import Model
    from ..runners.contract.runner import Runner

Source = "str | os.PathLike[str] | Model"


@dataclass(frozen=True)
class Side:
    """A runner on a model, under the name that the report gives it.

    Attributes:
        name: That name.
        runner: The runner.
        model: The model.
        deployed: The runner as it is on the whole model, where ``runner`` is set up for pieces of it.
    """

    name: str
    runner: Runner
    model: Model
    deployed: Runner | None = None


@dataclass(frozen=True)
class Sides:
    """The reference and the candidates in the order they were named. Other runners may stand in for the reference."""

    reference: Side
    candidates: tuple[Side, ...]
    named: bool = False
    """Whether the user chose the reference, which nobody may then replace."""

    @property
    def all(self) -> tuple[Side, ...]:
        """The reference and then the candidates."""
        return (self.reference, *self.candidates)

    def chosen(self, reference: str, candidates: Sequence[str]) -> Sides:
        """Some of the sides by their names, any of which may be the reference."""
        named = {side.name: side for side in self.all}
        return Sides(named[reference], tuple(named[name] for name in candidates), self.named)

    def without(self, failed: Sequence[Side]) -> Sides | None:
        """The line-up of those that are left, the most trusted of them as reference; None if there is no pair."""
        left = [p for p in self.all if p not in failed]
        if len(left) < 2 or (self.reference in failed and (self.named or self._two_models)):
            return None
        reference = self.reference if self.reference in left else most_trusted(left)
        return Sides(reference, tuple(p for p in left if p is not reference), self.named)

    @property
    def _two_models(self) -> bool:
        return any(other_file(p, self.reference) for p in self.candidates)


def other_file(side: Side, reference: Side) -> bool:
    """Whether a side runs another file than the reference, even if there is a copy of the same network in it."""
    return side.model.label != reference.model.label or not side.model.same_network(reference.model)


def one_a_file(sides: Iterable[Side]) -> list[Side]:
    """The first of all sides that run one file."""
    found: list[Side] = []
    for side in sides:
        if all(other_file(side, other) for other in found):
            found.append(side)
    return found


def most_trusted(sides: Sequence[Side]) -> Side:
    """The one of the lowest trust rank; between equals the first named."""
    return min(sides, key=lambda p: p.runner.trust)


def choose_sides(
    runners: Sequence[Runner],
    models: Sequence[Model],
    candidate_model: Model | None = None,
    reference: str | None = None,
) -> Sides:
    """Chooses the reference and names everybody.

    Args:
        runners: The runners, in the order they were named.
        models: The model of each runner.
        candidate_model: A second file. The first is then the reference's alone, and the candidates are the second on
            every runner.
        reference: Name of the runner to believe, instead of the most trusted.

    Raises:
        UsageError: Nothing to compare with, or no runner of that name.
    """
    if not runners:
        raise UsageError("no runner was named: give two, e.g. --onnxrt --emulate fp16.")
    settled = [r if m is None else r.for_model(m) for r, m in zip(runners, models, strict=True)]
    _refuse_twice(settled)
    names = distinct_names(settled)
    first = [Side(n, r, m) for n, r, m in zip(names, settled, models, strict=True)]
    if reference is not None and reference not in names:
        raise UsageError(f"no runner is called {reference!r}; there are: {', '.join(names)}.")
    chosen = most_trusted(first) if reference is None else first[names.index(reference)]
    if candidate_model is not None:
        for runner, side in zip(settled, first, strict=True):
            named = runner.model is not None and side is not chosen  # a file of its own, which would not be run
            if named or not runner.capabilities.any_model:
                files = f"{chosen.model.source} nor {candidate_model.source}"
                raise UsageError(f"{runner.name} has a network of its own, neither {files}: name one model with it.")
        second = [runner.for_model(candidate_model) for runner in runners]
        names = distinct_names(second)
        candidates = [_on_file(n, r, candidate_model) for n, r in zip(names, second, strict=True)]
        return Sides(chosen, tuple(candidates), reference is not None)
    if len(first) < 2:
        raise UsageError(
            f"{names[0]} has nothing to be compared with: name a second runner (e.g. --emulate fp16) or a second model."
        )
    candidates = [_on_file(p.name, p.runner, p.model) if other_file(p, chosen) else p for p in first if p is not chosen]
    return Sides(chosen, tuple(candidates), reference is not None)


def _refuse_twice(runners: Sequence[Runner]) -> None:
    """Refuses outputs that would be compared with themselves.

    Raises:
        UsageError: Two runners read the same ones.
    """
    stored = [runner.stored_in for runner in runners]
    twice = next((text for text in stored if text and stored.count(text) > 1), None)
    if twice is not None:
        raise UsageError(f"recorded outputs are named twice and would be compared with themselves: {twice}.")


def _on_file(name: str, runner: Runner, model: Model) -> Side:
    """A side of the second file, which its name tells."""
    file = model.label if runner.capabilities.reads_engines else model.source
    return Side(f"{name}@{Path(file).name}", runner, model)
