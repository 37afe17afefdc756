"""Sums that round to FP16 after every 16 products, as FP16 kernels add."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.graph.model import Model
from layerdiff.graph.rounding.fp16_accumulation import STEP, accumulate_in_fp16

from support import networks
from support.models import parsed


def model(text: str, opset: int = 17, **weights: np.ndarray) -> Model:
    return Model(parsed(text, opset=opset, **{name: w.astype(np.float32) for name, w in weights.items()}))


def run(made: Model, **feed: np.ndarray) -> np.ndarray:
    (result,) = networks.run(made.proto, {name: array.astype(np.float32) for name, array in feed.items()}).values()
    return result


def whole(*shape: int, seed: int = 0, low: int = -60, high: int = 60) -> np.ndarray:
    """Whole numbers: FP32 adds their products without rounding, so FP16's roundings alone are left."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.float64)


def added(products: np.ndarray, at_once: int = STEP) -> np.ndarray:
    """Sums along the last axis, rounded to FP16 after every step."""
    total = np.zeros(products.shape[:-1])
    for start in range(0, products.shape[-1], at_once):
        with np.errstate(over="ignore"):
            total = (total + products[..., start : start + at_once].sum(-1)).astype(np.float16).astype(np.float64)
    return total


@pytest.mark.parametrize("k", [1, 16, 17, 48, 100])
def test_a_matrix_product(k):
    a, b = whole(2, 3, k), whole(k, 5, seed=1)
    rewritten = accumulate_in_fp16(model("g (float[N, 3, K] x) => (float[N, 3, 5] y) { y = MatMul(x, w) }", w=b))
    expected = added(a[:, :, None, :] * b.T[None, None])
    np.testing.assert_array_equal(run(rewritten.model, x=a), expected if k > STEP else a @ b)
    assert len(rewritten.nodes) == (k > STEP)
    assert (k <= 17) or np.any(expected != a @ b), "the roundings show"


def test_a_product_of_two_activations_with_batches():
    a, b = whole(2, 4, 3, 40), whole(1, 4, 40, 5, seed=1)
    text = "g (float[2, 4, 3, 40] x, float[1, 4, 40, 5] z) => (float[2, 4, 3, 5] y) { y = MatMul(x, z) }"
    expected = added(a[..., :, None, :] * np.swapaxes(b, -1, -2)[..., None, :, :])
    np.testing.assert_array_equal(run(accumulate_in_fp16(model(text)).model, x=a, z=b), expected)


@pytest.mark.parametrize(("left", "right"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_gemm(left, right):
    a, b, c = whole(3, 40), whole(40, 5, seed=1), whole(5, seed=2)
    stored = b.T if right else b
    given = a.T if left else a
    text = (
        f"g (float[{given.shape[0]}, {given.shape[1]}] x) => (float[3, 5] y) "
        f"{{ y = Gemm <transA = {left}, transB = {right}, alpha = 0.5, beta = 2.0> (x, w, c) }}"
    )
    expected = 0.5 * added(a[:, None, :] * b.T[None]) + 2 * c
    np.testing.assert_array_equal(run(accumulate_in_fp16(model(text, w=stored, c=c)).model, x=given), expected)


def windows(x: np.ndarray, kernel: int, stride: int, dilation: int, pad: int) -> np.ndarray:
    """What a square kernel sees: (batch, out, out, kernel, kernel, channels)."""
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    reach = (kernel - 1) * dilation
    size = (x.shape[2] - reach - 1) // stride + 1
    at = [[i * stride + r * dilation for r in range(kernel)] for i in range(size)]
    return x[:, :, at][:, :, :, :, at].transpose(0, 2, 4, 3, 5, 1)


@pytest.mark.parametrize("channels", [16, 24, 32])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "pad"), [(1, 1, 1, 0), (1, 2, 1, 0), (3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 2, 0)]
)
def test_a_convolution_adds_position_by_position_and_16_channels_at_a_time(channels, kernel, stride, dilation, pad):
    x, w, b = whole(2, channels, 9, 9, high=30), whole(4, channels, kernel, kernel, seed=1), whole(4, seed=2)
    text = (
        f"g (float[N, {channels}, H, W] x) => (float[N, 4, P, Q] y) {{ y = Conv <strides = [{stride}, {stride}], "
        f"dilations = [{dilation}, {dilation}], pads = [{pad}, {pad}, {pad}, {pad}]> (x, w, b) }}"
    )
    seen = windows(x, kernel, stride, dilation, pad)[:, None]
    products = seen * w.transpose(0, 2, 3, 1)[None, :, None, None]
    spare = -channels % STEP
    products = np.pad(products, [(0, 0)] * 6 + [(0, spare)]).reshape(*products.shape[:4], -1)
    expected = (added(products) if products.shape[-1] > STEP else products.sum(-1)) + b[:, None, None]
    rewritten = accumulate_in_fp16(model(text, w=w, b=b))
    np.testing.assert_array_equal(run(rewritten.model, x=x), expected)
    assert len(rewritten.nodes) == (channels * kernel * kernel > STEP)


