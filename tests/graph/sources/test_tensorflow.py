"""TensorFlow programs: read from four kinds of file, converted, traced back, run, fetched from and fed into."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, ModelError, OnnxrtRunner, RunnerError, TfRunner, UsageError, load
from layerdiff.runners.contract.capabilities import Capabilities

from support.paths import DIGITS

pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")
ort = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.tf

LAST = ["logits/BiasAdd", "probabilities"]


@pytest.fixture(scope="module")
def images():
    return np.load(DIGITS / "heldout.npz")["image"][:8]


@pytest.fixture(scope="module")
def frozen():
    return load(DIGITS / "digits.pb")


@pytest.fixture(scope="module")
def session(frozen):
    with TfRunner().open(frozen) as opened:
        yield opened


@pytest.fixture(scope="module")
def keras_model():
    from layerdiff.graph.sources.tensorflow_packages import import_tensorflow

    import_tensorflow()
    import keras

    return keras.models.load_model(DIGITS / "digits.keras", compile=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, keras_model):
    folder = tmp_path_factory.mktemp("saved") / "digits"
    keras_model.export(folder, verbose=False)
    keras_model.save(folder.with_suffix(".h5"))
    return folder


def ort_tensors(model, feed, names):
    """What ONNX Runtime computes for inner tensors, without graph optimization."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    known = {o.name for o in proto.graph.output}
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names if n not in known)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    opened = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, opened.run(names, feed), strict=True))


