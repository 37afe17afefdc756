"""TensorFlow programs become models: one frozen graph, its ONNX conversion, and the names that link the two.

Frozen graphs, SavedModels and Keras files all end as a `tf.compat.v1.GraphDef` with the weights inside, pruned to what
the outputs need. tf2onnx converts it when somebody asks for ONNX. ``compat.v1`` appears for frozen graphs alone, which
TensorFlow 2 has no other name for.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingPackage, ModelError
from ..interrupts import uninterrupted
from ..model import Model, TfGraph
from .canonical_names import canonical_names

if TYPE_CHECKING:
    import onnx

    from .tensorflow_names import Origin

OPSET = 17
"""Opset that TensorFlow programs are converted to (IR 8): ONNX Runtime 1.12 and TensorRT 8.6 read it."""

# Nodes that end a graph without being a result of it.
_NO_RESULT = frozenset(
    {"NoOp", "Assert", "Print", "PrintV2", "Const", "Placeholder", "PlaceholderWithDefault", "SaveV2"}
)
_VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp"})
_NOT_TENSORS = ("resource", "variant")


def import_tensorflow() -> Any:
    """The ``tensorflow`` module, imported without its log lines on stderr.

    Its C++ part writes some of them before it reads ``TF_CPP_MIN_LOG_LEVEL``, so that stderr is held back meanwhile;
    it is given out after all when the import fails.

    Raises:
        MissingPackage: It is not installed, or is installed and broken.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingPackage("TensorFlow", "tf")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with uninterrupted(), _held_stderr():
            import tensorflow

            tensorflow.get_logger().setLevel(logging.ERROR)
    except ImportError as error:
        raise MissingPackage(f"TensorFlow cannot be imported ({_line(error)}): it", "tf") from error
    with contextlib.suppress(Exception):  # refused once devices are in use; then the host program has decided
        for device in tensorflow.config.list_physical_devices("GPU"):
            tensorflow.config.experimental.set_memory_growth(device, True)
    return tensorflow


def import_tf2onnx() -> Any:
    """The ``tf2onnx`` module, with its warnings off.

    Raises:
        MissingPackage: It is not installed.
    """
    import_tensorflow()
    try:
        import tf2onnx.convert
    except ImportError as error:
        raise MissingPackage("tf2onnx", "tf") from error
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    return tf2onnx


@contextlib.contextmanager
def _held_stderr() -> Iterator[None]:
    """Keeps what native code writes to stderr, and writes it out if the block fails."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, ValueError, AttributeError):  # no stderr at all
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            if failed:
                file.seek(0)
                sys.stderr.write(file.read().decode("utf-8", "replace"))


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
        inner tensors of convolutions are NCHW in ONNX, and `TfGraph.permutations` says which.

    Raises:
        MissingPackage: TensorFlow is not installed.
        ModelError: The file is not what its name says, or lacks what was asked for.
    """
    path = Path(path)
    if path.name == "saved_model.pb":
        path = path.parent
    read: Callable[[Any, Path], _Frozen]
    if path.is_dir():
        if not (path / "saved_model.pb").is_file() and not (path / "saved_model.pbtxt").is_file():
            raise ModelError(f"{path}: a folder without saved_model.pb is no SavedModel.")
        read = _read_saved_model
    elif path.suffix == ".pb":
        frozen = _read_frozen(import_tensorflow(), path, inputs, outputs)
        return _model(path, frozen, partial(load_tensorflow, os.path.abspath(path), inputs=inputs, outputs=outputs))
    else:
        read = _read_keras
    if inputs or outputs:
        raise ModelError(f"{path}: inputs and outputs can be named for frozen graphs only; this one names its own.")
    return _model(path, read(import_tensorflow(), path), partial(load_tensorflow, os.path.abspath(path)))


@dataclass(frozen=True)
class _Frozen:
    """A graph with its weights inside; ``inputs`` and ``outputs`` map ONNX names to TF tensor names."""

    graph_def: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def _model(path: Path, frozen: _Frozen, again: Callable[[], Model]) -> Model:
    tf = import_tensorflow()
    if not frozen.inputs:
        raise ModelError(f"{path}: its outputs depend on no input.")
    graph_def = _prune(frozen.graph_def, frozen.inputs.values(), frozen.outputs.values(), path)
    graph = _import(tf, graph_def, path)
    for name in (*frozen.inputs.values(), *frozen.outputs.values()):
        if graph.get_tensor_by_name(name).dtype.name in _NOT_TENSORS:
            raise ModelError(f"{path}: {name!r} is a {graph.get_tensor_by_name(name).dtype.name}, not a tensor.")
    converted = _Converted(path, frozen, graph_def, graph)
    program = TfGraph(
        graph_def=graph_def,
        inputs=dict(frozen.inputs),
        outputs=dict(frozen.outputs),
        tensors=_Lazy(lambda: {name: origin.tensor for name, origin in converted.origins.items()}),
        permutations=_Lazy(lambda: {n: o.permutation for n, o in converted.origins.items() if o.permutation}),
    )
    converted.model = Model(lambda: converted.proto, source=os.fspath(path), tf=program, again=again)
    return converted.model


