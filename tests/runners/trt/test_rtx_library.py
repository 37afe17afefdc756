"""The parser and the builder of the real TensorRT for RTX, which need no GPU: the code that TensorRT 11 runs through.

Skipped where the library is not installed; docs/gpu.md says how it is.
"""

import numpy as np
import onnx
import pytest
from layerdiff.compare.cli.command import main
from layerdiff.graph.cutting.slices import Slice, explode
from layerdiff.graph.errors import BuildError, RunnerError
from layerdiff.graph.model import Model
from layerdiff.runners.contract.workload import ShapeRange, Workload
from layerdiff.runners.trt import cuda
from layerdiff.runners.trt.in_fp32 import FP32_ONLY
from layerdiff.runners.trt.trt_rtx import RtxRunner
from onnx import TensorProto, helper

from support.models import assembled, parsed
from support.paths import ROOT
from support.trt_cases import network, samples

pytestmark = pytest.mark.rtx
pytest.importorskip("tensorrt_rtx")
DIGITS = ROOT / "examples" / "digits"


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch):
    """On a machine with a GPU, too, engines are built and not run: the card need not be one that they run on."""
    monkeypatch.setattr(cuda, "gpu", lambda: "")
    monkeypatch.setattr(cuda, "why_no_gpu", lambda: "no NVIDIA driver is installed")


def built(runner, model, fetch=(), **workload):
    told = []
    with runner.open(model, fetch=fetch, workload=Workload(**workload), progress=told.append) as session:
        assert session.info.not_run
        return session.info, told


RUNNERS = [
    RtxRunner(),
    RtxRunner(tf32=True),
    RtxRunner(fp16=True),
    RtxRunner(bf16=True),
    RtxRunner(int8=True),
    RtxRunner(int8_qdq="percentile", fp16=True),
    RtxRunner(fp8=True),
    RtxRunner(fp8=True, bf16=True),
    RtxRunner(fp16=True, keep=("fc",)),
    RtxRunner(optimization_level=1, workspace=1 << 30),
    RtxRunner(tactic_sources="edge_mask_convolutions,jit_convolutions"),
    RtxRunner(debug_tensors=True),
    RtxRunner(fp16=True, compute_capability=("7.5",)),
    RtxRunner(compute_capability=("8.0", "8.6", "8.9", "12.0")),
]


@pytest.mark.parametrize("runner", RUNNERS, ids=repr)
def test_the_builder_takes_every_mode_and_option(runner):
    info, told = built(runner, network(), samples=samples(1, 4))
    assert info.options["layers_computing"] >= 4
    assert info.options["profiles"] == [{"x": [[1, 3, 8, 8], [1, 3, 8, 8], [4, 3, 8, 8]]}]
    assert any(phrase.endswith(" %)") for phrase in told), "the progress monitor was not called"


def test_int8_and_fp8_are_scales_in_the_graph():
    plain, int8, fp8 = (
        built(runner, network(), samples=samples(2))[0].options["layers_parsed"]
        for runner in (RtxRunner(), RtxRunner(int8=True), RtxRunner(fp8=True))
    )
    assert plain < min(int8, fp8)


def test_several_profiles_in_one_engine():
    ranges = [{"x": ShapeRange(*[(n, 3, 8, 8)] * 3)} for n in (1, 4)]
    info, _ = built(RtxRunner(), network(), shapes=ranges[0], profiles=tuple(ranges))
    assert [profile["x"][1] for profile in info.options["profiles"]] == [[1, 3, 8, 8], [4, 3, 8, 8]]


def test_values_that_are_shapes_get_a_profile():
    model = Model(parsed("g (float[N, 4] x, int64[2] shape) => (float[A, B] y) { y = Reshape(x, shape) }"))
    feeds = [{"x": np.zeros((n, 4), np.float32), "shape": np.array([4, n])} for n in (2, 6)]
    info, _ = built(RtxRunner(), model, samples=lambda: iter(feeds))
    assert info.options["profiles"] == [{"x": [[2, 4], [2, 4], [6, 4]]}]


