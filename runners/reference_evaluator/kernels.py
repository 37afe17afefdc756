"""Kernels for onnx.reference where its own ones compute in float32 whatever they are given, or leave out a part.

Each was found by running the operator in float64 and looking for results that float32 would hold, or by comparing it
with the operator's definition: Erf and GridSample round to float32; LRN mixes up the batch and the channels;
LayerNormalization and RMSNormalization know no ``stash_type`` but float32; DequantizeLinear rounds INT32 to float32;
LSTM, GRU and RNN ignore ``sequence_lens``, ``activations`` and ``clip``; LogSoftmax takes the logarithm of zero where a
probability underflows. Where onnx computes an operator's newest definition in any opset, the older ones are here, too:
Softmax, LogSoftmax and Hardmax below opset 13 work on all axes from ``axis`` on, which is 1 if it is not given, and
BatchNormalization below opset 14 trains where it has more than one output.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from ...graph.nodes import attribute_int
from .recurrent import recur


@cache
def kernels() -> list[type]:
    """The classes to hand to ``onnx.reference.ReferenceEvaluator`` as ``new_ops``."""
    return [
        *_elementwise(),
        *_normalizations(),
        *_softmaxes(),
        _batch_normalization(),
        _dequantize_linear(),
        *_recurrent(),
    ]


def _elementwise() -> list[type]:
    import numpy as np
    from onnx.reference.op_run import OpRun
    from onnx.reference.ops.op_grid_sample import GridSample as OnnxGridSample

    erf = np.vectorize(math.erf, otypes=[np.float64])

    class Erf(OpRun):  # type: ignore[misc]
        def _run(self, x: Any) -> Any:
            return ((erf(x) if x.size else x).astype(x.dtype),)

    class GridSample(OnnxGridSample):  # type: ignore[misc]
        def _gs_denormalize_coordinates(self, n: Any, dims: Any, align_corners: bool) -> Any:
            pairs = zip(n, dims, strict=False)
            return np.asarray([self._gs_denormalize(n=v, length=d, align_corners=align_corners) for v, d in pairs])

    return [Erf, GridSample]


def _normalizations() -> list[type]:
    import numpy as np
    from onnx.reference.op_run import OpRun

    class LRN(OpRun):  # type: ignore[misc]
        def _run(self, x: Any, alpha: Any = None, beta: Any = None, bias: Any = None, size: Any = None) -> Any:
            before, after = (size - 1) // 2, size // 2
            squares = np.zeros_like(x)
            for c in range(x.shape[1]):
                window = x[:, max(0, c - before) : c + after + 1]
                squares[:, c] = np.sum(np.square(window), axis=1)
            return ((x / (bias + (alpha / size) * squares) ** beta).astype(x.dtype),)

    class LayerNormalization(OpRun):  # type: ignore[misc]
        def _run(self, x: Any, scale: Any, bias: Any = None, axis: Any = None, epsilon: Any = None, **_: Any) -> Any:
            axes = tuple(range((-1 if axis is None else axis) % x.ndim, x.ndim))
            wide = x.astype(np.float64)
            mean = wide.mean(axis=axes, keepdims=True)
            centred = wide - mean
            inverse = 1 / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + epsilon)
            y = centred * inverse * scale + (0 if bias is None else bias)
            return tuple(v.astype(x.dtype) for v in (y, mean, inverse)[: self.n_outputs])

        def __init__(self, onnx_node: Any, run_params: Any) -> None:
            OpRun.__init__(self, onnx_node, run_params)
            self.n_outputs = max(1, len(onnx_node.output))

    class MeanVarianceNormalization(OpRun):  # type: ignore[misc]
        def _run(self, x: Any, axes: Any = None) -> Any:
            over = tuple(axes or (0, 2, 3))
            wide = x.astype(np.float64)
            deviation = wide.std(axis=over, keepdims=True) + 1e-9
            return (((wide - wide.mean(axis=over, keepdims=True)) / deviation).astype(x.dtype),)

    class RMSNormalization(OpRun):  # type: ignore[misc]
        def _run(self, x: Any, scale: Any, axis: Any = None, epsilon: Any = None, **_: Any) -> Any:
            axes = tuple(range((-1 if axis is None else axis) % x.ndim, x.ndim))
            wide = x.astype(np.float64)
            squares = np.square(wide).mean(axis=axes, keepdims=True)
            return ((wide / np.sqrt(squares + epsilon) * scale).astype(x.dtype),)

    return [LRN, LayerNormalization, MeanVarianceNormalization, RMSNormalization]


def _softmaxes() -> list[type]:
    import numpy as np
    from onnx.reference.op_run import OpRun

    def softmax(x: Any) -> Any:
        power = np.exp(x - x.max(axis=-1, keepdims=True))
        return power / power.sum(axis=-1, keepdims=True)

    def log_softmax(x: Any) -> Any:
        shifted = x - x.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))

    def hardmax(x: Any) -> Any:
        return np.arange(x.shape[-1]) == x.argmax(axis=-1)[..., None]

    def over_rows(op_type: str, compute: Any) -> type:
        """An operator that works on rows: along one axis, or before opset 13 on a tensor made a matrix at ``axis``."""

        def __init__(self: Any, onnx_node: Any, run_params: Any) -> None:
            OpRun.__init__(self, onnx_node, run_params)
            self.as_matrix = run_params["opsets"].get("", 13) < 13
            self.over = attribute_int(onnx_node, "axis", 1 if self.as_matrix else -1)

        def _run(self: Any, x: Any, axis: Any = None) -> Any:
            if not x.size:
                return (x,)
            if self.as_matrix:
                columns = math.prod(x.shape[self.over % x.ndim if self.over < 0 else self.over :])
                return (compute(x.reshape(-1, columns)).reshape(x.shape).astype(x.dtype),)
            return (np.moveaxis(compute(np.moveaxis(x, self.over, -1)), -1, self.over).astype(x.dtype),)

        return type(op_type, (OpRun,), {"_run": _run, "__init__": __init__})

    found = {"Softmax": softmax, "LogSoftmax": log_softmax, "Hardmax": hardmax}
    return [over_rows(op_type, compute) for op_type, compute in found.items()]


def _batch_normalization() -> type:
    import numpy as np
    from onnx.reference.op_run import OpRun

    class BatchNormalization(OpRun):  # type: ignore[misc]
        def __init__(self, onnx_node: Any, run_params: Any) -> None:
            OpRun.__init__(self, onnx_node, run_params)
            opset, self.n_outputs = run_params["opsets"].get("", 14), len(onnx_node.output)
            self.trains = bool(attribute_int(onnx_node, "training_mode", 0)) if opset >= 14 else self.n_outputs > 1
            self.each = opset < 9 and not attribute_int(onnx_node, "spatial", 1)
            self.newest = opset >= 14

        def _run(self, x: Any, scale: Any, bias: Any, mean: Any, var: Any, **given: Any) -> Any:
            epsilon, momentum = self.epsilon, self.momentum
            shape = (1, *x.shape[1:]) if self.each else (1, -1, *[1] * (x.ndim - 2))
            running: list[Any] = []
            if self.trains:
                axes = (0,) if self.each else tuple(a for a in range(x.ndim) if a != 1)
                own = x.mean(axis=axes), x.var(axis=axes)
                running = [
                    old * momentum + new.reshape(old.shape) * (1 - momentum)
                    for old, new in zip((mean, var), own, strict=True)
                ]
                mean, var = own
                running += [] if self.newest else [mean, var]
            scale, bias, mean, var = (v.reshape(shape) for v in (scale, bias, mean, var))
            y = scale * (x - mean) / np.sqrt(var + epsilon) + bias
            return tuple(v.astype(x.dtype) for v in (y, *running))[: self.n_outputs]

    return BatchNormalization


def _dequantize_linear() -> type:
    import numpy as np
    from onnx.reference.op_run import OpRun

    class DequantizeLinear(OpRun):  # type: ignore[misc]
        def _run(
            self, x: Any, scale: Any, zero: Any = None, axis: Any = None, block_size: Any = None, **kw: Any
        ) -> Any:
            axis = 1 if axis is None else axis

            def spread(value: Any) -> Any:
                if block_size:
                    return np.repeat(value, block_size, axis=axis)[tuple(slice(0, d) for d in x.shape)]
                if (value.ndim == 1 and value.size > 1) or (value.ndim == 1 and x.ndim and x.shape[axis] == 1):
                    return value.reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])
                return value.reshape(()) if value.size == 1 else value

            wide = x.astype(np.float64)
            if zero is not None:
                wide = wide - spread(zero.astype(np.float64))
            return ((wide * spread(scale.astype(np.float64))).astype(scale.dtype),)

    return DequantizeLinear


def _recurrent() -> list[type]:
    from onnx.reference.op_run import OpRun

    def recurrent(op_type: str) -> type:
        """LSTM, GRU or RNN as the operator's definition has them."""

        def _run(self: Any, *arguments: Any, **attributes: Any) -> Any:
            return recur(op_type, arguments, attributes, self.n_outputs)

        def __init__(self: Any, onnx_node: Any, run_params: Any) -> None:
            OpRun.__init__(self, onnx_node, run_params)
            self.n_outputs = len(onnx_node.output)

        return type(op_type, (OpRun,), {"_run": _run, "__init__": __init__})

    return [recurrent(op_type) for op_type in ("LSTM", "GRU", "RNN")]
