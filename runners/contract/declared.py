"""What a runner says of itself, looked at before anything is asked of it: whoever gets it wrong costs himself alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...graph.errors import LayerdiffError, RunnerError, first_line
from ...graph.foreign import contained
from ...graph.formats import NumberFormat
from .capabilities import Capabilities
from .options import hyphenated
from .runner import Runner

FORMAT = "a NumberFormat, such as FP16 of layerdiff.graph.formats"
DECLARED: dict[str, tuple[type, str]] = {
    "name": (str, "a text"),
    "trust": (int, "a whole number"),
    "arithmetic": (NumberFormat, FORMAT),
    "accumulator": (NumberFormat, FORMAT),
    "capabilities": (Capabilities, "Capabilities(...)"),
}
"""Properties that a runner may have otherwise than `Runner`, and what they are."""


@dataclass(frozen=True)
class Misdeclared(Runner):
    """Stands for a runner that says something of itself that cannot be: it fails when it is opened.

    Attributes:
        label: What reports call it.
        why: What is wrong.
    """

    label: str = ""
    why: str = ""

    @property
    def name(self) -> str:
        """See `Runner.name`."""
        return self.label

    @property
    def foreign(self) -> bool:
        """See `Runner.foreign`."""
        return False

    def open(self, model: object) -> object:  # type: ignore[override]
        """Fails.

        Raises:
            RunnerError: In any case.
        """
        raise RunnerError(f"{self.label}: {self.why}.")


def as_declared(runners: Sequence[Runner]) -> tuple[Runner, ...]:
    """The runners, with a stand-in for each that says something of itself that cannot be."""
    return tuple(map(_held, runners))


def _held(runner: Runner) -> Runner:
    why = next(_wrong(runner), "")
    if not why:
        return runner
    name = getattr(type(runner), "name", "") if why.startswith("`name`") else runner.name
    named = name if isinstance(name, str) and name.strip() else hyphenated(type(runner).__name__)
    return Misdeclared(model=runner.model, label=named, why=why)


def _wrong(runner: Runner) -> Iterator[str]:
    """What is wrong with what a runner says of itself."""
    for what, (kind, expected) in DECLARED.items():
        try:
            with contained():
                value = getattr(runner, what)
        except LayerdiffError:  # of the file that it reads, and told as that when it is read
            continue
        except Exception as error:
            yield f"`{what}` cannot be had: {type(error).__name__}: {first_line(error)}"
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            yield f"`{what}` is {value!r}, not {expected}"
        elif what == "name" and not str(value).strip():
            yield "`name` is empty, and reports tell runners apart by it: leave it out, or give it one"
    if type(runner).open is Runner.open:
        yield f"{type(runner).__name__} has no method `open(self, model)`, which is the one that a runner needs"