def test_weights_in_other_files_are_found(tmp_path):
    weights = {"w": np.ones((64, 64), np.float32)}
    x, y = (("x", TensorProto.FLOAT, [2, 64]), ("y", TensorProto.FLOAT, [2, 64]))
    proto = assembled([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], [x], [y], weights)
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    from layerdiff.graph.load import load

    whole = load(tmp_path / "net.onnx")
    built(RtxRunner(), whole)
    built(RtxRunner(fp16=True), whole)  # rewritten, and so handed over as bytes


def test_inner_tensors_can_be_observed():
    built(RtxRunner(), network(batch=2), fetch=("c", "p"))
    with pytest.raises(RunnerError, match=r"has no tensor 'nothing'"):
        built(RtxRunner(), network(batch=2), fetch=("nothing",))


def test_layers_run_side_by_side_are_built():
    model = network(batch=2)
    parts = [(1, Slice(("c",), (0,), ("x",))), (2, Slice(("r",), (1,), ("c",)))]
    built(RtxRunner(), explode(model, parts, {"x": model.inputs[0], "c": model.index.specs["c"]}))


ONLY_IN_FP32 = {
    "Celu": "y = Celu(x)",
    "ConvTranspose": "y = ConvTranspose(x, w)",
    "GRU": "a = Flatten<axis=1>(x) b = Unsqueeze(a, zero) y = GRU<hidden_size=2>(b, m, n)",
    "GlobalLpPool": "y = GlobalLpPool(x)",
    "HardSwish": "y = HardSwish(x)",
    "LpNormalization": "y = LpNormalization<axis=1>(x)",
    "LpPool": "y = LpPool<kernel_shape=[2, 2]>(x)",
    "MeanVarianceNormalization": "y = MeanVarianceNormalization(x)",
    "Mish": "y = Mish(x)",
}


@pytest.mark.parametrize("fmt", FP32_ONLY)
@pytest.mark.parametrize("op", ONLY_IN_FP32)
def test_operators_that_the_library_refuses_in_a_narrow_type_stay_in_fp32(op, fmt):
    rng = np.random.default_rng(0)
    weights = {"w": (4, 4, 2, 2), "m": (1, 6, 64), "n": (1, 6, 2)}
    body = ONLY_IN_FP32[op]
    named = {n: rng.normal(size=s).astype(np.float32) for n, s in weights.items() if f" {n}" in body}
    named |= {"zero": np.array([0])} if "zero" in body else {}
    model = Model(parsed(f"g (float[2, 4, 4, 4] x) => (float y) {{ {body} }}", **named))
    runner = RtxRunner(**{fmt: True}, compute_capability=("8.9",))
    info, _ = built(runner, model, samples=lambda: iter([{"x": np.ones((2, 4, 4, 4), np.float32)}]))
    assert any("in FP32, whose operator TensorRT does not take" in note for note in info.notes) == (
        op in FP32_ONLY[fmt]
    )


def test_they_stay_in_fp32_where_layers_are_run_side_by_side():
    model = Model(parsed("g (float[2, 4] x) => (float[2, 4] y) { [act] a = HardSwish(x) [y] y = Relu(a) }"))
    spec = model.inputs[0]
    parts = [(1, Slice(("a",), (0,), ("x",))), (2, Slice(("y",), (1,), ("a",)))]
    side_by_side = explode(model, parts, {"x": spec, "a": spec})
    feed = dict.fromkeys(("x", "a"), np.ones((2, 4), np.float32))
    built(RtxRunner(bf16=True, compute_capability=("8.9",)), side_by_side, samples=lambda: iter([feed]))


