"""The installed TensorRT or TensorRT for RTX, the GPU that it runs on, and plugins."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...graph.errors import MissingPackage, ProviderUnavailable, UsageError, first_line
from ...graph.interrupts import uninterrupted

if TYPE_CHECKING:
    from .versions import Library


def installed(rtx: bool = False) -> Library:
    """The installed TensorRT.

    Args:
        rtx: TensorRT for RTX instead.

    Raises:
        MissingPackage: There is none.
        ProviderUnavailable: It cannot be loaded, or is older than 8.5; TensorRT for RTX: than 1.7.
    """
    from .versions import Library

    package, what, extra = ("tensorrt_rtx", "TensorRT for RTX", "rtx") if rtx else ("tensorrt", "TensorRT", "gpu")
    try:
        with uninterrupted():
            found = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise ProviderUnavailable(f"{what} is installed but cannot be loaded: {error}.") from error
        missing = MissingPackage(what, extra)
        missing.args = (f"{missing}\nWithout an NVIDIA GPU, --emulate fp16 shows what FP16 would do.",)
        raise missing from None
    except (ImportError, OSError) as error:
        raise ProviderUnavailable(f"{what} is installed but cannot be loaded: {first_line(error)}.") from error
    return Library.of(found, rtx)


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
    """TensorRT's version and the GPU, where there is one, for the report."""
    from . import cuda

    gpu = cuda.gpu()
    return {library.package: str(library.trt.__version__), **({"gpu": gpu} if gpu else {})}
