"""onnx.reference: the slow oracle that shares no code with any runtime, in the model's own types or in float64.

In float64 it arbitrates between two FP32 runtimes: every float32 of the graph (weights, constants, casts, inputs)
becomes a float64 with the same value, and nothing rounds to 24 bits on the way. Where onnx's own kernels compute in
float32 all the same, or leave out part of the operator, `_kernels` has replacements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...graph.errors import BuildError, RunnerError
from ...graph.formats import FP32, FP64, NumberFormat
from ...graph.options import Choice, option
from ..contract.capabilities import Capabilities
from ..contract.runner import Runner
from ..contract.session import Session, SessionInfo
from ..contract.workload import Feed, Workload

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from ...graph.model import Model

# Attributes that name an element type in which an operator computes or which it gives.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype", "output_dtype", "stash_type", "softmax_precision")
_STASHING = ("GroupNormalization",)
_IN_FLOAT32 = ("AffineGrid", "DynamicQuantizeLinear", "TfIdfVectorizer", "LinearAttention", "CausalConvWithState")
_FLOAT, _DOUBLE = 1, 11


@dataclass(frozen=True)
class ReferenceEvaluatorRunner(Runner):
    """``onnx.reference.ReferenceEvaluator``.

    Attributes:
        dtype: ``float32`` evaluates the graph in its own types; ``float64`` evaluates its float32 part in float64,
            and gives float64 arrays.
    """

    flag: ClassVar[str] = "reference-evaluator"
    value_field: ClassVar[str] = "dtype"
    capabilities: ClassVar[Capabilities] = Capabilities(inner_tensors=True)

    dtype: str = option("float32", "", "type that float32 tensors are evaluated in", Choice("float32", "float64"))

    @property
    def trust(self) -> int:
        """20."""
        return 20

    @property
    def arithmetic(self) -> NumberFormat:
        """FP32 or FP64."""
        return FP64 if self.dtype == "float64" else FP32

    @property
    def adds_exactly(self) -> bool:
        """NumPy does."""
        return True

    def open(
        self,
        model: Model,
        *,
        fetch: Sequence[str] = (),
        workload: Workload | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> ReferenceEvaluatorSession:
        """A session on ``model``. Any tensor can be fetched at no further cost.

        Raises:
            BuildError: The evaluator lacks an operator.
        """
        if progress:
            progress("loading into onnx.reference")
        return ReferenceEvaluatorSession(self, model)


class ReferenceEvaluatorSession(Session):
    """The evaluator on one model."""

    def __init__(self, runner: ReferenceEvaluatorRunner, model: Model) -> None:
        import dataclasses

        import numpy as np
        import onnx
        from onnx.reference import ReferenceEvaluator

        from .kernels import kernels

        self._runner = runner
        self._model = model
        self._wide = runner.dtype == "float64"
        proto = model.copied()
        notes: tuple[str, ...] = ()
        if self._wide:
            widen(proto)
            narrow = sorted({n.op_type for n in model.proto.graph.node} & set(_IN_FLOAT32))
            if narrow:
                notes = (f"{runner.name}: {', '.join(narrow)} is evaluated in float32 inside.",)
        try:
            self._evaluator: Any = ReferenceEvaluator(proto, new_ops=kernels())
        except Exception as error:
            raise BuildError(f"{runner.name}: {model.source}: {_one_line(error)}") from error
        self.inputs = model.inputs
        self.outputs = tuple(
            dataclasses.replace(s, dtype=np.dtype(np.float64)) if self._wide and s.dtype == np.float32 else s
            for s in model.outputs
        )
        self.info = SessionInfo({"dtype": runner.dtype}, {"onnx": onnx.__version__}, notes)

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Runs once; see `Session.infer`. In float64, float32 inputs are widened and floats come as float64."""
        import numpy as np

        if self._evaluator is None:
            raise RunnerError(f"{self._runner.name}: the session on {self._model.source} is closed.")
        index = self._model.index
        known = {spec.name for spec in self.inputs}
        if feed.keys() != known:
            wrong = sorted(known.symmetric_difference(feed))
            what = "no value for input" if wrong[0] in known else "no such input:"
            raise RunnerError(f"{self._runner.name}: {what} {wrong[0]!r}.")
        names = [spec.name for spec in self.outputs] if fetch is None else list(dict.fromkeys(fetch))
        for name in names:
            if name not in index.producer and name not in known and name not in index.initializers:
                raise RunnerError(f"{self._runner.name}: {self._model.source} has no tensor {name!r}.")
        values = {
            name: np.asarray(array, np.float64) if self._wide and array.dtype == np.float32 else array
            for name, array in feed.items()
        }
        try:
            with np.errstate(all="ignore"):
                results = self._evaluator.run(names, values)
        except Exception as error:
            raise RunnerError(f"{self._runner.name}: {_one_line(error)}") from error
        return {name: self._typed(name, value) for name, value in zip(names, results, strict=True)}

    def _typed(self, name: str, value: Any) -> np.ndarray:
        """A result in the type that the graph declares: some of onnx's kernels give a wider or a narrower one."""
        import numpy as np

        if value is None or isinstance(value, (list, tuple)):
            raise RunnerError(f"{self._runner.name}: {name!r} is not a tensor; only tensors are compared.")
        array = np.asarray(value)
        spec = self._model.index.specs.get(name)
        declared = array.dtype if spec is None else spec.dtype
        if self._wide and declared == np.float32:
            declared = np.dtype(np.float64)
        if array.dtype != declared and array.dtype.kind == "f" and declared.kind == "f":
            array = array.astype(declared)
        return np.array(array) if not array.flags.owndata else array

    def close(self) -> None:
        """Frees the evaluator."""
        self._evaluator = None