def test_what_the_list_of_these_operators_holds_is_tried():
    assert set(ONLY_IN_FP32) == set().union(*FP32_ONLY.values())


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z) { y = Identity(x) z = Relu(x) }",
        "g (float[?, 3] x) => (float[?, 3] y) { y = Relu(x) }",
        "g (int64[4] x) => (int64[4] y) { y = Add(x, x) }",
        "g (bool[4] x) => (bool[4] y) { y = Not(x) }",
        "g (double[4] x) => (double[4] y) { y = Mul(x, x) }",
    ],
    ids=["an input handed on", "nameless dimensions", "int64", "bool", "double"],
)
def test_networks_with_something_peculiar_are_built(text):
    kinds = {"int64": np.int64, "bool": bool, "double": np.float64}
    dtype = next((kind for name, kind in kinds.items() if f"({name}" in text), np.float32)
    feed = {"x": np.ones((2, 3) if "3]" in text else 4, dtype)}
    built(RtxRunner(), Model(parsed(text)), samples=lambda: iter([feed]))


REFUSED = [
    # network, what is said of it
    ("g (float[2, 4, 4] x) => (float[2] y) { a = Relu(x) [det] y = Det(a) }", r"'det' \(Det\).*is not supported"),
    ("g (float[8] x) => (float[k] y) { [once] y = Unique(x) }", r"'once' \(Unique\)"),
    ("g (float[2, 4] x) => (int64[2, k] y) { [where] y = NonZero(x) }", r"'where' \(NonZero\)"),
    ("g (string[2] x) => (string[2] y) { [text] y = StringNormalizer(x) }", r"'text' \(StringNormalizer\)"),
]


def test_an_input_of_a_type_that_it_does_not_have_is_named():
    model = Model(parsed("g (uint16[4] a, uint16[4] b) => (bool[4] y) { y = Less(a, b) }"))
    with pytest.raises(BuildError, match=r"cannot parse input 'a' \(uint16\) of <memory>: "):
        built(RtxRunner(), model)


def test_a_refusal_of_which_the_parser_does_not_know_the_node_names_it_too():
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="act"), helper.make_node("Add", ["a", "b"], ["y"], name="sum")]
    infos = [(name, TensorProto.FLOAT, shape) for name, shape in (("x", [2, 4]), ("b", [4]), ("y", [2, 4]))]
    model = Model(assembled(nodes, infos[:2], infos[2:], {}, opset=6))
    with pytest.raises(BuildError, match=r"cannot parse node 'sum' \(Add\) of .*Pre-opset 7 broadcasting"):
        built(RtxRunner(), model)


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_the_parser_s_refusals_name_the_node(text, said):
    with pytest.raises(BuildError, match=rf"TensorRT for RTX .* cannot parse node {said}"):
        built(RtxRunner(), Model(parsed(text)))


def test_the_builder_s_refusals_name_the_node():
    with pytest.raises(
        BuildError, match=r"cannot build node 'fc' of <memory>: Cannot compile operation 'fc' for Turing"
    ):
        built(RtxRunner(compute_capability=("7.5",)), network(batch=2))


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("g (float[4] x) => (float8e4m3fn[4] y) { [act] r = Relu(x) [narrow] y = Cast<to=17>(r) }", "narrow"),
        ("g (float8e4m3fn[4] x) => (float[4] y) { [wide] r = Cast<to=1>(x) [act] y = Relu(r) }", "wide"),
    ],
)
def test_where_the_log_names_a_tensor_its_node_is_named(text, node):
    with pytest.raises(BuildError, match=rf"cannot build node '{node}' of <memory>: .*has datatype FP8"):
        built(RtxRunner(), Model(parsed(text)))


def test_the_command_says_that_nothing_was_run_and_ends_as_undecided(capsys):
    words = [str(DIGITS / "digits.onnx"), "--data", str(DIGITS / "heldout.npz"), "--onnxrt", "--trt-rtx=fp16"]
    assert main([*words, "--compute-capability", "8.9"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "it was not run: its engine was built for compute capability 8.9, and there is no NVIDIA GPU" in shown
    assert "undecided: trt-rtx:fp16 cannot be judged" in shown
