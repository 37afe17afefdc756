"""Some entries of a batch in place of all of them: what layers contribute to outputs is carried on these alone.

Most networks treat the entries of a batch each by itself, so that the reference run on some of them gives what it gives
there on all. That is not taken for granted: every tensor that is cut, and every output, is held against the reference's
run on the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ...graph.errors import LayerdiffError
from ...graph.specs import Arrays, is_float

if TYPE_CHECKING:
    from ...graph.model import Model
    from ...runners.contract.session import Session
    from ..lockstep.plan import PiecePair

ENTRIES = 2
"""Entries of a batch that stand for all."""
ELEMENTS = 500
"""Fewest elements that an entry has in every tensor: what passes through a few is another share of the error from entry
to entry."""
APART = 0.1
"""Share of an error that is carried by which the reference's values may differ that are run on some entries alone."""
SMALL = 1e-4
"""Relative error of outputs below which all entries are run: as little changes with the size of a batch."""

Squares: TypeAlias = "Mapping[tuple[int, str], np.ndarray]"
"""Of each sample and output: the squared error and the power of each entry, two columns of float64."""


class Mixed(LayerdiffError):
    """The reference gives something else on some entries of a batch than on all of them."""


def squares(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The squared error and the power of each entry of two outputs (see `Squares`): infinite where shapes differ or
    something is not finite; of a scalar one row."""
    if reference.shape != other.shape:
        return np.array([[math.inf, 1.0]])
    rows = reference.shape[0] if reference.ndim and reference.size else 1
    y = reference.astype(np.float64).reshape(rows, -1)
    with np.errstate(all="ignore"):
        error = other.astype(np.float64).reshape(rows, -1) - y
        found = np.stack([(error * error).sum(axis=1), (y * y).sum(axis=1)], axis=1)
    return np.where(np.isnan(found), math.inf, found)


def ratio(found: np.ndarray) -> float:
    """The squared error of all entries relative to their power."""
    value = float(found[:, 0].sum()) / max(float(found[:, 1].sum()), 1e-300)
    return value if not math.isnan(value) else math.inf


class Portion:
    """The entries of one sample that err most at the outputs, and the reference's run on them.

    Args:
        entries: Which, ascending.
        count: How many entries the batch has.
        batched: Names of the inputs whose leading axis is the batch.
    """

    def __init__(self, entries: Sequence[int], count: int, batched: Collection[str]) -> None:
        self.entries = list(entries)
        self.count = count
        self.batched = batched
        self._kept: dict[str, np.ndarray] = {}

    def run(self, step: PiecePair, values: Arrays, session: Session, last: Mapping[str, int]) -> Arrays:
        """The reference's tensors of a piece on these entries.

        Args:
            step: The piece.
            values: Its tensors on the whole batch.
            session: The reference's session on it.
            last: The last step that reads each tensor, which is kept until then.

        Raises:
            Mixed: It does not run on some entries alone.
        """
        feed = {}
        for name in step.reference.inputs:
            if name in self._kept:
                feed[name] = self._kept[name]
            else:  # an input of the model
                feed[name] = self._rows(values[name]) if name in self.batched else values[name]
        try:
            made = session.infer(feed, step.reference.outputs)
        except LayerdiffError as error:
            raise Mixed(str(error)) from error
        found = {**feed, **made}
        self._kept = {n: a for n, a in {**self._kept, **found}.items() if last.get(n, -1) > step.index}
        return found

    def taken(self, own: np.ndarray, reference: np.ndarray, made: np.ndarray) -> np.ndarray:
        """What the candidate made of a layer's inputs, on these entries: its error, added to the reference's values.

        Args:
            own: The reference's tensor on these entries.
            reference: The same on the whole batch.
            made: The candidate's, on the whole batch.

        Raises:
            Mixed: The two of the reference are not the same.
        """
        y, c = self._rows(reference), self._rows(made)
        if not is_float(y.dtype):
            self._hold(own, y, 0.0)
            return c
        with np.errstate(invalid="ignore", over="ignore"):
            error = c.astype(y.dtype) - y
            self._hold(own, y, _norm(error))
            return np.where(np.isfinite(error), own + error, c).astype(y.dtype)

    def output(self, name: str, reference: np.ndarray, error: np.ndarray) -> np.ndarray:
        """An output of the reference on these entries.

        Args:
            name: The output.
            reference: It, on the whole batch.
            error: The candidate's on the whole batch, see `Squares`.

        Raises:
            Mixed: The reference gives something else there.
        """
        if name not in self._kept:
            raise Mixed(f"{name!r} was not reached.")
        self._hold(self._kept[name], self._rows(reference), math.sqrt(float(error[self.entries, 0].sum())))
        return self._kept[name]

    def _rows(self, array: np.ndarray) -> np.ndarray:
        """These entries of a tensor whose leading axis is that of the batch, or holds as much of each entry."""
        if not array.ndim or not array.size or array.shape[0] % self.count:
            raise Mixed(f"a tensor of shape {array.shape} has no {self.count} entries.")
        by_entry = array.reshape(self.count, -1, *array.shape[1:])[self.entries]
        return by_entry.reshape(-1, *array.shape[1:])

    def _hold(self, own: np.ndarray, expected: np.ndarray, error: float) -> None:
        if own.shape != expected.shape or not is_float(own.dtype):
            alike = own.shape == expected.shape and np.array_equal(own, expected)
        else:
            with np.errstate(invalid="ignore"):
                difference = np.where(own == expected, 0.0, own.astype(np.float64) - expected)
            size = _norm(difference)
            alike = math.isfinite(size) and size <= APART * error
        if not alike:
            raise Mixed("the entries of a batch are not computed each by itself.")


def portion_of(model: Model, feed: Arrays, errors: Sequence[np.ndarray], least: float) -> Portion | None:
    """The entries of a sample that err most; None where its inputs and outputs have no batch of more than twice as many
    entries in common, where these have fewer than `ELEMENTS`, where something is not finite, or where errors are
    `SMALL`.

    Args:
        model: The reference's model.
        feed: The sample.
        errors: The candidate's errors at the outputs of this sample, see `Squares`.
        least: Elements of the smallest tensor that the error passes through.
    """
    batched = [s.name for s in model.inputs if s.shape and not isinstance(s.shape[0], int)]
    sizes = {*(feed[name].shape[0] for name in batched), *(len(error) for error in errors)}
    if not batched or not errors or len(sizes) != 1:
        return None
    count = sizes.pop()
    error = np.sum([found[:, 0] / max(float(found[:, 1].sum()), 1e-300) for found in errors], axis=0)
    if count <= 2 * ENTRIES or least < ELEMENTS * count or not SMALL**2 < float(error.sum()) < math.inf:
        return None
    return Portion(sorted(np.argsort(error)[-ENTRIES:].tolist()), count, batched)


def _norm(values: np.ndarray) -> float:
    flat = values.reshape(-1).astype(np.float64)
    return math.sqrt(float(flat @ flat)) if np.isfinite(flat).all() else math.inf
