"""Normalizations that one file has folded into the convolution before them: what else differs there is told."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.changes import OperatorChange
from layerdiff.graph.pairing.matching import match

from support.layerwise import compare, only
from support.models import normal, parsed

C = 8
DATA = [{"x": normal(2, C, 6, 6, seed=90)}]
PARTS = {
    f"{name}{i}": value
    for i in range(3)
    for name, value in {
        "w": normal(C, C, 3, 3, seed=10 * i) / 5,
        "g": 1 + normal(C, seed=10 * i + 1) ** 2,
        "b": normal(C, seed=10 * i + 2),
        "m": normal(C, seed=10 * i + 3) / 4,
        "v": 0.5 + normal(C, seed=10 * i + 4) ** 2,
    }.items()
}
GATE = {"e": normal(C, C, 1, 1, seed=70), "d": normal(C, seed=71), "zero": np.float32(0), "six": np.float32(6)}
SWISH = "[act{i}] h{i} = HardSwish(n{i})"
PIECES = "[gate{i}] g{i} = HardSigmoid <alpha = 0.16666667> (n{i}) [act{i}] h{i} = Mul(n{i}, g{i})"
CLIP = "[act{i}] h{i} = Clip(n{i}, zero, six)"
EXCITED = (
    "[act{i}] a{i} = Clip(n{i}, zero, six) [pool{i}] p{i} = GlobalAveragePool(a{i}) "
    "[expand{i}] q{i} = Conv(p{i}, e, d) [sig{i}] s{i} = Sigmoid(q{i}) [mul{i}] h{i} = Mul(a{i}, s{i})"
)


def network(ends: list[str], *, folded: bool, settings: str = "pads = [1, 1, 1, 1]", half: bool = False):
    """Three convolutions with a normalization and something behind, the one in the middle with settings of its own.

    Args:
        ends: What is behind each of them.
        folded: Whether the normalizations are folded.
        settings: Of the second convolution.
        half: Whether the weights are those that FP16 has, rounded before and after folding, as FP32 numbers.
    """
    text, weights = "", dict(GATE)
    for i, end in enumerate(ends):
        p = {n: PARTS[f"{n}{i}"].astype(np.float32) for n in "wgbmv"}
        how, read = settings if i == 1 else "pads = [1, 1, 1, 1]", "x" if not i else f"h{i - 1}"
        if folded:
            p = {n: _half(v) for n, v in p.items()} if half else p
            factor = p["g"] / np.sqrt(p["v"] + 1e-5)
            w, k = p["w"] * factor[:, None, None, None], p["b"] - p["m"] * factor
            weights |= {f"w{i}": _half(w) if half else w, f"k{i}": _half(k) if half else k}
            text += f"[conv{i}] n{i} = Conv <{how}> ({read}, w{i}, k{i}) "
        else:
            weights |= {f"{n}{i}": v for n, v in p.items()}
            text += f"[conv{i}] c{i} = Conv <{how}> ({read}, w{i}) "
            text += f"[bn{i}] n{i} = BatchNormalization(c{i}, g{i}, b{i}, m{i}, v{i}) "
        text += end.format(i=i)
    weights = {n: v for n, v in weights.items() if f"{n}," in text or f"{n})" in text}
    return parsed(f"g (float[2,{C},6,6] x) => (float[2,{C},6,6] h2) {{ {text} }}", **weights)


def _half(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ("pads = [2, 2, 0, 0]", "set pads to [1, 1, 1, 1]"),
        ("pads = [2, 2, 2, 2], dilations = [2, 2]", "set dilations to [1, 1] and pads to [1, 1, 1, 1]"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_how_a_window_runs_is_told_where_a_normalization_is_folded(settings: str, text: str, turned: bool) -> None:
    files = [network([SWISH] * 3, folded=turned), network([SWISH] * 3, folded=not turned, settings=settings)]
    culprit = only(compare(*files, DATA))
    assert (culprit.node, culprit.cause) == ("conv1", "attribute")
    assert culprit.remedies[0].text.startswith(text)


@pytest.mark.parametrize("turned", [False, True])
def test_a_fold_is_found_where_no_reader_is_matched_in_whichever_file_it_is(turned: bool) -> None:
    files = [network([SWISH] * 3, folded=False), network([PIECES] * 3, folded=True)]
    changes = match(*map(GraphIndex, files[::-1] if turned else files)).differences
    says = "HardSigmoid, Mul against HardSwish" if turned else "HardSwish against HardSigmoid, Mul"
    assert [str(d.change) for d in changes] == [says] * 3


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_what_only_one_file_has_is_told_without_what_both_begin_with(turned: bool, half: bool) -> None:
    ends = [EXCITED, EXCITED, CLIP], [EXCITED, CLIP, CLIP]
    files = [network(ends[0], folded=False), network(ends[1], folded=True, half=half)]
    files = files[::-1] if turned else files
    where = "are in the candidate alone" if turned else "are missing in the candidate"
    says = f"GlobalAveragePool pool1, Conv expand1, Sigmoid sig1 and Mul mul1 {where}"
    changes = [d.change for d in match(*map(GraphIndex, files)).differences]
    assert [str(change) for change in changes if isinstance(change, OperatorChange)] == [says]
    if not half:
        culprit = only(compare(*files, DATA))
        assert (culprit.cause, culprit.evidence.startswith(says)) == ("wrong-op", True)
        assert "weights" not in culprit.evidence


def test_weights_that_are_folded_in_fp16_are_rounded_and_those_that_differ_by_more_are_counted() -> None:
    files = [network([SWISH] * 3, folded=False), network([SWISH] * 3, folded=True, half=True)]
    found = match(*map(GraphIndex, files)).differences
    assert {d.change.rounded_to for d in found} == {"fp16"}
    weight = next(w for w in files[1].graph.initializer if w.name == "w1")
    values = np.frombuffer(weight.raw_data, np.float32).copy() if weight.raw_data else np.array(weight.float_data)
    values[5] += 1
    weight.ClearField("float_data")
    weight.raw_data = _half(values).tobytes()
    told = [str(d.change) for d in match(*map(GraphIndex, files)).differences if d.change.rounded_to is None]
    assert len(told) == 1
    assert told[0].startswith("1 of 576 weights differ from the reference's after folding, greatest 1 at [0,0,1,2]")
