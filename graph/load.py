"""Reads a model from whatever file it came in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import onnx

from .engine import SUFFIXES as ENGINE_SUFFIXES
from .engine import Engine, facts_path, opaque
from .errors import LayerdiffError, ModelError, first_line
from .model import Model
from .printable import counted
from .sources import onnx_file
from .sources.checks import check
from .sources.dead_nodes import dead_nodes, drop_nodes
from .sources.node_order import is_ordered, put_in_order
from .sources.unfolded import unfolded
from .specs import TensorSpec
from .tflite_file import SUFFIXES as TFLITE_SUFFIXES
from .weights import every_external_file, external_files
from .whole_file import is_plain

ONNX_SUFFIXES = (".onnx", ".ort", ".onnx.pb", ".onnx.textproto")
TF_SUFFIXES = (".pb", ".keras", ".h5", ".hdf5")


def load(
    source: str | os.PathLike[str] | onnx.ModelProto | Model,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    external: Sequence[str | os.PathLike[str]] = (),
) -> Model:
    """Reads a model.

    Args:
        source: An ``.onnx`` file, a TensorFlow frozen ``.pb``, a SavedModel folder, a ``.keras`` or ``.h5`` file, a
            ``.tflite``, an engine (``.engine``, ``.plan``, ``.trt``: the model it was built from, with `Model.engine`
            set), an ``onnx.ModelProto``, or a `Model` (returned as it is).
        inputs, outputs: For TensorFlow frozen graphs: tensors to treat as inputs and outputs.
        external: Folders outside the ONNX file's own in which its weights may be.

    Raises:
        ModelError: The file cannot be read as what its name says, or weights it refers to are missing, or outside the
            folders where they may be.
        MissingPackage: A TensorFlow model, and TensorFlow is not installed.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, onnx.ModelProto):
        good = is_ordered(source.graph) and not dead_nodes(source.graph)
        return _unfolded(Model(source if good else _tidied(source)))
    if not isinstance(source, (str, os.PathLike)):
        how = ": onnx.load_model_from_string reads them" if isinstance(source, bytes) else ""
        raise ModelError(
            f"a model is a path, an onnx.ModelProto or what layerdiff.load gives, not {type(source).__name__}{how}."
        )
    if not os.fspath(source):
        raise ModelError("the name of a model is empty; name a file.")
    path = Path(source)
    if not path.exists():
        raise ModelError(f"{path}: no such file.")
    if not is_plain(path):
        raise ModelError(f"{path}: neither a regular file nor a folder, but a device or a pipe; save the model first.")
    if is_engine(path):
        return load_engine(path, inputs=inputs, outputs=outputs, external=external)
    if path.suffix in TFLITE_SUFFIXES and not inputs and not outputs:
        from .sources.tflite import load_tflite

        return load_tflite(path)
    if path.is_dir() or (path.suffix in TF_SUFFIXES and not path.name.endswith(ONNX_SUFFIXES)):
        from .sources.tensorflow import load_tensorflow

        return load_tensorflow(path, inputs=inputs, outputs=outputs)
    if inputs or outputs:
        raise ModelError(f"{path}: inputs and outputs can be named for TensorFlow models only.")
    return _load_onnx(path, external)


def is_engine(source: object) -> bool:
    """Whether something names a file that holds a serialized engine, by how the name ends."""
    return isinstance(source, (str, os.PathLike)) and os.fspath(source).endswith(ENGINE_SUFFIXES)