def test_a_convolution_of_one_dimension():
    x, w = whole(1, 16, 7), whole(2, 16, 3, seed=1)
    products = np.stack([x[0, :, i : i + 3].T for i in range(5)])[None] * w.transpose(0, 2, 1)[:, None]
    rewritten = accumulate_in_fp16(model("g (float[1, 16, 7] x) => (float[1, 2, 5] y) { y = Conv (x, w) }", w=w))
    np.testing.assert_array_equal(run(rewritten.model, x=x)[0], added(products.reshape(2, 5, -1)))


@pytest.mark.parametrize("attributes", ["", ", pads = [1, 1, 1, 1], strides = [2, 2]"])
def test_a_depthwise_convolution_rounds_after_every_product(attributes):
    x, w, b = whole(2, 5, 7, 7), whole(5, 1, 3, 3, seed=1), whole(5, seed=2)
    text = f"g (float[2, 5, 7, 7] x) => (float y) {{ y = Conv <group = 5{attributes}> (x, w, b) }}"
    rewritten = accumulate_in_fp16(model(text, w=w, b=b))
    assert rewritten.nodes == {"Conv_0"}
    stride, padded = (2, np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])) if attributes else (1, x)
    places = [padded[:, :, i:, j:] for i in range(3) for j in range(3)]
    size = padded.shape[2] - 2
    products = np.stack([p[:, :, :size:stride, :size:stride] for p in places], -1) * w.reshape(1, 5, 1, 1, 9)
    expected = added(products, at_once=1) + b.reshape(1, 5, 1, 1)
    np.testing.assert_array_equal(run(rewritten.model, x=x), expected)


def test_a_sum_overflows_on_its_way():
    text = "g (float[1, 32] x) => (float[1, 1] y) { y = MatMul(x, w) }"
    ones = np.ones((1, 32))
    weights = np.array([6e4] + [0] * 15 + [6e4, -6e4] + [-6e4] + [0] * 13)[:, None]
    assert run(accumulate_in_fp16(model(text, w=weights)).model, x=ones) == 0
    weights = np.array([6e4] + [0] * 15 + [6e4] + [0] * 15)[:, None]
    assert np.isinf(run(accumulate_in_fp16(model(text, w=weights)).model, x=ones)).all()


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("g (float[1, 3, 9, 9] x) => (float[1, 4, 7, 7] y) { y = Conv (x, w) }", (4, 3, 3, 3)),
        ("g (float[1, 32, 9, 9] x) => (float[1, 32, 7, 7] y) { y = Conv <group = 16> (x, w) }", (32, 2, 3, 3)),
        (
            'g (float[1, 32, 9, 9] x) => (float[1, 4, 9, 9] y) { y = Conv <auto_pad="SAME_UPPER"> (x, w) }',
            (4, 32, 3, 3),
        ),
        ("g (float[1, 32, 9, 9] x) => (float[1, 4, 11, 11] y) { y = ConvTranspose (x, w) }", (32, 4, 3, 3)),
    ],
    ids=["few channels", "groups", "auto_pad", "transposed"],
)
def test_what_keeps_fp32_sums_is_told(text, weights):
    rewritten = accumulate_in_fp16(model(text, w=whole(*weights)))
    assert not rewritten.nodes
    (note,) = rewritten.notes
    assert note.text.startswith("1 products add in FP32 all the same")


def test_an_old_opset_is_converted():
    a, b = whole(3, 40), whole(40, 5, seed=1)
    rewritten = accumulate_in_fp16(model("g (float[3, 40] x) => (float[3, 5] y) { y = MatMul(x, w) }", 7, w=b))
    np.testing.assert_array_equal(run(rewritten.model, x=a), added(a[:, None, :] * b.T[None]))


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("terms", [512, 8192])
def test_expected_noise_knows_where_the_partial_sums_go(terms, shift):
    """Weights of one sign on average make the sum grow all the way, and its roundings with it."""
    draw = np.random.default_rng(0)
    weights = (draw.normal(size=(terms, 10)) + shift) / terms
    made = model(f"g (float[n, {terms}] x) => (float[n, 10] y) {{ y = Gemm(x, w) }}", w=weights)
    x = np.abs(draw.normal(size=(240, terms))).astype(np.float32)
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16", fp16_accumulation=True)]
    (layer,) = Comparator(made, runners, data_loader=[{"x": x}], layers="all", rtol=0.9, atol=1).compare().layers
    assert layer.verdict == "ok"
    assert layer.expected["rms_z"] == pytest.approx(1, abs=0.3)
