"""How a report came to be, and what it changed against an earlier one."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ... import __version__

ChangeKind = Literal["worse", "better", "known-bad", "new", "gone"]


def now() -> str:
    """The time in UTC, ISO 8601, in whole seconds."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Provenance:
    """How a report came to be.

    Attributes:
        version: The version of layerdiff that made it.
        date: When it was made, UTC, ISO 8601.
        command: The command line that repeats the run; None where it was run from Python.
        settings: The rules that are not at their defaults, by name.
    """

    version: str = __version__
    date: str = field(default_factory=now)
    command: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What became of an output or a culprit since an earlier report.

    Attributes:
        kind: ``worse`` or ``better`` (the verdict changed), ``known-bad`` (did not pass before and does not now),
            ``new`` or ``gone`` (a culprit that only one of the two reports has).
        candidate: Whose.
        subject: ``output`` or ``culprit``.
        name: The tensor, or the node.
        before, after: The verdicts, or the causes; None where there is none.
        error_before, error_after: Relative L2 error; None where it is not finite or was not measured.
    """

    kind: ChangeKind
    candidate: str
    subject: Literal["output", "culprit"]
    name: str
    before: str | None = None
    after: str | None = None
    error_before: float | None = None
    error_after: float | None = None
