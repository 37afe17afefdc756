"""Decoders larger than memory: their matrices are written straight into a file, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx

from examples.tiny_decoder import Size, Writer, decoder

ROWS = 256
"""Rows of a matrix that are drawn; the rows behind them repeat these, rolled and scaled."""


class Streamed(Writer):
    """A writer whose matrices go to a file as they come.

    Args:
        file: The file, open for writing.
        name: What the model calls it.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(0)
        self._file, self._name = file, name
        self._blocks: dict[int, np.ndarray] = {}
        self.external: dict[str, onnx.TensorProto] = {}

    def matrix(self, name: str, rows: int, columns: int, gain: float = 1.0) -> str:
        """See `Writer.matrix`."""
        start = self._file.tell()
        for part in self.rows(len(self.external), rows, columns, gain):
            self._file.write(part.tobytes())
        self.external[name] = external(name, (rows, columns), self._name, start)
        return name

    def rows(self, number: int, rows: int, columns: int, gain: float) -> Iterator[np.ndarray]:
        """The rows of a matrix, some at a time: no two matrices, and no two stretches of one, are the same."""
        if columns not in self._blocks:
            self._blocks[columns] = np.random.default_rng(columns).standard_normal((ROWS, columns), np.float32)
        for part, start in enumerate(range(0, rows, ROWS)):
            scale = np.float32(gain * rows**-0.5 * (1 + 0.03 * np.sin(1.0 + number + 7 * part)))
            yield np.roll(self._blocks[columns][: rows - start], 131 * number + 17 * part, axis=1) * scale

    def tensors(self) -> list[onnx.TensorProto]:
        """See `Writer.tensors`."""
        return [*super().tensors(), *self.external.values()]


def external(name: str, dims: tuple[int, int], location: str, offset: int) -> onnx.TensorProto:
    """A matrix of FP32 in a file beside the model."""
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=dims)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    length = 4 * dims[0] * dims[1]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def large_pair(folder: Path, size: Size, stale: str) -> tuple[Path, Path]:
    """A decoder, and a candidate of which one matrix was rounded to FP16; both read the same file for the others.

    Args:
        folder: Where the files go; it must exist.
        size: How large the decoder is.
        stale: Name of the matrix.
    """
    with (folder / "weights.bin").open("wb") as file:
        writer = Streamed(file, "weights.bin")
        model = decoder(size, writer=writer)
    onnx.save(model, folder / "decoder.onnx")
    (tensor,) = (t for t in model.graph.initializer if t.name == stale)
    place = {entry.key: entry.value for entry in tensor.external_data}
    values = np.fromfile(folder / "weights.bin", np.float32, int(place["length"]) // 4, offset=int(place["offset"]))
    values.astype(np.float16).astype(np.float32).tofile(folder / "stale.bin")
    tensor.CopyFrom(external(stale, (tensor.dims[0], tensor.dims[1]), "stale.bin", 0))
    onnx.save(model, folder / "candidate.onnx")
    return folder / "decoder.onnx", folder / "candidate.onnx"
