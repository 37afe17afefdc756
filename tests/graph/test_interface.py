"""A network behind another interface computes the same, whatever the names inside it are."""

from __future__ import annotations

import pickle

import numpy as np
import onnx
import pytest
from layerdiff import Model, OnnxrtRunner, UsageError
from layerdiff.graph.interface import Interface, adapted
from layerdiff.graph.load import load

from support.models import infer, normal, parsed

RUNNER = OnnxrtRunner(threads=1)
IF = """g (float[2] a, bool c) => (float[2] y) {
    n = Neg(a)
    y = If(c) <
        then_branch = then () => (float[2] t) { t = Add(n, a) },
        else_branch = otherwise () => (float[2] e) { e = Mul(n, a) }
    >
}"""


def run(model: Model, **feed: np.ndarray) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model.contained().proto, full_check=True)
    return infer(RUNNER, model, feed)


@pytest.mark.parametrize(
    ("text", "inputs", "outputs"),
    [
        ("g (float[2] a, float[2] b) => (float[2] y) { y = Sub(a, b) }", {"first": "a"}, {}),
        ("g (float[2] a, float[2] b) => (float[2] y) { y = Sub(a, b) }", {"a": "b", "b": "a"}, {"z": "y"}),
        ("g (float[2] a, float[2] b) => (float[2] y) { x = Sub(a, b) y = Neg(x) }", {"x": "a", "y_inner": "b"}, {}),
        ("g (float[2] a, float[2] b) => (float[2] y) { x = Neg(a) y = Sub(b, x) }", {}, {"x": "y"}),
        (
            "g (float[2] a, float[2] b) => (float[2] y, float[2] z) { y = Sub(a, b) z = Neg(y) }",
            {},
            {"y": "z", "z": "y"},
        ),
        ("g (float[2] a, float[2] b) => (float[2] y, float[2] a) { y = Sub(a, b) }", {"x": "a"}, {}),
        ("g (float[2] a, float[2] b) => (float[2] y, float[2] a) { y = Sub(a, b) }", {}, {"x": "a"}),
    ],
)
def test_names_change_and_values_do_not(text, inputs, outputs):
    model = Model(parsed(text))
    feed = {"a": normal(2), "b": normal(2, seed=1)}
    expected = run(model, **feed)
    other = adapted(model, Interface(inputs, outputs))
    found = run(other, **{new: feed[inputs.get(new, new)] for new in (spec.name for spec in other.inputs)})
    assert list(found) == [{old: new for new, old in outputs.items()}.get(name, name) for name in expected]
    for new, value in found.items():
        np.testing.assert_array_equal(value, expected[outputs.get(new, new)])


@pytest.mark.parametrize("inputs", [{"x": "a"}, {"n": "a"}, {"t": "a"}, {"e": "a", "t": "c"}])
def test_what_bodies_capture_is_renamed_too(inputs):
    model = Model(parsed(IF))
    new = {old: name for name, old in inputs.items()}
    for taken in (True, False):
        feed = {"a": normal(2), "c": np.array(taken)}
        found = run(adapted(model, Interface(inputs)), **{new.get(n, n): value for n, value in feed.items()})
        np.testing.assert_array_equal(found["y"], run(model, **feed)["y"])


@pytest.mark.parametrize(
    ("taken", "given", "axes"),
    [
        ((2, 3, 4, 5), (2, 4, 5, 3), (0, 2, 3, 1)),
        ((2, 4, 5, 3), (2, 3, 4, 5), (0, 3, 1, 2)),
        ((3, 4), (4, 3), (1, 0)),
        ((2, 3, 4), (4, 2, 3), (2, 0, 1)),
    ],
)
@pytest.mark.parametrize("name", ["x", "image"])
def test_an_input_in_another_layout_is_what_its_axes_turn_it_into(taken, given, axes, name):
    dims = ", ".join(map(str, taken))
    model = Model(parsed(f"g (float[{dims}] x) => (float[{dims}] y) {{ y = Neg(x) }}"))
    other = adapted(model, Interface({} if name == "x" else {name: "x"}, transposed={name: axes}))
    (spec,) = other.inputs
    assert (spec.name, spec.shape) == (name, given)
    x = normal(*taken)
    np.testing.assert_array_equal(run(other, **{name: x.transpose(axes)})["y"], -x)


@pytest.mark.parametrize(
    ("interface", "message"),
    [
        (Interface({"x": "q"}), "has no input 'q'; it has: a, b"),
        (Interface({}, {"x": "q"}), "has no output 'q'; it has: y"),
        (Interface({"a": "b"}), "'b' cannot stand for 'a', the name of another input of it"),
        (Interface({"y": "a"}), "an input and an output of it cannot both be called 'y'"),
        (Interface(transposed={"q": (1, 0)}), "has no input 'q'; it has: a, b"),
        (Interface(transposed={"a": (0, 2, 1)}), "'a' has 1 axes, and .0, 2, 1. orders 3"),
    ],
)
def test_what_does_not_fit_is_refused(interface, message):
    with pytest.raises(UsageError, match=message):
        adapted(Model(parsed("g (float[2] a, float[2] b) => (float[2] y) { y = Sub(a, b) }")), interface)


def test_weights_stay_in_their_file_and_the_model_can_be_sent(tmp_path):
    w = normal(64, 64)
    onnx.save(parsed("g (float[N, 64] x) => (float[N, 64] y) { y = MatMul(x, w) }", w=w), tmp_path / "net.onnx")
    whole = load(tmp_path / "net.onnx")
    model = adapted(whole, Interface({"in": "x"}, {"out": "y"}))
    assert len(model.serialized()) < w.nbytes
    assert not model.same_network(whole)
    sent = pickle.loads(pickle.dumps(model))
    assert sent.digest == model.digest
    x = normal(1, 64)
    np.testing.assert_array_equal(run(sent, **{"in": x})["out"], run(whole, x=x)["y"])


@pytest.mark.tf
def test_a_tensorflow_program_is_known_by_the_new_names():
    from layerdiff import TfRunner

    from support.paths import ROOT

    whole = load(ROOT / "examples/digits/digits.pb")
    model = adapted(whole, Interface({"in": "image"}, {"out": "probabilities"}, {"in": (0, 3, 1, 2)}))
    x = normal(2, 8, 8, 1)
    expected = infer(TfRunner(), whole, {"image": x})["probabilities"]
    for sent in (model, pickle.loads(pickle.dumps(model))):
        found = infer(TfRunner(), sent, {"in": x.transpose(0, 3, 1, 2)})
        np.testing.assert_array_equal(found["out"], expected)
    inner = next(name for name in model.tf.permutations if name in model.tf.tensors)
    np.testing.assert_array_equal(
        infer(TfRunner(), model, {"in": x.transpose(0, 3, 1, 2)}, [inner])[inner],
        infer(TfRunner(), whole, {"image": x}, [inner])[inner],
    )
