"""Random operators layer by layer: one draw for each sample, whoever is the reference, and no fault for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from layerdiff import Comparator, OnnxrtRunner, TfRunner
from layerdiff.graph.load import load

from support import networks
from support.edits import edited, scaled
from support.models import parsed

ORT = OnnxrtRunner(threads=1)


def inputs(name: str = "x") -> list[dict[str, np.ndarray]]:
    return [{name: np.random.default_rng(i).normal(size=(4, 16)).astype(np.float32)} for i in range(3)]


def errors(report) -> dict[str, tuple[float | None, float | None]]:
    """Local and cumulative relative error of each layer."""
    return {n.tensor: tuple((m or {}).get("rel_l2") for m in (n.local, n.cumulative)) for n in report.layers}


# ---- ONNX Runtime ---------------------------------------------------------------------------------------------------


def dropout() -> onnx.ModelProto:
    """A mask that is drawn once and used twice, with layers between: a second draw would show."""
    w = networks.Writer(1)
    x = w.linear("x", "first", (16, 32))
    w.node("RandomUniformLike", [x], "draw")
    w.node("Greater", ["draw", w.value("half", 0.5)], "kept")
    mask = w.node("Cast", ["kept"], "mask", to=1)
    x = w.node("Mul", [x, mask], "dropped")
    for i in range(3):
        x = w.node("Tanh", [w.linear(x, f"l{i}", (32, 32))], f"t{i}")
    w.linear(w.node("Mul", [x, mask], "again"), "y", (32, 8))
    return w.model({"x": (1, [4, 16])}, ["y"])


@pytest.mark.parametrize("memory", [None, 1 << 12])
def test_onnxrt_draws_once_for_each_sample(memory):
    other = OnnxrtRunner(threads=1, optimization="disable")
    report = Comparator(dropout(), [ORT, other], data_loader=inputs(), layers="guilty", memory=memory).compare()
    assert report.culprits == ()
    assert len({layer.piece for layer in report.layers}) > (5 if memory else 0)
    for local, cumulative in errors(report).values():
        assert local is None or (local < 1e-6 and cumulative < 1e-6)


@pytest.mark.parametrize("memory", [None, 1 << 12])
def test_a_fault_behind_a_draw_is_found_and_contributes(memory):
    proto = dropout()
    report = Comparator(
        proto,
        [ORT],
        candidate_model=edited(proto, scaled("l1.w", 1.01)),
        data_loader=inputs(),
        layers="guilty",
        memory=memory,
    ).compare()
    (culprit,) = report.culprits
    assert (culprit.node, culprit.cause) == ("n_l1.m", "weights")
    assert culprit.contribution == pytest.approx(1, abs=0.01)


# ---- TensorFlow -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> Path:
    """The same in TensorFlow, frozen with its dropout left on."""
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)

    def weight(*shape: int):
        return tf.constant((rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32))

    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [4, 16], name="x")
        x = tf.nn.relu(tf.matmul(x, weight(16, 32), name="first"), name="act")
        kept = tf.greater_equal(tf.random.uniform([4, 32], name="draw"), 0.5, name="kept")
        mask = tf.cast(kept, tf.float32, name="mask")
        x = tf.multiply(x, mask, name="dropped")
        for i in range(3):
            x = tf.tanh(tf.matmul(x, weight(32, 32), name=f"m{i}"), name=f"t{i}")
        x = tf.multiply(x, mask, name="again")
        tf.identity(tf.matmul(x, weight(32, 8)), name="y")
    path = tmp_path_factory.mktemp("random") / "frozen.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.mark.tf
@pytest.mark.parametrize("memory", [None, 1 << 13])
def test_tensorflow_draws_once_for_each_sample(frozen, memory):
    report = Comparator(load(frozen), [TfRunner(), ORT], data_loader=inputs(), layers="guilty", memory=memory).compare()
    assert report.reference == "tf"
    assert report.culprits == ()
    assert len({layer.piece for layer in report.layers}) > (5 if memory else 1)
    drawn = [layer.tensor for layer in report.layers if layer.verdict == "unknown"]
    assert drawn == ["draw/RandomUniform:0"]
    for name, (local, cumulative) in errors(report).items():
        assert name in drawn or (local < 1e-6 and cumulative < 1e-6)


@pytest.mark.tf
@pytest.mark.parametrize("memory", [None, 1 << 13])
def test_a_fault_behind_tensorflows_draw_is_found_and_contributes(frozen, memory):
    model = load(frozen)
    weight = next(n for n in model.proto.graph.node if n.output[0] == "m1:0").input[1]
    other = edited(model.proto, scaled(weight, 1.01))
    runners = [TfRunner(model=frozen), OnnxrtRunner(model=_saved(frozen, other), threads=1)]
    report = Comparator(None, runners, data_loader=inputs(), layers="guilty", memory=memory).compare()
    (culprit,) = report.culprits
    assert culprit.cause in ("weights", "scale")
    assert culprit.tensors == ("t1:0",)
    assert culprit.contribution == pytest.approx(1, abs=0.01)


def _saved(beside: Path, proto: onnx.ModelProto) -> Path:
    path = beside.with_name("candidate.onnx")
    onnx.save(proto, path)
    return path


# ---- told to draw others --------------------------------------------------------------------------------------------

W = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32) / 4


def drawing(nodes: str, **constants) -> onnx.ModelProto:
    """A layer, nodes that make ``b`` of its ``a``, and a layer behind them."""
    text = f"g (float[4,16] x) => (float[4,16] y) {{ a = MatMul(x, w) {nodes} y = MatMul(b, w) }}"
    return parsed(text, w=W, **constants)


def dropping(ratio: float | None, training: bool = True) -> onnx.ModelProto:
    read = "" if ratio is None else "ratio"
    return drawing(f"b = Dropout(a, {read}, training)", ratio=np.float32(ratio or 0), training=np.array(training))


def compared(mine: onnx.ModelProto, theirs: onnx.ModelProto):
    return Comparator(mine, [ORT], candidate_model=theirs, data_loader=inputs(), layers="guilty").compare()


LIKE, ADD = "r = RandomNormalLike<{}>(a)", " b = Add(a, r)"


@pytest.mark.parametrize(
    ("mine", "theirs", "told"),
    [
        (drawing(LIKE.format("scale = 0.1") + ADD), drawing(LIKE.format("scale = 0.5") + ADD), "scale 0.1 against 0.5"),
        (drawing(LIKE.format("scale = 1.0") + ADD), drawing(LIKE.format("scale = 0.5") + ADD), "scale 1 against 0.5"),
        (drawing(LIKE.format("seed = 3.0") + ADD), drawing(LIKE.format("seed = 3.0, mean = 4.0") + ADD),
         "mean 0 against 4"),
        (drawing(LIKE.format("seed = 3.0") + ADD), drawing(LIKE.format("seed = 4.0") + ADD), "seed 3 against 4"),
        (drawing("r = RandomNormal<shape = [4, 16]>()" + ADD),
         drawing("r = RandomNormal<shape = [4, 16], mean = 1.0>()" + ADD), "mean 0 against 1"),
        (drawing("r = RandomUniform<shape = [4, 16]>()" + ADD),
         drawing("r = RandomUniform<shape = [4, 16], high = 2.0>()" + ADD), "high 1 against 2"),
        (drawing("r = RandomUniformLike<low = -1.0>(a)" + ADD), drawing("r = RandomUniformLike(a)" + ADD),
         "low -1 against 0"),
        (dropping(0.1), dropping(0.7), "ratio 0.1 against 0.7"),
        (dropping(None), dropping(0.7), "ratio 0.5 against 0.7"),
        (dropping(0.1), dropping(0.1, training=False), "training_mode True against False"),
    ],
)  # fmt: skip
def test_another_attribute_of_what_draws_is_told(mine, theirs, told):
    report = compared(mine, theirs)
    (culprit,) = report.culprits
    assert (culprit.cause, [fact.text for fact in culprit.facts]) == ("attribute", [told])
    assert report.verdict in ("fail", "undecided")


@pytest.mark.parametrize(
    ("mine", "theirs", "cause", "told"),
    [
        ("p = Identity(tenth) r = Bernoulli(p)", "p = Identity(half) r = Bernoulli(p)", "weights", "greatest 0.4"),
        (
            "r = RandomNormalLike(a)",
            "r = RandomUniformLike(a)",
            "wrong-op",
            "RandomNormalLike RandomNormalLike_1 against RandomU",
        ),
    ],
    ids=["another probability", "another distribution"],
)
def test_what_else_differs_of_what_draws_is_told(mine, theirs, cause, told):
    tenth, half = (np.full((4, 16), value, np.float32) for value in (0.1, 0.5))
    (culprit,) = compared(*(drawing(text + ADD, tenth=tenth, half=half) for text in (mine, theirs))).culprits
    assert culprit.cause == cause
    assert told in culprit.facts[0].text


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (LIKE.format("scale = 0.5") + ADD, LIKE.format("scale = 0.5, seed = 3.0") + ADD),
        (LIKE.format("scale = 0.5") + ADD, "n = RandomNormalLike(a) r = Mul(n, half)" + ADD),
        ("r = RandomNormalLike(a)" + ADD, "h = Cast<to = 10>(a) n = RandomNormalLike(h) r = Cast<to = 1>(n)" + ADD),
        ("r = RandomNormalLike(a)" + ADD,
         "h = Cast<to = 10>(a) n = RandomNormalLike<dtype = 1>(h) r = Cast<to = 1>(n)" + ADD),
    ],
    ids=["a seed where none is asked for", "scaled behind it", "in FP16", "another type"],
)  # fmt: skip
def test_another_way_to_draw_the_same_is_no_culprit(mine, theirs):
    assert compared(*(drawing(text, half=np.float32(0.5)) for text in (mine, theirs))).culprits == ()


@pytest.mark.parametrize("seed", [72, 79, 80])
def test_draws_of_which_one_is_small_are_nothing_that_fp16_cannot_hold(seed):
    """Of these seeds FP16 and FP32 draw otherwise."""
    onnxruntime.set_seed(seed)
    half = "h = Cast<to = 10>(a) n = RandomNormalLike(h) r = Cast<to = 1>(n)" + ADD
    assert compared(drawing("r = RandomNormalLike(a)" + ADD), drawing(half)).culprits == ()


# ---- Dropout --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nodes",
    [
        "training = Identity(no)",
        "training = Not(yes)",
        "training = And(yes, no)",
        "training = Greater(ratio, ratio)",
    ],
)
def test_a_dropout_that_a_constant_turns_off_draws_nothing(nodes):
    constants = {"ratio": np.float32(0.7), "yes": np.array(True), "no": np.array(False)}
    report = compared(
        drawing("b = Tanh(a)"), drawing(f"{nodes} c = Tanh(a) b = Dropout(c, ratio, training)", **constants)
    )
    assert report.verdict == "pass"
    mine = drawing(f"{nodes} c = Tanh(a) b = Dropout(c, ratio, training)", **constants)
    assert compared(mine, drawing("b = Tanh(a)")).verdict == "pass"


@pytest.mark.parametrize("optimization", ["all", "disable"])
def test_a_dropout_in_training_mode_that_one_file_alone_has_is_told(optimization):
    runner = OnnxrtRunner(optimization=optimization)
    none, drops = (
        drawing("b = Tanh(a)"),
        drawing("c = Tanh(a) [drop] b = Dropout(c, ratio, training)", ratio=np.float32(0.7), training=np.array(True)),
    )
    for pair, side in ((drops, none), "missing in the candidate"), ((none, drops), "in the candidate alone"):
        report = Comparator(pair[0], [runner], candidate_model=pair[1], data_loader=inputs(), layers="all").compare()
        (culprit,) = report.culprits
        assert (culprit.cause, culprit.facts[0].text) == ("wrong-op", f"Dropout drop is {side}")


def test_a_dropout_that_keeps_every_value_draws_nothing():
    assert compared(dropping(0.0), drawing("b = Identity(a)")).verdict == "pass"


def test_a_dropout_that_may_be_removed_is_not_said_to_have_drawn():
    report = compared(dropping(0.7), dropping(0.7))
    assert report.verdict == "undecided"
    assert (
        "draws random values without a seed in training mode, unless the runtime removes it "
        "(export in evaluation mode: model.eval()); " in report.of(report.runners[-1].name)[0].reason
    )
    assert any("draws random values unless the runtime removes it" in notice.text for notice in report.notices)
