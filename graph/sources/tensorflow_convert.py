"""Frozen graphs as ONNX, by tf2onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError
from .canonical_names import canonical_names
from .tensorflow_packages import first_line, import_tf2onnx, silent_logging

if TYPE_CHECKING:
    import onnx
    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tf2onnx.graph import Graph as TfGraph
    from tf2onnx.graph import Node as TfNode


OPSET = 17
"""Opset that TensorFlow programs are converted to (IR 8): ONNX Runtime 1.12 and TensorRT 8.6 read it."""


def convert(
    graph_def: GraphDef, inputs: Mapping[str, str], outputs: Mapping[str, str], *, source: str, opset: int = OPSET
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
    try:
        with silent_logging():
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
        raise ModelError(f"{source}: tf2onnx cannot convert it: {first_line(error)}.") from error
    # tf2onnx leaves operators that it does not know in the graph as they are; no runtime would open that
    unknown = {n.op_type: n.name for n in proto.graph.node if not n.domain and not onnx.defs.has(n.op_type)}
    if unknown:
        op, node = next(iter(unknown.items()))
        more = f" and {len(unknown) - 1} more operators" if len(unknown) > 1 else ""
        raise ModelError(f"{source}: tf2onnx cannot convert {op} (node {node!r}){more}.")
    return canonical_names(proto, {node.name for node in graph_def.node})


def _convert_erfc(context: TfGraph, node: TfNode, name: str, arguments: Sequence[object]) -> None:
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
