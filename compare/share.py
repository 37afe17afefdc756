"""One of several equal shares of the samples, or of the checks of a suite: ``--shard 2/3``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..graph.errors import UsageError
from ..graph.options import Kind


class Share(Kind):
    """``I/N``: the I-th of N shares, from 1."""

    expected = "I/N, the I-th of N shares, from 1/N to N/N"

    def read(self, text: str) -> tuple[int, int]:
        """See `Kind.read`."""
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if found is None:
            raise self.refusal()
        value = int(found[1]), int(found[2])
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """See `Kind.check`."""
        whole = isinstance(value, tuple) and len(value) == 2 and all(type(part) is int for part in value)
        if not whole or not 1 <= value[0] <= value[1]:
            raise self.refusal()


def belongs(number: int, share: tuple[int, int] | None) -> bool:
    """Whether a sample, counted from 0, belongs to a share; None: all do."""
    return share is None or number % share[1] == share[0] - 1


def refuse_what_needs_all(by: str, asked: Iterable[tuple[str, object]]) -> None:
    """Refuses options that are for one run on all samples.

    Args:
        by: The option that shares the samples out.
        asked: Options and what they were given; None where they were not.

    Raises:
        UsageError: One was given.
    """
    for flag, value in asked:
        if value is not None:
            raise UsageError(f"{by} runs shares of the samples, and {flag} is for a run on all of them.")


def in_order(shares: Mapping[str, int], count: int) -> list[str]:
    """The names of shares in their order.

    Args:
        shares: Which share each is, from 1, by name.
        count: How many there are.

    Raises:
        UsageError: One is there twice, or missing.
    """
    found: dict[int, str] = {}
    for name, index in shares.items():
        if index in found:
            raise UsageError(f"{name}: share {index} of {count} once more, after {found[index]}.")
        found[index] = name
    missing = [str(index) for index in range(1, count + 1) if index not in found]
    if missing:
        raise UsageError(f"share {', '.join(missing)} of {count} is missing.")
    return [found[index] for index in range(1, count + 1)]
