"""Array libraries that compute on a device: CuPy or PyTorch, if one of them is installed.

Neither package is a dependency, and neither is imported before two large arrays lie on one device.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...runners.contract.device import DeviceArray

log = logging.getLogger("layerdiff")

# Dtype -> how the elements are stored where not every library knows the dtype itself.
_STORED = {"bool": "uint8", "bfloat16": "int16", "uint16": "int16", "uint32": "int32"}


class Library:
    """An array library on one device; as it stands, one that has NumPy's functions and methods."""

    def __init__(self, xp: Any, device: str) -> None:
        self.xp = xp
        self.device = device
        self.name = f"{xp.__name__} {xp.__version__}"

    def vector(self, array: DeviceArray) -> Any:
        """The elements in C order, not copied, in the dtype that they are stored in."""
        stored = _STORED.get(array.dtype.name, array.dtype.name)
        return self.bytes(array).view(getattr(self.xp, stored))

    def bytes(self, array: DeviceArray) -> Any:
        """The same as uint8."""
        cuda, size = self.xp.cuda, array.nbytes
        memory = cuda.UnownedMemory(array.address, size, array, int(self.device.partition(":")[2] or 0))
        return self.xp.ndarray((size,), self.xp.uint8, cuda.MemoryPointer(memory, 0))

    def cast(self, x: Any, dtype: str) -> Any:
        """``x`` converted, not copied where it is of that dtype."""
        return x.astype(getattr(self.xp, dtype), copy=False)

    def upload(self, array: np.ndarray) -> Any:
        """A copy on the device."""
        return self.xp.asarray(array)

    def download(self, x: Any) -> np.ndarray:
        """A copy in host memory."""
        return np.asarray(x.get())

    def address(self, x: Any) -> int:
        """Where the first element is."""
        return int(x.data.ptr)

    def finish(self) -> None:
        """Waits for all that was started."""
        self.xp.cuda.Device().synchronize()

    def release(self) -> None:
        """Gives back the memory that the library keeps for its next arrays."""
        self.xp.get_default_memory_pool().free_all_blocks()

    def arange(self, start: int, stop: int) -> Any:
        """Integers, as int64."""
        return self.xp.arange(start, stop)

    def zeros(self, n: int) -> Any:
        """float64."""
        return self.xp.zeros(n)


class _Cupy(Library):
    def __init__(self, xp: Any, device: str) -> None:
        super().__init__(xp, device)
        self._exact = xp.ElementwiseKernel("float32 x", "float64 y", _EXACT, "layerdiff_exact")

    def cast(self, x: Any, dtype: str) -> Any:
        if dtype == "float64" and x.dtype == self.xp.float32:
            return self._exact(x)
        return super().cast(x, dtype)


_EXACT = """
int bits = __float_as_int(x);
double step = bits < 0 ? -1.4012984643248171e-45 : 1.4012984643248171e-45;
y = bits & 0x7f800000 ? (double)x : step * (bits & 0x7fffff);
"""
"""FP32 as FP64, subnormals too: CuPy compiles all kernels with ``-ftz=true``, which makes zeros of those."""


class _Torch(Library):
    def __init__(self, xp: Any, device: str) -> None:
        super().__init__(xp, device)
        self.name = f"torch {xp.__version__}"

    def bytes(self, array: DeviceArray) -> Any:
        return self.xp.as_tensor(_Bytes(array), device=self.device)

    def cast(self, x: Any, dtype: str) -> Any:
        return x.to(getattr(self.xp, dtype))

    def upload(self, array: np.ndarray) -> Any:
        return self.xp.tensor(array, device=self.device)

    def download(self, x: Any) -> np.ndarray:
        return np.asarray(x.cpu().numpy())

    def address(self, x: Any) -> int:
        return int(x.data_ptr())

    def finish(self) -> None:
        self.xp.cuda.synchronize()

    def release(self) -> None:
        self.xp.cuda.empty_cache()

    def arange(self, start: int, stop: int) -> Any:
        return self.xp.arange(start, stop, device=self.device)

    def zeros(self, n: int) -> Any:
        return self.xp.zeros(n, dtype=self.xp.float64, device=self.device)


class _Bytes:
    """The bytes of an array for PyTorch, which keeps this object, and so the memory, alive."""

    def __init__(self, array: DeviceArray) -> None:
        self._array = array
        place = (array.address, False)
        self.__cuda_array_interface__ = {"shape": (array.nbytes,), "typestr": "|u1", "data": place, "version": 2}


def _cupy(device: str) -> Library:
    import cupy

    cupy.cuda.Device(int(device.partition(":")[2] or 0)).use()
    return _Cupy(cupy, device)


def _torch(device: str) -> Library:
    import torch

    return _Torch(torch, device)


MAKERS: dict[str, Mapping[str, Callable[[str], Library]]] = {"cuda": {"cupy": _cupy, "torch": _torch}}
"""Kind of device -> package -> what makes a library for one of its devices; the first to try first."""

LIBRARIES: dict[str, Library | None] = {}
"""What `library` found, by device: looking for it means to import it."""


def library(device: str) -> Library | None:
    """What can compute on ``device``; None where nothing is installed that can."""
    if device not in LIBRARIES:
        LIBRARIES[device] = _find(device)
    return LIBRARIES[device]


def _find(device: str) -> Library | None:
    makers = MAKERS.get(device.partition(":")[0], {})
    for package in sorted(makers, key=lambda name: name not in sys.modules):  # one that is there already
        try:
            found = makers[package](device)
            ones = found.zeros(4) + 1.0
            if float((ones * ones).sum()) == 4:
                return found
        except Exception as error:  # not installed, or installed and broken
            log.debug("no statistics on %s by %s: %s", device, package, error)
    return None


def release() -> None:
    """Gives back the memory that libraries keep, for whoever builds and runs next."""
    for found in LIBRARIES.values():
        if found is not None:
            found.release()
