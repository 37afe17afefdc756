"""TFLite as a side and as a source: what is compared by which name, planted faults, scaled integers, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner, TfliteRunner, TfRunner, UsageError, load
from layerdiff.compare.cli.command import main
from layerdiff.graph.errors import ModelError
from layerdiff.graph.tflite_file import TfliteFile, packed

pytestmark = pytest.mark.tf
tf = pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")
pytest.importorskip("ai_edge_litert")

SAMPLES = [{"image": np.random.default_rng(i).random((2, 8, 8, 3), dtype=np.float32)} for i in range(2)]


def network():
    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(3)
    x = tf.keras.Input((8, 8, 3), name="image")
    h = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(x)
    h = layers.BatchNormalization(name="norm")(layers.Conv2D(8, 3, padding="same", use_bias=False, name="second")(h))
    h = layers.MaxPooling2D(2)(layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="depth")(h))
    h = layers.Dense(16, activation="tanh", bias_initializer="normal", name="dense")(layers.Flatten()(h))
    return tf.keras.Model(x, layers.Dense(5, activation="softmax", bias_initializer="normal", name="scores")(h))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The network as a SavedModel, and as .tflite: float, weights in FP16, of dynamic range, and INT8 inside or
    throughout."""
    folder = tmp_path_factory.mktemp("tflite")
    network().export(str(folder / "saved"), verbose=False)

    def write(name, change):
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
        change(converter)
        (folder / f"{name}.tflite").write_bytes(converter.convert())

    def dynamic(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]

    def int8(converter):
        dynamic(converter)
        seen = [sample["image"][i : i + 1] for sample in SAMPLES for i in range(2)]
        converter.representative_dataset = lambda: ([image] for image in seen)

    def throughout(converter):
        int8(converter)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8

    def halves(converter):
        dynamic(converter)
        converter.target_spec.supported_types = [tf.float16]

    write("halves", halves)
    for name, change in (("float", lambda c: None), ("dynamic", dynamic), ("int8", int8), ("throughout", throughout)):
        write(name, change)
    return folder


def compare(folder, file, *others, **rules):
    runners = [TfRunner(), *others, TfliteRunner(str(folder / f"{file}.tflite"))]
    return Comparator(folder / "saved", runners, data_loader=SAMPLES, **rules).compare()


def planted(folder, file, layer, change):
    """A copy of a file in which something of the weight of a layer is changed."""
    read = TfliteFile(folder / f"{file}.tflite")
    (tensor,) = (t for t in read.tensors if t.constant and layer in t.name and len(t.shape) > 1)
    change(read, read.graph.tensors[tensor.index])
    path = folder / f"{file}_{layer}.tflite"
    path.write_bytes(packed(read.model))
    return path.stem


# ---- what is compared -----------------------------------------------------------------------------------------------


def test_a_saved_model_its_onnx_and_its_tflite_are_one_comparison(folder):
    report = compare(folder, "float", OnnxrtRunner(threads=1))
    assert (report.verdict, report.reference) == ("pass", "tf")
    assert [runner.source.rpartition("/")[2] for runner in report.runners] == ["saved", "saved", "float.tflite"]


def test_a_tflite_file_is_a_model_that_other_runtimes_run_too(folder):
    runners = [OnnxrtRunner(threads=1), TfliteRunner()]
    report = Comparator(folder / "float.tflite", runners, data_loader=SAMPLES, layers="all").compare()
    assert (report.verdict, report.reference, report.culprits) == ("pass", "onnxrt", ())


def test_inputs_and_outputs_have_the_names_and_types_of_the_signature(folder):
    model = load(folder / "throughout.tflite")
    specs = [(spec.name, spec.dtype.name) for spec in (*model.inputs, *model.outputs)]
    assert specs == [("image", "float32"), ("output_0", "float32")]


@pytest.mark.parametrize("ops", ["default", "builtin", "reference"])
def test_inner_tensors_are_those_of_the_interpreter_in_the_layout_of_onnx(ops, folder):
    model = load(folder / "float.tflite")
    name = next(n for n, t in model.tflite.tensors.items() if "first" in t)
    with TfliteRunner(ops=ops).session(model) as session:
        found = session.infer(SAMPLES[0], [name])[name]
    weight = network().get_layer("first")
    expected = weight(SAMPLES[0]["image"]).numpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_inner_tensor_may_be_given_in_place_of_what_computes_it(folder):
    model = load(folder / "float.tflite")
    name = next(n for n, t in model.tflite.tensors.items() if "first" in t)
    with TfliteRunner().session(model) as session:
        whole = session.infer(SAMPLES[0], [name, "output_0"])
        given = session.infer({name: whole[name]})["output_0"]
        other = session.infer({name: 0 * whole[name]})["output_0"]
    np.testing.assert_array_equal(given, whole["output_0"])
    assert not np.array_equal(other, given)


