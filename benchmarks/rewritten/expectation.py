"""What a right answer is, and the decorators that register a case with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import filter as filter_names
from fnmatch import fnmatchcase
from typing import Any

import onnx

from benchmarks.kit.runtime import Feed

Answer = Mapping[str, Any]
"""A culprit: ``node``, ``candidate_node``, ``inside``, ``tensors`` and ``cause``; other nodes that are ``told``."""


@dataclass(frozen=True)
class Pair:
    """What is compared.

    Attributes:
        candidate: The other file; None where the same file runs in another format.
        emulate: That format.
        optimize: Whether ONNX Runtime optimizes the candidate's graph.
        at: Patterns of names of nodes or tensors, besides those of the expectation.
    """

    reference: onnx.ModelProto = field(repr=False)
    candidate: onnx.ModelProto | None = field(repr=False)
    feeds: Sequence[Feed] = field(repr=False)
    emulate: str = ""
    optimize: bool = True
    at: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expectation:
    """What a right answer is.

    Attributes:
        verdicts: Honest verdicts.
        at: Patterns of names of nodes or tensors, in either file; the first culprit is at one of them. Without any,
            nobody is to be accused.
        every: Whether each pattern needs a culprit of its own, or is told with another one.
        causes: Honest causes of the first culprit, and of all others.
        also: Patterns of places where other culprits may be.
        tolerated: Causes that accuse nobody here, wherever they are named.
        warns: Words of a warning that has to be given.
    """

    verdicts: frozenset[str]
    at: tuple[str, ...] = ()
    every: bool = False
    causes: frozenset[str] = frozenset()
    also: tuple[str, ...] = ()
    tolerated: frozenset[str] = frozenset()
    warns: str = ""

    @property
    def healthy(self) -> bool:
        """Whether nobody is to be accused."""
        return not self.causes

    def wrong(
        self, verdict: str, answers: Sequence[Answer], places: Sequence[str] = (), warnings: Sequence[str] = ()
    ) -> str:
        """What is wrong with an answer; empty if nothing is.

        Args:
            verdict: Of the comparison.
            answers: The culprits, the first first.
            places: Patterns that the pair adds to ``at``.
            warnings: Those of the report.
        """
        at = (*self.at, *places)
        accused = [a for a in answers if a["cause"] not in self.tolerated or (not self.healthy and _is_at(a, at))]
        if verdict not in self.verdicts:
            return f"verdict {verdict}"
        if not any(self.warns in warning for warning in ("", *warnings)):
            return "no warning"
        if self.healthy:
            return "a culprit" if accused else ""
        if not accused:
            return "no culprit"
        return self._wrong_culprit(accused, at)

    def _wrong_culprit(self, accused: Sequence[Answer], at: Collection[str]) -> str:
        if not _is_at(accused[0], at):
            return "another first culprit"
        honest = self.causes | self.tolerated
        if accused[0]["cause"] not in self.causes or any(a["cause"] not in honest for a in accused):
            return "another cause"
        if any(not _is_at(a, (*at, *self.also)) for a in accused):
            return "a culprit too many"
        told = [name for a in accused for name in a.get("told", ())]
        missing = [p for p in at if not any(_is_at(a, (p,)) for a in accused) and not filter_names(told, p)]
        missing = missing if self.every else []
        return f"no culprit at {', '.join(missing)}" if missing else ""


def _is_at(answer: Answer, patterns: Collection[str]) -> bool:
    names = {answer["node"], answer["candidate_node"], *answer["inside"], *answer["tensors"]} - {None}
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


@dataclass(frozen=True)
class Case:
    """A pair, and what a right answer about it is.

    Attributes:
        subject: The module that it is in.
        what: What was written again, in one line.
    """

    name: str
    subject: str
    what: str
    expected: Expectation
    build: Callable[[], Pair] = field(repr=False)


CASES: dict[str, Case] = {}
"""The cases whose modules have been imported, by name."""
Builder = Callable[[], Pair]


def healthy(verdicts: str = "pass", *, tolerated: str = "", warns: str = "") -> Callable[[Builder], Builder]:
    """Registers a case in which nothing is wrong.

    Args:
        verdicts: Honest ones, with spaces between.
        tolerated: Causes that accuse nobody here.
        warns: Words of a warning that has to be given.
    """
    return _registered(Expectation(_words(verdicts), tolerated=_words(tolerated), warns=warns))


def fault(
    *at: str, causes: str, verdicts: str = "fail", every: bool = False, also: Sequence[str] = (), tolerated: str = ""
) -> Callable[[Builder], Builder]:
    """Registers a case in which something is wrong; see `Expectation`.

    Raises:
        ValueError: No cause is an honest one.
    """
    if not causes:
        raise ValueError("a fault has a cause")
    return _registered(Expectation(_words(verdicts), at, every, _words(causes), tuple(also), _words(tolerated)))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _registered(expected: Expectation) -> Callable[[Builder], Builder]:
    def register(build: Builder) -> Builder:
        name = build.__name__
        if name in CASES:
            raise ValueError(f"two cases are called {name}")
        subject = build.__module__.rpartition(".")[2]
        CASES[name] = Case(name, subject, " ".join((build.__doc__ or "").split()), expected, build)
        return build

    return register


def chosen(names: Sequence[str]) -> Iterator[Case]:
    """The cases of these names; all if none are given."""
    return (CASES[name] for name in names or CASES)
