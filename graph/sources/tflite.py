"""TFLite files become models: the ONNX graph that tf2onnx makes of one, and the names that link the two.

What TFLite holds in one operator and ONNX in two (a fused activation, the bias of a FullyConnected) is taken apart
before the conversion, so that the name of a TFLite tensor stays with its value. Inputs and outputs of scaled integers
become floats: they are quantized behind the input and dequantized before the output, by their own scale.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError
from ..model import Model, TfliteGraph
from ..specs import is_float
from ..tflite_file import TfliteFile, copied, packed
from .canonical_names import canonical_names
from .tensorflow_convert import OPSET
from .tensorflow_packages import first_line, held_stderr, import_tf2onnx, silent_logging
from .tflite_names import traced

if TYPE_CHECKING:
    import onnx

ACTIVATIONS = ("RELU", "RELU6", "TANH")
"""Fused activations that are operators of their own, too."""


def load_tflite(path: str | os.PathLike[str]) -> Model:
    """Reads a TFLite file.

    Args:
        path: A ``.tflite``. Its inputs and outputs are called what its signature calls them, else what their tensors
            are called.

    Returns:
        A model whose ONNX graph is converted by tf2onnx (opset 17). Inputs and outputs are NHWC, as TFLite's, and
        floats where TFLite has scaled integers.

    Raises:
        MissingPackage: ai-edge-litert, TensorFlow or tf2onnx is not installed.
        ModelError: It is no TFLite file, or tf2onnx cannot convert it.
    """
    file = TfliteFile(path)
    (inputs, outputs), signatures = file.interface(), file.signatures()
    known = set(inputs.values()) & set(outputs.values())
    if known:
        raise ModelError(f"{path}: {file.tensors[known.pop()].name!r} is an input and an output: nothing computes it.")
    prepared = _Prepared(file, inputs, outputs)
    proto = _converted(prepared, Path(path))
    model = Model(proto, source=os.fspath(path), again=partial(load_tflite, os.path.abspath(path)))
    named = {name: file.tensors[index] for index, name in prepared.names.items()}
    tensors, permutations = traced(model.index, file, named)
    fixed = {name: file.tensors[index].name for name, index in {**inputs, **outputs}.items()}
    model.signatures = signatures
    model.tflite = TfliteGraph(
        inputs={name: fixed[name] for name in inputs},
        outputs={name: fixed[name] for name in outputs},
        tensors={**tensors, **fixed},
        permutations={name: axes for name, axes in permutations.items() if name not in fixed},
        file=Path(os.path.abspath(path)),
        halves=_halves(file, model),
    )
    return model


def _halves(file: TfliteFile, model: Model) -> frozenset[str]:
    """The weights of the converted graph that the file holds in FP16: the same values, in any order, for the conversion
    turns axes."""
    held = {np.sort(values.astype(np.float32)).tobytes() for values in file.halves()}
    weights = ((name, model.index.weight(name)) for name in model.index.initializers) if held else ()
    return frozenset(
        name
        for name, value in weights
        if value is not None and value.dtype == np.float32 and np.sort(value.reshape(-1)).tobytes() in held
    )


def _converted(prepared: _Prepared, path: Path) -> onnx.ModelProto:
    tf2onnx = import_tf2onnx()
    if hasattr(tf2onnx.utils, "INTERNAL_NAME"):
        tf2onnx.utils.INTERNAL_NAME = 1  # see tensorflow_convert
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "prepared.tflite"
        copy.write_bytes(prepared.packed())
        try:
            with silent_logging(), held_stderr():
                proto, _ = tf2onnx.convert.from_tflite(os.fspath(copy), opset=OPSET)
        except Exception as error:
            raise ModelError(f"{path}: tf2onnx cannot convert it: {first_line(error)}.") from error
    import onnx

    unknown = sorted({n.op_type for n in proto.graph.node if not n.domain and not onnx.defs.has(n.op_type)})
    if unknown:
        ops = ", ".join(op.removeprefix("TFL_") for op in unknown)
        raise ModelError(f"{path}: tf2onnx cannot convert {ops}.")
    return canonical_names(proto, {name.partition(":")[0] for name in prepared.names.values()})


class _Prepared:
    """A TFLite file under the names that its ONNX graph is to have, with operators taken apart.

    Attributes:
        names: Tensor of the file -> its name.
    """

    def __init__(self, file: TfliteFile, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        self.file = file
        self.schema = file.schema
        self.model = copied(file.model)
        self.graph = copied(file.graph)
        self.model.subgraphs = [self.graph, *file.model.subgraphs[1:]]
        self.model.operatorCodes = list(file.model.operatorCodes)
        self.model.signatureDefs = None
        self.graph.tensors = [copied(tensor) for tensor in file.graph.tensors]
        self._take_apart()
        fixed = {index: name for name, index in {**inputs, **outputs}.items()}
        used = set(fixed.values())
        self.names = {t.index: f"{t.name}#{t.index}" if t.name in used else t.name for t in file.tensors}
        self.names.update(fixed)
        self.graph.inputs = [self._outside(index, True) for index in inputs.values()]
        self.graph.outputs = [self._outside(index, False) for index in outputs.values()]
        for index, name in self.names.items():
            self.graph.tensors[index].name = name.encode()

    def packed(self) -> bytes:
        """The file."""
        return packed(self.model)

    def _take_apart(self) -> None:
        """Fused activations, and the bias of a FullyConnected, as operators of their own."""
        activations = {value: name for name, value in vars(self.schema.ActivationFunctionType).items()}
        operators = []
        for position, original in enumerate(self.file.graph.operators):
            operator = copied(original)
            operators.append(operator)
            options = operator.builtinOptions
            if len(operator.outputs) != 1:
                continue
            (made,) = (int(index) for index in operator.outputs)
            tensor = self.file.tensors[made]
            plain = tensor.dtype is not None and is_float(tensor.dtype)
            fused = activations.get(getattr(options, "fusedActivationFunction", 0), "NONE")
            behind: list[tuple[str, list[int]]] = []
            if (
                self.file.operator(position) == "FULLY_CONNECTED"
                and len(operator.inputs) > 2
                and operator.inputs[2] >= 0
            ):
                deep = len(self.file.tensors[int(operator.inputs[0])].shape) > 2  # tf2onnx 1.17 forgets the bias then
                if plain or (deep and fused == "NONE"):
                    behind.append(("ADD", [int(operator.inputs[2])]))
                    operator.inputs = [*(int(i) for i in operator.inputs[:2]), -1]
            if plain and fused in ACTIVATIONS:
                behind.append((fused, []))
                operator.builtinOptions = copied(options)
                operator.builtinOptions.fusedActivationFunction = self.schema.ActivationFunctionType.NONE
            for number, (code, more) in enumerate(behind):
                operators[-1].outputs = [self._float_like(made, f"{tensor.name}/before_{code}")]
                last = [made] if number + 1 == len(behind) else []
                operators.append(self._operator(code, [*operators[-1].outputs, *more], last))
        self.graph.operators = operators

    def _outside(self, index: int, given: bool) -> int:
        """The float tensor that stands for an input or output of scaled integers, with what converts it."""
        tensor = self.file.tensors[index]
        if tensor.scale is None or tensor.dtype is None or is_float(tensor.dtype):
            return index
        outside = self._float_like(index, self.names[index])
        self.names[index] += "_quantized"
        if given:
            self.graph.operators.insert(0, self._operator("QUANTIZE", [outside], [index]))
        else:
            self.graph.operators.append(self._operator("DEQUANTIZE", [index], [outside]))
        return outside

    def _float_like(self, index: int, name: str) -> int:
        copy = copied(self.graph.tensors[index])
        copy.name, copy.type, copy.buffer, copy.quantization = name.encode(), self.schema.TensorType.FLOAT32, 0, None
        self.graph.tensors.append(copy)
        return len(self.graph.tensors) - 1

    def _operator(self, code: str, inputs: list[int], outputs: list[int]) -> Any:
        known = self.schema.OperatorCodeT()
        known.builtinCode = getattr(self.schema.BuiltinOperator, code)
        known.deprecatedBuiltinCode, known.version = min(known.builtinCode, 127), 1
        self.model.operatorCodes.append(known)
        operator = self.schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = np.asarray(inputs, np.int32), np.asarray(outputs, np.int32)
        if code == "ADD":
            operator.builtinOptionsType = self.schema.BuiltinOptions.AddOptions
            operator.builtinOptions = self.schema.AddOptionsT()
        return operator
