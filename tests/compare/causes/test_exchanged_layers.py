"""Layers of which each makes the other's output: the parts of a packed product in another order."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes import exchanged_layers

from support.layerwise import compare, only
from support.models import normal, parsed
from support.rewrites import renamed

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


@pytest.mark.parametrize(("order", "round_about"), [("kvq", "qkv"), ("vqk", "qvk")])
def test_three_products_in_another_order_are_one_fault(order, round_about):
    culprit = only(compare(attention(APART), attention(TOGETHER, order), DATA))
    first, second, third = round_about
    assert (culprit.node, culprit.cause) == (first, "wrong-op")
    assert culprit.evidence == (
        f"the candidate makes here what MatMul {second} makes in the reference, at MatMul {second} what MatMul {third} "
        f"makes, and at MatMul {third} what MatMul {first} makes: they are exchanged"
    )
    assert culprit.remedies[0].text.startswith("exchange them in the second file")


def reading(order: str, *, names: str = "qkv", bias: int = 0):
    """Attention whose products, which may be called otherwise, read the weights (and biases) of these."""
    q, k, v = names
    weights = {f"w{name}": values for name, values in WEIGHTS.items()}
    parts = dict(zip(names, order, strict=True))
    lines = [f"[{n}] {n} = MatMul(x, w{w})" for n, w in parts.items()]
    if bias:
        weights |= {f"b{name}": normal(bias, seed=n) for n, name in enumerate("qkv", 20)}
        weights = {n: np.tile(w, (1, bias // 8)) if n[0] == "w" else w for n, w in weights.items()}
        lines = [f"[m{n}] m{n} = MatMul(x, w{w}) [{n}] {n} = Add(m{n}, b{w})" for n, w in parts.items()]
    text = f"""g (float[2,6,8] x) => (float[2,6,N] y) {{ {" ".join(lines)} [turn] t = Transpose<perm=[0,2,1]>({k})
        [score] s = MatMul({q}, t) [soft] p = Softmax(s) [y] y = MatMul(p, {v}) }}"""
    return parsed(text, **weights)


@pytest.mark.parametrize("names", ["qkv", "abc"])
@pytest.mark.parametrize(
    ("order", "evidence"),
    [
        ("kqv", "MatMul q and MatMul k have each other's weights: they are exchanged"),
        ("vkq", "MatMul q and MatMul v have each other's weights: they are exchanged"),
        (
            "kvq",
            "MatMul q has the weights of MatMul k, MatMul k has the weights of MatMul v, and MatMul v has the weights "
            "of MatMul q: they are exchanged",
        ),
    ],
)
def test_weights_that_go_round_are_one_fault(order, names, evidence):
    culprit = only(compare(reading("qkv"), reading(order, names=names), DATA))
    assert (culprit.node, culprit.cause, culprit.evidence) == ("q", "weights", evidence)


def test_biases_go_with_their_weights():
    culprit = only(compare(reading("qkv", bias=64), reading("kvq", bias=64), DATA))
    assert (culprit.node, culprit.cause) == ("mq", "weights")
    assert "MatMul mv has the weights of MatMul mq: they are exchanged" in culprit.evidence


def test_weights_of_another_layer_are_told_as_those():
    weights = {"w1": normal(8, 8, seed=1), "w2": normal(8, 8, seed=2)}
    models = [
        parsed(
            f"g (float[2,8] x) => (float[2,8] y) {{ [a] a = MatMul(x, w1) [r] r = Relu(a) [b] y = MatMul(r, {w}) }}",
            **weights,
        )
        for w in ("w2", "w1")
    ]
    culprit = only(compare(*models, [{"x": normal(2, 8, seed=3)}]))
    assert (culprit.node, culprit.cause) == ("b", "weights")
    assert culprit.evidence.endswith("; equal to those of MatMul a in the reference")


GATED = """g (float[4,8] x) => (float[4,8] y) {{ [{a}] {a} = MatMul(x, {0}) [{b}] {b} = MatMul(x, {1})
    [sigmoid] sigmoid = Sigmoid({a}) [silu] silu = Mul({a}, sigmoid) [gated] gated = Mul(silu, {b})
    [down] y = MatMul(gated, wd) }}"""


@pytest.mark.parametrize("names", [("gate", "up"), ("a", "b")])
def test_branches_that_read_each_others_weights_are_one_fault_and_no_reader(names):
    weights = {name: normal(8, 8, seed=n) for n, name in enumerate(("wg", "wu", "wd"))}
    one = parsed(GATED.format("wg", "wu", a="gate", b="up"), **weights)
    other = parsed(GATED.format("wu", "wg", a=names[0], b=names[1]), **weights)
    culprit = only(compare(one, other, [{"x": normal(4, 8, seed=5)}]))
    assert culprit.cause == "weights"
    assert culprit.evidence.endswith("have each other's weights: they are exchanged")
    assert {"MatMul gate", "MatMul up"} == {*culprit.evidence.partition(" have ")[0].split(" and ")}


BIASED = """g (float[4,8] x) => (float[4,8] y) {{ [g0] g0 = MatMul(x, {0}) [{a}] {a} = Add(g0, bg)
    [u0] u0 = MatMul(x, {1}) [{b}] {b} = Add(u0, bu) [sigmoid] sigmoid = Sigmoid({a}) [silu] silu = Mul({a}, sigmoid)
    [gated] gated = Mul(silu, {b}) [down] y = MatMul(gated, wd) }}"""


@pytest.mark.parametrize("names", [("gate", "up"), ("a", "b")])
def test_branches_that_read_each_others_weights_and_not_each_others_biases_are_one_fault(names):
    """The products were matched by their weights, and then the biases and all readers were said to be exchanged."""
    weights = {"wg": normal(8, 32), "wu": normal(8, 32, seed=1), "wd": normal(32, 8, seed=2)}
    weights |= {"bg": normal(32, seed=3), "bu": normal(32, seed=4)}
    one = parsed(BIASED.format("wg", "wu", a="gate", b="up"), **weights)
    other = renamed(parsed(BIASED.format("wu", "wg", a=names[0], b=names[1]), **weights))
    culprit = only(compare(one, other, [{"x": normal(4, 8, seed=5)}]))
    assert (culprit.cause, culprit.evidence.partition(" have ")[2]) == (
        "weights",
        "each other's weights: they are exchanged",
    )


def test_readers_that_read_each_others_branch_are_to_blame_where_names_say_so():
    weights = {name: normal(8, 8, seed=n) for n, name in enumerate(("wg", "wu", "wd"))}
    own = GATED.format("wg", "wu", a="gate", b="up")
    other = (
        own.replace("Sigmoid(gate)", "Sigmoid(up)").replace("Mul(gate,", "Mul(up,").replace("silu, up", "silu, gate")
    )
    models = [parsed(text, **weights) for text in (own, other)]
    report = compare(*models, [{"x": normal(4, 8, seed=5)}])
    assert report.culprits
    assert not any(c.cause == "weights" for c in report.culprits)


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
    assert not list(exchanged_layers.groups(made))
    assert not list(exchanged_layers.groups([(base, base[:, :4]), (base[:, :4], base)]))


def stack(*blocks: int):
    """Blocks of two products, each with the weights of the one that is named."""
    lines, read, last = [], {}, "x"
    for place, block in enumerate(blocks):
        read |= {f"w{place}{n}": normal(8, 8, seed=30 + 2 * block + i) / 3 for i, n in enumerate("ab")}
        lines.append(f"[a{place}] p{place} = MatMul({last}, w{place}a) [t{place}] h{place} = Tanh(p{place})")
        lines.append(f"[b{place}] q{place} = MatMul(h{place}, w{place}b) [s{place}] o{place} = Sin(q{place})")
        last = f"o{place}"
    return parsed(f"g (float[2,6,8] x) => (float[2,6,8] y) {{ {' '.join(lines)} [y] y = Tanh({last}) }}", **read)


def test_a_block_that_is_stored_twice_is_one_fault():
    culprit = only(compare(stack(0, 1, 2, 3), stack(0, 1, 1, 3), DATA))
    assert (culprit.node, culprit.cause, culprit.contribution) == ("a2", "weights", None)
    assert "2 layers, MatMul a2 to MatMul b2, have the weights of MatMul a1 to MatMul b1" in culprit.evidence


def test_blocks_that_are_exchanged_are_told_as_that():
    report = compare(stack(0, 1, 2, 3), stack(0, 2, 1, 3), DATA)
    assert sorted(c.node for c in report.culprits) == ["a1", "b1"]
    assert all("they are exchanged" in c.evidence for c in report.culprits)


def anchored(first, second):
    """Two heads, each with four anchors of its own."""
    text = """g (float[2,6,8] x) => (float[2,6,8] y) {
        [a] p = MatMul(x, wa) [fa] f = Tanh(p) [scale_a] g = Mul(f, ka) [ga] i = Sin(g)
        [b] q = MatMul(i, wb) [fb] h = Tanh(q) [scale_b] j = Mul(h, kb) [y] y = Sin(j) }"""
    weights = {"wa": normal(8, 8, seed=50) / 3, "wb": normal(8, 8, seed=51) / 3}
    return parsed(text, **weights, ka=np.resize(first, (2, 1, 1)), kb=np.resize(second, (2, 1, 1)))


@pytest.mark.parametrize(("exchanged", "count"), [(True, 1), (False, 2)])
def test_few_values_that_two_nodes_have_from_each_other_are_one_fault(exchanged, count):
    one, other = np.float32([1, 2]), np.float32([3, 0.5])
    wrong = (other, one) if exchanged else (other, np.float32([1, 7]))
    report = compare(anchored(one, other), anchored(*wrong), DATA, layers="all")
    assert len(report.culprits) == count
    told = "Mul scale_a and Mul scale_b have each other's weights: they are exchanged"
    assert (told in report.culprits[0].evidence) is exchanged


def operands(make, **given):
    """Two differences of what four nodes make of the input, in two orders."""
    text = """g (float[6,4] x) => (float[6,N] y) {{ [r] r = MAKE(x, {0}) [l] l = MAKE(x, {1})
        [w] w = Sub(r, l) [b] b = MAKE(x, {2}) [t] t = MAKE(x, {3}) [h] h = Sub(b, t)
        [size] s = Concat<axis=1>(w, h) [y] y = Tanh(s) }}""".replace("MAKE", make)
    orders = ("i2", "i0", "i3", "i1"), ("i3", "i1", "i2", "i0")
    return (parsed(text.format(*order), **given) for order in orders)


def test_operands_of_two_nodes_that_are_all_exchanged_are_one_fault():
    sides = operands("Mul", **{f"i{i}": normal(6, 4, seed=20 + i) for i in range(4)})
    culprit = only(compare(*sides, [{"x": normal(6, 4, seed=7)}], layers="all"))
    assert (culprit.node, culprit.contribution) == ("r", None)
    assert culprit.evidence.startswith("Sub h and Sub w are exchanged, by all that they read")


def test_two_nodes_that_read_each_others_parts_of_one_tensor_are_one_fault():
    sides = operands("Gather<axis=1>", **{f"i{i}": np.array([i], np.int64) for i in range(4)})
    culprit = only(compare(*sides, [{"x": normal(6, 4, seed=7)}], layers="all"))
    assert (culprit.node, culprit.cause) == ("w", "wrong-op")
    told = "the candidate makes here what Sub h makes in the reference, and the reverse: they are exchanged"
    assert culprit.evidence.startswith(told)