def test_the_batch_may_change_from_run_to_run(folder):
    model = load(folder / "float.tflite")
    with TfliteRunner().session(model) as session:
        shapes = [session.infer({"image": np.zeros((n, 8, 8, 3), np.float32)})["output_0"].shape for n in (1, 4, 2)]
    assert shapes == [(1, 5), (4, 5), (2, 5)]


# ---- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["float", "dynamic", "int8", "throughout"])
def test_a_right_conversion_has_no_culprit_and_its_layers_are_looked_at(file, folder):
    report = compare(folder, file, layers="guilty")
    judged = [layer for layer in report.layers if layer.verdict == "ok"]
    assert report.culprits == ()
    assert len(judged) >= 6


def changed_weight(read, tensor):
    data = read.model.buffers[tensor.buffer].data.copy()
    values = data.view(np.float32)
    values[7] += 0.5
    read.model.buffers[tensor.buffer].data = data


def changed_scale(read, tensor):
    tensor.quantization.scale = np.array(tensor.quantization.scale) * np.float32(1.3)


def test_weights_in_fp16_are_what_the_file_is_expected_to_hold(folder):
    report = compare(folder, "halves", layers="all")
    assert (report.verdict, report.culprits) == ("pass", ())
    assert max(output.metrics["rel_l2"] for output in report.outputs) > 1e-5, "FP32 would not explain it"


def test_another_weight_in_fp16_is_the_culprit(folder):
    def changed(read, tensor):
        buffer = read.model.buffers[tensor.buffer]
        buffer.data = (np.frombuffer(bytes(memoryview(buffer.data)), "<f2") * np.float16(1.1)).view(np.uint8)

    report = compare(folder, planted(folder, "halves", "dense", changed), layers="guilty")
    assert report.verdict == "fail"
    assert ["dense" in culprit.node for culprit in report.culprits] == [True]


@pytest.mark.parametrize("layer", ["first", "depth", "dense"])
def test_the_layer_of_a_changed_weight_is_the_culprit(layer, folder):
    report = compare(folder, planted(folder, "float", layer, changed_weight), layers="guilty")
    (culprit,) = report.culprits
    assert report.verdict == "fail"
    assert (culprit.cause, layer in culprit.node) == ("weights", True)


@pytest.mark.parametrize("file", ["int8", "throughout"])
def test_the_layer_of_a_wrong_scale_is_the_culprit(file, folder):
    report = compare(folder, planted(folder, file, "dense", changed_scale), layers="guilty")
    assert ["dense" in culprit.node for culprit in report.culprits] == [True]


def test_what_a_step_explains_is_expected(folder):
    """Without the steps that stand in the file, each of these layers would err by thousands of times its noise."""
    report = compare(folder, "int8", layers="guilty")
    scores = [layer.expected["rms_z"] for layer in report.layers if layer.verdict == "ok" and layer.expected]
    assert len(scores) >= 5
    assert max(scores) < 4


def test_layers_of_tensorflow_are_looked_at_where_it_is_the_candidate(folder):
    runners = [OnnxrtRunner(threads=1), TfRunner()]
    report = Comparator(folder / "saved", runners, data_loader=SAMPLES, reference="onnxrt", layers="guilty").compare()
    assert sum(layer.verdict == "ok" and layer.local is not None for layer in report.layers) >= 6


# ---- control flow ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flowing(tmp_path_factory):
    """A product, an If or a loop with a product in it, and a product: as SavedModels and as .tflite."""
    folder = tmp_path_factory.mktemp("flowing")
    before, inside, behind = (
        tf.constant(np.random.default_rng(i).normal(0, 0.4, (8, 8)), tf.float32) for i in range(3)
    )
    signature = [tf.TensorSpec([2, 8], tf.float32, name="x")]

    class Network(tf.Module):
        @tf.function(input_signature=signature)
        def branch(self, x):
            h = tf.nn.relu(tf.matmul(x, before))
            h = tf.cond(tf.reduce_sum(h) > 9.0, lambda: tf.tanh(tf.matmul(h, inside)), lambda: tf.matmul(h, inside))
            return {"y": tf.matmul(h, behind)}

        @tf.function(input_signature=signature)
        def loop(self, x):
            h = tf.nn.relu(tf.matmul(x, before))
            step = lambda i, h: (i + 1, tf.tanh(tf.matmul(h, inside)))  # noqa: E731
            return {"y": tf.matmul(tf.while_loop(lambda i, h: i < 3, step, (0, h))[1], behind)}

    network = Network()
    for name in ("branch", "loop"):
        tf.saved_model.save(network, str(folder / name), signatures=getattr(network, name))
        made = tf.lite.TFLiteConverter.from_saved_model(str(folder / name)).convert()
        (folder / f"{name}.tflite").write_bytes(made)
    return folder


FLOWS = {"branch": ("If", "1 IF"), "loop": ("Loop", "1 WHILE")}
ROWS = [{"x": (1 + i) * np.random.default_rng(i).random((2, 8), dtype=np.float32)} for i in range(2)]


