"""The few calls of the CUDA runtime that running an engine takes: memory, copies, streams and events.

``polygraphy.cuda`` finds the library, be it on the loader's path, in a toolkit or in a wheel; the calls go to it
directly, since Polygraphy's wrapper prints before it raises and has no events.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

from ...graph.errors import MissingPackage, RunnerError, first_line

TO_DEVICE, TO_HOST, ON_DEVICE = 1, 2, 3


def gpu() -> str:
    """Name of the first NVIDIA GPU; empty if there is none, or no driver."""
    return _driver()[0]


def why_no_gpu() -> str:
    """Why `gpu` found none."""
    return _driver()[1]


@lru_cache(maxsize=1)
def _driver() -> tuple[str, str]:
    driver = None
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
            break
        except OSError:
            continue
    if driver is None:
        return "", "no NVIDIA driver is installed"
    count, buffer, device = ctypes.c_int(0), ctypes.create_string_buffer(256), ctypes.c_int(0)
    status = driver.cuInit(0)
    if status != 0:
        return "", f"the NVIDIA driver reports error {status}"
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "", "the NVIDIA driver lists no device"
    driver.cuDeviceGet(ctypes.byref(device), 0)
    driver.cuDeviceGetName(buffer, 256, device)
    return buffer.value.decode("utf-8", "replace") or "NVIDIA GPU", ""


class Cuda:
    """The CUDA runtime library. Addresses, streams and events are plain integers."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            get = self._library.cudaGetErrorString
            get.restype = ctypes.c_char_p
            text = (get(status) or b"").decode("utf-8", "replace")
            raise RunnerError(f"CUDA: {name} failed with error {status} ({text}).")

    def _out(self, name: str, *arguments: Any) -> int:
        handle = ctypes.c_void_p()
        self._call(name, ctypes.byref(handle), *arguments)
        return handle.value or 0

    def malloc(self, size: int) -> int:
        """Address of ``size`` bytes of device memory."""
        return self._out("cudaMalloc", ctypes.c_size_t(size))

    def free(self, address: int) -> None:
        """Gives device memory back."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def malloc_host(self, size: int) -> int:
        """Address of ``size`` bytes of page-locked host memory."""
        return self._out("cudaMallocHost", ctypes.c_size_t(size))

    def free_host(self, address: int) -> None:
        """Gives page-locked memory back."""
        self._call("cudaFreeHost", ctypes.c_void_p(address))

    def copy(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        """Copies between host and device (`TO_DEVICE`, `TO_HOST`, `ON_DEVICE`), in the order of ``stream``."""
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(to),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            ctypes.c_int(kind),
            ctypes.c_void_p(stream),
        )

    def stream(self) -> int:
        """A new stream."""
        return self._out("cudaStreamCreate")

    def synchronize(self, stream: int) -> None:
        """Waits until all work of a stream is done; errors of kernels come out here."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def destroy_stream(self, stream: int) -> None:
        """Destroys a stream."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def event(self) -> int:
        """A new event, with timing."""
        return self._out("cudaEventCreate")

    def record(self, event: int, stream: int) -> None:
        """Has the stream stamp the event when it gets there."""
        self._call("cudaEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(stream))

    def elapsed(self, start: int, end: int) -> float:
        """Milliseconds between two events that have happened."""
        value = ctypes.c_float()
        self._call("cudaEventElapsedTime", ctypes.byref(value), ctypes.c_void_p(start), ctypes.c_void_p(end))
        return value.value

    def destroy_event(self, event: int) -> None:
        """Destroys an event."""
        self._call("cudaEventDestroy", ctypes.c_void_p(event))

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of device memory."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value


@lru_cache(maxsize=1)
def runtime() -> Cuda:
    """The CUDA runtime of this process.

    Raises:
        MissingPackage: Polygraphy is not installed.
        RunnerError: The library cannot be found.
    """
    try:
        from polygraphy.cuda import wrapper
    except ImportError:
        raise MissingPackage("polygraphy", "gpu") from None
    try:
        return Cuda(wrapper().handle)
    except Exception as error:
        raise RunnerError(f"CUDA's runtime library (libcudart) cannot be loaded: {first_line(error)}") from error


class Memory:
    """Device memory by name, kept between runs: a name's block only grows. Everything goes back on `close`."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self._blocks: dict[str, tuple[int, int]] = {}

    def block(self, name: str, size: int) -> int:
        """Address of at least ``size`` bytes under ``name``; what it held is lost when it has to grow."""
        size = max(size, 1)
        address, capacity = self._blocks.get(name, (0, 0))
        if capacity < size:
            if address:
                del self._blocks[name]
                self.cuda.free(address)
            address = self.cuda.malloc(size)
            self._blocks[name] = (address, size)
        return address

    def close(self) -> None:
        """Frees all blocks."""
        while self._blocks:
            _, (address, _) = self._blocks.popitem()
            self.cuda.free(address)
