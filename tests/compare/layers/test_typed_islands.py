"""A second file that is typed FP16: FP32 islands in it, its own names, and what to write in FP32."""

import re

import numpy as np
import pytest
from layerdiff import ReferenceEvaluatorRunner

from support.layerwise import compare
from support.models import parsed

RNG = np.random.default_rng(0)
W = RNG.normal(0, 1, (4, 8)).astype(np.float32)
V = RNG.normal(0, 1, (8, 3)).astype(np.float32)
DATA = [{"x": RNG.normal(0, 1, (1, 2000, 4)).astype(np.float32)}]
FIRST, LAST, BACK, AXIS = (np.asarray([n]) for n in (0, 1950, 50, 1))
ENDS = {"first": FIRST, "last": LAST, "back": BACK, "far": np.asarray([2000]), "axis": AXIS, "one": np.asarray(1)}

WINDOW = """t (float[1,2000,4] x) => (float[1,1950,3] y) {
    [proj] p = MatMul(x, w) [sig] s = Sigmoid(p) [sum] c = CumSum(s, one)
    [hi] h = Slice(c, back, far, axis) [lo] l = Slice(c, first, last, axis) [window] d = Sub(h, l)
    [head] y = MatMul(d, v) }"""
"""A sum over thousands, of which differences are taken."""
TYPED = """t (float[1,2000,4] x) => (float[1,1950,3] y) {
    [enter] x16 = Cast<to=10>(x) [proj] p = MatMul(x16, w) [sig] s = Sigmoid(p)
    [out] s32 = Cast<to=1>(s) [sum] c32 = CumSum(s32, one) [in] c = Cast<to=10>(c32)
    [hi] h = Slice(c, back, far, axis) [lo] l = Slice(c, first, last, axis) [window] d = Sub(h, l)
    [head] y16 = MatMul(d, v) [leave] y = Cast<to=1>(y16) }"""


def renamed(text: str) -> str:
    """The nodes and tensors inside under names of their own."""
    text = re.sub(r"\[(\w+)\]", r"[n_\1]", text)
    return re.sub(r"\b(p|s|s32|c|c32|h|l|d|y16|x16)\b", r"t_\1", text)


def half(**weights: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value.astype(np.float16) for name, value in weights.items()}


@pytest.mark.parametrize("change", [str, renamed], ids=["its names", "other names"])
def test_what_an_fp32_island_hands_on_is_rounded(change) -> None:
    reference = parsed(WINDOW, w=W, v=V, **ENDS)
    candidate = parsed(change(TYPED), **half(w=W, v=V), **ENDS)
    report = compare(reference, candidate, DATA)
    assert report.verdict == "pass"
    assert not report.culprits


def test_a_fault_behind_an_island_is_found_all_the_same() -> None:
    wrong = V.copy()
    wrong[:, 0] *= 1.05
    reference = parsed(WINDOW, w=W, v=V, **ENDS)
    candidate = parsed(renamed(TYPED), **half(w=W, v=wrong), **ENDS)
    report = compare(reference, candidate, DATA)
    assert report.verdict == "fail"
    assert [culprit.node for culprit in report.culprits] == ["head"]


ANGLES = """t (float[1,64,1] x) => (float[1,64,8] y) {
    [times] t = Add(x, start) [angles] a = Mul(t, f) [sin] y = Sin(a) }"""
ANGLES_TYPED = """t (float[1,64,1] x) => (float[1,64,8] y) {
    [enter] x16 = Cast<to=10>(x) [times] t = Add(x16, start) [angles] a = Mul(t, f) [sin] b = Sin(a)
    [leave] y = Cast<to=1>(b) }"""


def test_all_that_rounds_in_the_kernel_is_to_be_written_in_fp32() -> None:
    weights = {
        "start": np.asarray(2000, np.float32),
        "f": np.geomspace(1, 0.01, 8).astype(np.float16).astype(np.float32),
    }
    data = [{"x": np.linspace(0, 7777, 64, dtype=np.float32).reshape(1, 64, 1)}]
    reference, candidate = parsed(ANGLES, **weights), parsed(ANGLES_TYPED, **half(**weights))
    report = compare(reference, candidate, data, ort=ReferenceEvaluatorRunner())
    assert report.verdict == "undecided"
    (remedy,) = report.culprits[0].remedies
    assert remedy.text.startswith("write times, angles and sin in FP32 in the file, with Casts around them")


OVERFLOW = """t (float[4,8] x) => (float[4,8] y) {
    [up] a = Mul(x, big) [square] b = Mul(a, a) [root] c = Sqrt(b) [down] y = Div(c, big) }"""
OVERFLOW_TYPED = """t (float[4,8] x) => (float[4,8] y) {
    [n0] x16 = Cast<to=10>(x) [n1] a_ = Mul(x16, big) [n2] b_ = Mul(a_, a_) [n3] c_ = Sqrt(b_) [n4] d_ = Div(c_, big)
    [n5] y = Cast<to=1>(d_) }"""


def test_an_overflow_by_the_types_is_named_where_it_begins_under_other_names() -> None:
    data = [{"x": RNG.normal(0, 1, (4, 8)).astype(np.float32)}]
    big = np.asarray(500, np.float32)
    reference, candidate = parsed(OVERFLOW, big=big), parsed(OVERFLOW_TYPED, **half(big=big))
    report = compare(reference, candidate, data)
    assert [(c.node, c.candidate_node) for c in report.culprits] == [("square", "n2")]


ISLAND = """t (float[4,8] x) => ({type}[4,3] y) {{
    {enter} [first] g = MatMul({x}, w) [there] f = Add(g, far) [here] h = Sub(f, far) {out}
    [soft] {s} = Softmax({h}) {back} [last] k = MatMul(s, v)
    {up} [end] {e} = Softmax({k}) {leave} }}"""


def test_a_typed_file_as_the_reference_accuses_nobody() -> None:
    """A Cast of the reference makes another type of what is one tensor in the FP32 file: it is no layer of its own."""
    casts = {
        "enter": "x16 = Cast<to=10>(x)",
        "x": "x16",
        "out": "[out] h32 = Cast<to=1>(h)",
        "h": "h32",
        "s": "s32",
        "back": "[back] s = Cast<to=10>(s32)",
        "up": "[up] k32 = Cast<to=1>(k)",
        "k": "k32",
        "e": "y32",
        "leave": "[leave] y = Cast<to=10>(y32)",
        "type": "float16",
    }
    plain = {**dict.fromkeys(casts, ""), "x": "x", "h": "h", "s": "s", "k": "k", "e": "y", "type": "float"}
    weights = half(w=RNG.normal(0, 1, (8, 8)), v=RNG.normal(0, 1, (8, 3)), far=np.asarray(20.0))
    wide = {name: value.astype(np.float32) for name, value in weights.items()}
    data = [{"x": RNG.normal(0, 1, (4, 8)).astype(np.float32)}]
    pair = parsed(ISLAND.format(**casts), **weights), parsed(ISLAND.format(**plain), **wide)
    report = compare(*pair, data, ort=ReferenceEvaluatorRunner())
    assert report.verdict == "pass"
    assert not report.culprits