class _Converted:
    """The ONNX side of a frozen graph, made at first use."""

    model: Model

    def __init__(self, path: Path, frozen: _Frozen, graph_def: Any, graph: Any) -> None:
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


class _Lazy(Mapping[str, Any]):
    """A mapping that is made when somebody looks into it."""

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self._make = make

    @cached_property
    def _items(self) -> dict[str, Any]:
        return self._make()

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)


def convert(
    graph_def: Any, inputs: Mapping[str, str], outputs: Mapping[str, str], *, source: str, opset: int = OPSET
) -> onnx.ModelProto:
    """A frozen graph as ONNX, by tf2onnx. The same graph gives the same bytes every time.

    Args:
        graph_def: The frozen ``tf.compat.v1.GraphDef``.
        inputs, outputs: ONNX name -> TF tensor name.
        source: For messages.
        opset: Version of the default operator set.

    Raises:
        MissingPackage: tf2onnx is not installed.
        ModelError: tf2onnx cannot convert an operator, or fails.
    """
    import onnx

    tf2onnx = import_tf2onnx()
    if hasattr(tf2onnx.utils, "INTERNAL_NAME"):
        tf2onnx.utils.INTERNAL_NAME = 1  # a process-wide counter: without this, names depend on earlier conversions
    pairs = [*inputs.items(), *outputs.items()]
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # it logs through TensorFlow's, absl's and its own loggers
    try:
        proto, _ = tf2onnx.convert.from_graph_def(
            graph_def,
            name=Path(source).name,
            input_names=list(inputs.values()),
            output_names=list(outputs.values()),
            tensors_to_rename={tensor: name for name, tensor in pairs if tensor != name},
            opset=opset,
            custom_op_handlers={"Erfc": (_convert_erfc, [])},
        )
    except Exception as error:
        raise ModelError(f"{source}: tf2onnx cannot convert it: {_line(error)}.") from error
    finally:
        logging.disable(before)
    # tf2onnx leaves operators that it does not know in the graph as they are; no runtime would open that
    unknown = {n.op_type: n.name for n in proto.graph.node if not n.domain and not onnx.defs.has(n.op_type)}
    if unknown:
        op, node = next(iter(unknown.items()))
        more = f" and {len(unknown) - 1} more operators" if len(unknown) > 1 else ""
        raise ModelError(f"{source}: tf2onnx cannot convert {op} (node {node!r}){more}.")
    return canonical_names(proto, {node.name for node in graph_def.node})


def _convert_erfc(context: Any, node: Any, name: str, arguments: Any) -> None:
    """erfc(x) = 1 - erf(x): tf2onnx does not know Erfc, of which Keras makes its GELU."""
    import numpy as np

    result = node.output[0]
    shape, dtype = context.get_shape(result), context.get_dtype(result)
    argument = node.input[0]
    context.remove_node(node.name)
    from onnx.helper import tensor_dtype_to_np_dtype

    one = context.make_const(f"{name}/one", np.asarray(1, tensor_dtype_to_np_dtype(dtype)))
    erf = context.make_node("Erf", [argument], name=f"{name}/Erf", shapes=[shape], dtypes=[dtype])
    context.make_node(
        "Sub", [one.output[0], erf.output[0]], name=name, outputs=[result], shapes=[shape], dtypes=[dtype]
    )


# --------------------------------------------------------------------------------------------------- frozen graphs


