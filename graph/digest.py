"""Content hashes, by which a file, a graph and its weights are recognized wherever they are.

A network's digest is that of its graph (`outline`) and of the values of its weights (`contents`). Values are hashed as
they are stored, inside the model or in files beside it, so that it does not matter where they are: a model and its copy
with external data, or in another folder, have one digest. All of them are read for it, at the speed of SHA-256 (about
1 GB/s). Size and time of a file would be cheaper, and say too little: they change when a file is copied to another
machine, and need not change with what is in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

from .nodes import subgraphs
from .weights import stored_bytes

BLOCK = 1 << 20
"""Bytes that are hashed at a time."""
PAGE = 1 << 12
"""Bytes that an excerpt takes from each of three places of a weight."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder, in hexadecimal."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                digest.update(file_digest(file).encode())
        return digest.hexdigest()
    with path.open("rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def combined(parts: Iterable[str]) -> str:
    """One digest of several, or of other texts without a line break."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def hash_arrays(update: Callable[[bytes], None], arrays: Mapping[str, np.ndarray]) -> None:
    """Adds arrays to a hash: names in alphabetical order, dtypes, shapes and bytes."""
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        update(f"{name} {array.dtype.name} {array.shape}\0".encode())
        text = "\0".join(map(str, array.flat)) if array.dtype.kind in "OSU" else None
        update(array.tobytes() if text is None else text.encode("utf-8", "surrogateescape"))


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of arrays by name, in hexadecimal; see `hash_arrays`."""
    digest = hashlib.sha256()
    hash_arrays(digest.update, arrays)
    return digest.hexdigest()


def outline(proto: onnx.ModelProto) -> str:
    """Hash of everything in a model that decides what is computed, but for the values of its weights.

    Names of tensors and nodes, inferred types and notes of exporters at single nodes count; the model's own name, its
    documentation and the program that wrote it do not.
    """
    digest = hashlib.sha256()
    graph = proto.graph
    versions = sorted((o.domain, o.version) for o in proto.opset_import)
    _add(digest.update, repr((proto.ir_version, versions)).encode())
    for messages in (
        proto.functions,
        graph.node,
        graph.input,
        graph.output,
        graph.value_info,
        graph.sparse_initializer,
        graph.quantization_annotation,
    ):
        _add(digest.update, str(len(messages)).encode())
        for message in messages:
            _add(digest.update, message.SerializeToString(deterministic=True))
    for tensor in graph.initializer:
        _add(digest.update, repr((tensor.name, tensor.data_type, tuple(tensor.dims))).encode())
    return digest.hexdigest()


def held(proto: onnx.ModelProto) -> str:
    """Hash of a model's weights as it holds them: their values, or the place of those in other files."""
    digest = hashlib.sha256()
    for tensor in proto.graph.initializer:
        _add(digest.update, tensor.SerializeToString(deterministic=True))
    return digest.hexdigest()


def contents(proto: onnx.ModelProto, folder: Path | None, *, excerpt: bool = False) -> str:
    """Hash of the values of a model's weights.

    Args:
        proto: The model.
        folder: The folder that external data are relative to.
        excerpt: Whether to read but the two ends and the middle of large weights. Where that differs, they differ.
    """
    digest = hashlib.sha256()
    for tensor in (*proto.graph.initializer, *_outside(proto.graph.node)):
        stored = stored_bytes(tensor, folder)
        if stored is None:  # strings, and numbers in fields of their own type
            _add(digest.update, _values(tensor))
            continue
        digest.update(stored.size.to_bytes(8, "little"))
        if excerpt and stored.size > 3 * PAGE:
            blocks = [slice(start, start + PAGE) for start in (0, stored.size // 2, stored.size - PAGE)]
        else:
            blocks = [slice(start, start + BLOCK) for start in range(0, stored.size, BLOCK)]
        for block in blocks:
            digest.update(stored[block].data)
    return digest.hexdigest()


def _add(update: Callable[[bytes], None], part: bytes) -> None:
    update(len(part).to_bytes(8, "little"))
    update(part)


def _values(tensor: onnx.TensorProto) -> bytes:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.ClearField("name")
    copy.ClearField("doc_string")
    return copy.SerializeToString(deterministic=True)


def _outside(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """External data of constants and of bodies, of which `outline` has but the place."""
    for node in nodes:
        held = [a.t for a in node.attribute if a.HasField("t")]
        for body in subgraphs(node):
            held.extend(body.initializer)
            yield from _outside(body.node)
        yield from (t for t in held if t.data_location == onnx.TensorProto.EXTERNAL)
