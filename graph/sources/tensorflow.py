"""TensorFlow programs become models: one frozen graph, its ONNX conversion, and the names that link the two.

Frozen graphs, SavedModels and Keras files all end as a `tf.compat.v1.GraphDef` with the weights inside, pruned to what
the outputs need. tf2onnx converts it when somebody asks for ONNX. ``compat.v1`` appears for frozen graphs alone, which
TensorFlow 2 has no other name for.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import MissingPackage, ModelError
from ..model import Model, TfGraph
from .frozen_graph import NOT_TENSORS, FrozenGraph, import_graph, prune, read_frozen_graph
from .hdf5 import check_hdf5
from .tensorflow_convert import convert
from .tensorflow_packages import first_line, import_tensorflow, silent_logging

if TYPE_CHECKING:
    import onnx
    import tensorflow as tf
    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tensorflow.types.experimental import ConcreteFunction

    from .tensorflow_names import Origin

Value = TypeVar("Value")


def load_tensorflow(path: str | os.PathLike[str], *, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Model:
    """Reads a TensorFlow program.

    Args:
        path: A frozen graph (``.pb``), a SavedModel folder (its ``serving_default`` signature) or a Keras file
            (``.keras``, ``.h5``).
        inputs, outputs: Frozen graphs only: tensors (``x`` or ``x:0``) to treat as inputs and outputs, under exactly
            these names; inner tensors may be inputs. By default the placeholders that the outputs need, and the nodes
            that no other node reads, named without their ``:0``. SavedModel and Keras name their own.

    Returns:
        A model whose ONNX graph is converted at first use (opset 17). Inputs and outputs keep TensorFlow's layout;
        inner tensors of convolutions are NCHW in ONNX, and `ConvertedProgram.permutations` says which.

    Raises:
        MissingPackage: TensorFlow is not installed.
        ModelError: The file is not what its name says, or lacks what was asked for.
    """
    path = Path(path)
    if path.name == "saved_model.pb":
        path = path.parent
    read: Callable[[Path], FrozenGraph]
    if path.is_dir():
        if not (path / "saved_model.pb").is_file() and not (path / "saved_model.pbtxt").is_file():
            raise ModelError(f"{path}: a folder without saved_model.pb is no SavedModel.")
        read = _read_saved_model
    elif path.suffix == ".pb":
        import_tensorflow()
        frozen = read_frozen_graph(path, inputs, outputs)
        return _model(path, frozen, partial(load_tensorflow, os.path.abspath(path), inputs=inputs, outputs=outputs))
    else:
        _check_archive(path)
        read = _read_keras
    if inputs or outputs:
        raise ModelError(f"{path}: inputs and outputs can be named for frozen graphs only; this one names its own.")
    import_tensorflow()
    return _model(path, read(path), partial(load_tensorflow, os.path.abspath(path)))


def _model(path: Path, frozen: FrozenGraph, again: Callable[[], Model]) -> Model:
    if not frozen.inputs:
        raise ModelError(f"{path}: its outputs depend on no input.")
    graph_def = prune(frozen.graph_def, frozen.inputs.values(), frozen.outputs.values(), path)
    graph = import_graph(graph_def, path)
    for name in (*frozen.inputs.values(), *frozen.outputs.values()):
        if graph.get_tensor_by_name(name).dtype.name in NOT_TENSORS:
            raise ModelError(f"{path}: {name!r} is a {graph.get_tensor_by_name(name).dtype.name}, not a tensor.")
    converted = _Converted(path, frozen, graph_def, graph)
    program = TfGraph(
        graph_def=graph_def,
        inputs=dict(frozen.inputs),
        outputs=dict(frozen.outputs),
        tensors=_Lazy(lambda: {name: origin.tensor for name, origin in converted.origins.items()}),
        permutations=_Lazy(lambda: {n: o.permutation for n, o in converted.origins.items() if o.permutation}),
    )
    converted.model = Model(lambda: converted.proto, source=os.fspath(path), program=program, again=again)
    converted.model.signatures = frozen.signatures
    return converted.model


class _Converted:
    """The ONNX side of a frozen graph, made at first use."""

    model: Model

    def __init__(self, path: Path, frozen: FrozenGraph, graph_def: GraphDef, graph: tf.Graph) -> None:
        self.path = path
        self.frozen = frozen
        self.graph_def = graph_def
        self.graph = graph

    @cached_property
    def proto(self) -> onnx.ModelProto:
        return convert(self.graph_def, self.frozen.inputs, self.frozen.outputs, source=os.fspath(self.path))

    @cached_property
    def origins(self) -> dict[str, Origin]:
        from .tensorflow_names import trace

        return trace(self.model.index, self.graph, self.frozen.inputs, self.frozen.outputs)


class _Lazy(Mapping[str, Value], Generic[Value]):
    """A mapping that is made when somebody looks into it."""

    def __init__(self, make: Callable[[], dict[str, Value]]) -> None:
        self._make = make

    @cached_property
    def _items(self) -> dict[str, Value]:
        return self._make()

    def __getitem__(self, key: str) -> Value:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)


# --------------------------------------------------------------------------------------------------- frozen graphs


# --------------------------------------------------------------------------------------------- SavedModel and Keras


def _freeze(function: ConcreteFunction, inputs: Sequence[str], outputs: Sequence[str], path: Path) -> FrozenGraph:
    """A concrete function with its variables turned into constants."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    try:
        with silent_logging():
            # loops stay whole (While, If): tf2onnx knows them as ONNX loops and as LSTM and GRU
            frozen = convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=True)
            graph_def = frozen.graph.as_graph_def()
    except Exception as error:
        raise ModelError(f"{path}: cannot be frozen: {first_line(error)}.") from error
    given, results = [t.name for t in frozen.inputs], [t.name for t in frozen.outputs]
    if len(given) != len(inputs) or len(results) != len(outputs):
        counts = f"{len(inputs)} inputs and {len(outputs)} outputs became {len(given)} and {len(results)}"
        raise ModelError(f"{path}: {counts} when it was frozen; freeze it to a .pb and name them.")
    return FrozenGraph(graph_def, dict(zip(inputs, given, strict=True)), dict(zip(outputs, results, strict=True)))


