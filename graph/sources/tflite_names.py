"""Which TFLite tensor each tensor of a converted graph is, and in which layout.

tf2onnx keeps the names of tensors. A name is believed where the ONNX operator that makes the tensor is the one that
the TFLite operator becomes, and the layout can be told. Of scaled integers, what a DequantizeLinear makes of them is
the same tensor, as the numbers that they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from ..index import GraphIndex
from ..specs import is_float
from ..tflite_file import TfliteFile, TfliteTensor
from .layouts import layouts, permutation

# fmt: off
# What a TFLite operator becomes, where the last node of what it becomes has its name. What is not here is not matched.
_BECOMES = {
    "CONV_2D": {"Conv"}, "DEPTHWISE_CONV_2D": {"Conv"}, "TRANSPOSE_CONV": {"ConvTranspose"},
    "FULLY_CONNECTED": {"MatMul", "Gemm"}, "BATCH_MATMUL": {"MatMul"},
    "ADD": {"Add"}, "SUB": {"Sub"}, "MUL": {"Mul"}, "DIV": {"Div"}, "POW": {"Pow"}, "MAXIMUM": {"Max"},
    "MINIMUM": {"Min"}, "NEG": {"Neg"}, "ABS": {"Abs"}, "EXP": {"Exp"}, "LOG": {"Log"}, "SQRT": {"Sqrt"},
    "RELU": {"Relu"}, "RELU6": {"Clip"}, "TANH": {"Tanh"}, "LOGISTIC": {"Sigmoid"}, "ELU": {"Elu"},
    "LEAKY_RELU": {"LeakyRelu"}, "PRELU": {"PRelu"}, "SOFTMAX": {"Softmax"}, "LOG_SOFTMAX": {"LogSoftmax"},
    "MAX_POOL_2D": {"MaxPool"}, "AVERAGE_POOL_2D": {"AveragePool", "GlobalAveragePool"},
    "MEAN": {"ReduceMean", "GlobalAveragePool"}, "SUM": {"ReduceSum"}, "REDUCE_MAX": {"ReduceMax"},
    "REDUCE_MIN": {"ReduceMin"}, "CONCATENATION": {"Concat"}, "RESHAPE": {"Reshape"}, "PAD": {"Pad"},
    "GATHER": {"Gather"}, "RESIZE_BILINEAR": {"Resize"}, "RESIZE_NEAREST_NEIGHBOR": {"Resize"},
    "TRANSPOSE": {"Transpose"}, "QUANTIZE": {"QuantizeLinear"}, "DEQUANTIZE": {"DequantizeLinear"},
    "GREATER": {"Greater"}, "LESS": {"Less"}, "EQUAL": {"Equal"}, "IF": {"If"},
}
# fmt: on


def traced(
    index: GraphIndex, file: TfliteFile, named: Mapping[str, TfliteTensor]
) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Where the tensors of a converted graph come from.

    Args:
        index: The ONNX graph.
        file: The file that it was converted from.
        named: The file's tensors by the names that they had in the conversion.

    Returns:
        ONNX tensor -> TFLite tensor, in the ONNX graph's order, and ONNX tensor -> axes where its value is transposed.
    """
    transposes = {n for n, t in named.items() if _operator(file, t) == "TRANSPOSE"}
    known = layouts(index, named, transposes)
    tensors, permutations = {}, {}
    for name, tensor in _claimed(index, file, named):
        spec = index.specs.get(name)
        if spec is None or (not is_float(spec.dtype) and spec.dtype != tensor.dtype):
            continue
        axes: tuple[int, ...] | None = None
        if spec.shape is None:  # that of a Loop's state is not known; two axes have one layout
            axes = () if _loops(index, name) and len(tensor.shape) < 3 else None
        elif len(spec.shape) == len(tensor.shape):
            axes = permutation(tensor.shape, spec.shape, known.get(name))
        if axes is None:
            continue
        tensors[name] = tensor.name
        if axes:
            permutations[name] = axes
    return tensors, permutations


def _claimed(
    index: GraphIndex, file: TfliteFile, named: Mapping[str, TfliteTensor]
) -> Iterator[tuple[str, TfliteTensor]]:
    for node in index.nodes:
        if node.op_type == "Loop":
            yield from _states(node, file, named)
            continue
        for name in node.output:
            tensor = _dequantized(index, node, named) if node.op_type == "DequantizeLinear" else None
            if tensor is None and _is_its_own(node, named.get(name), file):
                tensor = named[name]
            if tensor is not None:
                yield name, tensor


def _loops(index: GraphIndex, name: str) -> bool:
    """Whether a tensor is what a Loop leaves."""
    return name in index.producer and index.nodes[index.producer[name]].op_type == "Loop"


def _states(
    node: onnx.NodeProto, file: TfliteFile, named: Mapping[str, TfliteTensor]
) -> Iterator[tuple[str, TfliteTensor]]:
    """What a Loop leaves of its state, which has no names of the file's: by position, where all that it begins with is
    what a WHILE begins with."""
    first = named.get(node.name.removesuffix("_loop"))
    if first is None or _operator(file, first) != "WHILE":
        return
    operator = file.graph.operators[file.producer[first.index]]
    begins = [file.tensors[int(index)] for index in operator.inputs]
    given = [named.get(name) for name in node.input[2:]]  # behind the number of iterations and the condition
    if given == begins and len(node.output) == len(begins):
        yield from zip(node.output, (file.tensors[int(index)] for index in operator.outputs), strict=True)


def _dequantized(index: GraphIndex, node: onnx.NodeProto, named: Mapping[str, TfliteTensor]) -> TfliteTensor | None:
    """The scaled integers whose numbers a DequantizeLinear gives."""
    source = index.moved_from(node.input[0], {"Transpose"})
    if source not in named and node.output[0].endswith("_dequant"):
        source = node.output[0].removesuffix("_dequant")
    found = named.get(source)
    return None if found is None or found.constant or found.scale is None else found


def _is_its_own(node: onnx.NodeProto, tensor: TfliteTensor | None, file: TfliteFile) -> bool:
    """Whether a node makes what the tensor of its name is: integers where it is quantized, else the same operator."""
    if tensor is None or tensor.constant:
        return False
    if tensor.scale is not None and tensor.dtype is not None and not is_float(tensor.dtype):
        return node.op_type == "QuantizeLinear"
    position = file.producer.get(tensor.index)
    if position is None:
        return False
    fused = getattr(file.graph.operators[position].builtinOptions, "fusedActivationFunction", 0)
    if fused:
        return node.op_type in ("Relu", "Clip", "Tanh")
    operator = file.operator(position)
    if operator == "FULLY_CONNECTED" and node.op_type == "Add":
        return True
    beta = getattr(file.graph.operators[position].builtinOptions, "beta", 1.0)
    return node.op_type in _BECOMES.get(operator, ()) and (operator != "SOFTMAX" or beta == 1.0)


def _operator(file: TfliteFile, tensor: TfliteTensor) -> str:
    position = file.producer.get(tensor.index)
    return "" if position is None else file.operator(position)
