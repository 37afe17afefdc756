"""Single nodes, computed by ONNX's reference evaluator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx


def evaluate(
    node: onnx.NodeProto, name: str, feed: Mapping[str, np.ndarray], opsets: Iterable[onnx.OperatorSetIdProto]
) -> np.ndarray | None:
    """What a node makes of its inputs.

    Args:
        node: The node.
        name: The output that is wanted.
        feed: The values of its inputs.
        opsets: The versions of operators that its graph is written in.

    Returns:
        None where the evaluator lacks the operator, or this version of it: not known, not wrong.
    """
    from onnx.reference import ReferenceEvaluator

    try:
        infos = [
            onnx.helper.make_tensor_value_info(i, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for i, a in feed.items()
        ]
        graph = onnx.helper.make_graph([node], "fold", infos, [onnx.helper.make_empty_tensor_value_info(name)])
        model = onnx.helper.make_model(graph, opset_imports=opsets)
        with np.errstate(all="ignore"):  # a logarithm of zero, say, of places that are chosen otherwise
            return np.asarray(ReferenceEvaluator(model).run([name], dict(feed))[0])
    except Exception:
        return None
