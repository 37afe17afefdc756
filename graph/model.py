"""A network, from whatever file it came in: `load` reads it, `Model` is what every runner opens."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from .digest import combined, contents, file_digest, held, outline
from .engine import Engine, is_opaque
from .errors import ModelError
from .index import GraphIndex
from .specs import TensorSpec, spec_from_value_info
from .weights import external_bytes, external_files, read_all_into

if TYPE_CHECKING:
    from tensorflow.core.framework.graph_pb2 import GraphDef

CONTAINED = 1 << 30
"""Most bytes of external weights that `Model.contained` reads in."""


@dataclass(frozen=True)
class ConvertedProgram:
    """The program that a `Model` was converted from by tf2onnx.

    Attributes:
        inputs: ONNX input name -> the program's tensor name (``x:0`` in TensorFlow).
        outputs: ONNX output name -> the program's tensor name.
        tensors: ONNX tensor name -> the program's tensor name, for every tensor of which tf2onnx left a trace. A name
            alone does not promise the same value: a folded BatchNormalization keeps its name.
        permutations: ONNX tensor name -> axes, for those tensors whose ONNX value is the program's transposed by them
            (``(0, 3, 1, 2)``: NHWC in the program, NCHW in ONNX).
        transposed: The same of inputs, which have one layout in both unless they are given in another one
            (`graph.interface`).
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    tensors: Mapping[str, str] = field(default_factory=dict)
    permutations: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    transposed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def axes(self, name: str) -> tuple[int, ...]:
        """The axes by which the program's tensor is transposed in ONNX; empty: it is not."""
        if name in self.inputs or name in self.outputs:  # saves the conversion
            return self.transposed.get(name, ())
        return self.permutations.get(name, ())


@dataclass(frozen=True)
class TfGraph(ConvertedProgram):
    """The TensorFlow program behind a `Model`.

    Attributes:
        graph_def: The frozen ``tf.compat.v1.GraphDef``.
    """

    graph_def: GraphDef = field(kw_only=True)


@dataclass(frozen=True)
class TfliteGraph(ConvertedProgram):
    """The TFLite program behind a `Model`, whose tensors have the names that `TfliteFile` gives them.

    Attributes:
        file: The ``.tflite``.
        halves: Weights of the ONNX graph that the file holds in FP16.
    """

    file: Path = field(kw_only=True)
    halves: frozenset[str] = frozenset()


class Model:
    """A network or a piece of one.

    Can be pickled. One that was loaded from a file is loaded again from there on arrival, and has to have the same
    digest; all others are sent as bytes, but for weights in files, which have to be as they were (size and time).

    Attributes:
        source: Where it came from, as the user named it; for messages and reports.
        path: The ONNX file, if this model is that file unchanged; runtimes then open the file itself.
        folder: The folder that external weights are relative to.
        tf: The TensorFlow program, where the source is one.
        tflite: The TFLite program, where the source is one; that of the whole model in a piece of it.
        engine: The serialized engine that the model was named by, which the runners that read engines run as it is. A
            changed copy or a piece has none.
        unfolded: Outputs of the file that are sequences or maps, for which tensors stand here (`sources.unfolded`).
        again: Loads the same model once more; None where it did not come from a file.
    """

    def __init__(
        self,
        proto: onnx.ModelProto | Callable[[], onnx.ModelProto],
        *,
        source: str = "<memory>",
        path: Path | None = None,
        folder: Path | None = None,
        program: ConvertedProgram | None = None,
        engine: Engine | None = None,
        unfolded: tuple[str, ...] = (),
        again: Callable[[], Model] | None = None,
    ) -> None:
        """Takes a graph, or what makes it when somebody asks for it; see `Model` for the rest."""
        self._proto = proto
        self.source = source
        self.path = path
        self.folder = folder
        self.tf = program if isinstance(program, TfGraph) else None
        self.tflite = program if isinstance(program, TfliteGraph) else None
        self.engine = engine
        self.unfolded = unfolded
        self.again = again
        self.signatures: tuple[str, ...] = ()
        """Other programs that the file it was read from holds, by the names of their signatures."""
        self._base: Model | str | None = None  # what was loaded, or its network digest, where this is not that itself

    def __repr__(self) -> str:
        return f"Model({self.source!r})"

    @property
    def derived(self) -> bool:
        """Whether this is a changed copy or a piece, made by `derive`."""
        return self._base is not None

    @property
    def opaque(self) -> bool:
        """Whether its graph is one node that stands for an engine whose network is not known."""
        return self.engine is not None and self.tf is None and is_opaque(self.proto)

    @property
    def digest(self) -> str:
        """Tells this model from all others that are not the same: of graph, weights and, where there is one, engine.

        Of a model that was loaded, it is made of contents alone (see `graph.digest`), all of which is read when it is
        first asked for: of a TensorFlow program those of its files, of others the graph and the values of weights. That
        of a changed copy or a piece is made of the loaded one's and of its own graph.
        """
        return self._network if self.engine is None else combined((self._network, self.engine.digest))

    def same_network(self, other: Model) -> bool:
        """Whether graph and weights are those of ``other``, wherever both came from: nodes correspond one by one.

        All weights are read only where the graphs and an excerpt of the weights are the same.
        """
        if self is other:
            return True
        if (self.tf is None) != (other.tf is None):
            return False
        alike = self._outline == other._outline and self._excerpt == other._excerpt
        return alike and self._network == other._network

    @cached_property
    def _outline(self) -> str:
        return self._network if self.tf is not None else outline(self.proto)

    @cached_property
    def _excerpt(self) -> str:
        """Differs where weights differ in the few places that are looked at; empty where `_network` costs little."""
        whole = self.tf is None and self._base is None
        return contents(self.proto, self.folder, excerpt=True) if whole else ""

    @cached_property
    def _network(self) -> str:
        if self.tf is not None:
            names = (repr(sorted(names.items())) for names in (self.tf.inputs, self.tf.outputs, self.tf.transposed))
            return combined((file_digest(Path(self.source)), *names))
        if self._base is None:
            return combined((self._outline, contents(self.proto, self.folder)))
        base = self._base if isinstance(self._base, str) else self._base._network
        return combined((base, self._outline, held(self.proto)))

    def __reduce__(self) -> tuple[Callable[..., Model], tuple[Any, ...]]:
        if self.again is not None:
            return _loaded_again, (self.again, self.source, self.digest)
        base = self._base._network if isinstance(self._base, Model) else self._base
        folder = None if self.folder is None else Path(os.path.abspath(self.folder))
        state = {"source": self.source, "folder": folder, "tflite": self.tflite, "_base": base}
        engine = None if self.engine is None else (os.path.abspath(self.engine.path), self.engine.digest)
        return _unpacked, (self.serialized(), state, _stamps(self.proto, self.folder), engine)

    def here(self) -> Here:
        """The model for another process on this machine."""
        return Here(self)

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

    @property
    def program(self) -> ConvertedProgram | None:
        """The program that it was converted from."""
        return self.tf or self.tflite

    def derive(self, proto: onnx.ModelProto) -> Model:
        """A changed copy or a piece: same source and weights folder, another graph."""
        model = Model(proto, source=self.source, folder=self.folder, program=self.tflite)
        model._base = self if self._base is None else self._base
        return model

    def with_engine(self, engine: Engine, again: Callable[[], Model]) -> Model:
        """The same model, named by an engine that was built from it; ``again`` loads both once more."""
        model = Model.__new__(Model)
        vars(model).update(vars(self), engine=engine, again=again)
        return model

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
            read_all_into(proto, self.folder)
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


