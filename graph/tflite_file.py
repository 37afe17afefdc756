"""TFLite files: the tensors of their main graph, and parts of it as files of their own."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .errors import MissingPackage, ModelError, first_line
from .interrupts import uninterrupted

SUFFIXES = (".tflite", ".lite")
IDENTIFIER = b"TFL3"
_DTYPES = {
    "FLOAT32": "float32",
    "FLOAT16": "float16",
    "FLOAT64": "float64",
    "BFLOAT16": "bfloat16",
    "BOOL": "bool",
    "COMPLEX64": "complex64",
    "COMPLEX128": "complex128",
    "INT4": "int4",
    **{f"{sign.upper()}{bits}": f"{sign}{bits}" for sign in ("int", "uint") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class TfliteTensor:
    """A tensor of a TFLite file.

    Attributes:
        name: Its name; a number is behind it where another tensor has the same.
        index: Its position in the file.
        dtype: Type of what it holds; None for strings and handles.
        shape: Its dimensions; None where one is open.
        scale, zero: Of scaled integers with one scale: ``(q - zero) * scale`` is the number meant.
        constant: Whether the file holds its value.
    """

    name: str
    index: int
    dtype: np.dtype | None
    shape: tuple[int | None, ...]
    scale: float | None
    zero: int
    constant: bool

    def quantized(self, values: np.ndarray) -> np.ndarray:
        """Numbers as the tensor holds them: rounded to its steps and kept in its range."""
        assert self.scale is not None
        assert self.dtype is not None
        ends = np.iinfo(self.dtype)
        steps = np.rint(np.asarray(values, np.float64) / self.scale) + self.zero
        return np.clip(np.nan_to_num(steps, nan=self.zero), ends.min, ends.max).astype(self.dtype)

    def dequantized(self, integers: np.ndarray) -> np.ndarray:
        """The numbers that scaled integers stand for, FP32."""
        assert self.scale is not None
        return ((integers.astype(np.int64) - self.zero) * np.float32(self.scale)).astype(np.float32)


class TfliteFile:
    """A TFLite file.

    Args:
        path: The file.

    Raises:
        MissingPackage: ai-edge-litert is not installed.
        ModelError: It is no TFLite file, or holds no graph.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.schema = import_litert("schema_py_generated")
        content = self.path.read_bytes()
        if content[4:8] != IDENTIFIER:
            raise ModelError(f"{self.path}: not a TFLite model ({len(content):,} bytes).")
        try:
            self.model = self.schema.ModelT.InitFromPackedBuf(content, 0)
        except Exception as error:
            raise ModelError(f"{self.path}: a damaged TFLite model: {first_line(error)}.") from error
        if not self.model.subgraphs or not _listed(self.model.subgraphs[0].outputs):
            raise ModelError(f"{self.path}: a TFLite model without outputs.")

    @property
    def graph(self) -> Any:
        """The main graph, as flatbuffers' object API gives it."""
        return self.model.subgraphs[0]

    @cached_property
    def tensors(self) -> tuple[TfliteTensor, ...]:
        """The tensors of the main graph, by their index."""
        types = {value: name for name, value in vars(self.schema.TensorType).items() if not name.startswith("_")}
        taken: set[str] = set()
        found = []
        for index, tensor in enumerate(self.graph.tensors):
            name = (tensor.name or b"").decode("utf-8", "replace") or f"tensor_{index}"
            if name in taken:
                name = f"{name}#{index}"
            taken.add(name)
            scale, zero = _scale(tensor.quantization)
            found.append(
                TfliteTensor(
                    name, index, _dtype(types[tensor.type]), _shape(tensor), scale, zero, self._data(tensor) is not None
                )
            )
        return tuple(found)

    @cached_property
    def named(self) -> dict[str, TfliteTensor]:
        """The tensors by name."""
        return {tensor.name: tensor for tensor in self.tensors}

    def halves(self) -> list[np.ndarray]:
        """What the file holds in FP16."""
        held = (t for t in self.tensors if t.constant and t.dtype == np.float16)
        found = (self._data(self.graph.tensors[t.index]) for t in held)
        return [np.frombuffer(bytes(memoryview(data)), "<f2") for data in found]

    @cached_property
    def producer(self) -> dict[int, int]:
        """Tensor -> position of the operator that makes it."""
        return {index: position for position, op in enumerate(self.graph.operators) for index in _listed(op.outputs)}

    def operator(self, position: int) -> str:
        """What an operator does, as TFLite calls it (``CONV_2D``)."""
        codes = {value: name for name, value in vars(self.schema.BuiltinOperator).items() if not name.startswith("_")}
        code = self.model.operatorCodes[self.graph.operators[position].opcodeIndex]
        return codes.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")

    def interface(self) -> tuple[dict[str, int], dict[str, int]]:
        """Inputs and outputs by name: as the signature calls them, where there is one, else as the tensors are called.

        The signature is ``serving_default``, or the first of those of the main graph.
        """
        signatures = [s for s in self.model.signatureDefs or () if not s.subgraphIndex]
        signatures.sort(key=lambda s: s.signatureKey != b"serving_default")
        known = [(s.inputs, s.outputs) for s in signatures[:1]] or [((), ())]
        whole = _listed(self.graph.inputs), _listed(self.graph.outputs)
        inputs, outputs = (
            {index: self.tensors[index].name for index in indices}
            | {int(t.tensorIndex): t.name.decode() for t in names}
            for indices, names in zip(whole, known[0], strict=True)
        )
        return {name: index for index, name in inputs.items()}, {name: index for index, name in outputs.items()}

    def signatures(self) -> tuple[str, ...]:
        """Names of the signatures of other graphs than the main one."""
        return tuple(s.signatureKey.decode() for s in self.model.signatureDefs or () if s.subgraphIndex)

    def cut(self, given: Collection[int], wanted: Sequence[int]) -> bytes:
        """What makes tensors of others, as a file.

        Args:
            given: Tensors that are its inputs, as far as they are needed; in this order.
            wanted: Its outputs.

        Raises:
            ModelError: Something is needed that is neither given nor in the file.
        """
        needed: set[int] = set()
        read: set[int] = set()
        waiting = list(wanted)
        while waiting:
            index = waiting.pop()
            if index in read or index < 0:
                continue
            read.add(index)
            if index in given or self.tensors[index].constant:
                continue
            position = self.producer.get(index)
            if position is None:
                raise ModelError(f"{self.path}: {self.tensors[index].name!r} was not given.")
            needed.add(position)
            waiting += _listed(self.graph.operators[position].inputs)
        graph = copied(self.graph)
        graph.operators = [self.graph.operators[position] for position in sorted(needed)]
        graph.inputs, graph.outputs = [index for index in given if index in read], list(wanted)
        return self._packed(graph, {self.graph.tensors[index].buffer for index in read})

    def _packed(self, graph: Any, buffers: Collection[int]) -> bytes:
        """The file with another main graph, and without what other buffers hold."""
        model = copied(self.model)
        model.subgraphs = [graph, *self.model.subgraphs[1:]]
        others = {t.buffer for g in self.model.subgraphs[1:] for t in g.tensors}
        empty = self.schema.BufferT()
        model.buffers = [b if n in buffers or n in others else empty for n, b in enumerate(self.model.buffers)]
        model.signatureDefs = model.metadata = model.metadataBuffer = None
        return packed(model)

    def _data(self, tensor: Any) -> Any:
        data = self.model.buffers[tensor.buffer].data
        return None if data is None or not len(data) else data


