"""Kernels for onnx.reference where its own ones compute in float32 whatever they are given, or leave out a part.

Each was found by running the operator in float64 and looking for results that float32 would hold, or by comparing it
with the operator's definition: Erf and GridSample round to float32; LRN mixes up the batch and the channels;
LayerNormalization and RMSNormalization know no ``stash_type`` but float32; DequantizeLinear rounds INT32 to float32;
LSTM, GRU and RNN ignore ``sequence_lens``, ``activations`` and ``clip``.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any


@cache
def kernels() -> list[type]:
    """The classes to hand to ``onnx.reference.ReferenceEvaluator`` as ``new_ops``."""
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

    def recurrent(op_type: str, gates: int) -> type:
        """LSTM, GRU or RNN as the operator's definition has them."""

        def _run(self: Any, *arguments: Any, **attributes: Any) -> Any:
            return _recur(op_type, gates, arguments, attributes, self.n_outputs)

        def __init__(self: Any, onnx_node: Any, run_params: Any) -> None:
            OpRun.__init__(self, onnx_node, run_params)
            self.n_outputs = len(onnx_node.output)

        return type(op_type, (OpRun,), {"_run": _run, "__init__": __init__})

    return [
        Erf,
        GridSample,
        LRN,
        LayerNormalization,
        MeanVarianceNormalization,
        RMSNormalization,
        DequantizeLinear,
        recurrent("LSTM", 4),
        recurrent("GRU", 3),
        recurrent("RNN", 1),
    ]


def _activation(name: str, alpha: float | None, beta: float | None) -> Any:
    """An activation of a recurrent operator by name; the defaults of alpha and beta are those of the operators."""
    import numpy as np

    def value(given: float | None, default: float) -> float:
        return default if given is None else float(given)

    table = {
        "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
        "tanh": np.tanh,
        "relu": lambda v: np.maximum(v, 0),
        "affine": lambda v: value(alpha, 1.0) * v + value(beta, 0.0),
        "leakyrelu": lambda v: np.where(v < 0, value(alpha, 0.01) * v, v),
        "thresholdedrelu": lambda v: np.where(v > value(alpha, 1.0), v, 0),
        "scaledtanh": lambda v: value(alpha, 1.0) * np.tanh(value(beta, 1.0) * v),
        "hardsigmoid": lambda v: np.clip(value(alpha, 0.2) * v + value(beta, 0.5), 0, 1),
        "elu": lambda v: np.where(v < 0, value(alpha, 1.0) * np.expm1(v), v),
        "softsign": lambda v: v / (1 + np.abs(v)),
        "softplus": lambda v: np.logaddexp(v, 0),
    }
    return table[name.lower()]


def _activations(names: list[str], alphas: Any, betas: Any) -> list[Any]:
    """Alphas and betas are consumed in order by the activations that take them."""
    takes_alpha = {"affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu"}
    takes_beta = {"affine", "scaledtanh", "hardsigmoid"}
    alphas, betas = list(alphas or []), list(betas or [])
    made = []
    for name in names:
        alpha = alphas.pop(0) if name.lower() in takes_alpha and alphas else None
        beta = betas.pop(0) if name.lower() in takes_beta and betas else None
        made.append(_activation(name, alpha, beta))
    return made


def _recur(op_type: str, gates: int, arguments: tuple[Any, ...], attributes: Any, outputs: int) -> Any:
    """ONNX's definition of LSTM-22, GRU-22 and RNN-22, any direction, with sequence lengths."""
    import numpy as np

    padded: list[Any] = [*arguments, *[None] * (8 - len(arguments))]
    x, w, r, bias, lengths, h0, c0, peephole = padded
    dtype = x.dtype
    layout = attributes.get("layout") or 0
    if layout:
        x = np.swapaxes(x, 0, 1)
        h0, c0 = (None if s is None else np.swapaxes(s, 0, 1) for s in (h0, c0))
    steps, batch, _ = x.shape
    directions, hidden = w.shape[0], r.shape[-1]
    bias = np.zeros((directions, 2 * gates * hidden), dtype) if bias is None else bias
    peephole = np.zeros((directions, 3 * hidden), dtype) if peephole is None else peephole
    h0 = np.zeros((directions, batch, hidden), dtype) if h0 is None else h0
    c0 = np.zeros((directions, batch, hidden), dtype) if c0 is None else c0
    lengths = np.full(batch, steps) if lengths is None else lengths
    default = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}[op_type]
    functions = _activations(
        list(attributes.get("activations") or default * directions),
        attributes.get("activation_alpha"),
        attributes.get("activation_beta"),
    )
    limit = attributes.get("clip")
    every = np.zeros((steps, directions, batch, hidden), dtype)
    last_h, last_c = np.array(h0), np.array(c0)
    direction = attributes.get("direction") or "forward"

    def clip(v: Any) -> Any:
        return v if not limit else np.clip(v, -limit, limit)

    for d in range(directions):
        own = functions[d * len(default) : (d + 1) * len(default)]
        h, c = np.array(h0[d]), np.array(c0[d])
        backwards = direction == "reverse" or d == 1
        wb, rb = np.split(bias[d], 2)
        for t in reversed(range(steps)) if backwards else range(steps):
            from_x = x[t] @ w[d].T + wb
            new_c = c
            if op_type == "RNN":
                new_h = own[0](clip(from_x + h @ r[d].T + rb))
            elif op_type == "GRU":
                xz, xr, xh = np.split(from_x, 3, -1)
                rz, rr, rh = np.split(r[d], 3, 0)
                bz, br, bh = np.split(rb, 3)
                z = own[0](clip(xz + h @ rz.T + bz))
                reset = own[0](clip(xr + h @ rr.T + br))
                inner = reset * (h @ rh.T + bh) if attributes.get("linear_before_reset") else (reset * h) @ rh.T + bh
                new_h = (1 - z) * own[1](clip(xh + inner)) + z * h
            else:
                i, o, f, g = np.split(from_x + h @ r[d].T + rb, 4, -1)
                pi, po, pf = np.split(peephole[d], 3)
                i = own[0](clip(i + pi * c))
                f = 1 - i if attributes.get("input_forget") else own[0](clip(f + pf * c))
                new_c = f * c + i * own[1](clip(g))
                new_h = own[0](clip(o + po * new_c)) * own[2](new_c)
            alive = (t < lengths)[:, None]
            h, c = np.where(alive, new_h, h), np.where(alive, new_c, c)
            every[t, d] = np.where(alive, new_h, 0)
        last_h[d], last_c[d] = h, c
    if layout:
        every = np.transpose(every, (2, 0, 1, 3))
        last_h, last_c = np.swapaxes(last_h, 0, 1), np.swapaxes(last_c, 0, 1)
    made = (every, last_h, last_c) if op_type == "LSTM" else (every, last_h)
    return tuple(v.astype(dtype) for v in made[: max(outputs, 1)])
