"""LSTM, GRU and RNN as the operators' definitions have them: any direction, sequence lengths, activations, clipping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_DEFAULT = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


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


@dataclass(frozen=True)
class _Cell:
    """One direction: its weights, and what its attributes say.

    Attributes:
        w, r: Weights of the input and of the state, ``(gates * hidden, ...)``.
        input_bias, state_bias: Their biases.
        peephole: LSTM's.
        functions: The activations.
        clip: Limits the argument of an activation.
        linear_before_reset: GRU's.
        input_forget: LSTM's: input and forget gate are coupled.
    """

    w: Any
    r: Any
    input_bias: Any
    state_bias: Any
    peephole: Any
    functions: list[Any]
    clip: Callable[[Any], Any]
    linear_before_reset: bool
    input_forget: bool


def _rnn(cell: _Cell, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    return cell.functions[0](cell.clip(x @ cell.w.T + cell.input_bias + h @ cell.r.T + cell.state_bias)), c


def _gru(cell: _Cell, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    import numpy as np

    xz, xr, xh = np.split(x @ cell.w.T + cell.input_bias, 3, -1)
    rz, rr, rh = np.split(cell.r, 3, 0)
    bz, br, bh = np.split(cell.state_bias, 3)
    update = cell.functions[0](cell.clip(xz + h @ rz.T + bz))
    reset = cell.functions[0](cell.clip(xr + h @ rr.T + br))
    inner = reset * (h @ rh.T + bh) if cell.linear_before_reset else (reset * h) @ rh.T + bh
    return (1 - update) * cell.functions[1](cell.clip(xh + inner)) + update * h, c


def _lstm(cell: _Cell, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    import numpy as np

    f1, f2, f3 = cell.functions
    i, o, f, g = np.split(x @ cell.w.T + cell.input_bias + h @ cell.r.T + cell.state_bias, 4, -1)
    pi, po, pf = np.split(cell.peephole, 3)
    i = f1(cell.clip(i + pi * c))
    f = 1 - i if cell.input_forget else f1(cell.clip(f + pf * c))
    c = f * c + i * f2(cell.clip(g))
    return f1(cell.clip(o + po * c)) * f3(c), c


_STEPS = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recur(op_type: str, arguments: tuple[Any, ...], attributes: Mapping[str, Any], outputs: int) -> tuple[Any, ...]:
    """ONNX's definition of LSTM-22, GRU-22 and RNN-22.

    Args:
        op_type: The operator.
        arguments: Its inputs, in order; None: left out.
        attributes: Its attributes; None: not given.
        outputs: Number of outputs that are wanted.
    """
    import numpy as np

    padded: list[Any] = [*arguments, *[None] * (8 - len(arguments))]
    x, w, r, bias, lengths, h0, c0, peephole = padded
    dtype, swapped = x.dtype, bool(attributes.get("layout"))
    if swapped:
        x = np.swapaxes(x, 0, 1)
        h0, c0 = (None if s is None else np.swapaxes(s, 0, 1) for s in (h0, c0))
    steps, batch, _ = x.shape
    directions, hidden = w.shape[0], r.shape[-1]

    def given(value: Any, *shape: int) -> Any:
        return np.zeros(shape, dtype) if value is None else value

    bias = given(bias, directions, 2 * _GATES[op_type] * hidden)
    peephole = given(peephole, directions, 3 * hidden)
    last_h, last_c = (np.array(given(s, directions, batch, hidden)) for s in (h0, c0))
    lengths = np.full(batch, steps) if lengths is None else lengths
    every = np.zeros((steps, directions, batch, hidden), dtype)
    for d in range(directions):
        input_bias, state_bias = np.split(bias[d], 2)
        weights = {"w": w[d], "r": r[d], "input_bias": input_bias, "state_bias": state_bias, "peephole": peephole[d]}
        cell = _cell(op_type, attributes, directions, d, weights)
        backwards = attributes.get("direction") == "reverse" or d == 1
        for t in reversed(range(steps)) if backwards else range(steps):
            h, c = _STEPS[op_type](cell, x[t], last_h[d], last_c[d])
            alive = (t < lengths)[:, None]
            last_h[d], last_c[d] = np.where(alive, h, last_h[d]), np.where(alive, c, last_c[d])
            every[t, d] = np.where(alive, h, 0)
    if swapped:
        every = np.transpose(every, (2, 0, 1, 3))
        last_h, last_c = np.swapaxes(last_h, 0, 1), np.swapaxes(last_c, 0, 1)
    made = (every, last_h, last_c) if op_type == "LSTM" else (every, last_h)
    return tuple(v.astype(dtype) for v in made[: max(outputs, 1)])


def _cell(op_type: str, attributes: Mapping[str, Any], directions: int, d: int, weights: Mapping[str, Any]) -> _Cell:
    import numpy as np

    usual, limit = _DEFAULT[op_type], attributes.get("clip")
    functions = _activations(
        list(attributes.get("activations") or usual * directions),
        attributes.get("activation_alpha"),
        attributes.get("activation_beta"),
    )
    return _Cell(
        **weights,
        functions=functions[d * len(usual) : (d + 1) * len(usual)],
        clip=(lambda v: np.clip(v, -limit, limit)) if limit else (lambda v: v),
        linear_before_reset=bool(attributes.get("linear_before_reset")),
        input_forget=bool(attributes.get("input_forget")),
    )
