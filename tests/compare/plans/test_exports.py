"""A plan in the words of other tools."""

import ast
import re
import shlex

import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare.cli import main
from layerdiff.compare.plans.exports import EXPORTS
from layerdiff.compare.report.plan import Plan

from support.plan_networks import overflowing, samples

NAMES = ("a/MatMul", "b[0]", "it's", "with,comma", "plain")
PLAN = Plan("emulate:fp16", "fp16", "found", 9, keep=NAMES)


def text(form: str, plan: Plan = PLAN) -> str:
    return EXPORTS[form].render(plan, "net.onnx")


def test_trtexec_holds_layers_to_fp32_and_says_what_it_cannot_name():
    comment, line = text("trtexec").splitlines()
    assert comment == "# trtexec cannot name 'with,comma': it holds a comma, a colon or an asterisk"
    words = shlex.split(line)
    listed = "a/MatMul:fp32,b[0]:fp32,it's:fp32,plain:fp32"
    assert words == [
        "trtexec",
        "--onnx=net.onnx",
        "--fp16",
        "--precisionConstraints=obey",
        f"--layerPrecisions={listed}",
        f"--layerOutputTypes={listed}",
    ]


def test_autocast_gets_patterns_that_match_each_name_and_no_other():
    words = shlex.split(text("autocast"))
    patterns = words[words.index("--nodes_to_exclude") + 1 :]
    assert len(patterns) == len(NAMES)
    for name, pattern in zip(NAMES, patterns, strict=True):
        assert re.match(pattern, name)
        assert not re.match(pattern, f"{name}_1")
        assert not re.match(pattern, f"x{name}")


@pytest.mark.parametrize(
    ("form", "keyword"),
    [("onnxconverter", "node_block_list"), ("quantization", "nodes_to_exclude"), ("nncf", "names")],
)
def test_python_forms_hold_every_name(form, keyword):
    lists = [
        ast.literal_eval(k.value)
        for node in ast.walk(ast.parse(text(form)))
        if isinstance(node, ast.Call)
        for k in node.keywords
        if k.arg == keyword
    ]
    assert lists == [list(NAMES)]


def test_the_network_script_of_polygraphy_pins_floats_of_kept_layers_alone():
    class Tensor:
        def __init__(self, dtype, shape=False):
            self.dtype, self.is_shape_tensor = dtype, shape

    class FakeLayer:
        def __init__(self, name, kind, *outputs):
            self.name, self.type, self.outputs, self.num_outputs = name, kind, outputs, len(outputs)
            self.precision, self.types = None, {}

        def get_output(self, i):
            return self.outputs[i]

        def set_output_type(self, i, dtype):
            self.types[i] = dtype

    class Trt:
        float32, float16 = "float32", "float16"

        class LayerType:
            CONSTANT, SHAPE, OTHER = range(3)

    layers = [
        FakeLayer("plain", Trt.LayerType.OTHER, Tensor("float32")),
        FakeLayer("other", Trt.LayerType.OTHER, Tensor("float32")),
        FakeLayer("b[0]", Trt.LayerType.CONSTANT, Tensor("float32")),
        FakeLayer("a/MatMul", Trt.LayerType.OTHER, Tensor("int32")),
    ]

    class Network:
        num_layers = len(layers)

        def get_layer(self, i):
            return layers[i]

    space: dict = {}
    code = text("polygraphy").replace("import tensorrt as trt", "")
    exec(compile(code, "script", "exec"), {"trt": Trt}, space)
    function = space["postprocess"]
    function.__globals__.update(KEEP=space["KEEP"])
    function(network=Network())
    assert [layer.precision for layer in layers] == ["float32", None, None, None]
    assert layers[0].types == {0: "float32"}


@pytest.mark.parametrize("form", EXPORTS)
def test_every_form_takes_a_plan_that_keeps_nothing(form):
    assert "None" not in text(form, Plan("emulate:fp16", "fp16", "not needed", 9))


def test_the_command_shows_a_plan_and_writes_its_forms(tmp_path, capsys):
    path = str(tmp_path / "plan.json")
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    Comparator(overflowing(), runners, data_loader=samples(), fix=path).compare()
    assert main(["plan", path, "--as", "nodes"]) == 0
    assert capsys.readouterr().out.split() == ["fc1", "act1", "fc2", "act2"]
    assert main(["plan", path]) == 0
    shown = capsys.readouterr().out
    assert "keep 2 of 5 layers of emulate:fp16 in FP32: pass at" in shown
    assert "trtexec" in shown
    assert main(["plan", str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.startswith("layerdiff plan: plan ")
