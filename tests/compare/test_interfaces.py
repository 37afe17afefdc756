"""Two files whose inputs and outputs have other names or layouts: nothing is guessed, and the options are proposed."""

from __future__ import annotations

import re
import shlex

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner, ShapeRange, UsageError
from layerdiff.compare.cli.arguments import parse
from layerdiff.compare.interfaces import layout, likely_pairs
from layerdiff.graph.specs import TensorSpec

from support import networks
from support.models import normal, parsed

RUNNER = OnnxrtRunner(threads=1)
NHWC = (
    "g (float[1, 8, 6, 3] image) => (float[1, 4, 8, 6] y) { x = Transpose<perm = [0, 3, 1, 2]>(image) y = Conv(x, w) }"
)
NCHW = "g (float[1, 3, 8, 6] image) => (float[1, 4, 8, 6] y) { y = Conv(image, w) }"
TWO = "g (float[4] a, float[4] b) => (float[4] y, float[4] z) { y = Sub(a, b) z = Mul(a, y) }"
CASES = {
    "names": (
        TWO,
        TWO.replace("(float[4] a, float[4] b)", "(float[4] left, float[4] right)")
        .replace("a,", "left,")
        .replace("b)", "right)"),
        "--map-input a=left --map-input b=right",
    ),
    "an odd name": (
        "g (float[4] x) => (float[4] y) { y = Neg(x) }",
        'g (float[4] "serving x:0") => (float[4] y) { y = Neg("serving x:0") }',
        "--map-input 'x=serving x:0'",
    ),
    "a layout": (NHWC, NCHW, "--transpose-input image:0,2,3,1"),
    "the other layout": (NCHW, NHWC, "--transpose-input image:0,3,1,2"),
    "a name and a layout": (
        NHWC,
        NCHW.replace("image", "pixels"),
        "--map-input image=pixels --transpose-input image:0,2,3,1",
    ),
}
W = normal(4, 3, 1, 1)


@pytest.fixture
def files(onnx_file):
    def write(one: str, other: str):
        return [
            onnx_file(text, name, **({"w": W} if "Conv" in text else {}))
            for text, name in ((one, "one.onnx"), (other, "other.onnx"))
        ]

    return write


def comparator(paths, arguments: str = "", **options) -> Comparator:
    request = parse([*map(str, paths), "--onnxrt", *shlex.split(arguments)])
    one, other = request.models
    return Comparator(one, [RUNNER], candidate_model=other, rules=request.rules, **options)


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_proposes_options_that_make_the_files_comparable(case, files):
    one, other, options = CASES[case]
    paths = files(one, other)
    with pytest.raises(UsageError) as refusal:
        comparator(paths).compare()
    first, second = str(refusal.value).splitlines()
    assert "other.onnx" in first
    assert "one.onnx" in first
    assert second == f"If they are the same: {options}"
    report = comparator(paths, options, layers="guilty").compare()
    assert report.verdict == "pass"
    assert not report.culprits
    assert any("in the second file" in note for note in report.data.notes)


def test_a_layout_is_called_so(files):
    with pytest.raises(UsageError, match="the same axes in another order"):
        comparator(files(NHWC, NCHW)).compare()


@pytest.mark.parametrize(
    ("one", "other", "option"),
    [
        ("N, H, W, 3", "N, 3, H, W", "--transpose-input image:0,2,3,1"),
        ("N, 3, H, W", "M, A, B, 3", "--transpose-input image:0,3,1,2"),
        ("N, 3, H, W", "1, 3, 8, 8", ""),
        ("N, 3", "N, 3", ""),
        ("N, S", "B, L", ""),
    ],
)
def test_open_dimensions_that_only_another_layout_makes_sense_of_are_told(one, other, option, files):
    texts = [f"g (float[{dims}] image) => (float[{dims}] y) {{ y = Neg(image) }}" for dims in (one, other)]
    found = [notice.text for notice in comparator(files(*texts)).prepare().notices if notice.code == "layout-unlike"]
    assert [text.partition("another layout: ")[2] for text in found] == ([option] if option else [])


def test_inputs_that_cannot_be_the_same_are_refused_without_a_proposal(files):
    paths = files("g (float[4] x) => (float[4] y) { y = Neg(x) }", "g (float[5] q) => (float[5] y) { y = Neg(q) }")
    with pytest.raises(UsageError) as refusal:
        comparator(paths).compare()
    assert "--map-input" not in str(refusal.value)


