"""What TensorRT calls back while it builds and runs: progress, memory for outputs, tensors to look at."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from .cuda import TO_HOST, Memory
from .dtypes import dtype_of


def make_monitor(trt: Any, progress: Callable[[str], None]) -> Any:
    """Tells ``progress`` how far the outermost phase of a build is."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._told = -1

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            total = self._steps.get(phase_name)
            if total:
                percent = 100 * (step + 1) // total
                if percent >= self._told + 5:
                    self._told = percent
                    progress(f"building the engine ({percent} %)")
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


def make_profiler(trt: Any, seen: dict[str, list[float]]) -> Any:
    """Keeps the milliseconds of every layer of an engine in ``seen``, a number for each run."""

    class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            seen.setdefault(layer_name, []).append(ms)

    return Profiler()


def make_allocator(trt: Any, memory: Memory) -> Any:
    """Memory for an output whose shape is known only when TensorRT has computed it."""

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.address = 0
            self.shape: tuple[int, ...] = ()

        def reallocate_output(self, tensor_name: str, memory_: int, size: int, alignment: int) -> int:
            self.address = memory.block(tensor_name, size)
            return self.address

        def reallocate_output_async(
            self, tensor_name: str, memory_: int, size: int, alignment: int, stream: int
        ) -> int:
            return self.reallocate_output(tensor_name, memory_, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shape = tuple(int(d) for d in shape)

    return Allocator()


def make_listener(trt: Any, cuda: Any, seen: dict[str, np.ndarray]) -> Any:
    """Copies the tensors that TensorRT shows into ``seen``."""

    class Listener(trt.IDebugListener):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IDebugListener.__init__(self)

        def process_debug_tensor(self, addr: Any, location: Any, type: Any, shape: Any, name: str, stream: int) -> None:
            array = np.empty(tuple(int(d) for d in shape), dtype_of(type))
            address = _address(addr)
            if location == trt.TensorLocation.HOST:
                ctypes.memmove(array.ctypes.data, address, array.nbytes)
            elif array.nbytes:
                cuda.copy(array.ctypes.data, address, array.nbytes, TO_HOST, stream)
                cuda.synchronize(stream)
            seen[name] = array

    return Listener()


def _address(pointer: Any) -> int:
    """The address that a PyCapsule (or an integer) holds."""
    if isinstance(pointer, int):
        return pointer
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    name = ctypes.pythonapi.PyCapsule_GetName
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    return int(get(pointer, name(pointer)) or 0)
