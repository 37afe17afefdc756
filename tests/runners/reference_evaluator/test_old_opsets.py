"""Operators whose definition changed: each opset is evaluated by its own. ONNX Runtime and onnx's test data judge."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import pytest
from layerdiff.graph.load import load
from layerdiff.graph.model import Model
from layerdiff.runners.onnxrt.runner import OnnxrtRunner
from layerdiff.runners.reference_evaluator.runner import ReferenceEvaluatorRunner
from onnx import numpy_helper

from support.models import parsed, without_output_shapes

EVALUATORS = [ReferenceEvaluatorRunner(), ReferenceEvaluatorRunner(dtype="float64")]


def values(*shape: int, seed: int = 0, low: float = -4.0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(low, 4, shape).astype(np.float32)


def check(model: Model, x: np.ndarray, evaluator: ReferenceEvaluatorRunner) -> None:
    with OnnxrtRunner().open(model) as session:
        want = session.infer({"x": x})
    with evaluator.open(model) as session:
        got = session.infer({"x": x})
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=2e-5, atol=2e-6, err_msg=name)


def model_of(body: str, x: np.ndarray, opset: int, outputs: str = "float y", **weights: np.ndarray) -> Model:
    text = f"t (float[{','.join(map(str, x.shape))}] x) => ({outputs}) {{ {body} }}"
    return Model(without_output_shapes(parsed(text, opset=opset, **weights)))


@pytest.mark.parametrize("evaluator", EVALUATORS, ids=lambda r: r.dtype)
@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 17, 21])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_what_works_on_rows(op: str, opset: int, evaluator: ReferenceEvaluatorRunner) -> None:
    for shape in ((3, 5), (2, 3, 4), (2, 3, 4, 5)):
        x = values(*shape)
        for axis in (None, *range(len(shape)), *((-1, -2) if opset >= 11 else ())):
            attribute = "" if axis is None else f"<axis={axis}>"
            check(model_of(f"y = {op}{attribute}(x)", x, opset), x, evaluator)


@pytest.mark.parametrize("evaluator", EVALUATORS, ids=lambda r: r.dtype)
@pytest.mark.parametrize("opset", [7, 9, 13, 14, 15, 17, 21])
@pytest.mark.parametrize("settings", ["", "<momentum=0.5>", "<epsilon=0.25, momentum=0.9>"])
@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 5), (2, 4, 3, 5)])
def test_batch_normalization(shape: tuple, settings: str, opset: int, evaluator: ReferenceEvaluatorRunner) -> None:
    weights = {n: values(4, seed=i, low=0.1) for i, n in enumerate(("s", "b", "m", "v"))}
    x = values(*shape)
    check(model_of(f"y = BatchNormalization{settings}(x, s, b, m, v)", x, opset, **weights), x, evaluator)


@pytest.mark.parametrize("evaluator", EVALUATORS, ids=lambda r: r.dtype)
@pytest.mark.parametrize("opset", [9, 14, 15])
def test_batch_normalization_that_trains(opset: int, evaluator: ReferenceEvaluatorRunner) -> None:
    weights = {n: values(4, seed=i, low=0.1) for i, n in enumerate(("s", "b", "m", "v"))}
    x = values(2, 4, 3, 5)
    names, more = ("y, rm, rv", "training_mode=1, ") if opset >= 14 else ("y, rm, rv, sm, sv", "")
    body = f"{names} = BatchNormalization<{more}momentum=0.75>(x, s, b, m, v)"
    model = model_of(body, x, opset, ", ".join(f"float {n}" for n in names.split(", ")), **weights)
    with evaluator.open(model) as session:
        got = session.infer({"x": x})
    wide = x.astype(np.float64)
    mean, var = wide.mean((0, 2, 3)), wide.var((0, 2, 3))
    per_channel = {
        n: v.astype(np.float64).reshape(1, -1, 1, 1) for n, v in {**weights, "mean": mean, "var": var}.items()
    }
    y = per_channel["s"] * (wide - per_channel["mean"]) / np.sqrt(per_channel["var"] + 1e-5) + per_channel["b"]
    want = {
        "y": y,
        "rm": 0.75 * weights["m"] + 0.25 * mean,
        "rv": 0.75 * weights["v"] + 0.25 * var,
        "sm": mean,
        "sv": var,
    }
    for name, array in got.items():
        np.testing.assert_allclose(array, want[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_batch_normalization_of_single_elements_below_opset_9() -> None:
    weights = {n: values(4, 5, seed=i, low=0.1) for i, n in enumerate(("s", "b", "m", "v"))}
    x = values(2, 4, 5)
    model = model_of("y = BatchNormalization<spatial=0>(x, s, b, m, v)", x, 7, **weights)
    with EVALUATORS[1].open(model) as session:
        got = session.infer({"x": x})["y"]
    s, b, m, v = weights.values()
    np.testing.assert_allclose(got, s * (x - m) / np.sqrt(v + 1e-5) + b, rtol=1e-5)


@pytest.mark.parametrize("evaluator", EVALUATORS, ids=lambda r: r.dtype)
def test_logarithms_of_probabilities_that_underflow(evaluator: ReferenceEvaluatorRunner) -> None:
    x = np.float32([[0, -900, 900]])
    for opset in (11, 13):
        with evaluator.open(model_of("y = LogSoftmax(x)", x, opset)) as session:
            np.testing.assert_array_equal(session.infer({"x": x})["y"], [[-900, -1800, 0]])


OTHERS = {
    "Clip": {6: "y = Clip<min=-1.0, max=2.0>(x)", 11: "y = Clip(x, lo, hi)", 13: "y = Clip(x, lo, hi)"},
    "Slice": {1: "y = Slice<axes=[1], starts=[1], ends=[-1]>(x)", 10: "y = Slice(x, one, two, one)"},
    "Pad": {2: "y = Pad<pads=[0,1,0,0,0,2], value=0.5>(x)", 11: "y = Pad(x, pads, hi)"},
    "TopK": {1: "y, i = TopK<k=2, axis=1>(x)", 10: "y, i = TopK<axis=1>(x, two)", 11: "y, i = TopK<axis=1>(x, two)"},
    "ReduceSum": {1: "y = ReduceSum<axes=[1], keepdims=0>(x)", 13: "y = ReduceSum<keepdims=0>(x, one)"},
    "ReduceMean": {1: "y = ReduceMean<axes=[1]>(x)", 18: "y = ReduceMean(x, one)"},
    "Unsqueeze": {1: "y = Unsqueeze<axes=[1]>(x)", 13: "y = Unsqueeze(x, one)"},
    "Split": {2: "y, z = Split<axis=2, split=[2,2]>(x)", 13: "y, z = Split<axis=2>(x, twos)"},
    "Dropout": {7: "y = Dropout<ratio=0.5>(x)", 12: "y = Dropout(x, half)", 13: "y = Dropout(x, half)"},
    "Upsample": {9: "y = Upsample(x, scales)"},
    "Resize": {11: "y = Resize(x, none, scales)", 13: "y = Resize(x, none, scales)"},
    "Gemm": {7: "a = Flatten(x) y = Gemm<alpha=0.5>(a, w, bias)", 11: "a = Flatten(x) y = Gemm<alpha=0.5>(a, w)"},
    "Cast": {6: "a = Cast<to=6>(x) y = Cast<to=1>(a)", 13: "a = Cast<to=6>(x) y = Cast<to=1>(a)"},
    "ArgMax": {1: "a = ArgMax<axis=1>(x) y = Cast<to=1>(a)", 12: "a = ArgMax<axis=1>(x) y = Cast<to=1>(a)"},
    "AveragePool": {7: "y = AveragePool<kernel_shape=[2], pads=[1,1]>(x)", 19: "y = AveragePool<kernel_shape=[2]>(x)"},
    "MaxPool": {1: "y = MaxPool<kernel_shape=[2]>(x)", 12: "y = MaxPool<kernel_shape=[2], ceil_mode=1>(x)"},
    "Scatter": {9: "y = Scatter<axis=0>(x, at, two3)", 11: "y = ScatterElements<axis=0>(x, at, two3)"},
}
OPSETS = [7, 8, 9, 10, 11, 12, 13, 15, 17, 18, 19, 21]
CASES = [(op, o) for op, forms in OTHERS.items() for o in OPSETS if o >= min(forms) and (op, o) not in
         {("Upsample", o) for o in OPSETS if o > 9} | {("Scatter", 9), ("Scatter", 10)}]  # fmt: skip


@pytest.mark.parametrize(("op", "opset"), CASES)
def test_operators_that_changed(op: str, opset: int) -> None:
    form = OTHERS[op][max(o for o in OTHERS[op] if o <= opset)]
    x = values(2, 3, 4)
    weights = {
        "lo": np.float32(-1).reshape(()),
        "half": np.float32(0.5).reshape(()),
        "hi": np.float32(2).reshape(()),
        "one": np.asarray([1]),
        "two": np.asarray([2]),
        "twos": np.asarray([2, 2]),
        "pads": np.asarray([0, 1, 0, 0, 0, 2]),
        "scales": np.float32([1, 1, 2]),
        "none": np.float32([]),
        "w": values(12, 5),
        "bias": values(5),
        "at": np.asarray([[[1, 0, 1, 0]]]),
        "two3": np.float32([[[1, 2, 3, 4]]]),
    }
    used = {n: v for n, v in weights.items() if n in form.replace("(", " ").replace(")", " ").replace(",", " ").split()}
    for evaluator in EVALUATORS:
        check(model_of(form, x, opset, **used), x, evaluator)


DATA = Path(onnx.backend.test.__file__).parent / "data"
CONVERTED = sorted(
    p.parent for folder in ("pytorch-converted", "pytorch-operator") for p in (DATA / folder).glob("*/*.onnx")
)


@pytest.mark.skipif(not CONVERTED, reason="onnx was installed without its test data")
@pytest.mark.parametrize("folder", CONVERTED, ids=lambda p: p.name)
def test_onnx_s_own_data_of_opset_6_to_9(folder: Path) -> None:
    def tensors(kind: str) -> list[np.ndarray]:
        files = sorted(folder.glob(f"test_data_set_0/{kind}_*.pb"), key=lambda f: int(f.stem.split("_")[1]))
        return [numpy_helper.to_array(onnx.TensorProto.FromString(f.read_bytes())) for f in files]

    with EVALUATORS[1].open(load(os.fspath(folder / "model.onnx"))) as session:
        feed = {spec.name: array for spec, array in zip(session.inputs, tensors("input"), strict=True)}
        for got, want in zip(session.infer(feed).values(), tensors("output"), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)
