"""What a source of inputs must fulfil.

A source is a small configuration. Bound to a model it becomes `Samples`: the same bytes at every pass, made or read one
at a time and never kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..graph.printable import counted

if TYPE_CHECKING:
    import numpy as np

    from ..graph.model import Model

Sample = Mapping[str, "np.ndarray"]
"""One array for every input of the model, read-only."""


class Samples(ABC):
    """The samples for one model. Iterable any number of times; every pass gives the same bytes.

    Attributes:
        count: Number of samples.
        seed: The seed of random samples; None for stored ones.
        description: Completes "on ...": ``8 random samples, seed 0, ranges inferred from the graph``.
        notes: What the user should know: dimensions that were chosen, inputs whose sensible range is unknown.
        representative: Whether the data stand for deployment (files, user code), which random ones do not.
        guessed: Inputs with dimensions that neither the model nor the user gave.
        unranged: Inputs that are drawn from a range that neither the model nor the user gave.
        shapes_not_run: Sets of shapes that were asked for and that no sample has, and why; empty: there are too few.
    """

    count: int
    seed: int | None = None
    description: str
    notes: tuple[str, ...] = ()
    representative: bool = True
    guessed: tuple[str, ...] = ()
    unranged: tuple[str, ...] = ()
    shapes_not_run: tuple[tuple[str, str], ...] = ()

    @abstractmethod
    def __iter__(self) -> Iterator[Sample]: ...

    def __len__(self) -> int:
        return self.count


class Source(ABC):
    """Where inputs come from."""

    @abstractmethod
    def bind(self, model: Model) -> Samples:
        """The samples for ``model``, checked against its inputs.

        Raises:
            DataError: The data do not fit the model: a missing input, a dtype or a shape that contradicts it.
        """

    def limited(self, most: int) -> Source:
        """The source, which asks for no more samples than these where they are asked for one by one: there may be no
        end of them."""
        return self


def left_over(folder: Path, read: Collection[Path]) -> tuple[str, ...]:
    """A note that names what lies in a folder and is not read; empty where all of it is, or where it is a file.

    Args:
        folder: The folder, or one file.
        read: What is read of it. Names that begin with a dot are nobody's data.
    """
    if not folder.is_dir():
        return ()
    others = sorted(path.name for path in folder.iterdir() if path not in read and not path.name.startswith("."))
    if not others:
        return ()
    more = f" and {counted(len(others) - 3, 'more file')}" if len(others) > 3 else ""
    return (f"{folder}: {', '.join(others[:3])}{more} {'is' if len(others) == 1 else 'are'} not read.",)