class Here:
    """A model on its way to another process on this machine, where the same files are: nothing of them is hashed.

    Pickled, it becomes a `Model` again.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def __reduce__(self) -> tuple[Callable[..., Model], tuple[Any, ...]]:
        model = self.model
        if model.tf is not None:
            return (_again_here, (model.again, model.source)) if model.again is not None else model.__reduce__()
        folder, path = (None if p is None else Path(os.path.abspath(p)) for p in (model.folder, model.path))
        base = "" if model.derived else None
        state: dict[str, Any] = {"source": model.source, "folder": folder, "path": path, "_base": base}
        state |= {"engine": model.engine, "tflite": model.tflite}
        return _unpacked, (model.serialized(), state, _stamps(model.proto, folder), None)


def _again_here(again: Callable[[], Model], source: str) -> Model:
    model = again()
    model.source = source
    return model


def _loaded_again(again: Callable[[], Model], source: str, digest: str) -> Model:
    """A model in the process that it was sent to, from its file.

    Raises:
        ModelError: The file is not there, or holds another network than it did.
    """
    model = again()
    if model.digest != digest:
        raise ModelError(f"{source} has changed since it was loaded: start again.")
    model.source = source
    return model


def _unpacked(
    serialized: bytes,
    state: Mapping[str, Any],
    stamps: Mapping[str, tuple[int, int] | None],
    engine: tuple[str, str] | None,
) -> Model:
    """A model in the process that it was sent to, from its bytes.

    Raises:
        ModelError: A file that holds weights of it, or its engine, is not there, or has changed.
    """
    model = Model(onnx.ModelProto.FromString(serialized))
    vars(model).update(state)
    if engine is not None:
        model.engine = Engine.at(engine[0])
        if model.engine.digest != engine[1]:
            raise ModelError(f"{model.engine} has changed since it was loaded: start again.")
    now = _stamps(model.proto, model.folder)
    changed = [name for name, stamp in stamps.items() if now[name] != stamp]
    if changed:
        raise ModelError(
            f"{(model.folder or Path()) / changed[0]}, weights of {model.source}, has changed: start again."
        )
    return model


def _stamps(proto: onnx.ModelProto, folder: Path | None) -> dict[str, tuple[int, int] | None]:
    """Size and time of the files that hold weights of a model; None of those that are not there."""
    files = {name: (folder or Path()) / name for name in external_files(proto)}
    return {
        name: (file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else None for name, file in files.items()
    }


def _tensors(infos: Iterable[onnx.ValueInfoProto], source: str, skip: Collection[str] = ()) -> tuple[TensorSpec, ...]:
    specs = []
    for info in infos:
        if info.name in skip:
            continue
        spec = spec_from_value_info(info)
        if spec is None:
            kind = (info.type.WhichOneof("value") or "untyped value").removesuffix("_type")
            article = "an" if kind[0] in "aeiou" else "a"
            raise ModelError(f"{source}: {info.name!r} is {article} {kind}; only tensors are compared.")
        specs.append(spec)
    return tuple(specs)