def _read_frozen(tf: Any, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> _Frozen:
    from google.protobuf.message import DecodeError

    size = path.stat().st_size
    if size >= 1 << 31:
        raise ModelError(f"{path}: a frozen graph cannot hold 2 GiB or more ({size:,} bytes).")
    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(path.read_bytes())
    except (DecodeError, UnicodeDecodeError):
        raise ModelError(f"{path}: not a frozen TensorFlow graph, or cut short ({size:,} bytes).") from None
    if not graph_def.node or not all(node.op and node.name for node in graph_def.node):
        raise ModelError(f"{path}: not a frozen TensorFlow graph, or an empty one ({size:,} bytes).")
    for node in graph_def.node:
        if node.op in _VARIABLES:
            raise ModelError(
                f"{path}: holds variables ({node.name!r}), whose values are in a checkpoint. Freeze it first."
            )
    graph = _import(tf, graph_def, path)
    given = {name: _tensor(graph, name, path) for name in outputs} or _sinks(graph)
    if not given:
        raise ModelError(f"{path}: no node ends the graph, so its outputs have to be named.")
    if inputs:
        cut = {name: _tensor(graph, name, path) for name in inputs}
        graph_def = _with_placeholders(tf, graph_def, graph, cut, path)
        return _Frozen(graph_def, cut, given)
    _use_defaults(graph_def)
    needed = _ancestors(graph_def, given.values(), stop=())
    found = [node.name for node in graph_def.node if node.op == "Placeholder" and node.name in needed]
    return _Frozen(graph_def, _short([f"{name}:0" for name in found]), given if outputs else _short(given.values()))


def _import(tf: Any, graph_def: Any, path: Path) -> Any:
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.graph_util.import_graph_def(graph_def, name="")
    except Exception as error:
        raise ModelError(f"{path}: TensorFlow cannot read the graph (cut short?): {_line(error)}.") from error
    return graph


def _tensor(graph: Any, name: str, path: Path) -> str:
    """The TF tensor ``x:0`` that ``x`` or ``x:0`` names."""
    full = name if name.rpartition(":")[2].isdigit() and ":" in name else f"{name}:0"
    try:
        return str(graph.get_tensor_by_name(full).name)
    except (KeyError, ValueError):
        known = [t.name.removesuffix(":0") for op in graph.get_operations() for t in op.outputs]
        near = difflib.get_close_matches(name, known, 3, 0.5)
        hint = f" Did you mean {', '.join(near)}?" if near else f" It has {len(known):,} tensors, such as {known[-1]}."
        raise ModelError(f"{path}: no tensor {name!r}.{hint}") from None


def _sinks(graph: Any) -> dict[str, str]:
    """Tensors of the nodes that nobody reads, in the graph's order."""
    found = {}
    for op in graph.get_operations():
        if op.type in _NO_RESULT or any(t.consumers() for t in op.outputs):
            continue
        results = op.outputs[:1] if op.type.startswith("FusedBatchNorm") else op.outputs
        found.update({t.name: t.name for t in results if t.dtype.name not in _NOT_TENSORS})
    return found


def _short(tensors: Any) -> dict[str, str]:
    """Names without their ``:0``."""
    return {name.removesuffix(":0"): name for name in tensors}


def _use_defaults(graph_def: Any) -> None:
    """Placeholders that have a default (a dropout rate, a training switch) become that default."""
    for node in graph_def.node:
        if node.op == "PlaceholderWithDefault":
            node.op = "Identity"
            node.attr["T"].type = node.attr["dtype"].type
            del node.attr["dtype"]
            del node.attr["shape"]


def _with_placeholders(tf: Any, graph_def: Any, graph: Any, inputs: Mapping[str, str], path: Path) -> Any:
    """The graph with the tensors named by the user as its placeholders."""
    wanted = {}
    for name, tensor in inputs.items():
        node, _, port = tensor.rpartition(":")
        if port != "0":
            raise ModelError(f"{path}: {name!r} cannot be an input: it is not the first output of its node.")
        wanted[node] = graph.get_tensor_by_name(tensor)
    changed = tf.compat.v1.GraphDef()
    changed.CopyFrom(graph_def)
    for node in changed.node:
        if node.name in wanted and node.op != "Placeholder":
            tensor = wanted[node.name]
            del node.input[:]
            node.attr.clear()
            node.op = "Placeholder"
            node.attr["dtype"].type = tensor.dtype.as_datatype_enum
            node.attr["shape"].shape.CopyFrom(tensor.shape.as_proto())
    _use_defaults(changed)
    return changed


def _node_of(name: str) -> str:
    """The node of ``node``, ``node:1`` or ``^node``, as graph definitions write inputs."""
    name = name.removeprefix("^")
    head, _, port = name.rpartition(":")
    return head if head and port.isdigit() else name


def _ancestors(graph_def: Any, tensors: Any, stop: Any) -> set[str]:
    """Names of the nodes that ``tensors`` depend on, themselves included, not looking beyond ``stop``."""
    nodes = {node.name: node for node in graph_def.node}
    found: set[str] = set()
    todo = [_node_of(t) for t in tensors]
    while todo:
        name = todo.pop()
        if name in found or name not in nodes:
            continue
        found.add(name)
        if name not in stop:
            todo += [_node_of(i) for i in nodes[name].input]
    return found


def _prune(graph_def: Any, inputs: Any, outputs: Any, path: Path) -> Any:
    """What the outputs need, without device names. Placeholders that are not among the inputs are refused."""
    starts = {_node_of(t) for t in inputs}
    needed = _ancestors(graph_def, outputs, stop=starts) | starts
    pruned = type(graph_def)()
    pruned.versions.CopyFrom(graph_def.versions)
    pruned.library.CopyFrom(graph_def.library)
    for node in graph_def.node:
        if node.name not in needed:
            continue
        if node.op == "Placeholder" and node.name not in starts:
            raise ModelError(
                f"{path}: the outputs depend on the placeholder {node.name!r}, which is not among the inputs."
            )
        kept = pruned.node.add()
        kept.CopyFrom(node)
        kept.device = ""
    return pruned


# --------------------------------------------------------------------------------------------- SavedModel and Keras


def _freeze(function: Any, inputs: Sequence[str], outputs: Sequence[str], path: Path) -> _Frozen:
    """A concrete function with its variables turned into constants."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        # loops stay whole (While, If): tf2onnx knows them as ONNX loops and as LSTM and GRU
        frozen = convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=True)
        graph_def = frozen.graph.as_graph_def()
    except Exception as error:
        raise ModelError(f"{path}: cannot be frozen: {_line(error)}.") from error
    finally:
        logging.disable(before)
    given, results = [t.name for t in frozen.inputs], [t.name for t in frozen.outputs]
    if len(given) != len(inputs) or len(results) != len(outputs):
        counts = f"{len(inputs)} inputs and {len(outputs)} outputs became {len(given)} and {len(results)}"
        raise ModelError(f"{path}: {counts} when it was frozen; freeze it to a .pb and name them.")
    return _Frozen(graph_def, dict(zip(inputs, given, strict=True)), dict(zip(outputs, results, strict=True)))


def _read_saved_model(tf: Any, path: Path) -> _Frozen:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        program = tf.saved_model.load(os.fspath(path))
    except Exception as error:
        raise ModelError(
            f"{path}: not a SavedModel that TensorFlow {tf.__version__} can read: {_line(error)}."
        ) from error
    finally:
        logging.disable(before)
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
    del program  # not before: its variables live as long as it does
    return frozen


def _read_keras(tf: Any, path: Path) -> _Frozen:
    try:
        import keras
    except ImportError as error:
        raise MissingPackage("Keras", "tf") from error
    if keras.config.backend() != "tensorflow":
        raise ModelError(f"{path}: Keras runs on {keras.config.backend()} here; set KERAS_BACKEND=tensorflow.")
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:
        raise ModelError(
            f"{path}: not a Keras model that Keras {keras.__version__} can read: {_line(error)}."
        ) from error
    try:
        given, results = list(model.inputs), list(model.outputs)
    except (AttributeError, TypeError, ValueError):
        raise ModelError(f"{path}: its inputs are not known before it is called; save it as a SavedModel.") from None
    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in given]
    structure = getattr(model, "_inputs_struct", given)

    def call(*tensors: Any) -> Any:
        packed = keras.tree.pack_sequence_as(structure, list(tensors)) if len(tensors) > 1 else tensors[0]
        return keras.tree.flatten(model(packed, training=False))

    try:
        function = tf.function(call, autograph=False).get_concrete_function(*specs)
    except Exception as error:
        raise ModelError(f"{path}: TensorFlow cannot trace it: {_line(error)}.") from error
    names = list(getattr(model, "output_names", None) or [f"output_{i}" for i in range(len(results))])
    if len(set(names)) != len(names):
        names = [f"{name}_{i}" for i, name in enumerate(names)]
    return _freeze(function, [spec.name for spec in specs], names, path)


def _line(error: BaseException) -> str:
    """What an exception says, in one line without its full stop. Keras gives the cause below where it happened."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()] or [type(error).__name__]
    chosen = lines[1] if len(lines) > 1 and lines[0].startswith("Exception encountered when calling") else lines[0]
    return chosen.rstrip(".")[:300]
