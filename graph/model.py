"""A network, from whatever file it came in: `load` reads it, `Model` is what every runner opens."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from .engine import Engine, file_digest
from .errors import ModelError
from .index import GraphIndex
from .specs import TensorSpec, spec_from_value_info
from .weights import external_bytes

CONTAINED = 1 << 30
"""Most bytes of external weights that `Model.contained` reads in."""


@dataclass(frozen=True)
class TfGraph:
    """The TensorFlow program behind a `Model`.

    Attributes:
        graph_def: The frozen ``tf.compat.v1.GraphDef``.
        inputs: ONNX input name -> TF tensor name (``x:0``).
        outputs: ONNX output name -> TF tensor name.
        tensors: ONNX tensor name -> TF tensor name, for every tensor of which tf2onnx left a trace. A name alone does
            not promise the same value: a folded BatchNormalization keeps its name.
        permutations: ONNX tensor name -> axes, for those tensors whose ONNX value is the TF value transposed by them
            (``(0, 3, 1, 2)``: NHWC in TF, NCHW in ONNX).
    """

    graph_def: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    tensors: Mapping[str, str] = field(default_factory=dict)
    permutations: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Model:
    """A network or a piece of one.

    Attributes:
        source: Where it came from, as the user named it; for messages and reports.
        path: The ONNX file, if this model is that file unchanged; runtimes then open the file itself.
        folder: The folder that external weights are relative to.
        tf: The TensorFlow program, where the source is one.
        root: Identifies the model that was loaded: a changed copy or a piece has the root of what it was made from.
        derived: Whether this is a changed copy or a piece, made by `derive`.
        engine: The serialized engine that the model was named by, which the runners that read engines run as it is. A
            changed copy or a piece has none.
        opaque: Whether its graph is one node that stands for an engine whose network is not known.
    """

    engine: Engine | None = None
    opaque: bool = False

    def __init__(
        self,
        proto: onnx.ModelProto | Callable[[], onnx.ModelProto],
        *,
        source: str = "<memory>",
        path: Path | None = None,
        folder: Path | None = None,
        tf: TfGraph | None = None,
        root: str | None = None,
    ) -> None:
        self._proto = proto
        self.source = source
        self.path = path
        self.folder = folder
        self.tf = tf
        self.root = root or uuid.uuid4().hex
        self.derived = root is not None

    def __repr__(self) -> str:
        return f"Model({self.source!r})"

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The ONNX model. External weights stay outside (`GraphIndex.weight` maps them). Must not be changed."""
        return self._proto if isinstance(self._proto, onnx.ModelProto) else self._proto()

    @cached_property
    def index(self) -> GraphIndex:
        """The graph with its edges looked up."""
        return GraphIndex(self.proto, self.folder)

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs that a caller has to give: graph inputs without an initializer."""
        return _tensors(self.proto.graph.input, self.source, skip={t.name for t in self.proto.graph.initializer})

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the graph, in its order."""
        return _tensors(self.proto.graph.output, self.source)

    @cached_property
    def sha256(self) -> str:
        """Hash of the source file, or of the graph where there is no single file (external weights not included)."""
        path = Path(self.source)
        if path.is_file():
            return file_digest(path)
        return hashlib.sha256(self.proto.SerializeToString(deterministic=True)).hexdigest()

    @property
    def label(self) -> str:
        """The file that the user named: the engine, where it was one."""
        return self.source if self.engine is None else os.fspath(self.engine.path)

    def derive(self, proto: onnx.ModelProto) -> Model:
        """A changed copy or a piece: same source and weights folder, another graph."""
        return Model(proto, source=self.source, folder=self.folder, root=self.root)

    def contained(self) -> Model:
        """The same model with external weights read into it, as far as a message of protobuf may hold them."""
        outside = external_bytes(self.proto)
        if not outside or outside > CONTAINED or self.folder is None:
            return self
        return self.derive(self.copied())

    def copied(self) -> onnx.ModelProto:
        """The ONNX model as the caller's own, with external weights read into it."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        if self.folder is not None:
            onnx.external_data_helper.load_external_data_for_model(proto, os.fspath(self.folder))
        return proto

    def serialized(self) -> bytes:
        """The model as bytes, for runtimes that take it from memory. External weights stay external.

        Raises:
            ModelError: It holds 2 GiB or more inside.
        """
        try:
            return self.proto.SerializeToString()
        except Exception as error:  # protobuf's own exception class differs between its implementations
            raise ModelError(
                f"{self.source}: 2 GiB or more without external data cannot be handed over in memory."
            ) from error


def _tensors(infos: Any, source: str, skip: set[str] | frozenset[str] = frozenset()) -> tuple[TensorSpec, ...]:
    specs = []
    for info in infos:
        if info.name in skip:
            continue
        spec = spec_from_value_info(info)
        if spec is None:
            kind = info.type.WhichOneof("value") or "untyped value"
            raise ModelError(f"{source}: {info.name!r} is a {kind.removesuffix('_type')}; only tensors are compared.")
        specs.append(spec)
    return tuple(specs)