def test_outputs_of_other_names_are_missing_and_the_option_is_told(files):
    paths = files("g (float[4] x) => (float[4] y) { y = Neg(x) }", "g (float[4] x) => (float[4] z) { z = Neg(x) }")
    report = comparator(paths).compare()
    assert [(o.tensor, o.verdict) for o in report.outputs] == [("y", "missing"), ("z", "extra")]
    assert all("'z' here is 'y' there, value for value" in o.reason for o in report.outputs)
    (notice,) = [n for n in report.notices if n.code == "outputs-unmatched"]
    assert "--map-output y=z" in notice.text
    assert comparator(paths, "--map-output y=z").compare().verdict == "pass"


def test_what_outputs_are_called_says_nothing_about_what_they_hold(files):
    """y and z are exchanged by the options: the comparison believes the user."""
    report = comparator(files(TWO, TWO), "--map-output y=z --map-output z=y").compare()
    assert report.verdict == "fail"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--map-input q=a", "--map-input q: .*one.onnx has no such input; it has: a, b"),
        ("--map-input a=q", "other.onnx has no input 'q'; it has: a, b"),
        ("--map-input a=b", "'b' cannot stand for 'a', the name of another input"),
        ("--map-output q=y", "--map-output q: .*one.onnx has no such output; it has: y, z"),
        ("--transpose-input q:1,0", "--transpose-input q: .*one.onnx has no such input; it has: a, b"),
        ("--transpose-input a:1,0", "'a' has 1 axes"),
        ("--map-input a=b --map-input a=a", "'a' cannot be both 'b' and 'a'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, files):
    with pytest.raises(UsageError, match=message):
        comparator(files(TWO, TWO), options).compare()


def test_without_a_second_file_there_is_nothing_to_map(files):
    one, _ = files(TWO, TWO)
    with pytest.raises(UsageError, match="about a second file, and there is no other one"):
        Comparator(one, [RUNNER, RUNNER], map_inputs={"a": "b"}).compare()


def test_outputs_can_be_kept_of_runners_with_files_of_their_own(files):
    one, other = files("g (float[4] x) => (float[4] y) { y = Neg(x) }", "g (float[4] q) => (float[4] y) { y = Neg(q) }")
    runners = [OnnxrtRunner(one), OnnxrtRunner(other)]
    results = Comparator.run(runners, data_loader=[{"x": normal(4)}], map_inputs={"x": "q"})
    assert Comparator.compare_accuracy(results).verdict == "pass"


# -- layer by layer


def test_a_fault_is_found_behind_other_names_and_another_layout(tmp_path):
    """Every tensor of the second file has another name, its image another layout; one weight is wrong."""
    w = networks.Writer(5)
    x = w.node("Relu", [w.conv("x", "first", (3, 8))], "r1")
    x = w.node("Relu", [w.conv(x, "second", (8, 8))], "r2")
    w.conv(x, "y", (8, 4))
    model = w.model({"x": (networks.FLOAT, [1, 3, 8, 6])}, ["y"])
    other = onnx.ModelProto()
    other.CopyFrom(model)
    graph = other.graph
    for tensor in graph.initializer:
        if tensor.name == "second.w":
            value = onnx.numpy_helper.to_array(tensor).copy()
            value[0] *= 1.5
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    for node in graph.node:
        node.name = f"other/{node.name}"
        node.input[:] = [name if "." in name else f"other/{name}" for name in node.input]
        node.output[:] = [f"other/{name}" for name in node.output]
    graph.node[0].input[0] = "other/nchw"
    graph.node.insert(0, onnx.helper.make_node("Transpose", ["image"], ["other/nchw"], perm=[0, 3, 1, 2]))
    graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("image", networks.FLOAT, [1, 8, 6, 3]))
    graph.output[0].name = "other/y"
    onnx.save(model, tmp_path / "one.onnx")
    onnx.save(other, tmp_path / "other.onnx")
    options = "--map-input x=image --map-output y=other/y --transpose-input x:0,3,1,2 --layers"
    report = comparator([tmp_path / "one.onnx", tmp_path / "other.onnx"], options).compare()
    assert [(c.node, c.cause.value) for c in report.culprits] == [("n_second", "weights")]
    assert report.culprits[0].candidate_node == "other/n_second"


