"""A ``.tflite`` and parts of it, run under the names and in the layout of its ONNX conversion.

Values are given and taken as the numbers that scaled integers stand for. Tensors inside are looked at by making them
outputs of a copy of the file that holds no more than what computes them: the operators are those of the file, and the
kernels those of the deployed interpreter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...graph.errors import BuildError, ModelError, RunnerError, first_line
from ...graph.specs import is_float
from ...graph.tflite_file import TfliteFile, import_litert
from ..contract.session import Session, SessionInfo

if TYPE_CHECKING:
    import numpy as np

    from ...graph.model import Model
    from ...graph.specs import TensorSpec
    from ...graph.tflite_file import TfliteTensor
    from ..contract.workload import Feed

CONTROL = ("IF", "WHILE")
"""Operators that run other graphs of the file."""
KERNELS = {"default": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}
"""Which kernels TFLite computes with, and its own name for them."""


class TfliteSession(Session):
    """A TFLite file, and one interpreter for each set of tensors that is given and asked for.

    Args:
        model: The model, which came from a ``.tflite``.
        ops, threads: See `TfliteRunner`.
    """

    def __init__(self, model: Model, ops: str, threads: int) -> None:
        assert model.tflite is not None
        self._program, self._model = model.tflite, model
        self._file = TfliteFile(model.tflite.file)
        self._litert = import_litert("interpreter")
        self._settings: dict[str, Any] = {
            "experimental_op_resolver_type": getattr(self._litert.OpResolverType, KERNELS[ops]),
            "num_threads": threads or None,
        }
        self.inputs, self.outputs = model.inputs, model.outputs
        self._open: dict[tuple[tuple[int, ...], tuple[int, ...]], _Interpreter] = {}
        whole = [tuple(self._tensor(spec.name).index for spec in specs) for specs in (self.inputs, self.outputs)]
        try:
            self._open[whole[0], whole[1]] = self._interpreter(self._program.file.read_bytes(), *whole)
        except RunnerError as error:
            raise BuildError(str(error)) from error
        from importlib.metadata import version

        scaled = sum(tensor.scale is not None and not tensor.constant for tensor in self._file.tensors)
        self.info = SessionInfo(
            options={
                "ops": ops,
                "threads": threads,
                "operators": len(self._file.graph.operators),
                "tensors": len(self._program.tensors),
                "quantized_tensors": scaled,
            },
            versions={"ai-edge-litert": version("ai-edge-litert")},
            notes=(*self._as_floats(), *self._not_entered()),
        )

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Runs once. ``feed`` may hold inner tensors, which then take the place of what computes them; inputs that
        nothing fetched depends on any more may be left out.

        Raises:
            RunnerError: TFLite failed, or the file has no such tensor.
        """
        names = [spec.name for spec in self.outputs] if fetch is None else list(fetch)
        given = {self._tensor(name).index: self._inward(name, array) for name, array in feed.items()}
        wanted = tuple(dict.fromkeys(i for i in (self._tensor(name).index for name in names) if i not in given))
        values = dict(given)
        if wanted:
            key = tuple(given), wanted
            if key not in self._open:
                try:
                    part = self._file.cut(key[0], wanted)
                except ModelError as error:
                    raise RunnerError(f"tflite: {error}") from None
                self._open[key] = self._interpreter(part, *key)
            values.update(self._open[key].run(given))
        return {name: self._outward(name, values[self._tensor(name).index]) for name in names}

    def close(self) -> None:
        """Lets go of the interpreters."""
        self._open.clear()

    def _interpreter(self, content: bytes, given: Sequence[int], wanted: Sequence[int]) -> _Interpreter:
        try:
            interpreter = self._litert.Interpreter(model_content=content, **self._settings)
            return _Interpreter(interpreter, given, wanted)
        except Exception as error:
            raise RunnerError(f"tflite: {self._model.source} cannot be opened: {first_line(error)}.") from error

    def _tensor(self, name: str) -> TfliteTensor:
        program = self._program
        for known in (program.inputs, program.outputs, program.tensors):
            if name in known:
                return self._file.named[known[name]]
        raise RunnerError(f"tflite: {name!r} has no counterpart in {self._model.source}.")

    def _inward(self, name: str, array: np.ndarray) -> np.ndarray:
        import numpy as np

        axes, tensor = self._program.axes(name), self._tensor(name)
        array = np.asarray(array)
        array = array.transpose(np.argsort(axes)) if axes else array
        if tensor.scale is not None and is_float(array.dtype):
            array = tensor.quantized(array)
        return np.asarray(array, tensor.dtype, order="C")  # NumPy's own ascontiguousarray gives a scalar an axis

    def _outward(self, name: str, array: np.ndarray) -> np.ndarray:
        import numpy as np

        axes, tensor, spec = self._program.axes(name), self._tensor(name), self._spec(name)
        if tensor.scale is not None and (spec is None or is_float(spec.dtype)):
            array = tensor.dequantized(array)
        return np.array(array.transpose(axes) if axes else array, order="C", copy=True)

    def _spec(self, name: str) -> TensorSpec | None:
        return next((s for s in (*self.inputs, *self.outputs) if s.name == name), self._model.index.specs.get(name))

    def _as_floats(self) -> list[str]:
        """Which inputs and outputs hold scaled integers, in words."""
        scaled = [s.name for s in (*self.inputs, *self.outputs) if self._tensor(s.name).scale is not None]
        if not scaled:
            return []
        return [f"{', '.join(scaled)}: scaled integers in the file, given and taken as the numbers they stand for."]

    def _not_entered(self) -> list[str]:
        """That the bodies of control flow stay whole, in words."""
        ops = Counter(self._file.operator(position) for position in range(len(self._file.graph.operators)))
        found = " and ".join(f"{ops[op]} {op}" for op in CONTROL if ops[op])
        return [f"{found}: run whole, nothing inside their bodies is compared."] if found else []


class _Interpreter:
    """TFLite's interpreter on a file.

    Args:
        interpreter: TFLite's.
        given, wanted: What its inputs and outputs are in the whole file.
    """

    def __init__(self, interpreter: Any, given: Sequence[int], wanted: Sequence[int]) -> None:
        self._interpreter = interpreter
        outputs = [int(detail["index"]) for detail in interpreter.get_output_details()]
        self._inputs = {int(detail["index"]): tuple(detail["shape"]) for detail in interpreter.get_input_details()}
        self._outputs = {index: index for index in wanted if index in outputs}
        self._allocated = False

    def run(self, given: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """The outputs, from the inputs; other arrays are passed over."""
        from ...graph.sources.tensorflow_packages import held_stderr

        try:
            for index, shape in self._inputs.items():
                if given[index].shape != shape:
                    self._interpreter.resize_tensor_input(index, given[index].shape)
                    self._inputs[index], self._allocated = given[index].shape, False
            if not self._allocated:
                with held_stderr():  # it logs which delegates it has
                    self._interpreter.allocate_tensors()
                self._allocated = True
            self._interpreter.reset_all_variables()
            for index in self._inputs:
                self._interpreter.set_tensor(index, given[index])
            self._interpreter.invoke()
            return {index: self._interpreter.get_tensor(index) for index in self._outputs}
        except Exception as error:
            raise RunnerError(f"tflite: {first_line(error)}.") from error
