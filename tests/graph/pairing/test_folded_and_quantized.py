"""A normalization that was multiplied into a product before that was quantized."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.differences import DifferenceKind
from layerdiff.graph.pairing.matching import match

from support.models import normal, parsed

CHANNELS = 8
HEAD = f"(float[8, {CHANNELS}, 4, 4] x) => (float[8, {CHANNELS}, 4, 4] y)"
CLIPPED = "[clip{i}] h{i} = Clip(n{i}, zero, six)"
"""Of which the candidate's quantizer holds the limits."""
HARD_SWISH = "[act{i}] h{i} = HardSwish(n{i})"
"""Which the candidate writes with two operators, so that no reader of the fold is matched."""
SWISH = "[gate{i}] g{i} = HardSigmoid <alpha = 0.16666667> (n{i}) [act{i}] h{i} = Mul(n{i}, g{i})"
ACTIVATIONS = {"in the quantizer": (CLIPPED, ""), "other operators": (HARD_SWISH, SWISH)}
X = np.abs(normal(8, CHANNELS, 4, 4, seed=9))


def parts(i: int) -> dict[str, np.ndarray]:
    """Weights of a convolution, and the scale, shift, mean and variance of the normalization behind it."""
    w, *rest = (normal(*shape, seed=10 * i + k) for k, shape in enumerate([(CHANNELS, CHANNELS, 1, 1)] + [(8,)] * 4))
    return {"w": w / 3, "g": 1 + rest[0] ** 2, "b": rest[1], "m": rest[2] / 4, "v": 0.1 + rest[3] ** 2}


def networks(kind: str, change):
    """Two convolutions with a normalization and an activation, and the same folded and quantized with another bias in
    the second."""
    mine, theirs = ACTIVATIONS[kind]
    texts, weights, read = ["", ""], [{"zero": np.float32(0), "six": np.float32(6)}, {}], "x"
    for i in range(2):
        p = parts(i)
        weights[0] |= {f"{k}{i}": value for k, value in p.items()}
        out = "y" if i else "h0"
        texts[0] += (
            f"[conv{i}] c{i} = Conv({read}, w{i}) [bn{i}] n{i} = BatchNormalization(c{i}, g{i}, b{i}, m{i}, v{i})"
        )
        texts[0] += mine.replace("] h{i}", f"] {out}").format(i=i)
        factor = p["g"] / np.sqrt(p["v"] + 1e-5)
        folded, bias = p["w"] * factor[:, None, None, None], p["b"] - p["m"] * factor
        scale = (np.abs(folded).max((1, 2, 3)) / 127).astype(np.float32)
        integers = np.rint(folded / scale[:, None, None, None]).astype(np.int8)
        step = np.float32((X.max() if not i else 25.0 if theirs else 6.0) / 255)
        weights[1] |= {
            f"q{i}": integers,
            f"s{i}": scale,
            f"e{i}": step,
            f"z{i}": np.uint8(5 if i and theirs else 0),
            f"k{i}": scale * step,
        }
        weights[1][f"i{i}"] = np.rint((change(bias) if i else bias) / (scale * step)).astype(np.int32)
        texts[1] += (
            f"u{i} = QuantizeLinear({read}, e{i}, z{i}) r{i} = DequantizeLinear(u{i}, e{i}, z{i}) "
            f"d{i} = DequantizeLinear <axis = 0> (q{i}, s{i}) a{i} = DequantizeLinear <axis = 0> (i{i}, k{i}) "
            f"[conv{i}] {'n{i}' if theirs else 'h{i}'} = Conv(r{i}, d{i}, a{i}) ".replace("{i}", str(i))
        )
        texts[1] += theirs.format(i=i)
        read = "h0"
    texts[1] = texts[1].replace("h1", "y" if theirs else "last")
    if not theirs:
        weights[1] |= {"e2": np.float32(6 / 255), "z2": np.uint8(0)}
        texts[1] += "u2 = QuantizeLinear(last, e2, z2) y = DequantizeLinear(u2, e2, z2)"
    return [parsed(f"g {HEAD} {{ {text} }}", opset=17, **some) for text, some in zip(texts, weights, strict=True)]


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_what_was_folded_before_it_was_quantized_differs_in_no_weight(kind: str) -> None:
    found = match(*map(GraphIndex, networks(kind, np.array))).differences
    assert {d.expected_by_format for d in found if d.kind is DifferenceKind.WEIGHTS} == {"int8"}
    assert [str(d.change) for d in found if d.kind is DifferenceKind.OPERATOR] == (
        ["HardSwish against HardSigmoid, Mul"] * 2 if ACTIVATIONS[kind][1] else []
    )


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("change", [np.negative, np.flip, lambda b: 1.25 * b], ids=["negated", "reversed", "larger"])
def test_another_bias_is_told_and_no_scale_of_the_weights(kind: str, change) -> None:
    whole, other = networks(kind, change)
    report = Comparator(
        whole, [OnnxrtRunner()], candidate_model=other, data_loader=[{"x": X}], layers="guilty"
    ).compare()
    assert [(c.node, c.cause) for c in report.culprits] == [("conv1", "weights")]
    assert "8 of 8 biases differ from the reference's after folding" in report.culprits[0].facts[0].text


def test_a_clip_that_is_narrower_than_the_quantizer_is_missing() -> None:
    whole, other = networks("in the quantizer", np.array)
    whole.graph.initializer[1].CopyFrom(parsed("g () => () {}", six=np.float32(4)).graph.initializer[0])
    found = match(GraphIndex(whole), GraphIndex(other)).differences
    told = [str(d.change) for d in found if d.kind is DifferenceKind.OPERATOR]
    assert told == ["Clip clip0 is missing in the candidate", "Clip clip1 is missing in the candidate"]
