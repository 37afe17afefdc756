"""FP16 files on a runtime that carries FP32 past their tensors: what FP16 cannot hold is never passed."""

import numpy as np
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.graph.model import Model
from layerdiff.graph.rounding import emulation

from support.models import parsed

TAIL = "y = Cast<to=1>(h)"
GRAPHS = {
    "a norm": "[square] a = Mul(x16, x16) [sum] b = ReduceSum(a, last) [root] c = Sqrt(b) [div] h = Div(x16, c)",
    "a gain that is taken back": "[gain] a = Mul(x16, big) [ungain] h = Mul(a, small)",
    "a product": "[up] a = MatMul(x16, w) [down] h = Mul(a, small)",
    "a difference of squares": "[square] a = Mul(x16, x16) [less] b = Sub(a, a) [add] h = Add(b, x16)",
    "in a branch": """c = Cast<to=9>(one) [branch] h = If (c)
        <then_branch = t () => (float16[4,8] p) { q = Mul(x16, x16) p = Sqrt(q) },
         else_branch = e () => (float16[4,8] r) { r = Identity(x16) }>""",
    "in a loop": """c = Cast<to=9>(one) [loop] h = Loop (n, c, x16)
        <body = b (int64 i, bool k, float16[4,8] s) => (bool l, float16[4,8] u)
         { l = Identity(k) v = Mul(s, s) u = Sqrt(v) }>""",
}
FIRST = {
    "a norm": "square",
    "a gain that is taken back": "gain",
    "a product": "up",
    "a difference of squares": "square",
    "in a branch": "branch",
    "in a loop": "loop",
}


def network(body: str, narrow: bool = True) -> Model:
    """A network typed FP16 between its input and output, or the same in FP32."""
    rng = np.random.default_rng(1)
    kind = np.float16 if narrow else np.float32
    weights = {
        "last": np.asarray([1]),
        "big": np.asarray(1000, kind),
        "small": np.asarray(1e-3, kind),
        "tiny": np.asarray(1e-12, np.float32).astype(kind),
        "w": (1000 * rng.uniform(0.5, 1, (8, 8))).astype(kind),
        "one": np.float32(1).reshape(()),
        "n": np.int64(2).reshape(()),
        "mask": np.full((1, 8), -3.4e38, np.float32) * np.eye(1, 8, dtype=np.float32),
    }
    text = f"t (float[4,8] x) => (float[4,8] y) {{ [enter] x16 = Cast<to=10>(x) {body} {TAIL} }}"
    if not narrow:
        text = text.replace("<to=10>", "<to=1>").replace("float16[", "float[")
    return Model(parsed(text, **weights))


def report(body: str, scale: float, samples: int = 1, **options):
    data = [{"x": np.random.default_rng(s).uniform(0.5, 1, (4, 8)).astype(np.float32) * scale} for s in range(samples)]
    options = {"candidate_model": network(body), **options}
    return Comparator(network(body, narrow=False), [OnnxrtRunner()], data_loader=data, **options).compare()


@pytest.mark.parametrize("scale", [400.0, 3000.0])
@pytest.mark.parametrize("name", GRAPHS)
def test_an_overflow_that_the_runtime_passes_by_is_never_a_pass(name: str, scale: float) -> None:
    found = report(GRAPHS[name], scale)
    (output,) = found.outputs
    assert found.outputs[0].verdict == "undecided"
    if name in ("in a branch", "in a loop"):
        assert output.reason.startswith(f"a value inside {FIRST[name]} overflows FP16 (> 65504) in sample 0;")
    else:
        assert output.reason.startswith(f"{FIRST[name]} overflows FP16 (")
        assert "> 65504) in sample 0; onnxrt" in output.reason
    assert "went on in FP32, an FP16 device would not" in output.reason


@pytest.mark.parametrize("name", GRAPHS)
def test_values_that_fp16_holds_pass(name: str) -> None:
    assert report(GRAPHS[name], 2.0).outputs[0].verdict == "pass"


HEALS = {
    "a norm": "square, sum and root",
    "a gain that is taken back": "gain and ungain",
    "a product": "up and down",
    "a difference of squares": "square and less",
}
"""What has to have the range of FP32."""


