"""Weights as others store them, read without the frameworks that wrote them: arrays by name.

Pickles are read by unpicklers that know the few classes which arrays need, and refuse all others.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.lib.stride_tricks import as_strided

Weights = dict[str, np.ndarray]

_SAFETENSORS = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
_TORCH_STORAGES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4"}


def safetensors(path: Path) -> Weights:
    """A file in the format safetensors: the length of a JSON header, the header, and the tensors one after another."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    body = memoryview(data)[8 + length :]
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], _SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def keras_h5(path: Path) -> Weights:
    """All arrays in an HDF5 file of Keras 2, by the name of the layer and of the weight: ``conv1d_1/kernel``."""
    import h5py

    found: Weights = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[f"{name.split('/')[-2]}/{name.split('/')[-1].removesuffix(':0')}"] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


class _Known(pickle.Unpickler):
    """Unpickles what is made of builtin containers and of the classes in `classes`."""

    classes: ClassVar[dict[tuple[str, str], Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.classes[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not expected in this file") from None


class _NumPy(_Known):
    classes: ClassVar = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("collections", "OrderedDict"): OrderedDict,
    }


def numpy_pickle(path: Path) -> Any:
    """What a pickle of NumPy arrays, strings, numbers and containers holds."""
    with path.open("rb") as file:
        return _NumPy(file).load()


class _Torch(_Known):
    """Of a file in the format that PyTorch wrote before 1.6: tensors name storages, which follow at the end."""

    classes: ClassVar = {
        ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: as_strided(
            storage[offset:], shape, [stride * storage.itemsize for stride in strides]
        ),
        ("collections", "OrderedDict"): OrderedDict,
        **{("torch", name): dtype for name, dtype in _TORCH_STORAGES.items()},
    }

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}

    def persistent_load(self, identity: Any) -> np.ndarray:
        _, kind, key, _, size, _ = identity
        return self.storages.setdefault(key, np.empty(size, kind))


def torch_legacy(path: Path) -> Any:
    """What ``torch.load`` gives for a file written before PyTorch 1.6, with arrays for tensors."""
    with path.open("rb") as file:
        for _ in range(3):  # a magic number, the version of the protocol, facts about the machine
            _Known(file).load()
        reader = _Torch(file)
        loaded = reader.load()
        for key in _Known(file).load():
            (size,) = struct.unpack("<q", file.read(8))
            storage = reader.storages[key]
            storage[:] = np.frombuffer(file.read(size * storage.itemsize), storage.dtype)
    return loaded
