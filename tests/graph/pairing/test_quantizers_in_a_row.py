"""Two quantizers in a row of which a runtime makes one: with the name of the first, and the range that both have."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.matching import match

from support.models import parsed

TWO = """g (float[4, 8] x, float[4, 8] v) => (float[4, 8] y) {
    a = Neg(x) [first] q = QuantizeLinear(a, s, z) b = DequantizeLinear(q, s, z)
    [sum] c = Add(b, v) [second] r = QuantizeLinear(c, t, u) d = DequantizeLinear(r, t, u) y = Exp(d) }"""
ONE = """g (float[4, 8] x, float[4, 8] v) => (float[4, 8] y) { a = Neg(x) [first] q = QuantizeLinear(a, s, z)
    d = DequantizeLinear(q, s, z) y = Exp(d) }"""
FIRST, SECOND = {"s": np.float32(0.1), "z": np.int8(0)}, {"t": np.float32(0.2), "u": np.int8(-128)}


@pytest.mark.parametrize(("scale", "zero", "partner"), [(12.7 / 255, -128, "second"), (0.1, 0, "first")])
def test_the_second_of_them_is_the_one_where_that_has_the_range_of_both(scale, zero, partner):
    """From -12.8 to 12.7 and from 0 to 51: from 0 to 12.7."""
    mine = GraphIndex(parsed(TWO, **FIRST, **SECOND))
    other = GraphIndex(parsed(ONE, s=np.float32(scale), z=np.int8(zero)))
    nodes = match(mine, other).nodes
    place = {name: p for p, name in enumerate(mine.names)}
    assert other.names[nodes[place[partner]]] == "first"
