"""Serialized TensorRT engines as models: which network an engine was built from, by the facts kept beside it.

An engine holds kernels and weights, and no graph. So whoever saves one writes ``X.engine.json`` beside ``X.engine``:
the ONNX file (or TensorFlow graph) it was built from with its hash, how it was built, and its inputs and outputs. A
model that was moved together with its engine is found again; one that changed since is noticed. Where the network is
not known, the engine stands alone: a graph of one opaque node, of which outputs can be compared and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .digest import file_digest
from .errors import ModelError
from .specs import TensorSpec, dtype_to_onnx
from .whole_file import turn

SUFFIXES = (".engine", ".plan", ".trt")
"""Names of files that hold a serialized engine end so."""
SCHEMA = "layerdiff.engine/1"
DOMAIN = "layerdiff.engine"
"""Domain of the one node that stands for an engine of unknown network."""


@dataclass(frozen=True)
class Engine:
    """A serialized engine in a file.

    Attributes:
        path: The file.
        facts: What was kept beside it when it was saved; empty where there is nothing.
    """

    path: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Engine:
        """The engine in a file, held against what is kept beside it.

        Raises:
            ModelError: No such file; it is empty, cut short, or not the one that the facts beside it describe.
        """
        path = Path(path)
        with turn(path.absolute().parent, reading=True):
            return cls._at(path)

    @classmethod
    def _at(cls, path: Path) -> Engine:
        if not path.is_file():
            raise ModelError(f"{path}: no such engine file.")
        size = path.stat().st_size
        if not size:
            raise ModelError(f"{path}: empty, not an engine.")
        facts = _read(facts_path(path))
        own = facts.get("engine", {})
        if facts and own.get("bytes") != size:
            expected = own.get("bytes", 0)
            if size < expected:
                raise ModelError(f"{path}: cut short, {size:,} of {expected:,} bytes. Save the engine again.")
            raise ModelError(_another(path))
        if facts and own.get("sha256") != file_digest(path):
            raise ModelError(_another(path))
        return cls(path, facts)

    def __str__(self) -> str:
        return os.fspath(self.path)

    def content(self) -> bytes:
        """The serialized engine.

        Raises:
            ModelError: The file is another one by now.
        """
        data = self.path.read_bytes()
        if self.facts and hashlib.sha256(data).hexdigest() != self.digest:
            raise ModelError(f"{self.path}: another engine has been written there meanwhile. Start again.")
        return data

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return str(self.facts["engine"]["sha256"]) if self.facts else file_digest(self.path)

    @property
    def specs(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] | None:
        """Inputs and outputs, where they are known without opening it."""
        if not self.facts:
            return None
        inputs, outputs = (tuple(_spec(item) for item in self.facts.get(key, ())) for key in ("inputs", "outputs"))
        return inputs, outputs

    @property
    def profiles(self) -> tuple[dict[str, tuple[tuple[int, ...], ...]], ...]:
        """Of each optimization profile: input -> (min, opt, max)."""
        return tuple(
            {name: tuple(tuple(shape) for shape in shapes) for name, shapes in profile.items()}
            for profile in self.facts.get("profiles", ())
        )

    @cached_property
    def origin(self) -> tuple[Path | None, str]:
        """The file it was built from, as it was then; and why there is none, in half a sentence."""
        if not self.facts:
            return None, f"nothing beside {self.path.name} says which ONNX file it was built from"
        kept = self.facts.get("model")
        if not kept:
            return None, f"{self.path.name} was built from a model in memory"
        named = Path(os.path.normpath(self.path.parent / kept["path"]))
        changed = ""
        for path in dict.fromkeys((named, self.path.parent / Path(kept["path"]).name)):
            if not path.exists():
                continue
            difference = differs(kept, path)
            if difference is None:
                return path, ""
            changed = changed or difference
        if changed:
            return None, f"{changed} since {self.path.name} was built from it"
        return None, f"{named}, which {self.path.name} was built from, is not there"

    def built_from(self, source: str | os.PathLike[str]) -> str:
        """Why it was not built from the model in ``source``, in half a sentence; empty where it was, or nobody can
        tell."""
        kept = self.facts.get("model")
        path = Path(source)
        if not kept or not path.exists() or differs(kept, path) is None:
            return ""
        return f"{self.path.name} was not built from {source} as it is now"


def facts_path(engine: Path) -> Path:
    """The file beside an engine that says what it was built from."""
    return engine.with_name(engine.name + ".json")


def _another(path: Path) -> str:
    beside = facts_path(path).name
    return f"{path} is not the engine that {beside} beside it describes. Save it again, or remove {beside}."


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text("utf-8"))
        if facts["schema"] == SCHEMA:
            return dict(facts)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ModelError(f"{path}: not the facts of an engine ({SCHEMA}), or damaged. Remove it or save the engine again.")


def _spec(item: Mapping[str, Any]) -> TensorSpec:
    try:
        dtype = np.dtype(item["dtype"])
    except TypeError:
        import ml_dtypes

        dtype = np.dtype(getattr(ml_dtypes, item["dtype"]))
    return TensorSpec(item["name"], dtype, None if item["shape"] is None else tuple(item["shape"]))


def differs(kept: Mapping[str, Any], path: Path) -> str | None:
    """What of a model's files is not as it was when ``kept`` was taken: ``path has changed``; None: all is."""
    now = fingerprint(path, kept.get("external", {}))
    if now["sha256"] != kept["sha256"]:
        return f"{path} has changed"
    for name, digest in kept.get("external", {}).items():
        if now["external"].get(name) != digest:
            return f"{path.parent / name}, weights of {path.name}, has changed"
    return None


