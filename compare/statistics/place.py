"""Where a maximum was found, with the two values there as Python has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Place:
    """Where a maximum was found.

    Attributes:
        value: The maximum: an exact ``int`` between integers, else a ``float``, ``inf`` where one side is not finite.
        sample: Number of the sample.
        index: Indices within that sample's tensor, one for each axis.
        reference, candidate: The two values there, as Python numbers.
    """

    value: float
    sample: int
    index: tuple[int, ...]
    reference: Any
    candidate: Any


def greater(one: Place | None, other: Place | None) -> Place | None:
    """The place of the greater value; of equal ones, the earlier."""
    if one is None or other is None:
        return one or other
    if one.value != other.value:
        return one if one.value > other.value else other
    return one if (one.sample, one.index) <= (other.sample, other.index) else other


def number(x: Any) -> Any:
    """A NumPy scalar as a Python number (ml_dtypes scalars have no ``item`` that gives one)."""
    if isinstance(x, (str, bytes)):
        return text(x)
    x = np.asarray(x)
    if x.dtype.kind == "V":
        x = x.astype(np.int8 if "float" not in x.dtype.name else np.float64)
    return x.item()


def text(x: Any) -> Any:
    """Strings as ``str``: TensorFlow gives ``bytes`` where ONNX Runtime gives ``str``."""
    return x.decode("utf-8", "surrogateescape") if isinstance(x, bytes) else x
