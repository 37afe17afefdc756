"""Recurrent layers and sums along a sequence."""

from __future__ import annotations

import numpy as np
import onnx

from ..expectation import Pair, fault, healthy
from ..writing import Drawn, File, beside, file, inputs, known, made, network, pair


def _biases(changed: File, name: str) -> tuple[np.ndarray, int]:
    """The biases of an LSTM, and where those of the recurrence begin."""
    values = changed.value(name)
    return values, values.shape[1] // 2


@healthy()
def biases_of_an_lstm_added_up() -> Pair:
    """The two biases of an LSTM added up in one of them"""
    net = known("g2pm")
    changed = file(net.reference)
    biases, half = _biases(changed, "lstm_B")
    biases[:, :half] += biases[:, half:]
    biases[:, half:] = 0
    changed.set_weight("lstm_B", biases)
    return beside(net, changed)


@fault("y1_LSTM", causes="weights")
def biases_of_the_recurrence_dropped() -> Pair:
    """The biases of an LSTM's recurrence are zero"""
    net = known("voice-encoder")
    changed = file(net.reference)
    biases, half = _biases(changed, "l1_B")
    biases[:, half:] = 0
    changed.set_weight("l1_B", biases)
    return beside(net, changed)


def _two_directions(second: str) -> Pair:
    """A bidirectional LSTM as two, and a Concat."""
    net = known("g2pm")
    changed = file(net.reference)
    whole = changed.node("y_LSTM")
    for kind in "WRB":
        values = changed.value(f"lstm_{kind}")
        changed.add(f"{kind}_forward", values[:1])
        changed.add(f"{kind}_backward", values[1:])
    there, back = ([f"{kind}_{which}" for kind in "WRB"] for which in ("forward", "backward"))
    changed.replace(
        whole,
        made("LSTM", "x", *there, name="y_forward", hidden_size=32),
        made("LSTM", "x", *back, name="y_backward", hidden_size=32, direction=second),
        made("Concat", "y_forward", "y_backward", name="y_both", makes="y", axis=1),
    )
    return beside(net, changed)


@healthy()
def directions_apart() -> Pair:
    """A bidirectional LSTM as two"""
    return _two_directions("reverse")


@fault("y_LSTM", "y_backward", causes="wrong-op attribute")
def both_directions_forward() -> Pair:
    """A bidirectional LSTM as two, both of which run forward"""
    return _two_directions("forward")


def _last(place: int) -> Pair:
    net = known("voice-encoder")
    changed = file(net.reference)
    changed.add("place", np.array(place))
    changed.before(changed.node("hidden_Squeeze"), made("Gather", "y2", "place", name="y2_last", axis=0))
    changed.node("hidden_Squeeze").input[0] = "y2_last"
    return beside(net, changed)


@healthy()
def last_state_out_of_all() -> Pair:
    """The last state of an LSTM taken out of all its states"""
    return _last(-1)


@fault("y2_last", "hidden*", "y2_LSTM", causes="wrong-op attribute weights")
def last_state_but_one() -> Pair:
    """The last state but one of an LSTM for the last"""
    return _last(-2)


@fault("Concat_60", causes="wrong-op layout attribute")
def directions_exchanged() -> Pair:
    """The states of an LSTM's two directions exchanged"""
    net = known("plcmos")
    changed = file(net.reference)
    joined = changed.node("Concat_60")
    joined.input[0], joined.input[1] = joined.input[1], joined.input[0]
    return beside(net, changed)


def _lengths(*, used: bool) -> onnx.ModelProto:
    drawn = Drawn()
    text = f"""lengths (float[10,3,16] x) => (y) {{
      every, last = LSTM<hidden_size = 16, direction = "bidirectional">(x, w, r, b{", lengths" if used else ""})
      rows = Transpose<perm = [1, 0, 2]>(last)
      joined = Reshape(rows, whole)
      y = MatMul(joined, wy)
    }}"""
    weights = {"w": drawn.normal(2, 64, 16, scale=0.3), "r": drawn.normal(2, 64, 16, scale=0.3)}
    return network(
        text,
        b=drawn.normal(2, 128, scale=0.3),
        whole=np.array([3, 32]),
        wy=drawn.weight(32, 5),
        **weights,
        **({"lengths": np.array([10, 6, 3], np.int32)} if used else {}),
    )


@fault("every", causes="wrong-op attribute weights")
def lengths_dropped() -> Pair:
    """A bidirectional LSTM that is not told the lengths of its sequences"""
    return pair(_lengths(used=True), _lengths(used=False), inputs(10, 3, 16))


def _running_sum(exclusive: int) -> onnx.ModelProto:
    drawn = Drawn()
    text = f"""sums (float[1,32,16] x) => (y) {{
      h = MatMul(x, w1)
      s = Sigmoid(h)
      total = CumSum<exclusive = {exclusive}>(s, axis)
      t = Tanh(total)
      y = MatMul(t, w2)
    }}"""
    return network(text, w1=drawn.weight(16, 16), w2=drawn.weight(16, 8), axis=np.array(1))


@fault("total", causes="attribute")
def sum_without_the_last() -> Pair:
    """A running sum that leaves out its own place"""
    return pair(_running_sum(0), _running_sum(1), inputs(1, 32, 16))
