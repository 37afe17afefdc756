"""What statistics need to know of an allowed error: it is made elsewhere."""

from __future__ import annotations

from typing import Any, Protocol


class Limits(Protocol):
    """The allowed error of elements."""

    def allowed(self, magnitude: Any) -> Any:
        """Allowed errors of elements of these magnitudes: an array of any library, or a number."""