# -- which is likely to be which


def specs(*words: str) -> list[TensorSpec]:
    """``ids int64 N 8``: name, dtype, dimensions; letters are symbols."""
    found = []
    for text in words:
        name, dtype, *dims = text.split()
        found.append(TensorSpec(name, np.dtype(dtype), tuple(int(d) if d.isdigit() else d for d in dims)))
    return found


@pytest.mark.parametrize(
    ("reference", "candidate", "pairs"),
    [
        (["x float32 2"], ["q float32 2"], "x=q"),
        (["x float32 2"], ["q float32 3"], ""),
        (["x float32 2"], ["q int64 2"], ""),
        (["x float32 N 4"], ["q float32 2 4"], "x=q"),
        (["a float32 2", "b float32 2"], ["0 float32 2", "1 float32 2"], "a=0 b=1"),
        (["a float32 2", "b float32 3"], ["0 float32 3", "1 float32 2"], "a=1 b=0"),
        (
            ["input_ids int64 N S", "attention_mask int64 N S"],
            ["attention_mask:0 int64 N S", "input_ids:0 int64 N S"],
            "input_ids=input_ids:0 attention_mask=attention_mask:0",
        ),
        (["x float32 1 8 8 3"], ["q float32 1 3 8 8"], "x=q"),
        (["x float32 2 3", "z float32 3 2"], ["q float32 3 2"], "z=q"),
    ],
)
def test_likely_pairs_have_one_dtype_and_shape_and_names_that_are_alike(reference, candidate, pairs):
    found = likely_pairs(specs(*reference), specs(*candidate))
    assert " ".join(f"{mine.name}={theirs.name}" for mine, theirs in found) == pairs


@pytest.mark.parametrize(
    ("reference", "candidate", "axes"),
    [
        ("x float32 1 8 8 3", "x float32 1 3 8 8", (0, 2, 3, 1)),
        ("x float32 1 3 8 8", "x float32 1 8 8 3", (0, 3, 1, 2)),
        ("x float32 N H W 3", "x float32 N 3 H W", (0, 2, 3, 1)),
        ("x float32 2 7", "x float32 7 2", (1, 0)),
        ("x float32 20 1 12", "x float32 1 20 12", (1, 0, 2)),
        ("x float32 1 8 8 3", "x float32 1 4 8 8", None),
        ("x float32 8 3", "x float32 1 3 8", None),
    ],
)
def test_the_likeliest_layout_moves_one_axis(reference, candidate, axes):
    (mine,), (theirs,) = specs(reference), specs(candidate)
    assert layout(mine.shape, theirs.shape) == axes


def test_the_help_names_the_options(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    assert all(re.search(flag, text) for flag in ("--map-input", "--map-output", "--transpose-input"))


@pytest.mark.parametrize("wrong", ["0,3,1,2", "0,1,3,2", "0,2,1,3"])
def test_a_layout_that_was_asked_for_and_does_not_fit_is_put_right(files, wrong):
    """The proposal is what the file needs, and not what is left to do behind the option that was given."""
    good, other = files(NHWC, NCHW)
    with pytest.raises(UsageError) as refused:
        Comparator(
            good, [RUNNER], candidate_model=other, transpose_inputs={"image": tuple(map(int, wrong.split(",")))}
        ).compare()
    lines = str(refused.value).splitlines()
    assert "as --transpose-input turns it" in lines[0]
    assert lines[1].endswith("--transpose-input image:0,2,3,1")


@pytest.mark.parametrize("shape", [(5, 3), [5, 3], ShapeRange((1, 3), (5, 3), (8, 3))], ids=["tuple", "list", "range"])
def test_a_shape_is_dimensions_or_a_range(shape):
    model = parsed("g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }")
    comparator = Comparator(model, [RUNNER, RUNNER], shapes={"x": shape})
    assert comparator.compare().verdict == "pass"
    assert next(iter(comparator.samples))["x"].shape == (5, 3)


@pytest.mark.parametrize("shape", [5, "5x3", (5, -3), (5.0, 3)])
def test_what_is_no_shape_is_refused_in_one_line(shape):
    model = parsed("g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }")
    with pytest.raises(UsageError, match=r"shapes: x: .* is no shape; \(1, 3, 224, 224\) or ShapeRange"):
        Comparator(model, [RUNNER, RUNNER], shapes={"x": shape})
