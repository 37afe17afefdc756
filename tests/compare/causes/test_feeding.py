"""One network that gives two results, because it is fed otherwise."""

from __future__ import annotations

import numpy as np
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.causes import feeding
from layerdiff.runners.schedules import UnbatchedRunner

from support.layer_cases import layer_case, told
from support.models import normal, parsed

MEASURES = parsed("g (float[N,8] x) => (uint8[N,8] y) { y, s, z = DynamicQuantizeLinear(x) }")
Y = np.ones((2, 8), np.uint8)


def test_a_range_that_is_measured_on_all_is_told_at_the_quantizer():
    found = feeding.find(layer_case(Y, Y + 1, model=MEASURES), "one entry of the batch at a time")
    assert (found.cause, found.node) == ("feeding", 0)
    assert "DynamicQuantizeLinear_0 measures its range on all that comes at once" in told(found)


def test_other_layers_are_told_without():
    found = feeding.find(layer_case(Y, Y + 1), "one entry of the batch at a time")
    assert (found.cause, found.node, len(found.facts)) == ("feeding", None, 2)


def test_the_quantizer_is_named_with_a_remedy_and_no_product_behind_it():
    """Its ranges are those of the batch, and no product of integers is at fault."""
    model = parsed(
        """g (float[N,8] x) => (float[N,4] y) {
            [measure] q, t, z = DynamicQuantizeLinear(x) [product] i = MatMulInteger(q, w, z)
            [cast] c = Cast<to=1>(i) [scales] u = Mul(t, k) [scale] y = Mul(c, u) }""",
        w=np.arange(32, dtype=np.uint8).reshape(8, 4), k=np.float32(0.1),
    )  # fmt: skip
    data = [{"x": normal(3, 8) * np.array([[1], [3], [0.5]], np.float32)}]
    report = Comparator(model, [OnnxrtRunner(), UnbatchedRunner()], data_loader=data, layers="guilty").compare()
    assert report.verdict == "fail"
    assert [(c.node, c.cause.value) for c in report.culprits] == [("measure", "feeding")]
    assert report.culprits[0].remedies[0].text.startswith("quantize with ranges that are calibrated once")


def unbatched(text: str, **weights: np.ndarray):
    """What a network does with the entries of a batch alone, held against all of them together."""
    data = [{"x": normal(3, 8, seed=4)}]
    model = parsed(f"g (float[N,8] x) => (float[N,8] y) {{ {text} }}", **weights)
    report = Comparator(model, [OnnxrtRunner(), UnbatchedRunner()], data_loader=data, layers="guilty").compare()
    assert report.verdict == "fail"
    return report.culprits


def test_who_reads_what_is_one_for_the_whole_batch_is_no_second_fault():
    text = """[fc] a = MatMul(x, w) [mean] m = ReduceMean<axes=[0], keepdims=1>(a) [centre] c = Sub(a, m)
        [tanh] t = Tanh(c) [last] y = MatMul(t, w)"""
    (culprit,) = unbatched(text, w=normal(8, 8))
    assert (culprit.node, culprit.cause) == ("mean", "feeding")


def test_what_several_layers_compute_for_themselves_is_one_fault():
    """Of the batch's size, which belongs to no layer of its own."""
    text = """[size] s = Shape<start=0, end=1>(x) [float] f = Cast<to=1>(s) [root] r = Sqrt(f)
        [fc] a = MatMul(x, w) [one] b = Div(a, r) [act] c = Tanh(b) [fc2] d = MatMul(c, w)
        [two] e = Div(d, r) [act2] y = Tanh(e)"""
    (culprit,) = unbatched(text, w=normal(8, 8))
    assert (culprit.node, culprit.cause) == ("root", "feeding")
    assert "and 1 more layer, which compute with it" in culprit.evidence


def test_two_faults_that_share_nothing_are_two():
    mean = "[{0}] {0} = ReduceMean<axes=[0], keepdims=1>({1}) [{0}half] {0}h = Mul({0}, half) "
    mean += "[{0}less] {2} = Sub({1}, {0}h)"
    text = f"""[fc] a = MatMul(x, w) {mean.format("one", "a", "b")} [act] c = Tanh(b) [fc2] d = MatMul(c, w)
        {mean.format("two", "d", "e")} [act2] y = Tanh(e)"""
    assert sorted(c.node for c in unbatched(text, w=normal(8, 8), half=np.float32(0.5))) == ["oneless", "twoless"]
