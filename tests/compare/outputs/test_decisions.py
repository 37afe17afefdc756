"""Decisions may differ where rounding decides differently, and nowhere else."""

import numpy as np
import onnx
import pytest
from layerdiff.compare.outputs.decisions import hold_decisions, hold_jumps, jumping_tensors
from layerdiff.graph.index import GraphIndex
from onnx import parser

IDS = np.arange(200)


def draws_that_move(*places, by=1, count=16):
    """Draws in which some places move now and then."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        draw = IDS.copy()
        for place in places:
            draw[place] += by * int(rng.random() < 0.4)
        made.append(draw)
    return made


def differing(*places, by=1):
    candidate = IDS.copy()
    candidate[list(places)] += by
    return candidate


@pytest.mark.parametrize(
    ("candidate", "draws", "different", "unexplained", "unseen"),
    [
        (IDS, draws_that_move(3, 5), 0, 0, 0),
        (differing(3), draws_that_move(3, 5), 1, 0, 0),
        (differing(3, 5), draws_that_move(3, 5), 2, 0, 0),
        (differing(4), draws_that_move(3, 5), 1, 1, 0),
        (differing(3, by=7), draws_that_move(3, 5), 1, 0, 1),
        (IDS + 1, draws_that_move(3, 5), 200, 200, 0),
        (IDS + 1, [IDS] * 16, 200, 200, 0),
        (differing(9), [IDS] * 16, 1, 1, 0),
    ],
)
def test_a_place_may_differ_where_draws_do(candidate, draws, different, unexplained, unseen):
    found = hold_decisions(IDS, candidate, draws)
    assert (found.different, found.unexplained) == (different, unexplained)
    assert found.unseen == unseen or found.unexplained


def test_half_of_a_mask_flipped_is_no_tie():
    mask = np.ones(100, bool)
    flipped = mask.copy()
    flipped[::2] = False
    assert hold_decisions(mask, flipped, [mask] * 16).unexplained == 50


def test_rows_that_a_draw_exchanges_may_be_exchanged():
    rng = np.random.default_rng(1)
    boxes = rng.uniform(0, 600, (50, 4))
    noise = 1e-2 * rng.standard_normal((17, 50, 4))
    swapped = boxes.copy()
    swapped[[3, 4]] = boxes[[4, 3]]
    draws = np.array([(swapped if k % 3 == 0 else boxes) + noise[k] - boxes for k in range(16)])
    found, calm, _ = hold_jumps(swapped + noise[16] - boxes, draws, 1e-3)
    assert found.different
    assert not found.unexplained
    assert not found.unseen
    assert np.abs(calm).max() < 1
    other = boxes.copy()
    other[[8, 9]] = boxes[[9, 8]]
    _, calm, _ = hold_jumps(other + noise[16] - boxes, draws, 1e-3)
    assert np.abs(calm).max() > 1


GRAPHS = {
    "a choice": ("i = ArgMax<axis=1>(x) y = Cast<to=1>(i)", True),
    "what a choice picks": ("v, i = TopK(x, k) y = GatherElements<axis=1>(x, i)", True),
    "the values of a TopK": ("y, i = TopK(x, k)", False),
    "a comparison": ("b = Greater(x, zero) y = Where(b, x, zero)", True),
    "a mask of integers": ("b = Greater(n, one) f = Cast<to=1>(b) y = Mul(x, f)", False),
    "a product": ("y = MatMul(x, w)", False),
    "a cast to integers": ("c = Cast<to=7>(x) y = Cast<to=1>(c)", True),
    "a quantizer": ("q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)", True),
    "rounded coordinates": ("r = Floor(x) y = Sub(x, r)", True),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_which_tensors_jump(name):
    nodes, jumps = GRAPHS[name]
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[4,4] x, int64[4,4] n) => (float[4,4] y) {{ {nodes} }}'
    model = parser.parse_model(text)
    constants = {"k": np.array([4]), "zero": np.float32(0), "one": np.array(1), "w": np.eye(4, dtype=np.float32)}
    constants["s"] = np.float32(0.1)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    assert ("y" in jumping_tensors(GraphIndex(model))) == jumps
