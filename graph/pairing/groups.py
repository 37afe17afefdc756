"""What belongs together, joined two by two."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Groups(Generic[T]):
    """Places that belong together: the sets of a union-find structure."""

    def __init__(self, places: Iterable[T]) -> None:
        self._parent = {place: place for place in places}

    def _root(self, place: T) -> T:
        while self._parent[place] != place:
            self._parent[place] = self._parent[self._parent[place]]
            place = self._parent[place]
        return place

    def join(self, a: T, b: T) -> None:
        """Puts two places, and all that belongs to them, together."""
        self._parent[self._root(a)] = self._root(b)

    def all(self) -> Collection[list[T]]:
        """The groups."""
        found: dict[T, list[T]] = {}
        for place in self._parent:
            found.setdefault(self._root(place), []).append(place)
        return found.values()
