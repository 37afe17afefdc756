"""The installed TensorRT, the GPU that it runs on, and plugins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...graph.errors import MissingPackage, ProviderUnavailable, UsageError, first_line
from ...graph.interrupts import uninterrupted

if TYPE_CHECKING:
    from .versions import Library


def installed() -> Library:
    """The installed TensorRT.

    Raises:
        MissingPackage: There is none.
        ProviderUnavailable: It cannot be loaded, or is older than 8.5.
    """
    from .versions import Library

    try:
        with uninterrupted():
            import tensorrt
    except ModuleNotFoundError as error:
        if error.name != "tensorrt":
            raise ProviderUnavailable(f"TensorRT is installed but cannot be loaded: {error}.") from error
        missing = MissingPackage("TensorRT", "gpu")
        missing.args = (f"{missing}\nWithout an NVIDIA GPU, --emulate fp16 shows what FP16 would do.",)
        raise missing from None
    except (ImportError, OSError) as error:
        raise ProviderUnavailable(f"TensorRT is installed but cannot be loaded: {first_line(error)}.") from error
    return Library.of(tensorrt)


def require_gpu(library: Library) -> None:
    """Makes sure that there is a GPU: without one, TensorRT 8.6 crashes the process instead of saying so.

    Raises:
        ProviderUnavailable: There is none; offers emulation.
    """
    from . import cuda

    if not cuda.gpu():
        raise ProviderUnavailable(
            f"{library} is installed, but there is no NVIDIA GPU to run it on: {cuda.why_no_gpu()}.\n"
            "Without one, --emulate fp16 shows what FP16 would do."
        )


def load_plugins(libraries: Iterable[str]) -> None:
    """Loads plugin libraries, whose operators the parser then knows.

    Raises:
        UsageError: One cannot be loaded.
    """
    import ctypes

    for path in libraries:
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise UsageError(f"--trt-plugin {path}: {error}.") from error


def versions_of(library: Library) -> dict[str, str]:
    """TensorRT's version and the GPU, for the report."""
    from . import cuda

    return {"tensorrt": str(library.trt.__version__), "gpu": cuda.gpu()}
