"""Damaged files and odd command lines: a verdict, or one line that says what is wrong; never a traceback.

A few inputs of each kind by default. ``LAYERDIFF_FUZZ=10000 pytest tests/fuzz`` tries so many in all, others each time,
and writes how many of them ended how to ``LAYERDIFF_FUZZ_LOG``.
"""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layerdiff.compare.cli.arguments import parse
from layerdiff.compare.cli.command import main
from onnx import helper, numpy_helper

from support.fuzzing import ASKED, FORKS, damaged_bytes, damaged_message, examples, hold, written_json
from support.models import parsed

pytestmark = pytest.mark.skipif(not FORKS, reason="needs Linux")

W = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
X = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 4)


def product() -> onnx.ModelProto:
    return parsed("g (float[N, 4] x) => (float[N, 3] y) { h = MatMul(x, w) a = Relu(h) y = Softmax<axis = 1>(a) }", w=W)


def branches() -> onnx.ModelProto:
    model = parsed("g (float[N, 4] x) => (float[N, 3] y) { h = MatMul(x, w) y = Relu(h) }", w=W)
    body = helper.make_graph([helper.make_node("Identity", ["h"], ["o"])], "b", [], [onnx.ValueInfoProto(name="o")])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    model.graph.node.insert(1, helper.make_node("If", ["c"], ["unread"], then_branch=body, else_branch=body))
    return model


