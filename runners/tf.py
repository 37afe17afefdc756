"""TensorFlow: runs the frozen graph that a model was converted from, and speaks of its tensors by their ONNX names.

Values are given and taken in ONNX's layout: where tf2onnx made NCHW of NHWC, this runner transposes. Any tensor that
has an origin in the TensorFlow graph can be fetched, and can be fed in place of what would have computed it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..graph.errors import BuildError, ProviderUnavailable, RunnerError, UsageError
from ..graph.formats import FP32, NumberFormat
from ..graph.options import Choice, option
from .contract.capabilities import Capabilities
from .contract.runner import Runner
from .contract.session import Session, SessionInfo
from .contract.workload import Feed, Workload

if TYPE_CHECKING:
    import numpy as np

    from ..graph.model import Model, TfGraph


@dataclass(frozen=True)
class TfRunner(Runner):
    """TensorFlow on the CPU, or on the GPU with TF32 off.

    Attributes:
        device: ``cpu`` or ``gpu``.
    """

    flag: ClassVar[str] = "tf"
    value_field: ClassVar[str] = "device"
    capabilities: ClassVar[Capabilities] = Capabilities(pieces=False, inner_tensors=True, feeds_inner_tensors=True)

    device: str = option("cpu", "", "where it runs", Choice("cpu", "gpu"))
    tf32: bool = option(False, "--tf-tf32", "let TensorFlow use TF32 on GPUs (off unless asked for)")

    @property
    def trust(self) -> int:
        """0: the program the model was trained as; less than other CPU runners on a GPU."""
        return 0 if self.device == "cpu" else 25

    @property
    def arithmetic(self) -> NumberFormat:
        """FP32; TF32 only on a GPU and when asked for."""
        if self.tf32 and self.device == "gpu":
            from ..graph.formats import TF32

            return TF32
        return FP32

    def tensors_shown(self, model: Model) -> Collection[str] | None:
        """Those of which the conversion left a trace; see `Runner.tensors_shown`."""
        return None if model.tf is None else frozenset(model.tf.tensors)

    def open(
        self,
        model: Model,
        *,
        fetch: Sequence[str] = (),
        workload: Workload | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Session:
        """Imports the frozen graph. ``fetch`` and ``workload`` cost nothing here and are not needed.

        Raises:
            UsageError: The model is not a TensorFlow program.
            MissingPackage: TensorFlow is not installed.
            ProviderUnavailable: A GPU was asked for, and TensorFlow sees none.
            BuildError: TensorFlow refuses the graph.
        """
        if model.tf is None:
            name = os.path.basename(model.source)
            what = "ONNX" if model.tflite is None else "TFLite"
            raise UsageError(f"--tf needs a TensorFlow model (.pb, SavedModel, .keras, .h5); {name} is {what}.")
        from ..graph.sources.tensorflow_packages import import_tensorflow

        if progress is not None:
            progress("starting TensorFlow")
        tf = import_tensorflow()
        if self.device == "gpu" and not tf.config.list_physical_devices("GPU"):
            raise ProviderUnavailable(
                f"--tf=gpu: TensorFlow {tf.__version__} sees no GPU here. Use --tf, which runs on the CPU."
            )
        tf.config.experimental.enable_tensor_float_32_execution(self.tf32)
        return TfSession(tf, model, self.device, self.tf32)


class TfSession(Session):
    """A frozen graph, wrapped once and pruned to each set of feeds and fetches that is asked for."""

    def __init__(self, tf: Any, model: Model, device: str, tf32: bool) -> None:
        assert model.tf is not None
        self._tf = tf
        self._program: TfGraph = model.tf
        self._source = model.source
        self._device = f"/{device.upper()}:0"
        self.inputs = model.inputs
        self.outputs = model.outputs
        self._pruned: dict[tuple[tuple[str, ...], tuple[str, ...]], Any] = {}
        self._graph_def = self._program.graph_def

        def imported() -> None:
            with tf.device(self._device):
                tf.graph_util.import_graph_def(self._graph_def, name="")

        try:
            self._wrapped: Any = tf.compat.v1.wrap_function(imported, [])
        except Exception as error:
            raise BuildError(f"{model.source}: TensorFlow refuses the graph: {_line(error)}.") from error
        self.info = SessionInfo(
            options={
                "device": device,
                "tf32": tf32,
                "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
                "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
                "TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "unset"),
                "tensors": len(self._program.tensors),
            },
            versions=_versions(tf),
        )

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Runs once. ``feed`` may hold inner tensors, which then take the place of what computes them; inputs that
        nothing fetched depends on any more may be left out."""
        if self._wrapped is None:
            raise RunnerError(f"{self._source}: this TensorFlow session is closed.")
        names = [spec.name for spec in self.outputs] if fetch is None else list(fetch)
        fed = {self._tensor(name): self._inward(name, value) for name, value in feed.items()}
        wanted = {name: self._tensor(name) for name in names}
        computed = list(dict.fromkeys(t for t in wanted.values() if t not in fed))
        values = dict(fed)
        if computed:
            function, arguments = self._function(tuple(fed), tuple(computed))
            try:
                with self._tf.device(self._device):
                    results = function(*[self._tf.constant(fed[t], dtype) for t, dtype in arguments])
            except Exception as error:
                raise RunnerError(f"{self._source}: TensorFlow failed: {_line(error)}.") from error
            values.update({t: r.numpy() for t, r in zip(computed, results, strict=True)})
        return {name: self._outward(name, values[tensor]) for name, tensor in wanted.items()}

    def close(self) -> None:
        """Lets go of the graph."""
        self._wrapped = None
        self._pruned.clear()

    def _tensor(self, name: str) -> str:
        program = self._program
        for known in (program.inputs, program.outputs, program.tensors):
            if name in known:
                return known[name]
        raise RunnerError(f"tf: {name!r} has no counterpart in the TensorFlow graph of {self._source}.")

    def _inward(self, name: str, value: np.ndarray) -> np.ndarray:
        import numpy as np

        axes = self._program.axes(name)
        value = np.asarray(value)
        return np.ascontiguousarray(value.transpose(np.argsort(axes))) if axes else value

    def _outward(self, name: str, value: Any) -> np.ndarray:
        import numpy as np

        axes = self._program.axes(name)
        value = np.asarray(value)
        if value.dtype.kind in "OS":  # TensorFlow holds bytes, ONNX Runtime text
            decode = np.frompyfunc(lambda v: v.decode("utf-8", "replace") if isinstance(v, bytes) else v, 1, 1)
            value = np.asarray(decode(value), object)
        return np.array(value.transpose(axes) if axes else value, order="C", copy=True)

    def _function(self, fed: tuple[str, ...], computed: tuple[str, ...]) -> tuple[Any, list[tuple[str, Any]]]:
        """The graph from ``fed`` to ``computed``, and the (tensor, dtype) that it takes, in order."""
        key = (fed, computed)
        if key not in self._pruned:
            self._check(fed, computed)
            graph = self._wrapped.graph
            feeds = [graph.get_tensor_by_name(t) for t in fed]
            try:
                function = self._wrapped.prune(feeds, [graph.get_tensor_by_name(t) for t in computed])
            except Exception as error:
                raise RunnerError(
                    f"{self._source}: TensorFlow cannot compute {computed[0]!r}: {_line(error)}."
                ) from error
            self._pruned[key] = function, [(t.name, t.dtype) for t in feeds]
        result: tuple[Any, list[tuple[str, Any]]] = self._pruned[key]
        return result

    def _check(self, fed: Sequence[str], computed: Sequence[str]) -> None:
        """Refuses to compute what depends on an input that was not given."""
        graph, seen, todo = self._wrapped.graph, set(fed), list(computed)
        names: Mapping[str, str] = {tensor: name for name, tensor in self._program.inputs.items()}
        while todo:
            tensor = todo.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            op = graph.get_tensor_by_name(tensor).op
            if op.type == "Placeholder":
                raise RunnerError(f"{self._source}: the input {names.get(tensor, tensor)!r} was not given.")
            todo += [t.name for t in op.inputs]


def _versions(tf: Any) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"tensorflow": tf.__version__}
    for package in ("tf2onnx", "keras"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).strip().rstrip(".")[:300]
