"""A decoder of three layers, as language models have them, with what may be wrong in one of them.

Root mean square normalization, rotary positions, attention with a causal mask, a gated MLP. Tensors of layer 1 are
called ``l1_...``; there is the mistake, if any.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx

from .writing import Drawn, network

LENGTH, WIDTH, HEADS, HIDDEN, LAYERS = 24, 64, 4, 128, 3
HEAD = WIDTH // HEADS
AT = 1
"""The layer that a mistake is in."""


@dataclass(frozen=True)
class Form:
    """How the decoder is written.

    Attributes:
        groups: Heads of keys and values.
        softcap: Bound of the scores; 0 is none.
        hidden: What the mask adds to scores that do not count.
        mistake: One of `MISTAKES`, in layer `AT`; empty for none.
    """

    groups: int = HEADS
    softcap: float = 0.0
    hidden: float = -1e9
    mistake: str = ""


MISTAKES = (
    "interleaved", "shifted_keys", "sine_sign", "no_positions", "tiled_groups", "mask_off_by_one", "no_softcap",
    "gamma_less_one", "epsilon_outside", "gate_and_up_exchanged",
)  # fmt: skip


@dataclass
class _Text:
    form: Form
    drawn: Drawn = field(default_factory=Drawn)
    lines: list[str] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def write(self, *lines: str) -> None:
        self.lines += lines

    def weight(self, name: str, values: np.ndarray) -> str:
        self.weights[name] = values
        return name


def decoder(form: Form = Form()) -> onnx.ModelProto:  # noqa: B008 - frozen
    """The network; weights are the same in every form.

    Raises:
        ValueError: The mistake is not known.
    """
    if form.mistake not in ("", *MISTAKES):
        raise ValueError(form.mistake)
    text = _Text(form)
    text.weight("last_axis", np.array([3]))
    for name, place in (("zero", 0), ("middle", HEAD // 2), ("end", HEAD), ("odd", 1), ("two", 2)):
        text.weight(name, np.array([place]))
    stream = "x"
    for layer in range(LAYERS):
        stream = _layer(text, layer, stream, form.mistake if layer == AT else "")
    body = "\n".join(text.lines)
    return network(f"decoder (float[1,{LENGTH},{WIDTH}] x) => ({stream}) {{\n{body}\n}}", **text.weights)


def _layer(text: _Text, layer: int, x: str, mistake: str) -> str:
    at, drawn = f"l{layer}_", text.drawn
    gain = drawn.normal(WIDTH, scale=0.1) + (0 if mistake == "gamma_less_one" else 1)
    _norm(text, f"{at}norm", x, gain.astype(np.float32), outside=mistake == "epsilon_outside")
    groups = text.form.groups
    for name, heads in (("q", HEADS), ("k", groups), ("v", groups)):
        weight = text.weight(f"{at}w{name}", drawn.weight(WIDTH, heads * HEAD))
        shape = text.weight(f"{at}{name}_shape", np.array([1, LENGTH, heads, HEAD]))
        text.write(
            f"{at}{name} = MatMul({at}norm, {weight})",
            f"{at}{name}_split = Reshape({at}{name}, {shape})",
            f"{at}{name}_heads = Transpose<perm = [0, 2, 1, 3]>({at}{name}_split)",
        )
    rotated = {name: f"{at}{name}_heads" for name in "qkv"}
    if mistake != "no_positions":
        for name, heads in (("q", HEADS), ("k", groups)):
            rotated[name] = _rotary(text, f"{at}{name}", heads, mistake)
    if groups != HEADS:
        for name in "kv":
            rotated[name] = _repeated(text, f"{at}{name}", rotated[name], tiled=mistake == "tiled_groups")
    _attention(text, at, rotated, mistake)
    text.weight(f"{at}wo", drawn.weight(WIDTH, WIDTH))
    text.write(f"{at}o = MatMul({at}joined, {at}wo)", f"{at}middle = Add({x}, {at}o)")
    return _mlp(text, at, mistake)


def _norm(text: _Text, name: str, x: str, gain: np.ndarray, *, outside: bool = False) -> None:
    text.weight("epsilon", np.float32(1e-2))
    text.weight(f"{name}_gain", gain)
    root = (f"{name}_root = Sqrt({name}_mean)", f"{name}_by = Add({name}_root, epsilon)")
    if not outside:
        root = (f"{name}_safe = Add({name}_mean, epsilon)", f"{name}_by = Sqrt({name}_safe)")
    text.write(
        f"{name}_square = Mul({x}, {x})",
        f"{name}_mean = ReduceMean<axes = [-1], keepdims = 1>({name}_square)",
        *root,
        f"{name}_unit = Div({x}, {name}_by)",
        f"{name} = Mul({name}_unit, {name}_gain)",
    )


def _rotary(text: _Text, at: str, heads: int, mistake: str) -> str:
    angles = np.arange(LENGTH)[:, None] / 10000 ** (np.arange(0, HEAD, 2) / HEAD)
    pairs = mistake == "interleaved"
    tables = [np.repeat(t, 2, 1) if pairs else np.tile(t, (1, 2)) for t in (np.cos(angles), np.sin(angles))]
    if mistake == "shifted_keys" and at.endswith("k"):
        tables = [np.roll(table, 1, 0) for table in tables]
    if mistake == "sine_sign":
        tables[1] = -tables[1]
    for name, table in zip(("cos", "sin"), tables, strict=True):
        text.weight(f"{at}_{name}_table", table.astype(np.float32))
    text.write(*(_pairs_turned(text, at, heads) if pairs else _halves_turned(at)))
    text.write(
        f"{at}_cos = Mul({at}_heads, {at}_cos_table)",
        f"{at}_sin = Mul({at}_turned, {at}_sin_table)",
        f"{at}_rotated = Add({at}_cos, {at}_sin)",
    )
    return f"{at}_rotated"


def _halves_turned(at: str) -> list[str]:
    return [
        f"{at}_low = Slice({at}_heads, zero, middle, last_axis)",
        f"{at}_high = Slice({at}_heads, middle, end, last_axis)",
        f"{at}_minus = Neg({at}_high)",
        f"{at}_turned = Concat<axis = 3>({at}_minus, {at}_low)",
    ]


def _pairs_turned(text: _Text, at: str, heads: int) -> list[str]:
    text.weight("new_axis", np.array([4]))
    text.weight(f"{at}_flat_shape", np.array([1, heads, LENGTH, HEAD]))
    return [
        f"{at}_low = Slice({at}_heads, zero, end, last_axis, two)",
        f"{at}_high = Slice({at}_heads, odd, end, last_axis, two)",
        f"{at}_minus = Neg({at}_high)",
        f"{at}_first = Unsqueeze({at}_minus, new_axis)",
        f"{at}_second = Unsqueeze({at}_low, new_axis)",
        f"{at}_stack = Concat<axis = 4>({at}_first, {at}_second)",
        f"{at}_turned = Reshape({at}_stack, {at}_flat_shape)",
    ]


def _repeated(text: _Text, at: str, x: str, *, tiled: bool) -> str:
    groups = text.form.groups
    copies = HEADS // groups
    shape = [1, copies, groups, LENGTH, HEAD] if tiled else [1, groups, copies, LENGTH, HEAD]
    text.weight(f"{at}_copies_axis", np.array([1 if tiled else 2]))
    text.weight(f"{at}_copies_shape", np.array(shape))
    text.weight("heads_shape", np.array([1, HEADS, LENGTH, HEAD]))
    text.write(
        f"{at}_apart = Unsqueeze({x}, {at}_copies_axis)",
        f"{at}_copies = Expand({at}_apart, {at}_copies_shape)",
        f"{at}_repeated = Reshape({at}_copies, heads_shape)",
    )
    return f"{at}_repeated"


def _attention(text: _Text, at: str, heads: dict[str, str], mistake: str) -> None:
    form = text.form
    text.weight("scale", np.float32(1 / np.sqrt(HEAD)))
    text.weight("joined_shape", np.array([1, LENGTH, WIDTH]))
    first = 2 if mistake == "mask_off_by_one" else 1
    text.weight(f"{at}mask_values", np.triu(np.full((LENGTH, LENGTH), form.hidden, np.float32), first))
    text.write(
        f"{at}k_turned_over = Transpose<perm = [0, 1, 3, 2]>({heads['k']})",
        f"{at}products = MatMul({heads['q']}, {at}k_turned_over)",
        f"{at}scores = Mul({at}products, scale)",
    )
    scores = f"{at}scores"
    if form.softcap and mistake != "no_softcap":
        text.weight("cap", np.float32(form.softcap))
        text.write(
            f"{at}cap_in = Div({scores}, cap)",
            f"{at}cap_tanh = Tanh({at}cap_in)",
            f"{at}capped = Mul({at}cap_tanh, cap)",
        )
        scores = f"{at}capped"
    text.write(
        f"{at}masked = Add({scores}, {at}mask_values)",
        f"{at}weights = Softmax<axis = -1>({at}masked)",
        f"{at}context = MatMul({at}weights, {heads['v']})",
        f"{at}rows = Transpose<perm = [0, 2, 1, 3]>({at}context)",
        f"{at}joined = Reshape({at}rows, joined_shape)",
    )


def _mlp(text: _Text, at: str, mistake: str) -> str:
    drawn = text.drawn
    _norm(
        text,
        f"{at}norm2",
        f"{at}middle",
        (1 + drawn.normal(WIDTH, scale=0.1)).astype(np.float32),
        outside=mistake == "epsilon_outside",
    )
    gate, up = drawn.weight(WIDTH, HIDDEN), drawn.weight(WIDTH, HIDDEN)
    if mistake == "gate_and_up_exchanged":
        gate, up = up, gate
    text.weight(f"{at}w_gate", gate)
    text.weight(f"{at}w_up", up)
    text.weight(f"{at}w_down", drawn.weight(HIDDEN, WIDTH))
    text.write(
        f"{at}gate = MatMul({at}norm2, {at}w_gate)",
        f"{at}up = MatMul({at}norm2, {at}w_up)",
        f"{at}sigmoid = Sigmoid({at}gate)",
        f"{at}silu = Mul({at}gate, {at}sigmoid)",
        f"{at}gated = Mul({at}silu, {at}up)",
        f"{at}down = MatMul({at}gated, {at}w_down)",
        f"{at}out = Add({at}middle, {at}down)",
    )
    return f"{at}out"