def functions() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 17, "my": 1]>
        g (float[2, 4] x) => (float[2, 4] y) { s = Shape(x) r = Reshape(x, s) y = my.F(r) }
        <domain: "my", opset_import: ["": 17]> F (a) => (c) { b = Relu(a) c = Add(a, b) }"""
    )


def quantized() -> onnx.ModelProto:
    scale, zero = np.float32(0.01), np.uint8(3)
    return parsed(
        "g (float[N, 4] x) => (float[N, 4] y) { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
        s=scale,
        z=zero,
    )


MODELS = [product(), branches(), functions(), quantized()]
RUNNERS = (["--onnxrt", "--onnxrt"], ["--onnxrt", "--emulate", "fp16"], ["--onnxrt", "--reference-evaluator"])


def npy(array: np.ndarray, **more) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **more)
    return stream.getvalue()


def encoded(array: np.ndarray) -> dict:
    return {"array": base64.b64encode(npy(array)).decode(), "polygraphy_class": "ndarray"}


def model_bytes(folder: Path, draw: random.Random) -> list[str]:
    (folder / "d.onnx").write_bytes(damaged_bytes(draw.choice(MODELS).SerializeToString(), draw))
    return ["d.onnx", *draw.choice(RUNNERS)]


def model_fields(folder: Path, draw: random.Random) -> list[str]:
    (folder / "d.onnx").write_bytes(damaged_message(draw.choice(MODELS), draw).SerializeToString())
    return ["d.onnx", *draw.choice(RUNNERS), *draw.choice(([], [], ["--layers"]))]


def external_data(folder: Path, draw: random.Random) -> list[str]:
    onnx.save(product(), folder / "e.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    proto = onnx.load(folder / "e.onnx", load_external_data=False)
    (weights,) = proto.graph.initializer
    entry = draw.choice(list(weights.external_data))
    entry.value = draw.choice(("", "0", "-1", "1e3", "999999999999999999999", "../w.bin", "/etc/passwd", ".", "w.bin"))
    (folder / "e.onnx").write_bytes(proto.SerializeToString())
    if draw.random() < 0.3:
        (folder / "w.bin").write_bytes(b"short")
    return ["e.onnx", *draw.choice(RUNNERS)]


def arrays(folder: Path, draw: random.Random) -> list[str]:
    if draw.random() < 0.5:
        (folder / "x.npy").write_bytes(damaged_bytes(npy(X), draw))
        return ["m.onnx", "--onnxrt", "--onnxrt", "--data", "x.npy"]
    stream = io.BytesIO()
    (np.savez_compressed if draw.random() < 0.5 else np.savez)(stream, x=X)
    (folder / "x.npz").write_bytes(damaged_bytes(stream.getvalue(), draw))
    return ["m.onnx", "--onnxrt", "--onnxrt", "--data", "x.npz"]


def strings(folder: Path, draw: random.Random) -> list[str]:
    onnx.save(parsed("g (string[2] x) => (string[2] y) { y = Identity(x) }"), folder / "s.onnx")
    (folder / "x.npy").write_bytes(damaged_bytes(npy(np.array(["a", "é"], object), allow_pickle=True), draw))
    return ["s.onnx", "--onnxrt", "--onnxrt", "--data", "x.npy"]


def labels(folder: Path, draw: random.Random) -> list[str]:
    np.savez(folder / "x.npz", x=X)
    (folder / "l.npy").write_bytes(damaged_bytes(npy(np.array([0, 1])), draw))
    return ["m.onnx", "--onnxrt", "--onnxrt", "--data", "x.npz", "--labels", "l.npy", "--metric", "top1"]


def polygraphy_inputs(folder: Path, draw: random.Random) -> list[str]:
    (folder / "in.json").write_bytes(written_json([{"x": encoded(X)}], draw))
    return ["m.onnx", "--onnxrt", "--onnxrt", "--data", "in.json"]


def recordings(folder: Path, draw: random.Random) -> list[str]:
    result = {"outputs": {"y": {"values": encoded(W), "polygraphy_class": "LazyArray"}}, "runner_name": "r"}
    content = {"lst": [["r", [{**result, "polygraphy_class": "IterationResult"}]]], "polygraphy_class": "RunResults"}
    (folder / "out.json").write_bytes(written_json(content, draw))
    return ["m.onnx", "--onnxrt", "--load-outputs", "out.json", "--samples", "1"]


def reports(folder: Path, draw: random.Random) -> list[str]:
    (folder / "d.json").write_bytes(written_json(json.loads((folder / "report.json").read_text()), draw))
    flag = draw.choice(("--markdown", "--junit", "--text", "--csv", "--json", "-q"))
    return ["report", "d.json", *((flag, "made") if flag != "-q" else (flag,))]


def baselines(folder: Path, draw: random.Random) -> list[str]:
    (folder / "d.json").write_bytes(written_json(json.loads((folder / "report.json").read_text()), draw))
    return ["m.onnx", "--onnxrt", "--onnxrt", "--baseline", "d.json"]


def plans(folder: Path, draw: random.Random) -> list[str]:
    plan = {"schema": "layerdiff.plan/1", "format": "fp16", "keep": ["n"], "model": {"source": "m.onnx"}}
    (folder / "plan.json").write_bytes(written_json(plan, draw))
    return draw.choice((["m.onnx", "--onnxrt", "--emulate", "fp16", "--plan", "plan.json"], ["plan", "plan.json"]))


def suites(folder: Path, draw: random.Random) -> list[str]:
    text = b'[defaults]\nrunners = ["onnxrt", "onnxrt"]\n[[check]]\nname = "a"\nmodel = "m.onnx"\nexpect = "pass"\n'
    (folder / "c.toml").write_bytes(damaged_bytes(text, draw))
    return ["--suite", "c.toml"]


WORDS = (
    *(
        "m.onnx",
        "none.onnx",
        "report.json",
        "--onnxrt",
        "--onnxrt",
        "--emulate",
        "fp16",
        "int8",
        "--layers",
        "--layers=all",
    ),
    *(
        "--rtol",
        "--atol",
        "1e-3",
        "-1",
        "nan",
        "inf",
        "1e308",
        "0",
        "--samples",
        "2",
        "0",
        "--seed",
        "--float-range",
        "0,1",
    ),
    *(
        "1,0",
        "--range",
        "x:0,1",
        "x",
        ":",
        "--shape",
        "x:2x4",
        "x:1..2..3",
        "x:99999999999x4",
        "--tolerance",
        "y:0,1",
        "y",
    ),
    *(
        "--json",
        "-",
        "out.json",
        "m.onnx",
        "--html",
        "--junit",
        "--memory",
        "1",
        "512MB",
        "--reference",
        "--timeout",
        "--",
    ),
    *(
        "--isolate",
        "on",
        "off",
        "--metric",
        "agree",
        "top1",
        "--data",
        "x.npz",
        "--plan",
        "--fix",
        "p.json",
        "-q",
        "-v",
        "=",
        "",
    ),
    *(
        "--latency",
        "--map-input",
        "x=y",
        "--nan-equal",
        "--onnxrt=cuda",
        "--onnxrt=optimization=",
        "--trt",
        "--runner",
        "no:such",
    ),
)


def command_lines(folder: Path, draw: random.Random) -> list[str]:
    start = ["m.onnx", "--onnxrt", "--onnxrt"] if draw.random() < 0.7 else []
    return [*start, *(draw.choice(WORDS) for _ in range(draw.randint(0, 5)))]


KINDS = {
    f.__name__: f
    for f in (
        *(model_bytes, model_fields, external_data, arrays, strings, labels, polygraphy_inputs, recordings),
        *(reports, baselines, plans, suites, command_lines),
    )
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with a model and a report, and all that a command imports loaded into this process."""
    folder = tmp_path_factory.mktemp("prepared")
    onnx.save(product(), folder / "m.onnx")
    words = [str(folder / "m.onnx"), "--onnxrt", "--emulate", "fp16", "--layers", "--json", str(folder / "report.json")]
    assert main([*words, "-q"]) in (0, 1)
    parse(["m.onnx", "--onnxrt", "--reference-evaluator"])
    return folder


@pytest.mark.parametrize("kind", KINDS)
@examples(-(-ASKED // len(KINDS)), few=4)
@given(seed=st.integers(0, 2**48))
def test_damaged_input(kind, prepared, seed):
    hold(kind, KINDS[kind], prepared, seed)
