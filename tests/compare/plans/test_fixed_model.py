"""The network with a plan in its types: it stands by itself, and is what runtimes take."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare.plans.fixed_model import fixed_model
from layerdiff.graph.errors import UsageError
from layerdiff.graph.model import Model
from layerdiff.runners.contract.workload import Workload
from onnx import TensorProto

from support.plan_networks import overflowing, samples


def element_types(path) -> dict[str, int]:
    proto = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    infos = [*proto.graph.input, *proto.graph.value_info, *proto.graph.output]
    return {info.name: info.type.tensor_type.elem_type for info in infos}


@pytest.fixture
def written(tmp_path):
    onnx.save(overflowing(), tmp_path / "net.onnx")
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    report = Comparator(
        tmp_path / "net.onnx",
        runners,
        data_loader=samples(),
        fix=str(tmp_path / "plan.json"),
        fixed_model=str(tmp_path / "mixed.onnx"),
    ).compare()
    return tmp_path / "mixed.onnx", report.plan


def test_a_mixed_network_is_valid_and_keeps_inputs_outputs_and_names(written):
    path, _ = written
    onnx.checker.check_model(path, full_check=True)
    types, before = element_types(path), overflowing().graph
    assert [i.name for i in before.input] == [i.name for i in onnx.load(path).graph.input]
    assert types["x"] == types["y"] == TensorProto.FLOAT
    assert types["m1"] == types["t1"] == TensorProto.FLOAT
    assert types["m0"] == types["m3"] == TensorProto.FLOAT16


def test_a_mixed_network_gives_in_plain_onnx_runtime_what_the_original_does(written):
    path, plan = written
    assert plan.fixed.path == str(path)
    assert plan.fixed.trial.passed, "also where its types are law"
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    plain = ort.InferenceSession(overflowing().SerializeToString(), providers=["CPUExecutionProvider"])
    for feed in samples():
        (mixed,), (reference,) = session.run(None, feed), plain.run(None, feed)
        assert np.linalg.norm(mixed - reference) < 2e-3 * np.linalg.norm(reference)


def test_the_network_itself_is_not_replaced(tmp_path):
    onnx.save(overflowing(), tmp_path / "net.onnx")
    path = str(tmp_path / "net.onnx")
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    with pytest.raises(UsageError, match="that is the network itself"):
        Comparator(path, runners, data_loader=samples(), fix=str(tmp_path / "plan.json"), fixed_model=path).compare()


def test_int8_leaves_kept_products_in_float():
    model = Model(overflowing())
    runner = EmulateRunner(format="int8").calibrated(model, Workload(samples=lambda: iter(samples())))
    mixed = fixed_model(model, "int8", ("fc1", "act1"), runner)
    reads = {n.name: {t.split("_")[0] for t in n.input} for n in mixed.proto.graph.node}
    made = {t: n.op_type for n in mixed.proto.graph.node for t in n.output}
    quantized = {n.name for n in mixed.proto.graph.node if any(made.get(t) == "DequantizeLinear" for t in n.input)}
    assert quantized == {"fc0", "fc2", "fc3", "last"}
    assert reads


def test_formats_without_a_type_are_refused():
    with pytest.raises(UsageError, match="no types of ONNX stand for TF32"):
        fixed_model(Model(overflowing()), "tf32", (), EmulateRunner(format="tf32"))


@pytest.mark.rtx
@pytest.mark.parametrize("fmt", ["fp16", "bf16"])
def test_a_strongly_typed_builder_takes_a_mixed_network(fmt):
    trt = pytest.importorskip("tensorrt_rtx")
    mixed = fixed_model(Model(overflowing()), fmt, ("fc1", "act1", "fc2", "act2"), EmulateRunner(format=fmt))
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    good = parser.parse(mixed.proto.SerializeToString())
    assert good, [str(parser.get_error(i).desc()) for i in range(parser.num_errors)]
    kinds = {network.get_layer(i).name: network.get_layer(i).get_output(0).dtype for i in range(network.num_layers)}
    assert kinds["fc1"] == trt.float32
    assert kinds["fc3"] == {"fp16": trt.float16, "bf16": trt.bfloat16}[fmt]
    assert builder.build_serialized_network(network, builder.create_builder_config()) is not None
