"""A network, from whatever file it came in: `load` reads it, `Model` is what every runner opens."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from .engine import SUFFIXES as ENGINE_SUFFIXES
from .engine import Engine, file_digest, opaque
from .errors import ModelError
from .index import GraphIndex
from .sources import onnx_file as onnxfile
from .specs import TensorSpec, dtype_from_onnx, spec_from_value_info

ONNX_SUFFIXES = (".onnx", ".ort", ".onnx.pb", ".onnx.textproto")
CONTAINED = 1 << 30
"""Most bytes of external weights that `Model.contained` reads in."""
TF_SUFFIXES = (".pb", ".keras", ".h5", ".hdf5")


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


def external_bytes(proto: onnx.ModelProto) -> int:
    """Size of the weights that a model does not hold itself."""
    return sum(tensor_bytes(t) for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Size of a tensor's values, wherever they are."""
    return math.prod(tensor.dims) * dtype_from_onnx(tensor.data_type).itemsize


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


def load(
    source: str | os.PathLike[str] | onnx.ModelProto | Model,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> Model:
    """Reads a model.

    Args:
        source: An ``.onnx`` file, a TensorFlow frozen ``.pb``, a SavedModel folder, a ``.keras`` or ``.h5`` file, an
            engine (``.engine``, ``.plan``, ``.trt``: the model it was built from, with `Model.engine` set), an
            ``onnx.ModelProto``, or a `Model` (returned as it is).
        inputs, outputs: For TensorFlow frozen graphs: tensors to treat as inputs and outputs.

    Raises:
        ModelError: The file cannot be read as what its name says, or weights it refers to are missing.
        MissingPackage: A TensorFlow model, and TensorFlow is not installed.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, onnx.ModelProto):
        return Model(source)
    path = Path(source)
    if not path.exists():
        raise ModelError(f"{path}: no such file.")
    if is_engine(path):
        return load_engine(path, inputs=inputs, outputs=outputs)
    if path.is_dir() or (path.suffix in TF_SUFFIXES and not path.name.endswith(ONNX_SUFFIXES)):
        from .sources.tensorflow import load_tensorflow

        return load_tensorflow(path, inputs=inputs, outputs=outputs)
    if inputs or outputs:
        raise ModelError(f"{path}: inputs and outputs can be named for TensorFlow models only.")
    return _load_onnx(path)


def is_engine(source: object) -> bool:
    """Whether something names a file that holds a serialized engine, by how the name ends."""
    return isinstance(source, (str, os.PathLike)) and os.fspath(source).endswith(ENGINE_SUFFIXES)


def load_engine(
    path: str | os.PathLike[str],
    origin: str | os.PathLike[str] | onnx.ModelProto | Model | None = None,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> Model:
    """The model that a serialized engine was built from, with `Model.engine` set.

    Where that is not known (nothing was kept beside the engine, or the model is not there, or changed since), the model
    is `Model.opaque`: of one node, with the inputs and outputs that are kept beside the engine, if any.

    Args:
        path: The engine.
        origin: What it was built from, if the user says so.
        inputs, outputs: See `load`.

    Raises:
        ModelError: See `load` and `Engine.at`.
    """
    engine = Engine.at(path)
    source = engine.origin[0] if origin is None else origin
    if source is not None:
        # A copy: the model that was given may be run without the engine beside this one.
        model = copy.copy(load(source, inputs=inputs, outputs=outputs))
    else:
        known = engine.specs or ((), ())
        model = Model(opaque(engine.path.stem, *known), source=os.fspath(path))
        model.opaque = True
    model.engine = engine
    return model


def described(model: Model, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Model:
    """An engine that stands alone, with the inputs and outputs that were found by opening it."""
    assert model.engine is not None
    result = Model(opaque(model.engine.path.stem, inputs, outputs), source=model.source)
    result.engine, result.opaque = model.engine, True
    return result


def _load_onnx(path: Path) -> Model:
    from google.protobuf.message import DecodeError

    home = path
    try:
        proto = _parse(path)
        if path.is_symlink() and _external_files(proto) == {path.name}:
            home = path.resolve()  # runtimes do not follow links out of a folder
            proto = onnxfile.read(home)
    except DecodeError:
        raise ModelError(f"{path}: not an ONNX model, or cut short ({path.stat().st_size:,} bytes).") from None
    except Exception as error:
        raise ModelError(f"{path}: cannot be read: {str(error).splitlines()[0]}.") from error
    if not proto.opset_import or not proto.graph.output:
        raise ModelError(f"{path}: not an ONNX model, or an empty one ({path.stat().st_size:,} bytes).")
    _check_external(proto, home)
    return Model(proto, source=os.fspath(path), path=path, folder=home.parent)


def _parse(path: Path) -> onnx.ModelProto:
    return onnxfile.read(path) if path.suffix == ".onnx" else onnx.load(os.fspath(path), load_external_data=False)


def _external_files(proto: onnx.ModelProto) -> set[str]:
    """Where the weights are that the model does not hold itself, relative to its folder."""
    return {e.value for t in proto.graph.initializer for e in t.external_data if e.key == "location"}


def _check_external(proto: onnx.ModelProto, path: Path) -> None:
    sizes: dict[str, int] = {}
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        location = where.get("location", "")
        if location not in sizes:
            file = path.parent / location
            if not location or not file.is_file():
                raise ModelError(f"{path}: weights of {tensor.name!r} are in {location!r}, which is not beside it.")
            sizes[location] = file.stat().st_size
        end = int(where.get("offset", 0)) + int(where.get("length", 0))
        if end > sizes[location]:
            raise ModelError(
                f"{path}: {location!r} is cut short: {tensor.name!r} ends at byte {end:,} of {sizes[location]:,}."
            )
