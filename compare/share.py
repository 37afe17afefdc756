"""One of several equal shares of the samples, or of the checks of a suite: ``--shard 2/3``."""

from __future__ import annotations

import re
from typing import Any

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
