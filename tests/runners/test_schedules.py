"""Decoding and prefill, a batch and its entries: the same network fed otherwise, and the layer that minds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, Model, OnnxrtRunner, TrtRunner, UsageError
from layerdiff.compare.cli.arguments import parse
from layerdiff.compare.cli.command import main
from layerdiff.dataloaders import DataLoader, Prompts
from layerdiff.graph.axes import growing
from layerdiff.runners.schedules import DecodeRunner, UnbatchedRunner
from onnx import TensorProto, helper, numpy_helper

from examples.tiny_decoder import Size, Writer, decoder
from support.models import assembled, parsed
from support.trt_cases import OLD

SMALL = Size(layers=2, vocabulary=32)
CACHED = {"past_key_values.0.key": (2, 2, 3, 8)}


def fused(layers: int = 2, heads: int = 2, width: int = 16) -> onnx.ModelProto:
    """A decoder as ONNX Runtime GenAI makes them: attention is one operator, of whose shapes ONNX knows nothing."""
    hidden, w = heads * width, Writer(0)
    turns = np.outer(np.arange(32), 100.0 ** -np.linspace(0, 1, width // 2, endpoint=False))
    w.add("ReduceSum", ["attention_mask", w.constant("axis", [1], np.int64)], "length", keepdims=1)
    w.add("Sub", ["length", w.constant("one", 1, np.int64)], "last")
    w.add("Cast", ["last"], "seen", to=TensorProto.INT32)
    w.add("Shape", ["attention_mask"], "size", start=1, end=2)
    w.add("Squeeze", ["size"], "scalar")
    w.add("Cast", ["scalar"], "total", to=TensorProto.INT32)
    w.add("Gather", [w.matrix("table", 32, hidden, 4.0), "input_ids"], "x0")
    infos = [("input_ids", TensorProto.INT64, ["b", "s"]), ("attention_mask", TensorProto.INT64, ["b", "t"])]
    ends = [("logits", TensorProto.FLOAT, ["b", "s", 32])]
    tables = [w.constant("cos", np.cos(turns)), w.constant("sin", np.sin(turns))]
    for n in range(layers):
        for kind, columns in (("q", hidden), ("k", width), ("v", width)):
            w.add("MatMul", [f"x{n}", w.matrix(f"w{kind}{n}", hidden, columns)], f"{kind}{n}")
        past, present = ([f"{p}.{n}.{kind}" for kind in ("key", "value")] for p in ("past_key_values", "present"))
        reads = [f"q{n}", f"k{n}", f"v{n}", *past, "seen", "total", *tables]
        attributes = {"domain": "com.microsoft", "num_heads": heads, "kv_num_heads": 1, "do_rotary": 1}
        w.nodes.append(helper.make_node("GroupQueryAttention", reads, [f"a{n}", *present], f"a{n}", **attributes))
        w.add("MatMul", [f"a{n}", w.matrix(f"wo{n}", hidden, hidden)], f"o{n}")
        w.add("Add", [f"x{n}", f"o{n}"], f"x{n + 1}")
        infos += [(name, TensorProto.FLOAT, ["b", 1, "past_sequence_length", width]) for name in past]
        ends += [(name, TensorProto.FLOAT, ["b", 1, "t", width]) for name in present]
    w.add("MatMul", [f"x{layers}", w.matrix("head", hidden, 32)], "logits")
    return assembled(w.nodes, infos, ends, w.weights, domains=["com.microsoft"])


def compared(model, *runners, shapes=None, **rules):
    data = DataLoader(samples=1, shapes=shapes or {})
    return Comparator(model, [OnnxrtRunner(), *runners], data_loader=data, **rules).compare()


def rewired(old: str, new: str, *, op: str, nodes=(), **weights) -> onnx.ModelProto:
    """The decoder, of which nodes of an operator read another tensor; further nodes and weights stand in front."""
    model = decoder(SMALL)
    for node in model.graph.node:
        if node.op_type == op and old in node.input:
            node.input[list(node.input).index(old)] = new
    for position, node in enumerate(nodes):
        model.graph.node.insert(position, node)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in weights.items())
    return model


def positions_from_zero() -> onnx.ModelProto:
    """Positions are counted anew at each call: right for a prompt, wrong behind a cache."""
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["count"], "count", start=1, end=2),
        helper.make_node("Squeeze", ["count"], ["token_count"], "token_count"),
        helper.make_node("Range", ["nil", "token_count", "unit"], ["places"], "places"),
        helper.make_node("Unsqueeze", ["places", "front"], ["row"], "row"),
    ]
    constants = {"nil": np.int64(0), "unit": np.int64(1), "front": np.array([0])}
    return rewired("position_ids", "row", op="Gather", nodes=nodes, **constants)


def cache_that_fades() -> onnx.ModelProto:
    """The second layer's cached values grow by a hundredth each time they are read."""
    nodes = [helper.make_node("Mul", ["past_key_values.1.value", "more"], ["grown"], "grown")]
    return rewired("past_key_values.1.value", "grown", op="Concat", nodes=nodes, more=np.float32(1.01))


