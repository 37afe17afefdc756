"""Whether nodes compute each entry of a batch by itself, held against runs on one entry."""

import numpy as np
import pytest
from layerdiff import OnnxrtRunner
from layerdiff.graph.cutting.batch import by_entry
from layerdiff.graph.model import Model

from support.models import infer, parsed

BATCH = 3
RNG = np.random.default_rng(0)
W = RNG.standard_normal((6, 6)).astype(np.float32)
V = RNG.standard_normal(6).astype(np.float32)


def network(body: str, shape: tuple[int, ...], other: tuple[int, ...] | None, **weights: np.ndarray) -> Model:
    """A network with inputs x and, if it has a shape, z."""
    inputs = {"x": shape, **({} if other is None else {"z": other})}
    declared = ", ".join(f"float[{','.join(map(str, s))}] {name}" for name, s in inputs.items())
    return Model(parsed(f"g ({declared}) => (float y) {{ {body} }}", **weights))


def apart(model: Model) -> bool:
    return by_entry(model.index, range(len(model.index.nodes)), model.index.inputs)


APART = {
    "rows of a matrix": ("y = MatMul(x, w)", (BATCH, 6), None),
    "matrices and a weight": ("y = MatMul(x, w)", (BATCH, 4, 6), None),
    "a weight and matrices": ("y = MatMul(w, x)", (BATCH, 6, 4), None),
    "matrices of two inputs": ("y = MatMul(x, z)", (BATCH, 2, 4, 6), (BATCH, 2, 6, 4)),
    "with a bias": ("a = MatMul(x, w) y = Add(v, a)", (BATCH, 4, 6), None),
    "an activation in nodes": ("a = MatMul(x, w) b = Erf(a) c = Add(b, v) y = Mul(a, c)", (BATCH, 4, 6), None),
    "a Gemm": ("y = Gemm<transB=1>(x, w, v)", (BATCH, 6), None),
    "shares of the last axis": ("y = Softmax<axis=-1>(x)", (BATCH, 4, 6), None),
    "shares of the one before": ("y = Softmax<axis=1>(x)", (BATCH, 4, 6), None),
    "a normalization": ("y = LayerNormalization(x, v, v)", (BATCH, 4, 6), None),
    "axes behind the first": ("y = Transpose<perm=[0,2,1]>(x)", (BATCH, 4, 6), None),
    "a sum of two inputs": ("y = Add(x, z)", (BATCH, 4, 6), (BATCH, 1, 6)),
    "a bias that is handed on": ("b = Identity(v) a = MatMul(x, w) y = Add(a, b)", (BATCH, 4, 6), None),
    "a weight that is computed": ("t = Transpose(w) y = MatMul(x, t)", (BATCH, 4, 6), None),
}
NOT_APART = {
    "columns of a matrix": ("y = MatMul(w, x)", (6, BATCH), None),
    "matrices of another rank": ("y = MatMul(x, z)", (BATCH, 6, BATCH), (BATCH, 4)),
    "a matrix and matrices": ("y = MatMul(x, m)", (BATCH, 6), None),
    "a sum over the batch": ("y = Gemm<transA=1>(x, w)", (6, BATCH), None),
    "shares of the batch": ("y = Softmax<axis=0>(x)", (BATCH, 4), None),
    "a normalization of all": ("y = LayerNormalization<axis=0>(x, s)", (BATCH, 4), None),
    "the first axis moved": ("y = Transpose<perm=[1,0,2]>(x)", (BATCH, 4, 6), None),
    "an order that is not given": ("y = Transpose(x)", (BATCH, 4), None),
    "operands of another rank": ("y = Add(x, z)", (2, BATCH, BATCH, 6), (BATCH, BATCH, 6)),
    "a constant for each entry": ("y = Mul(x, e)", (BATCH, 4), None),
    "a sum of all": ("y = ReduceSum<keepdims=0>(x)", (BATCH, 4), None),
    "constants alone": ("y = Add(v, v)", (BATCH, 4), None),
    "a computed constant for each entry": ("f = Neg(e) y = Mul(x, f)", (BATCH, 4), None),
    "a constant of the batch's shape": (
        "h = Shape(x) f = ConstantOfShape(h) y = Mul(x, f)",
        (BATCH, 4),
        None,
    ),
}
WEIGHTS = {"w": W, "v": V, "s": np.ones((BATCH, 4), np.float32), "e": np.ones((BATCH, 1), np.float32)}
WEIGHTS["m"] = RNG.standard_normal((BATCH, 6, 4)).astype(np.float32)


@pytest.mark.parametrize("name", APART)
def test_one_entry_gives_what_all_of_them_give_of_it(name):
    model = network(*APART[name], **WEIGHTS)
    assert apart(model)
    feed = {n: RNG.standard_normal(model.index.specs[n].shape).astype(np.float32) for n in model.index.inputs}
    whole = infer(OnnxrtRunner(), model, feed)["y"]
    body, shape, other = APART[name]
    alone = network(body, (1, *shape[1:]), other and (1, *other[1:]), **WEIGHTS)
    for entry in range(BATCH):
        one = infer(OnnxrtRunner(), alone, {n: a[entry : entry + 1] for n, a in feed.items()})["y"]
        np.testing.assert_allclose(one, whole[entry : entry + 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NOT_APART)
def test_what_mixes_entries_or_is_not_known_does_not(name):
    assert not apart(network(*NOT_APART[name], **WEIGHTS))


def test_a_rank_that_is_not_known_is_not_guessed():
    model = Model(parsed("g (float x) => (float y) { y = MatMul(x, w) }", w=W))
    assert not apart(model)