TWICE = {
    "the same again": (
        "[square] a = Mul(x16, x16) [root] b = Sqrt(a) [square2] c = Mul(b, b) [root2] h = Sqrt(c)",
        "square, root, square2 and root2",
    ),
    "by another operator": (
        "[square] a = Mul(x16, x16) [root] b = Sqrt(a) [up] c = MatMul(b, w) [down] h = Mul(c, small)",
        "square, root, up and down",
    ),
}


@pytest.mark.parametrize("name", TWICE)
def test_what_overflows_behind_it_once_more_is_healed_too(name: str) -> None:
    body, heals = TWICE[name]
    (culprit,) = report(body, 3000.0, layers="guilty").culprits
    assert (culprit.node, culprit.cause) == ("square", "overflow")
    assert culprit.remedies[0].text.startswith(f"write {heals} in FP32 in the file, with Casts around them: measured")


@pytest.mark.parametrize("name", HEALS)
def test_the_node_where_the_range_matters_is_the_culprit_with_what_heals(name: str) -> None:
    found = report(GRAPHS[name], 3000.0, layers="guilty")
    (culprit,) = found.culprits
    assert (culprit.node, culprit.cause) == (FIRST[name], "overflow")
    assert "goes on in FP32, and an FP16 device does not" in culprit.evidence
    assert culprit.remedies[0].text == (
        f"write {HEALS[name]} in FP32 in the file, with Casts around them: measured, no output is then lost to the "
        "range of FP16"
    )
    assert not [n for n in found.notices if n.code == "clamped"]


def test_the_sample_is_named() -> None:
    body = GRAPHS["a norm"]
    data = [{"x": np.full((4, 8), v, np.float32)} for v in (1.0, 2.0, 500.0)]
    found = Comparator(
        network(body, narrow=False), [OnnxrtRunner()], data_loader=data, candidate_model=network(body)
    ).compare()
    assert "in sample 2;" in found.outputs[0].reason


def test_what_a_tolerance_passes_is_undecided_too() -> None:
    assert report(GRAPHS["a norm"], 400.0, rtol=0.1, atol=0.1).outputs[0].verdict == "undecided"


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_mask_that_becomes_infinite_and_changes_nothing_passes(scale: float) -> None:
    body = "[mask16] m = Cast<to=10>(mask) [add] a = Add(x16, m) [soft] h = Softmax<axis=1>(a)"
    assert report(body, scale).outputs[0].verdict == "pass"


def test_a_value_that_becomes_zero_is_told_as_an_underflow() -> None:
    body = "[shrink] a = Mul(x16, small) [again] b = Mul(a, small) [more] c = Mul(b, small) [grow] d = Mul(c, big) " \
           "[grow2] e = Mul(d, big) [grow3] h = Mul(e, big)"  # fmt: skip
    found = report(body, 0.01)
    assert found.outputs[0].verdict == "undecided"
    assert "again underflows FP16 (" in found.outputs[0].reason
    (culprit,) = report(body, 0.01, layers="guilty").culprits
    assert (culprit.node, culprit.cause) == ("again", "underflow")


def test_runtimes_that_take_types_as_law_are_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(GRAPHS["a norm"])

    def refuse(*args, **kwargs):
        raise AssertionError("run as typed")

    monkeypatch.setattr("layerdiff.compare.outputs.by_types.by_types", refuse)
    data = [{"x": np.ones((4, 8), np.float32)}]
    found = Comparator(model, [OnnxrtRunner(), EmulateRunner(format="fp16")], data_loader=data).compare()
    assert found.outputs[0].verdict == "pass"


def test_what_cannot_be_run_as_typed_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args, **kwargs):
        raise RuntimeError("no kernel\nand more")

    monkeypatch.setattr("layerdiff.compare.outputs.by_types.by_types", fail)
    found = report(GRAPHS["a norm"], 1.0)
    assert found.outputs[0].verdict == "undecided"
    assert found.outputs[0].reason.endswith("could not be found out: no kernel")


@pytest.mark.parametrize("name", GRAPHS)
def test_the_wide_range_is_fp16_s_bits_without_its_ends(name: str) -> None:
    model = network(GRAPHS[name])
    x = np.random.default_rng(0).uniform(0.5, 1, (4, 8)).astype(np.float32)
    small, large = (
        OnnxrtRunner(optimization="disable").open(emulation.by_types(model, wide_range=w)).infer({"x": x})["y"]
        for w in (False, True)
    )
    np.testing.assert_array_equal(small, large)
