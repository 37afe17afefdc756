"""PyTorch itself: how it is imported, and its tensors as NumPy's arrays and back."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...graph.errors import MissingPackage, RunnerError, first_line, said
from ...graph.interrupts import uninterrupted

if TYPE_CHECKING:
    import numpy as np

_BITS = {"bfloat16": "int16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}
"""Types that NumPy does not have, and those that their bits are handed over in."""


def cause(error: BaseException) -> str:
    """Why a program failed, in one line: TorchScript puts its traceback before it."""
    lines = said(error).splitlines()
    traced = bool(lines) and "TorchScript interpreter" in lines[0]
    return lines[-1].rstrip(".") if traced else first_line(error)


def import_torch() -> Any:
    """The ``torch`` module.

    Raises:
        MissingPackage: It is not installed, or is installed and broken.
    """
    try:
        with uninterrupted():
            import torch
    except ModuleNotFoundError as error:
        raise MissingPackage("PyTorch", "torch") from error
    except (ImportError, OSError) as error:
        raise MissingPackage(f"PyTorch cannot be imported ({first_line(error)}): it", "torch") from error
    return torch


def no_exporter() -> MissingPackage:
    """What is said where PyTorch's exporter, which shows the tensors inside a program, lacks its own package."""
    return MissingPackage("onnxscript, by which PyTorch shows the tensors inside a program,", "torch")


def to_tensor(torch: Any, name: str, array: np.ndarray, device: str) -> Any:
    """An array as a tensor of its own memory.

    Raises:
        RunnerError: PyTorch has no such type.
    """
    import numpy as np

    kind = array.dtype.name
    try:
        if kind in _BITS:
            made = torch.from_numpy(np.array(array, order="C").view(_BITS[kind])).view(getattr(torch, kind))
        else:
            made = torch.from_numpy(np.array(array, order="C"))
    except TypeError:
        raise RunnerError(f"torch: input {name!r} is {kind}, which PyTorch has no tensors of.") from None
    return made.to(device)


def to_array(tensor: Any) -> np.ndarray:
    """A tensor as an array of its own memory."""
    import numpy as np

    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in _BITS:
        return np.array(tensor.numpy(), order="C")
    import ml_dtypes
    import torch

    bits = tensor.contiguous().view(getattr(torch, _BITS[kind])).numpy()
    return np.array(bits, order="C").view(getattr(ml_dtypes, kind))


@contextlib.contextmanager
def arithmetic(torch: Any, tf32: bool) -> Iterator[None]:
    """Products in FP32, or on CUDA in TF32 where that is allowed, and the same kernels each time.

    A program that is imported may have set otherwise, as scripts for training do; how it was is put back at the end.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    wanted: list[tuple[Any, str, Any]] = [(cudnn, "benchmark", False), (cudnn, "deterministic", True)]
    try:
        wanted += [(matmul, "allow_tf32", tf32), (cudnn, "allow_tf32", tf32)]
        before = [(part, name, getattr(part, name)) for part, name, _ in wanted]
        usual = torch.get_float32_matmul_precision()  # that of the CPU, too
    except RuntimeError:  # the program has set some of it as PyTorch does it since 2.9: both ways do not mix
        cpu = torch.backends.mkldnn
        wanted[2:] = [(p, "fp32_precision", "tf32" if tf32 else "ieee") for p in (matmul, cudnn.conv, cudnn.rnn)]
        wanted += [(p, "fp32_precision", "ieee") for p in (cpu.matmul, cpu.conv, cpu.rnn)]
        before, usual = [(part, name, getattr(part, name)) for part, name, _ in wanted], ""
    try:
        if usual:
            torch.set_float32_matmul_precision("highest")
        for part, name, value in wanted:
            setattr(part, name, value)
        yield
    finally:
        if usual:
            torch.set_float32_matmul_precision(usual)
        for part, name, value in before:
            setattr(part, name, value)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what PyTorch's exporters log and warn of."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