def load_engine(
    path: str | os.PathLike[str],
    origin: str | os.PathLike[str] | onnx.ModelProto | Model | None = None,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    external: Sequence[str | os.PathLike[str]] = (),
) -> Model:
    """The model that a serialized engine was built from, with `Model.engine` set.

    Where that is not known (nothing was kept beside the engine, or the model is not there, or changed since), the model
    is `Model.opaque`: of one node, with the inputs and outputs that are kept beside the engine, if any.

    Args:
        path: The engine.
        origin: What it was built from, if the user says so.
        inputs, outputs, external: See `load`.

    Raises:
        ModelError: See `load` and `Engine.at`.
    """
    engine = Engine.at(path)
    source = engine.origin[0] if origin is None else origin
    if source is None:
        known = engine.specs or ((), ())
        return Model(opaque(engine.path.stem, *known), source=os.fspath(path), engine=engine)
    model = load(source, inputs=inputs, outputs=outputs, external=external)
    return model.with_engine(engine, partial(load_engine, os.path.abspath(path), model))


def described(model: Model, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Model:
    """An engine that stands alone, with the inputs and outputs that were found by opening it."""
    assert model.engine is not None
    proto = opaque(model.engine.path.stem, inputs, outputs)
    return Model(proto, source=model.source, engine=model.engine)


def belonging(path: Path) -> list[Path]:
    """The files that a model is read from besides its own, none of one that cannot be read: external weights; of an
    engine, what is kept beside it and the model that it was built from."""
    if is_engine(path):
        try:
            origin = Engine.at(path).origin[0]
        except (LayerdiffError, OSError):
            origin = None
        return [facts_path(path), *([] if origin is None else [origin, *belonging(origin)])]
    if path.is_dir() or path.suffix in TFLITE_SUFFIXES:
        return []
    if path.suffix in TF_SUFFIXES and not path.name.endswith(ONNX_SUFFIXES):
        return []
    try:
        names = every_external_file(_parse(path))
    except Exception:
        return []  # loading it says why
    return [folder / name for folder in dict.fromkeys((path.parent, path.resolve().parent)) for name in names]


def _load_onnx(path: Path, external: Sequence[str | os.PathLike[str]]) -> Model:
    from google.protobuf.message import DecodeError

    home = path
    try:
        proto = _parse(path)
        if path.is_symlink() and external_files(proto) == {path.name}:
            home = path.resolve()  # runtimes do not follow links out of a folder
            proto = onnx_file.read(home)
    except DecodeError:
        raise ModelError(f"{path}: not an ONNX model, or cut short ({path.stat().st_size:,} bytes).") from None
    except UnicodeEncodeError:
        raise ModelError(f"{path}: the name is no UTF-8, and ONNX opens no other: rename the file.") from None
    except Exception as error:
        raise ModelError(f"{path}: cannot be read: {first_line(error)}.") from error
    if proto.opset_import and proto.graph.node and not proto.graph.output:
        nodes = counted(len(proto.graph.node), "node")
        raise ModelError(f"{path}: a graph of {nodes} and no output: add what it gives to graph.output.")
    if not proto.opset_import or not proto.graph.output:
        raise ModelError(f"{path}: not an ONNX model, or an empty one ({path.stat().st_size:,} bytes).")
    check(proto, path, home=home, allowed=external)
    _tidy(proto.graph)
    again = partial(load, os.path.abspath(path), external=tuple(map(os.path.abspath, external)))
    return _unfolded(Model(proto, source=os.fspath(path), path=path, folder=home.parent, again=again))


def _unfolded(model: Model) -> Model:
    """The model with tensors in the place of outputs that are sequences or maps."""
    proto, names = unfolded(model.proto)
    if not names:
        return model
    return Model(proto, source=model.source, folder=model.folder, unfolded=names, again=model.again)


def _tidied(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    _tidy(copy.graph)
    return copy


def _tidy(graph: onnx.GraphProto) -> None:
    """Puts nodes in order, and takes out those that nothing depends on."""
    if not is_ordered(graph):
        put_in_order(graph)
    drop_nodes(graph, dead_nodes(graph))


def _parse(path: Path) -> onnx.ModelProto:
    return onnx_file.read(path) if path.suffix == ".onnx" else onnx.load(os.fspath(path), load_external_data=False)