def widen(proto: onnx.ModelProto) -> None:
    """Makes every float32 of a model float64, in place: weights, constants, types, casts, subgraphs and functions."""
    _widen_graph(proto.graph)
    for function in proto.functions:
        for node in function.node:
            _widen_node(node)


def _widen_graph(graph: onnx.GraphProto) -> None:
    for info in (*graph.input, *graph.output, *graph.value_info):
        _widen_type(info.type)
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for sparse in graph.sparse_initializer:
        _widen_tensor(sparse.values)
    for node in graph.node:
        _widen_node(node)


def _widen_type(kind: onnx.TypeProto) -> None:
    which = kind.WhichOneof("value")
    if which in ("sequence_type", "optional_type"):
        _widen_type(getattr(kind, which).elem_type)
    elif which in ("tensor_type", "sparse_tensor_type") and getattr(kind, which).elem_type == _FLOAT:
        getattr(kind, which).elem_type = _DOUBLE


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    import numpy as np
    from onnx import numpy_helper

    if tensor.data_type == _FLOAT:
        wide = numpy_helper.to_array(tensor).astype(np.float64)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(wide, name))


def _widen_node(node: onnx.NodeProto) -> None:
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    for a in node.attribute:
        if a.type == onnx.AttributeProto.GRAPH:
            _widen_graph(a.g)
        elif a.type == onnx.AttributeProto.GRAPHS:
            for graph in a.graphs:
                _widen_graph(graph)
        elif a.type == onnx.AttributeProto.TENSOR:
            _widen_tensor(a.t)
        elif a.type == onnx.AttributeProto.INT and a.name in _TYPE_ATTRIBUTES and a.i == _FLOAT:
            a.i = _DOUBLE
        elif node.op_type == "Constant" and a.name in ("value_float", "value_floats"):
            value = np.asarray(helper.get_attribute_value(a), np.float32).astype(np.float64)
            a.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(value)))
    present = {a.name for a in node.attribute}
    if node.op_type in _STASHING and "stash_type" not in present:
        node.attribute.append(helper.make_attribute("stash_type", _DOUBLE))
    elif node.op_type == "ConstantOfShape" and "value" not in present:
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1))))
    elif node.op_type in ("RandomNormal", "RandomUniform") and "dtype" not in present:
        node.attribute.append(helper.make_attribute("dtype", _DOUBLE))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