def fingerprint(path: Path, external: Iterable[str] = ()) -> dict[str, Any]:
    """Hashes of a model's file, or of all files of its folder, and of its external weights (null: not there)."""
    weights = {name: path.parent / name for name in external}
    return {
        "sha256": file_digest(path),
        "external": {name: file_digest(file) if file.is_file() else None for name, file in weights.items()},
    }


def facts_of(
    path: Path,
    engine: bytes,
    source: Path,
    external: Collection[str],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    **more: Any,
) -> dict[str, Any]:
    """What is to be kept beside an engine.

    Args:
        path: Where the engine is saved; the model's path is kept relative to it.
        engine: The engine.
        source: The file that it was built from; a model that was in memory has none.
        external: Files that hold the model's weights, relative to its folder.
        inputs, outputs: Those of the engine.
        more: How it was built.
    """
    origin = None
    if source.exists():
        try:
            where = Path(os.path.relpath(source.resolve(), path.resolve().parent)).as_posix()
        except ValueError:  # on another drive
            where = source.name
        origin = {"path": where, **fingerprint(source, sorted(set(external) - {source.name}))}
    return {
        "schema": SCHEMA,
        "engine": {"bytes": len(engine), "sha256": hashlib.sha256(engine).hexdigest()},
        "model": origin,
        "inputs": [_plain(s) for s in inputs],
        "outputs": [_plain(s) for s in outputs],
        **more,
    }


def _plain(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype.name, "shape": None if spec.shape is None else list(spec.shape)}


def opaque(name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> onnx.ModelProto:
    """A graph of one node that stands for an engine whose network is not known."""

    def info(spec: TensorSpec) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(spec.name, dtype_to_onnx(spec.dtype), spec.shape)

    node = onnx.helper.make_node(
        "Engine", [s.name for s in inputs], [s.name for s in outputs], name=name, domain=DOMAIN
    )
    graph = onnx.helper.make_graph([node], name, [info(s) for s in inputs], [info(s) for s in outputs])
    versions = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(DOMAIN, 1)]
    return onnx.helper.make_model(graph, opset_imports=versions, ir_version=8)


def is_opaque(proto: onnx.ModelProto) -> bool:
    """Whether a graph is one that `opaque` makes."""
    return len(proto.graph.node) == 1 and proto.graph.node[0].domain == DOMAIN