def flows(folder, name, file, reference=None):
    model, first = (
        (folder / f"{name}.tflite", OnnxrtRunner(threads=1)) if reference is None else (folder / name, reference)
    )
    runners = [first, TfliteRunner(str(folder / f"{file}.tflite"))]
    return Comparator(model, runners, data_loader=ROWS, layers="guilty").compare()


@pytest.mark.parametrize("name", FLOWS)
def test_outputs_of_control_flow_and_the_layers_around_it_are_compared(flowing, name):
    report = flows(flowing, name, name)
    op, told = FLOWS[name]
    assert (report.verdict, report.culprits) == ("pass", ())
    assert {(layer.op, layer.verdict) for layer in report.layers} >= {("MatMul", "ok"), (op, "ok")}
    assert not [layer for layer in report.layers if layer.verdict != "ok"]
    assert report.runners[1].notes == (f"{told}: run whole, nothing inside their bodies is compared.",)


@pytest.mark.parametrize("name", FLOWS)
def test_control_flow_of_a_saved_model_is_compared_with_its_tflite(flowing, name):
    report = flows(flowing, name, name, TfRunner())
    assert (report.verdict, report.culprits) == ("pass", ())


PLACES = [
    ("branch", lambda read: read.graph.operators[0].inputs[1], "MatMul"),
    ("branch", lambda read: read.graph.operators[-1].inputs[1], "MatMul"),
    ("loop", lambda read: read.graph.operators[-1].inputs[1], "MatMul"),
    ("loop", None, "Loop"),
]


@pytest.mark.parametrize(("name", "where", "op"), PLACES)
def test_a_fault_before_behind_and_inside_control_flow_is_blamed_on_its_layer(flowing, name, where, op):
    read = TfliteFile(flowing / f"{name}.tflite")
    inside = [t for graph in read.model.subgraphs[1:] for t in graph.tensors if list(t.shape) == [8, 8]]
    changed_weight(read, inside[-1] if where is None else read.graph.tensors[int(where(read))])
    (flowing / "changed.tflite").write_bytes(packed(read.model))
    report = flows(flowing, name, "changed")
    (culprit,) = report.culprits
    assert (report.verdict, culprit.op, culprit.cause) == ("fail", op, "weights")
    assert ("its body was not entered" in culprit.evidence) == (op == "Loop")


def test_a_scalar_may_be_given_in_place_of_what_computes_it(flowing):
    model = load(flowing / "branch.tflite")
    with TfliteRunner().session(model) as session:
        found = [session.infer({"Sum": np.array(value, np.float32)}, ["Greater"])["Greater"] for value in (8, 10)]
    assert [(each.shape, bool(each)) for each in found] == [((), False), ((), True)]


# ---- what is said and refused ---------------------------------------------------------------------------------------


def test_that_integers_are_given_as_floats_is_said(folder):
    notes = compare(folder, "throughout").runners[-1].notes
    assert notes == ("image, output_0: scaled integers in the file, given and taken as the numbers they stand for.",)


def test_a_network_of_another_kind_is_refused_with_the_option(folder):
    with pytest.raises(UsageError, match=r"saved is none\. Name it: --tflite FILE\.tflite\.$"):
        TfliteRunner().open(load(folder / "saved"))


def test_a_file_beside_two_models_is_refused_rather_than_not_run(folder):
    runners = [OnnxrtRunner(), TfliteRunner(file=str(folder / "float.tflite"))]
    with pytest.raises(UsageError, match=r"tflite has a network of its own, neither .*: name one model with it\."):
        Comparator(folder / "saved", runners, candidate_model=folder / "saved", data_loader=[]).compare()


def test_another_kind_of_file_behind_the_option_is_refused():
    with pytest.raises(UsageError, match=r"--tflite digits\.onnx: expected FILE\.tflite\."):
        TfliteRunner(file="digits.onnx")


@pytest.mark.parametrize("content", [b"", b"no model", b"\x1c\x00\x00\x00TFL3" + bytes(8)])
def test_what_is_no_tflite_file_is_told_in_a_line(content, tmp_path):
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.tflite: (not a|a damaged|a) TFLite model"):
        load(tmp_path / "m.tflite")


def test_tensorflow_does_not_run_tflite(folder):
    with pytest.raises(UsageError, match=r"float\.tflite is TFLite"):
        TfRunner().open(load(folder / "float.tflite"))


def test_the_command_takes_the_file_behind_the_flag(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["saved", "--tf", "--tflite", "float.tflite", "--samples", "1"]) == 0
    assert "tflite@float.tflite agrees with tf" in capsys.readouterr().out


def test_a_runner_without_a_model_runs_the_only_one_that_is_named(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["--onnxrt", "--tflite", "float.tflite", "--samples", "1"]) == 0
    assert "tflite agrees with onnxrt" in capsys.readouterr().out
