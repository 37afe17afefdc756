"""Weights and activations in floats of 8 bits, and weights in a codebook: their steps are not all of one size."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from support.layerwise import compare
from support.models import normal, parsed

COUNT = 3
WEIGHTS = [normal(32, 32, seed=i) / 6 for i in range(COUNT)]
DATA = [{"x": normal(16, 32, seed=100)}]
E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
CODEBOOK = np.array([-1, -0.7, -0.53, -0.39, -0.28, -0.18, -0.09, 0, 0.08, 0.16, 0.25, 0.34, 0.44, 0.56, 0.72, 1])


def chain(made="", weights=None, before=""):
    """A chain of products; ``made`` is what makes each weight of what ``weights`` gives for it."""
    lines, read, last = [], {}, "x"
    for i, weight in enumerate(WEIGHTS):
        read |= {f"w{i}": weight} if weights is None else {f"{k}{i}": v for k, v in weights(i, weight).items()}
        lines.append(f"{made} {before}".replace("#", str(i)).replace("@", last))
        lines.append(f"[fc{i}] a{i} = MatMul({f'd{i}' if before else last}, w{i})  [act{i}] h{i} = Tanh(a{i})")
        last = f"h{i}"
    text = " ".join(lines)
    return parsed(f"g (float[16,32] x) => (float[16,32] y) {{ {text} y = Tanh({last}) }}", opset=21, **read)


def rounded(dtype, wrong=1.0):
    """Weights in a float of 8 bits, with one scale; another one for the second product."""

    def stored(i, weight):
        scale = np.float32(np.abs(weight).max() / float(ml_dtypes.finfo(dtype).max))
        return {"q": (weight / scale).astype(dtype), "s": np.float32(scale * (wrong if i == 1 else 1.0))}

    return stored


def looked_up(turned=None):
    """Weights as numbers of a codebook's values, with a scale for each block of 16."""

    def stored(i, weight):
        scale = np.abs(weight.reshape(-1, 16)).max(1, keepdims=True)
        which = np.abs(weight.reshape(-1, 16, 1) / scale[..., None] - CODEBOOK).argmin(-1)
        book = CODEBOOK[::-1] if i == turned else CODEBOOK
        return {"b": book.astype(np.float32), "i": which, "s": scale, "t": np.array([32, 32])}

    return stored


DEQUANTIZED, CAST = "w# = DequantizeLinear(q#, s#)", "c# = Cast<to = 1>(q#) w# = Mul(c#, s#)"
FOUND = "g# = Gather(b#, i#) m# = Mul(g#, s#) w# = Reshape(m#, t#)"


@pytest.mark.parametrize(
    ("made", "stored"),
    [(DEQUANTIZED, rounded(E4M3)), (DEQUANTIZED, rounded(E5M2)), (CAST, rounded(E4M3)), (FOUND, looked_up())],
    ids=["e4m3", "e5m2", "e4m3 cast", "codebook"],
)
def test_the_rounding_to_steps_of_any_size_is_nobodys_fault(made, stored):
    report = compare(chain(), chain(made, stored), DATA, layers="all")
    assert report.verdict == "undecided"
    assert [(c.node, c.evidence) for c in report.culprits if c.cause == "weights"] == []


@pytest.mark.parametrize(
    ("made", "stored", "told"),
    [
        (DEQUANTIZED, rounded(E4M3, 2.0), "all 1.998 times the reference's"),
        (CAST, rounded(E4M3, 1.1), "all 1.099 times the reference's"),
        (FOUND, looked_up(1), "more than half a quantization step"),
    ],
    ids=["twice the scale", "a little more", "codebook turned"],
)
def test_weights_that_rounding_does_not_explain_are_named_alone(made, stored, told):
    report = compare(chain(), chain(made, stored), DATA, layers="all")
    assert [(c.node, str(c.cause)) for c in report.culprits] == [("fc1", "weights")]
    assert told in report.culprits[0].evidence


def test_a_range_of_small_floats_that_the_data_exceed_is_saturation():
    def stored(i, weight):
        return rounded(E4M3)(i, weight) | {"r": np.float32((0.3 if i == 1 else 4.0) / 448), "z": np.zeros((), E4M3)}

    quantized = "k# = QuantizeLinear(@, r#, z#)  d# = DequantizeLinear(k#, r#, z#)"
    report = compare(chain(), chain(DEQUANTIZED, stored, quantized), DATA, layers="all")
    assert [(c.node, str(c.cause)) for c in report.culprits if c.cause != "quantization"] == [("fc1", "saturation")]
    assert "beyond the calibrated range, -0.3 to 0.3" in report.culprits[0].evidence
