"""What the inputs hold that proves little: NaN, infinities, one value throughout, or what takes one branch alone."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import TYPE_CHECKING

import numpy as np

from ...graph.decoders import decoder
from ...graph.specs import STRING, is_float
from ..notices import input_not_finite, input_of_one_value, inputs_blank
from .branches import Branches
from .same_rows import SameRows

if TYPE_CHECKING:
    from ...dataloaders.base import Sample
    from ..comparison import Comparison
    from ..report.model import Notice

FEW = 8
"""Elements of an input up to which one value throughout is nothing strange: a threshold, a size, a time."""


class Inputs:
    """What is seen of the inputs as samples are run.

    Args:
        comparison: What is compared. Of random samples and of caches, one value throughout is nothing to be told.
    """

    def __init__(self, comparison: Comparison) -> None:
        model = comparison.reference.model
        known = decoder(model.inputs, model.outputs)
        self._not_finite = NotFinite()
        self._one_value = OneValue({c.past.name for c in known.caches} if known is not None else set())
        self._given = comparison.samples.representative
        self._rows = SameRows()
        self._branches = Branches(comparison)

    def take(self, number: int, sample: Sample) -> None:
        """Looks at a sample.

        Args:
            number: Its number.
            sample: Its inputs.
        """
        self._not_finite.take(number, sample)
        self._one_value.take(sample)
        self._rows.take(sample)
        self._branches.take(sample)

    @property
    def masks(self) -> frozenset[str]:
        """See `NotFinite.masks`."""
        return self._not_finite.masks

    @property
    def nan(self) -> tuple[str, ...]:
        """The inputs that hold NaN."""
        return self._not_finite.nan

    @property
    def blank(self) -> bool:
        """See `OneValue.blank`."""
        return self._one_value.blank

    @property
    def varied(self) -> bool:
        """Whether rows of an input differ."""
        return self._rows.varied

    def notices(self) -> Iterator[Notice]:
        """What to say of them."""
        yield from self._not_finite.notices()
        if self._given:
            yield from self._one_value.notices()
        yield from self._branches.notices()


class OneValue:
    """Floating-point inputs that hold one value throughout, in all samples.

    Args:
        usual: Inputs of which that is nothing to be told.
    """

    def __init__(self, usual: Set[str]) -> None:
        self._usual = usual
        self._values: dict[str, float] = {}
        self._sizes: dict[str, int] = {}
        self._varied: set[str] = set()
        self._told = False

    def take(self, sample: Sample) -> None:
        """Looks at a sample, and no more at what has varied."""
        for name, array in sample.items():
            if name in self._varied or not array.size:
                continue
            if not is_float(array.dtype):
                # masks and token types hold nothing else
                self._told = self._told or array.dtype == STRING or bool(((array != 0) & (array != 1)).any())
                continue
            value = self._values.setdefault(name, array.reshape(-1)[0])
            if not bool((array == value if value == value else np.isnan(array)).all()):
                self._varied.add(name)
            self._sizes[name] = max(self._sizes.get(name, 0), array.size)

    @property
    def blank(self) -> bool:
        """Whether all that was fed are zeros or NaN, more than a few, and integers that are 0 or 1: whatever weights
        are, it is not seen then."""
        nothing = all(value == 0 or value != value for value in self._values.values())
        return nothing and not self._told and not self._varied and max(self._sizes.values(), default=0) > FEW

    def notices(self) -> Iterator[Notice]:
        """What to say of each of them that is no single number."""
        if self.blank:
            yield inputs_blank(list(self._values), any(self._values.values()))
            return
        for name, value in self._values.items():
            if name not in self._varied | self._usual and self._sizes[name] > FEW and value == value:
                yield input_of_one_value(name, float(np.real(value)))


class NotFinite:
    """The values of inputs that are NaN or infinite, counted as samples are run."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, int, set[int], tuple[int, ...]]] = {}
        self._other: set[str] = set()

    def take(self, number: int, sample: Sample) -> None:
        """Counts those of a sample.

        Args:
            number: Its number.
            sample: Its inputs.
        """
        for name, array in sample.items():
            finite = np.isfinite(array) if is_float(array.dtype) else np.True_
            if np.all(finite):
                continue
            nan = int(np.count_nonzero(np.isnan(array)))
            infinite = int(array.size - np.count_nonzero(finite)) - nan
            if np.any(~finite & (array != -np.inf)):
                self._other.add(name)
            index = tuple(map(int, np.argwhere(~finite)[0]))
            nans, infinities, samples, first = self._found.get(name, (0, 0, set(), index))
            self._found[name] = nans + nan, infinities + infinite, samples | {number}, first

    @property
    def masks(self) -> frozenset[str]:
        """The inputs that hold negative infinities and nothing else that is not finite, as masks of scores do."""
        return frozenset(self._found) - self._other

    @property
    def nan(self) -> tuple[str, ...]:
        """The inputs that hold NaN."""
        return tuple(name for name, (nan, *_) in self._found.items() if nan)

    def notices(self) -> Iterator[Notice]:
        """What to say of each input that holds some."""
        for name, (nan, infinite, samples, first) in self._found.items():
            yield input_not_finite(name, nan, infinite, samples, first)