def mixed_batch() -> onnx.ModelProto:
    """The second layer reads the mean over the batch besides its own entry."""
    model = decoder(SMALL)
    at = next(i for i, node in enumerate(model.graph.node) if node.name == "layer1.norm1.squares")
    mean = helper.make_node("ReduceMean", ["layer0.out", "over"], ["batch_mean"], "batch_mean", keepdims=1)
    part = helper.make_node("Mul", ["batch_mean", "little"], ["part"], "part")
    both = helper.make_node("Add", ["layer0.out", "part"], ["mixed"], "mixed")
    for node in list(model.graph.node)[at:]:
        for i, name in enumerate(node.input):
            if name == "layer0.out":
                node.input[i] = "mixed"
    for position, node in enumerate((mean, part, both)):
        model.graph.node.insert(at + position, node)
    for name, value in (("over", np.array([0])), ("little", np.float32(0.01))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


# ---- what is put together -------------------------------------------------------------------------------------------


def test_axes_that_grow_with_a_size():
    model = Model(parsed("g (float[N, S] x, float[N, T] m) => (float[N, S, T] y) { }", a=np.array([1])))
    del model.proto.graph.node[:]
    nodes = ["u = Unsqueeze(x, two)", "v = Unsqueeze(m, one)", "y = Mul(u, v)"]
    model.proto.graph.node.extend(map(onnx.parser.parse_node, nodes))
    for name, value in (("one", [1]), ("two", [2])):
        model.proto.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    found = growing(
        Model(model.proto), {"x": (2, 5), "m": (2, 8)}, [{"x": (2, 7), "m": (2, 8)}, {"x": (2, 5), "m": (2, 9)}]
    )
    assert found["y"] == ((0, 0), (2, 0), (0, 1))
    assert found["v"] == ((0, 0), (0, 0), (0, 1))


def test_tensors_of_a_decoder_that_tokens_put_together():
    joints = DecodeRunner().joints(Model(decoder(SMALL)))
    assert joints["layer0.out"] == 1
    assert joints["layer0.q_heads"] == 2
    assert joints["present.0.key"] is None  # the last token's holds all
    assert not {"layer0.scores", "layer0.attention", "bias"} & set(joints)  # tokens x all tokens


def test_tensors_that_entries_put_together():
    joints = UnbatchedRunner().joints(Model(decoder(SMALL)))
    assert (joints["layer0.out"], joints["layer0.attention"], joints["key_places"]) == (0, 0, None)


@pytest.mark.parametrize("runner", [DecodeRunner(), UnbatchedRunner()])
@pytest.mark.parametrize("shapes", [{}, CACHED])
def test_a_session_gives_what_one_run_gives(runner, shapes):
    model = Model(decoder(SMALL))
    feed = DataLoader(samples=1, shapes=shapes).bind(model)[0]
    names = ["logits", "present.1.value", "layer0.joined", "layer1.q_rotated"]
    with OnnxrtRunner().session(model, fetch=names) as whole, runner.session(model, fetch=names) as fed:
        expected, found = whole.infer(feed, names), fed.infer(feed, names)
    assert list(found) == names
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


# ---- what is compared -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", [DecodeRunner(), UnbatchedRunner()])
@pytest.mark.parametrize("shapes", [{}, CACHED])
def test_a_decoder_passes_however_it_is_fed(runner, shapes):
    report = compared(decoder(SMALL), runner, shapes=shapes, metric="logits", layers="guilty")
    assert report.verdict == "pass"
    assert report.culprits == ()
    assert len(report.layers) > 40


@pytest.mark.parametrize(
    ("model", "runner", "culprits"),
    [
        (positions_from_zero, DecodeRunner(), {"sin"}),
        (cache_that_fades, DecodeRunner(), {"present.1.value"}),
        (mixed_batch, UnbatchedRunner(), {"mixed"}),
    ],
)
def test_the_first_layer_that_depends_on_how_it_is_fed_is_named(model, runner, culprits):
    report = compared(model(), runner, layers="guilty", metric="logits")
    assert report.verdict == "fail"
    assert culprits <= {culprit.node for culprit in report.culprits}
    assert {culprit.cause.value for culprit in report.culprits} == {"feeding"}
    assert "fed o" in report.culprits[0].facts[0].text


def test_what_rounding_makes_of_it_is_no_fault_and_is_said():
    """A product of one row is not computed as one of many: other bits, within rounding."""
    report = compared(decoder(Size(layers=1, width=32)), DecodeRunner(), shapes={"input_ids": (1, 32)}, layers="guilty")
    assert (report.verdict, report.culprits) == ("pass", ())
    assert [n.text for n in report.notices if "does not give the same bits" in n.text] != []


def test_a_decoder_of_fused_attention_passes_however_it_is_fed():
    report = compared(fused(), DecodeRunner(), UnbatchedRunner(), metric="logits", layers="guilty")
    assert (report.verdict, report.culprits) == ("pass", ())


def test_padding_behind_a_prompt_is_not_decoded(tmp_path):
    (tmp_path / "prompts.txt").write_text("1 2 3\n4\n")
    data = Prompts(path=tmp_path / "prompts.txt", batch=2)
    report = Comparator(decoder(SMALL), [OnnxrtRunner(), DecodeRunner()], data_loader=data).compare()
    (failed,) = [r for r in report.runners if r.error]
    assert "padding behind it has no place in a cache" in failed.error


@pytest.mark.parametrize("runner", [UnbatchedRunner()])
def test_any_model_can_be_unbatched(runner):
    model = parsed("g (float[N, 4] x) => (float[N, 3] y) { y = MatMul(x, w) }", w=np.ones((4, 3), np.float32))
    assert compared(model, runner, layers="guilty").verdict == "pass"


@pytest.mark.parametrize(
    ("runner", "shapes", "reason"),
    [
        (UnbatchedRunner(), {"input_ids": (1, 4)}, "no batch has more than one entry"),
        (DecodeRunner(), {"input_ids": (2, 1)}, "no sample has more than one token"),
    ],
)
def test_what_is_fed_as_it_is_proves_nothing(runner, shapes, reason):
    report = compared(decoder(SMALL), runner, shapes=shapes)
    assert report.verdict == "undecided"
    assert all(reason in output.reason for output in report.outputs)


@pytest.mark.parametrize(("last", "verdict"), [(3, "pass"), (2, "undecided")])
def test_one_sample_that_is_fed_otherwise_is_enough(last, verdict):
    model = parsed("g (float[N, 8] x) => (float[N, 8] y) { y = Relu(x) }")
    data = [{"x": np.repeat(np.array(rows, np.float32)[:, None], 8, axis=1)} for rows in ([1], [2, last])]
    report = Comparator(model, [OnnxrtRunner(), UnbatchedRunner()], data_loader=data).compare()
    assert report.verdict == verdict  # entries that are equal cannot tell whose they are


def test_another_runner_can_be_fed_so():
    runner = DecodeRunner(runner="emulate:fp16")
    assert (runner.name, runner.arithmetic.name) == ("decode:emulate:fp16", "fp16")
    assert compared(decoder(SMALL), runner, metric="logits").verdict == "pass"


LONG = [
    ("--decode=trt --fp16 --workspace 64MiB", TrtRunner(fp16=True, workspace=64 << 20), "decode:trt:fp16"),
    ("--decode=trt:fp16 --workspace 64MiB", TrtRunner(fp16=True, workspace=64 << 20), "decode:trt:fp16"),
    ("--unbatched --ort-optimization basic", OnnxrtRunner(optimization="basic"), "unbatched:onnxrt"),
    (
        "--decode=emulate:bf16 --emulate-every-node",
        EmulateRunner(format="bf16", every_node=True),
        "decode:emulate:bf16",
    ),
]


@pytest.mark.parametrize(("words", "runner", "name"), LONG)
def test_long_options_reach_the_runner_that_is_fed_so(words, runner, name):
    found, _ = parse(["m.onnx", *words.split(), "--onnxrt"]).runners
    assert (found.in_one_run, found.name) == (runner, name)


REFUSED_OPTIONS = [
    ("--decode=trt --save-engine e", "--save-engine is for --trt or --trt-rtx, and no runner was named"),
    ("--decode=emulate:fp16 --fp16", "--fp16 is for --trt or --trt-rtx, and no runner was named"),
    ("--decode=trt:bf16 --fp16", "--fp16 is for --trt or --trt-rtx, and no runner was named"),
    ("--decode=trt:half", "--decode=trt=half"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED_OPTIONS)
def test_options_that_it_does_not_take_are_refused(words, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        parse(["m.onnx", "--onnxrt", *words.split()])


def test_a_decoder_is_built_with_them(tensorrt, tmp_path, monkeypatch):
    tensorrt(OLD)
    monkeypatch.chdir(tmp_path)
    onnx.save(decoder(SMALL), "decoder.onnx")
    words = ["decoder.onnx", "--onnxrt", "--decode=trt", "--fp16", "--workspace", "64MiB", "--shape", "input_ids:1x3"]
    main([*words, "--metric", "logits", "--json", "report.json"])
    report = json.loads(Path("report.json").read_text())
    (found,) = (r for r in report["runners"] if r["name"] == "decode:trt:fp16")
    assert found["error"] is None
    assert (found["options"]["modes"], found["options"]["workspace"]) == (["fp16"], 64 << 20)


def test_it_is_calibrated_on_whole_samples():
    """Steps as they are known beforehand have caches of zeros, which would give other ranges."""
    model, data = decoder(SMALL), DataLoader(samples=2)
    whole, steps = (
        Comparator(model, [OnnxrtRunner(), runner], data_loader=data, metric="logits").compare().accuracy[1].logits
        for runner in (EmulateRunner(format="int8"), DecodeRunner(runner="emulate:int8"))
    )
    assert steps.kl_mean == pytest.approx(whole.kl_mean, rel=0.2)


# ---- what is refused ------------------------------------------------------------------------------------------------


def fixed() -> onnx.ModelProto:
    model = decoder(SMALL)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    return model


def test_it_takes_the_gpu_of_the_runner_that_is_fed_so():
    assert [DecodeRunner(runner=name).gpus for name in ("onnxrt", "onnxrt:cuda", "trt")] == [0, 1, 1]


@pytest.mark.parametrize(
    ("model", "runner", "message"),
    [
        (parsed("g (float[N, 3] x) => (float[N, 3] y) { y = Neg(x) }"), DecodeRunner(), "is no decoder with a cache"),
        (fixed(), DecodeRunner(), "the model fixes the number of tokens"),
        (parsed("g (float[2, 3] x) => (float[2, 3] y) { y = Neg(x) }"), UnbatchedRunner(), "none is a batch"),
    ],
)
def test_models_that_cannot_be_fed_so(model, runner, message):
    (failed,) = [r for r in compared(model, runner).runners if r.error]
    assert message in failed.error


@pytest.mark.parametrize("name", ["onnx", "decode", ""])
def test_runners_that_there_are_not(name):
    with pytest.raises(UsageError, match="there is no runner"):
        _ = DecodeRunner(runner=name).in_one_run