def relative(a, b):
    """Relative L2 difference."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-30))


def disagreements(model, session, feed):
    """Traced tensors whose value in TensorFlow is not the one in ONNX: name -> why."""
    names = [name for name in model.tf.tensors if name not in feed]
    theirs, ours = ort_tensors(model, feed, names), session.infer(feed, names)
    wrong = {}
    for name in names:
        if ours[name].shape != theirs[name].shape or ours[name].dtype != theirs[name].dtype:
            wrong[name] = (ours[name].shape, theirs[name].shape, ours[name].dtype, theirs[name].dtype)
        elif relative(ours[name], theirs[name]) > 2e-5:
            wrong[name] = relative(ours[name], theirs[name])
    return wrong


# ------------------------------------------------------------------------------------------------------- four sources


def test_a_frozen_graph_names_its_inputs_and_outputs_by_itself(frozen):
    assert [(s.name, s.dtype, s.shape[1:]) for s in frozen.inputs] == [("image", np.float32, (8, 8, 1))]
    assert [(s.name, s.dtype, s.shape[1:]) for s in frozen.outputs] == [("probabilities", np.float32, (10,))]
    assert not isinstance(frozen.inputs[0].shape[0], int)  # the batch stays free
    assert frozen.tf.inputs == {"image": "image:0"}
    assert frozen.tf.outputs == {"probabilities": "probabilities:0"}


@pytest.mark.parametrize("kind", ["digits.keras", "digits.h5", "saved_model", "digits.onnx"])
def test_every_source_computes_the_same(kind, saved, session, images):
    path = {"digits.h5": saved.with_suffix(".h5"), "saved_model": saved}.get(kind, DIGITS / kind)
    model = load(path)
    runner = OnnxrtRunner() if kind == "digits.onnx" else TfRunner()
    with runner.open(model) as opened:
        result = opened.infer({model.inputs[0].name: images})
    (values,) = result.values()
    assert relative(session.infer({"image": images})["probabilities"], values) < 1e-6


def test_a_keras_file_and_a_saved_model_keep_their_names(saved):
    assert [s.name for s in load(DIGITS / "digits.keras").inputs] == ["image"]
    assert [s.name for s in load(DIGITS / "digits.keras").outputs] == ["probabilities"]
    assert [s.name for s in load(saved).inputs] == ["image"]


def test_conversion_gives_the_same_bytes_every_time(frozen):
    assert load(DIGITS / "digits.pb").serialized() == frozen.serialized()
    assert frozen.proto.opset_import[0].version == 17
    assert frozen.proto.ir_version == 8


@pytest.mark.parametrize(
    ("inputs", "outputs", "names"),
    [
        (("image:0",), ("probabilities:0",), (["image:0"], ["probabilities:0"])),
        ((), ("logits/BiasAdd",), (["image"], ["logits/BiasAdd"])),
        (("pool/MaxPool2d:0",), tuple(LAST), (["pool/MaxPool2d:0"], LAST)),
    ],
)
def test_inputs_and_outputs_can_be_named(inputs, outputs, names, images, session):
    model = load(DIGITS / "digits.pb", inputs=inputs, outputs=outputs)
    assert ([s.name for s in model.inputs], [s.name for s in model.outputs]) == names
    feed = {names[0][0]: images}
    if "pool" in names[0][0]:
        feed = {names[0][0]: session.infer({"image": images}, ["pool/MaxPool2d:0"])["pool/MaxPool2d:0"]}
        feed = {k: v.transpose(0, 2, 3, 1) for k, v in feed.items()}  # an input keeps TensorFlow's layout
    with TfRunner().open(model) as tf, OnnxrtRunner().open(model) as onnxrt:
        a, b = tf.infer(feed), onnxrt.infer(feed)
    assert list(a) == names[1]
    for name in names[1]:
        assert relative(a[name], b[name]) < 1e-5


# ------------------------------------------------------------------------------------------------------ inner tensors


def test_traced_tensors_have_the_value_that_onnx_has(frozen, session, images):
    assert disagreements(frozen, session, {"image": images}) == {}


def test_convolutions_are_traced_through_the_fold_of_their_normalization(frozen):
    convolutions = [n.output[0] for n in frozen.index.nodes if n.op_type == "Conv"]
    assert len(convolutions) == 6
    for name in convolutions:
        assert frozen.tf.tensors[name].endswith("batchnorm/add_1:0")
        assert frozen.tf.permutations[name] == (0, 3, 1, 2)


def test_a_tensor_of_another_rank_is_not_traced(frozen):
    (pooled,) = [n.output[0] for n in frozen.index.nodes if n.op_type == "GlobalAveragePool"]
    assert pooled not in frozen.tf.tensors  # [n, 32, 1, 1] in ONNX, [n, 32] in TensorFlow


@pytest.mark.parametrize("name", ["stem_relu/Relu:0", "block1_add/Add:0", "pool/MaxPool2d:0", "logits/BiasAdd:0"])
def test_an_inner_tensor_can_be_fed(name, frozen, session, images):
    value = ort_tensors(frozen, {"image": images}, [name])[name]
    whole = session.infer({"image": images})["probabilities"]
    assert relative(session.infer({name: value})["probabilities"], whole) < 1e-5
    # and it is the fed value that counts, not the one computed from the image
    changed = session.infer({"image": images, name: value[::-1].copy()})["probabilities"]
    assert relative(changed, whole[::-1]) < 1e-5


def test_fetching_what_was_fed_returns_it(session, images):
    back = session.infer({"image": images}, ["image", "probabilities"])
    assert list(back) == ["image", "probabilities"]
    np.testing.assert_array_equal(back["image"], images)
    back["image"][0] = 7  # the caller's own copy
    assert images.max() <= 1


def test_a_session_refuses_what_it_cannot_do(session, images):
    with pytest.raises(RunnerError, match=r"'nothing' has no counterpart"):
        session.infer({"image": images}, ["nothing"])
    with pytest.raises(RunnerError, match=r"the input 'image' was not given"):
        session.infer({})


def build(name):
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    if name == "transformer":
        x = first = keras.Input((12,), dtype="int32")
        x = layers.Embedding(100, 32)(x)
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(y, y)])
        y = layers.Dense(64, activation="gelu")(layers.LayerNormalization()(x))
        return keras.Model(first, layers.Add()([x, layers.Dense(32)(y)]))
    if name == "recurrent":
        first = keras.Input((12, 16))
        x = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(first)
        return keras.Model(first, layers.Dense(3)(layers.LSTM(6)(x)))
    first = keras.Input((8, 8, 8))  # as many channels as rows: shapes cannot tell the layout
    a = layers.Conv2D(8, 3, padding="same", activation="relu")(first)
    x = layers.Conv2D(8, 3, padding="same", activation="swish", dilation_rate=2)(layers.MaxPooling2D()(a))
    x = layers.Concatenate()([a, layers.UpSampling2D(interpolation="bilinear")(x)])
    x = layers.DepthwiseConv2D(3, padding="same")(layers.LeakyReLU()(layers.Conv2DTranspose(8, 3, padding="same")(x)))
    return keras.Model(first, layers.Conv2D(8, 1)(x))


@pytest.mark.parametrize(("name", "share"), [("transformer", 0.3), ("recurrent", 0.1), ("unet", 0.8)])
def test_nothing_is_traced_to_another_value(name, share, tmp_path):
    """Names of intermediates (SquaredDifference is a Sub first), folds, layouts that shapes cannot tell."""
    path = tmp_path / f"{name}.keras"
    build(name).save(path)
    model = load(path)
    (spec,) = model.inputs
    rng = np.random.default_rng(0)
    shape = (3, *spec.shape[1:])
    x = rng.integers(0, 100, shape).astype(spec.dtype) if spec.dtype.kind == "i" else rng.random(shape, np.float32)
    with TfRunner().open(model) as opened:
        assert disagreements(model, opened, {spec.name: x}) == {}
    assert len(model.tf.tensors) >= share * len(model.index.nodes)


# ----------------------------------------------------------------------------------------------------------- refusals


def test_tf_refuses_an_onnx_model():
    with pytest.raises(UsageError, match=r"^--tf needs a TensorFlow model .*; digits\.onnx is ONNX\.$"):
        TfRunner().open(load(DIGITS / "digits.onnx"))


def broken(tmp_path, kind):
    whole = (DIGITS / "digits.pb").read_bytes()
    path = tmp_path / "model.pb"
    if kind == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "noise":
        path.write_bytes(b"not a graph at all" * 50)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "onnx":
        path.write_bytes((DIGITS / "digits.onnx").read_bytes())
    elif kind == "missing node":
        from tensorflow.compat.v1 import GraphDef

        graph = GraphDef.FromString(whole)
        del graph.node[3]
        path.write_bytes(graph.SerializeToString())
    elif kind == "variables":
        from tensorflow.compat.v1 import GraphDef

        graph = GraphDef.FromString(whole)
        graph.node.add(name="v", op="VarHandleOp")
        path.write_bytes(graph.SerializeToString())
    elif kind == "folder":
        path = tmp_path / "folder"
        path.mkdir()
    elif kind == "saved model":
        path = tmp_path / "folder"
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"\x08\x01nothing")
    else:
        path = tmp_path / f"model.{kind}"
        path.write_bytes(b"nothing")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", r"not a frozen TensorFlow graph, or cut short"),
        ("noise", r"not a frozen TensorFlow graph"),
        ("empty", r"not a frozen TensorFlow graph"),
        ("onnx", r"not a frozen TensorFlow graph"),
        ("missing node", r"cannot read the graph"),
        ("variables", r"holds variables \('v'\)"),
        ("folder", r"without saved_model\.pb"),
        ("saved model", r"not a SavedModel"),
        ("keras", r"not a zip archive, as .keras files are"),
        ("h5", r"not a Keras model"),
    ],
)
def test_files_that_are_not_what_they_say(kind, message, tmp_path):
    with pytest.raises(ModelError, match=message) as raised:
        load(broken(tmp_path, kind))
    assert len(str(raised.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ((), ("probabilites",), r"no tensor 'probabilites'. Did you mean probabilities"),
        ((), ("probabilities:3",), r"no tensor 'probabilities:3'"),
        (("imag",), (), r"no tensor 'imag'. Did you mean image"),
        (("logits/BiasAdd",), ("pool/MaxPool2d",), r"depend on the placeholder 'image'"),
    ],
)
def test_names_that_the_graph_lacks(inputs, outputs, message):
    with pytest.raises(ModelError, match=message):
        load(DIGITS / "digits.pb", inputs=inputs, outputs=outputs)


def test_only_frozen_graphs_take_names():
    with pytest.raises(ModelError, match=r"for frozen graphs only"):
        load(DIGITS / "digits.keras", outputs=("x",))


def test_the_configuration_is_plain_data():
    import pickle

    runner = TfRunner("frozen.pb")
    assert pickle.loads(pickle.dumps(runner)) == runner
    assert (runner.name, runner.trust, runner.arithmetic.name) == ("tf", 0, "fp32")
    assert TfRunner.capabilities == Capabilities(pieces=False, inner_tensors=True, feeds_inner_tensors=True)
    with pytest.raises(UsageError, match=r"--tf=npu: expected cpu, gpu"):
        TfRunner.from_value("npu")


def test_stderr_stays_clean_and_placeholders_with_defaults_need_no_feed(tmp_path):
    """In a process of its own: TensorFlow writes when it is imported."""
    code = f"""
