"""How the values of a tensor lie on both sides, and where its error is: for pictures, never for verdicts.

The distribution is that of at most `SAMPLED` elements, evenly spaced, so that it costs next to nothing for any tensor.
What is exact and expensive (channels, heatmap) is made of the few tensors that are to blame.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SAMPLED = 1 << 14
"""Elements that a distribution is made of, at most."""
CHANNELS = 1024
"""Channels of a tensor, at most, of which each has its error."""
CELLS = 48
"""Rows and columns of a heatmap, at most."""


def distribution(reference: np.ndarray, candidate: np.ndarray) -> dict[str, Any] | None:
    """The shape, and of each side's values how many have which magnitude: floor(log2 |value|) -> elements.

    Args:
        reference, candidate: Tensors of one shape; one array, where they are the same.

    Returns:
        Plain values, as the report's JSON form has them; None for what is no real number.
    """
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    if not _real(reference) or not _real(candidate):
        return None
    mine = _side(reference)
    theirs = dict(mine) if candidate is reference else _side(candidate)
    return {
        "shape": list(reference.shape),
        "dtype": reference.dtype.name,
        "sides": {"reference": mine, "candidate": theirs},
    }


def _real(x: np.ndarray) -> bool:
    return x.dtype.kind in "fiuV" and x.dtype.names is None and x.size > 0


def _side(x: np.ndarray) -> dict[str, Any]:
    flat = x.reshape(-1)
    step = -(-flat.size // SAMPLED)
    some = flat[:: step + 1 - step % 2].astype(np.float64)  # odd: not always the same channel
    finite = np.isfinite(some)
    values = some[finite]
    nonzero = values[values != 0]
    exponents, counts = np.unique(np.frexp(nonzero)[1] - 1, return_counts=True)
    return {
        "elements": int(some.size),
        "not_finite": int(some.size - finite.sum()),
        "zero": int(values.size - nonzero.size),
        "negative": int((nonzero < 0).sum()),
        "least": _finite(flat.min(), values.min(initial=np.inf)),
        "greatest": _finite(flat.max(), values.max(initial=-np.inf)),
        "magnitudes": {str(e): int(n) for e, n in zip(exponents, counts, strict=True)},
    }


def _finite(*values: Any) -> float | None:
    """The first of some numbers that is finite: the extreme of all elements, or that of those that were looked at."""
    return next((float(value) for value in values if np.isfinite(float(value))), None)


def close_up(reference: np.ndarray, candidate: np.ndarray) -> dict[str, Any]:
    """Where the error of a tensor is: in which channels, and on a map of the greatest |error|.

    Args:
        reference, candidate: Tensors of one shape.

    Returns:
        ``axis`` and ``channels`` (relative L2 error of each, None where it is not finite), ``heatmap`` (rows of the
        greatest |error| in each cell, None where one side is not finite) with the ``rows`` and ``columns`` that it
        stands for; empty for what has no error to show.
    """
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    if not _real(reference) or not _real(candidate) or reference.shape != candidate.shape:
        return {}
    expected = reference.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(candidate.astype(np.float64) - expected)
    axis = channel_axis(expected.shape)
    found: dict[str, Any] = {} if axis is None else {"axis": axis, "channels": _channels(expected, error, axis)}
    rows = error.reshape(-1, error.shape[-1]) if error.ndim else error.reshape(1, 1)
    heat = _blocks(rows)
    return {**found, "heatmap": heat, "rows": rows.shape[0], "columns": rows.shape[1]}


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """The axis of channels: the second of what has a batch and places behind them, else the last; None if too long."""
    if len(shape) < 2:
        return None
    axis = 1 if len(shape) > 3 else len(shape) - 1
    return axis if 1 < shape[axis] <= CHANNELS else None


def _channels(expected: np.ndarray, error: np.ndarray, axis: int) -> list[float | None]:
    others = tuple(n for n in range(expected.ndim) if n != axis)
    with np.errstate(all="ignore"):
        wrong = np.sqrt(np.sum(error * error, axis=others))
        size = np.sqrt(np.sum(expected * expected, axis=others))
        shares = np.where(wrong == 0, 0.0, wrong / size)
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in shares]


def _blocks(rows: np.ndarray) -> list[list[float | None]]:
    """The greatest value of each of at most `CELLS` x `CELLS` blocks."""
    starts = [np.linspace(0, n, min(n, CELLS), endpoint=False).astype(int) for n in rows.shape]
    with np.errstate(invalid="ignore"):
        cells = np.maximum.reduceat(np.maximum.reduceat(rows, starts[0], axis=0), starts[1], axis=1)
    return [[float(f"{v:.4g}") if np.isfinite(v) else None for v in row] for row in cells]