def _read_saved_model(path: Path) -> FrozenGraph:
    import tensorflow as tf

    try:
        with silent_logging():
            program = tf.saved_model.load(os.fspath(path))
    except Exception as error:
        raise ModelError(
            f"{path}: not a SavedModel that TensorFlow {tf.__version__} can read: {first_line(error)}."
        ) from error
    signatures = program.signatures
    if "serving_default" in signatures:
        function = signatures["serving_default"]
    elif len(signatures) == 1:
        function = next(iter(signatures.values()))
    else:
        raise ModelError(f"{path}: no signature serving_default; it has: {', '.join(signatures) or 'none'}.")
    # nest.flatten goes through dictionaries in sorted order, as the function's own inputs and outputs do
    inputs = [spec.name for spec in tf.nest.flatten(function.structured_input_signature)]
    outputs = sorted(function.structured_outputs)
    frozen = _freeze(function, inputs, outputs, path)
    others = tuple(name for name, other in signatures.items() if not _one_program(other, function))
    del program  # not before: its variables live as long as it does
    return replace(frozen, signatures=others)


def _one_program(one: ConcreteFunction, other: ConcreteFunction) -> bool:
    """Whether two signatures are two names of one function, as Keras exports them."""
    if one is other:
        return True
    calls = [
        sorted(node.attr["f"].func.name for node in function.graph.as_graph_def().node if "f" in node.attr)
        for function in (one, other)
    ]
    return bool(calls[0]) and calls[0] == calls[1]


def _check_archive(path: Path) -> None:
    """Refuses a ``.keras`` file that is no zip archive, of which Keras says that it is not there.

    Raises:
        ModelError: It is none.
    """
    if path.suffix != ".keras" or zipfile.is_zipfile(path):
        return
    with path.open("rb") as stream:
        hdf5 = stream.read(8) == b"\x89HDF\r\n\x1a\n"
    found = "it is an HDF5 file, whose name has to end in .h5" if hdf5 else f"{path.stat().st_size:,} bytes"
    raise ModelError(f"{path}: not a zip archive, as .keras files are, or cut short ({found}).")


def _read_keras(path: Path) -> FrozenGraph:
    import tensorflow as tf

    try:
        import keras
    except ImportError as error:
        raise MissingPackage("Keras", "tf") from error
    if keras.config.backend() != "tensorflow":
        raise ModelError(f"{path}: Keras runs on {keras.config.backend()} here; set KERAS_BACKEND=tensorflow.")
    check_hdf5(path)
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:
        raise ModelError(
            f"{path}: not a Keras model that Keras {keras.__version__} can read: {first_line(error)}."
        ) from error
    try:
        given, results = list(model.inputs), list(model.outputs)
    except (AttributeError, TypeError, ValueError):
        raise ModelError(f"{path}: its inputs are not known before it is called; save it as a SavedModel.") from None
    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in given]
    structure = getattr(model, "_inputs_struct", given)

    def call(*tensors: tf.Tensor) -> list[tf.Tensor]:
        packed = keras.tree.pack_sequence_as(structure, list(tensors)) if len(tensors) > 1 else tensors[0]
        return keras.tree.flatten(model(packed, training=False))

    try:
        function = tf.function(call, autograph=False).get_concrete_function(*specs)
    except Exception as error:
        raise ModelError(f"{path}: TensorFlow cannot trace it: {first_line(error)}.") from error
    names = list(getattr(model, "output_names", None) or [f"output_{i}" for i in range(len(results))])
    if len(set(names)) != len(names):
        names = [f"{name}_{i}" for i, name in enumerate(names)]
    return _freeze(function, [spec.name for spec in specs], names, path)