import numpy as np
from layerdiff import TfRunner, load
from layerdiff.graph.sources.tensorflow_packages import import_tensorflow
tf = import_tensorflow()
with tf.Graph().as_default() as graph:
    x = tf.compat.v1.placeholder(tf.float32, (None, 3), name="x")
    rate = tf.compat.v1.placeholder_with_default(np.float32(2), (), name="rate")
    values, places = tf.math.top_k(x * rate, 2, name="top")
open(r"{tmp_path / "model.pb"}", "wb").write(graph.as_graph_def().SerializeToString())
model = load(r"{tmp_path / "model.pb"}")
with TfRunner().open(model) as session:
    result = session.infer({{"x": np.array([[1, 3, 2]], np.float32)}})
print([s.name for s in model.inputs], {{k: (v.tolist(), str(v.dtype)) for k, v in result.items()}})
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.strip() == "['x'] {'top': ([[6.0, 4.0]], 'float32'), 'top:1': ([[1, 2]], 'int32')}"


# --------------------------------------------------------------------------------------------------- a larger network


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), [("ResNet50", (224, 224, 3)), ("MobileNetV2", (96, 96, 3))])
def test_keras_networks_agree_everywhere(name, shape, tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, name)(weights=None, input_shape=shape)
    rng = np.random.default_rng(0)
    for layer in network.layers:  # statistics that matter, or a folded normalization would equal its convolution
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            drawn = [rng.uniform(0.5, 1.5, gamma.shape), rng.normal(0, 0.3, beta.shape)]
            layer.set_weights([*drawn, rng.normal(0, 0.3, mean.shape), rng.uniform(0.5, 1.5, variance.shape)])
    network.save(tmp_path / "network.keras")
    model = load(tmp_path / "network.keras")
    (spec,) = model.inputs
    feed = {spec.name: rng.random((2, *shape), np.float32)}
    with TfRunner().open(model) as tf, OnnxrtRunner().open(model) as onnxrt:
        assert disagreements(model, tf, feed) == {}
        a, b = tf.infer(feed), onnxrt.infer(feed)
    assert all(relative(a[k], b[k]) < 5e-6 for k in a)
    assert len(model.tf.tensors) >= 0.97 * len(model.index.nodes)


def test_signatures_that_are_not_compared_are_told(tmp_path, saved):
    import tensorflow as tf

    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
        def one(self, x):
            return {"y": 2 * x}

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
        def second(self, x):
            return {"y": 3 * x}

    program = Two()
    tf.saved_model.save(program, str(tmp_path / "two"), {"serving_default": program.one, "second": program.second})
    report = Comparator(tmp_path / "two", [TfRunner(), OnnxrtRunner()]).compare()
    (notice,) = [n for n in report.notices if n.code == "signatures-not-compared"]
    assert notice.text == f"The signature 'second' of {tmp_path / 'two'} was not compared: it holds several."
    keys = ["serving_default", "second"]
    lite = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "two"), signature_keys=keys).convert()
    (tmp_path / "two.tflite").write_bytes(lite)
    (other,) = load(tmp_path / "two.tflite").signatures  # the one that is not of the main graph
    assert other in keys
    assert load(saved).signatures == ()  # Keras exports one program under two names