def packed(model: Any) -> bytes:
    """A file of flatbuffers' object API as bytes."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def import_litert(module: str) -> Any:
    """A module of ai_edge_litert.

    Raises:
        MissingPackage: It is not installed, or is installed and broken.
    """
    import importlib

    try:
        with uninterrupted():
            return importlib.import_module(f"ai_edge_litert.{module}")
    except ModuleNotFoundError as error:
        raise MissingPackage("TFLite's runtime (ai-edge-litert)", "tflite") from error
    except (ImportError, OSError) as error:
        raise MissingPackage(f"ai-edge-litert cannot be imported ({first_line(error)}): it", "tflite") from error


def copied(item: Any) -> Any:
    """A copy of an item of flatbuffers' object API, which holds the same parts."""
    copy = type(item)()
    vars(copy).update(vars(item))
    return copy


def _listed(indices: Any) -> list[int]:
    return [] if indices is None else [int(index) for index in indices]


def _dtype(name: str) -> np.dtype | None:
    import ml_dtypes

    known = _DTYPES.get(name)
    return None if known is None else np.dtype(getattr(ml_dtypes, known, known))


def _shape(tensor: Any) -> tuple[int | None, ...]:
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    return tuple(None if d < 0 else d for d in _listed(shape))


def _scale(quantization: Any) -> tuple[float | None, int]:
    if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
        return None, 0
    zero = _listed(quantization.zeroPoint)
    return float(quantization.scale[0]), zero[0] if zero else 0
