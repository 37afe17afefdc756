"""Layers of which each makes the other's output: the parts of a packed product in another order."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes import exchanged_layers

from support.layerwise import compare, only
from support.models import normal, parsed

WEIGHTS = {name: normal(8, 8, seed=n) for n, name in enumerate("qkv")}
DATA = [{"x": normal(2, 6, 8, seed=5)}]
APART = "[q] q = MatMul(x, wq) [k] k = MatMul(x, wk) [v] v = MatMul(x, wv)"
TOGETHER = "[qkv] all = MatMul(x, w) [split] q, k, v = Split<axis=2>(all, sizes)"


def attention(products: str, order: str = "qkv", off: float = 1.0):
    """Attention whose three products are one in another file, split in an order."""
    read = {f"w{name}": weights for name, weights in WEIGHTS.items()}
    if products == TOGETHER:
        packed = [WEIGHTS[name] * (off if name == "v" else 1) for name in order]
        read = {"w": np.concatenate(packed, axis=1), "sizes": np.array([8, 8, 8], np.int64)}
    text = f"""g (float[2,6,8] x) => (float[2,6,8] y) {{ {products} [turn] t = Transpose<perm=[0,2,1]>(k)
        [score] s = MatMul(q, t) [soft] p = Softmax(s) [y] y = MatMul(p, v) }}"""
    return parsed(text, **read)


@pytest.mark.parametrize("order", ["qvk", "kqv", "vkq"])
def test_products_in_another_order_are_one_fault(order):
    culprit = only(compare(attention(APART), attention(TOGETHER, order), DATA))
    first, second = (name for name, other in zip("qkv", order, strict=True) if name != other)
    assert (culprit.node, culprit.cause) == (first, "wrong-op")
    assert f"what MatMul {second} makes in the reference, and the reverse" in culprit.evidence
    assert culprit.remedies[0].text.startswith("exchange the two")


def test_a_product_that_is_nobody_elses_is_no_exchange():
    culprit = only(compare(attention(APART), attention(TOGETHER, off=1.5), DATA))
    assert (culprit.node, "exchanged" in culprit.evidence) == ("v", False)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((1, 1), (1, 1)),
        ((1, 2), (2, 2)),
        ((1, 2), (2, 3)),
        ((1, np.inf), (np.inf, 1)),
        ((1, np.nan), (2, 1)),
    ],
)
def test_what_is_no_exchange(first, second):
    base = normal(4, 5)
    made = [tuple(base * factor for factor in pair) for pair in (first, second)]
    assert not list(exchanged_layers.pairs(made))
    assert not list(exchanged_layers.pairs([(base, base[:, :4]), (base[:, :4], base)]))
