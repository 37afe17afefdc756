"""Quantizers that change nothing, whatever the type of their integers."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.quantized.idle import idle_quantizers, numbers_held, numbers_of

from support.models import parsed

S, T = np.float32(0.5), np.float32(0.25)
SIGNED, UNSIGNED, OTHER = np.int8(4), np.uint8(132), np.uint8(140)


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        ("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)", ["y"]),
        ("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, t, z)", []),
        ("q = QuantizeLinear(x, s, u) y = DequantizeLinear(q, s, o)", []),
        # the same numbers, in integers of another type
        ("q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) r = QuantizeLinear(d, s, u)"
         " y = DequantizeLinear(r, s, u)", ["d", "r", "y"]),
        ("q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) r = QuantizeLinear(d, s, o)"
         " y = DequantizeLinear(r, s, o)", ["d", "y"]),
        # moved, chosen among or limited at zero they stay what they are; a mean of them is another number
        ("q = QuantizeLinear(x, s, z) m = Transpose(q) y = DequantizeLinear(m, s, z)", ["y"]),
        ("q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) m = Relu(d) r = QuantizeLinear(m, s, z)"
         " y = DequantizeLinear(r, s, z)", ["d", "r", "y"]),
        ("q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) m = Neg(d) r = QuantizeLinear(m, s, z)"
         " y = DequantizeLinear(r, s, z)", ["d", "y"]),
        ("q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) m = ReduceMean(d) r = QuantizeLinear(m, s, z)"
         " y = DequantizeLinear(r, s, z)", ["d", "y"]),
        # of two tensors that hold other numbers, put together
        ("q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) m = Concat<axis=0>(d, x)"
         " r = QuantizeLinear(m, s, z) y = DequantizeLinear(r, s, z)", ["d", "y"]),
    ],
)  # fmt: skip
def test_a_quantizer_is_idle_that_gives_the_numbers_which_it_reads(text, idle):
    graph = parsed(f"g (float[4, 4] x) => (float y) {{ {text} }}", s=S, t=T, z=SIGNED, u=UNSIGNED, o=OTHER)
    index = GraphIndex(graph)
    assert [index.nodes[p].output[0] for p in sorted(idle_quantizers(index))] == idle


def test_signed_and_unsigned_integers_hold_the_same_numbers():
    text = "q = QuantizeLinear(x, s, z) r = QuantizeLinear(x, s, u) y = Identity(q) v = Identity(r)"
    index = GraphIndex(parsed(f"g (float[4] x) => (int8 y, uint8 v) {{ {text} }}", s=S, z=SIGNED, u=UNSIGNED))
    assert numbers_of(index, 0) == numbers_of(index, 1) == (0.5, -132.0, 123.0)
    assert numbers_held(index)["y"] == numbers_held(index)["v"]
