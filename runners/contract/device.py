"""Arrays that lie in a GPU's memory, as sessions give them to whoever can compute there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from ...graph.errors import RunnerError

if TYPE_CHECKING:
    import numpy as np


class Lease:
    """How long memory holds what was put there: until its session runs again or closes."""

    def __init__(self) -> None:
        self.over = False

    def end(self) -> None:
        """From now on nobody may read."""
        self.over = True


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A dense tensor in C order in a device's memory; written by work that has ended.

    ``numpy.asarray`` downloads it, once. CuPy, PyTorch and Numba take it as it is (``__cuda_array_interface__``).

    Attributes:
        start: Address of the first element; read it from `address`.
        shape: Dimensions.
        dtype: NumPy's or ml_dtypes'; every element takes whole bytes.
        device: ``"cuda:0"``. Arrays of one device can be computed with together.
        download: Makes a copy in host memory.
        owner: What keeps the memory alive.
        lease: How long it holds these values, where a session uses its memory again.
    """

    start: int
    shape: tuple[int, ...]
    dtype: np.dtype
    device: str
    download: Callable[[], np.ndarray]
    owner: Any = None
    lease: Lease | None = None

    @property
    def address(self) -> int:
        """Address of the first element.

        Raises:
            RunnerError: The session that gave this array has run again or is closed.
        """
        if self.lease is not None and self.lease.over:
            raise RunnerError("An array on the device was read after its session had run again or was closed.")
        return self.start

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of Numba's protocol, for dtypes that it can name.

        Raises:
            AttributeError: It cannot: the array is not on CUDA, or its dtype is not NumPy's own.
        """
        if not self.device.startswith("cuda") or self.dtype.kind not in "biufc":
            raise AttributeError(f"{self.dtype.name} on {self.device} has no CUDA array interface")
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address if self.size else 0, False),  # PyTorch refuses what is marked as read-only
            "strides": None,
            "version": 3,
        }

    @cached_property
    def _host(self) -> np.ndarray:
        self.address  # noqa: B018 - refuses when it is too late
        array = self.download()
        array.flags.writeable = False
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        host = self._host
        if dtype is not None and dtype != host.dtype:
            return host.astype(dtype)
        return host.copy() if copy else host
