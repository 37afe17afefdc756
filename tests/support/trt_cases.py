"""A network, data and versions for the tests of the TensorRT runner."""

import numpy as np
from layerdiff.graph.model import Model
from onnx import TensorProto, helper

from .models import assembled

OLD, TEN, ELEVEN, RTX = "8.6", "10.16", "11.4", "rtx-1.7"
ALL = (OLD, TEN, ELEVEN)


def network(batch="n", op="Relu", unnamed=False):
    """Conv, an activation, global pooling, MatMul: float32 in and out."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "v": rng.normal(size=(4, 5)).astype(np.float32),
        "axes": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="" if unnamed else "conv"),
        helper.make_node(op, ["c"], ["r"], name="" if unnamed else "act"),
        helper.make_node("ReduceMean", ["r", "axes"], ["p"], name="pool", keepdims=0),
        helper.make_node("MatMul", ["p", "v"], ["y"], name="fc"),
    ]
    x, y = ("x", TensorProto.FLOAT, [batch, 3, 8, 8]), ("y", TensorProto.FLOAT, [batch, 5])
    return Model(assembled(nodes, [x], [y], weights, opset=18))


def samples(*batches, seed=0):
    rng = np.random.default_rng(seed)
    made = [{"x": rng.normal(size=(b, 3, 8, 8)).astype(np.float32)} for b in batches]
    return lambda: iter(made)


def expected(model, feed):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.serialized(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(feed))[0]
