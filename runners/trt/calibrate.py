"""INT8 calibration by TensorRT itself (8.5 to 10), fed with the samples every runner gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .cuda import TO_DEVICE, Cuda, Memory

if TYPE_CHECKING:
    import numpy as np

    from ..contract.workload import Feed
    from .versions import Library

CALIBRATORS = {
    "entropy2": "IInt8EntropyCalibrator2",
    "entropy": "IInt8EntropyCalibrator",
    "minmax": "IInt8MinMaxCalibrator",
}


def make_calibrator(
    library: Library,
    kind: str,
    samples: Callable[[], Iterable[Feed]] | None,
    dtypes: Mapping[str, np.dtype],
    cuda: Cuda,
    cache: bytes | None = None,
) -> Any:
    """A TensorRT calibrator over ``samples``.

    Args:
        library: The installed TensorRT.
        kind: A key of `CALIBRATORS`.
        samples: Gives the samples anew; None if only ``cache`` is to be used.
        dtypes: Input name -> dtype that the network takes it in.
        cuda: Where batches are put.
        cache: A calibration cache to use instead of measuring.

    Returns:
        An object with ``cache`` (bytes that were given), ``measured`` (bytes, set once TensorRT wrote them), ``used``
        and ``skipped`` (counts of samples), ``error`` (what the samples raised, for the caller to raise again: TensorRT
        swallows it) and ``close()``.
    """
    base = getattr(library.trt, CALIBRATORS[kind])

    class Calibrator(_Batches, base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)
            feeds = samples() if samples is not None and cache is None else ()
            _Batches.__init__(self, iter(feeds), dtypes, cuda, cache)

    return Calibrator()


class _Batches:
    """What TensorRT asks of a calibrator."""

    def __init__(
        self, samples: Iterator[Feed], dtypes: Mapping[str, np.dtype], cuda: Cuda, cache: bytes | None
    ) -> None:
        self.cache = cache
        self.measured: bytes | None = None
        self.used = self.skipped = 0
        self.error: BaseException | None = None
        self._samples, self._dtypes, self._cuda = samples, dtypes, cuda
        self._memory = Memory(cuda)
        self._shapes: dict[str, tuple[int, ...]] = {}

    def get_batch_size(self) -> int:
        """One sample at a time."""
        return 1

    def get_batch(self, names: Any) -> list[int] | None:
        """Addresses of the next sample's inputs on the device; None: there are no more."""
        try:
            return self._next(list(names))
        except BaseException as error:
            self.error = error
            return None

    def _next(self, names: list[str]) -> list[int] | None:
        import numpy as np

        for sample in self._samples:
            shapes = {name: tuple(sample[name].shape) for name in names}
            self._shapes = self._shapes or shapes
            if shapes != self._shapes:  # TensorRT calibrates at one shape
                self.skipped += 1
                continue
            addresses = []
            for name in names:
                array = np.ascontiguousarray(sample[name], dtype=self._dtypes[name])
                address = self._memory.block(name, array.nbytes)
                self._cuda.copy(address, array.ctypes.data, array.nbytes, TO_DEVICE, 0)
                self._cuda.synchronize(0)
                addresses.append(address)
            self.used += 1
            return addresses
        return None

    def read_calibration_cache(self) -> bytes | None:
        """What to use instead of measuring."""
        return self.cache

    def write_calibration_cache(self, cache: Any) -> None:
        """Keeps what was measured."""
        self.measured = bytes(cache)

    def close(self) -> None:
        """Frees the memory on the device."""
        self._memory.close()
