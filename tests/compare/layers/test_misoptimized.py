"""A side that is off by its runtime's own graph optimizer is named, whoever is the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner, ReferenceEvaluatorRunner
from layerdiff.compare.layers.misoptimized import fewest
from onnx import TensorProto, helper, numpy_helper

from support.models import normal, parsed

CHAIN = """g (float[4, 8] x) => (float[4, 8] y) {
    [a] a = MatMul(x, w)
    [b] b = Relu(a)
    [y] y = MatMul(b, w)
}"""
W = normal(8, 8)
SMALL, LARGE = [{"x": normal(4, 8, seed=1)}], [{"x": normal(8, 64)}]
NAMES = tuple(f"pass{n}" for n in range(11))


def int4() -> onnx.ModelProto:
    """A product with INT4 weights, which ONNX Runtime's optimizer computes on 8-bit activations."""
    generator = np.random.default_rng(0)
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("DequantizeLinear", ["wq", "s"], ["wd"], "dq", axis=0, block_size=32),
        helper.make_node("MatMul", ["r", "wd"], ["y"], "product"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 48])],
        [
            helper.make_tensor("wq", TensorProto.INT4, [64, 48], generator.integers(-7, 8, (64, 48)).ravel()),
            numpy_helper.from_array(np.full((2, 48), 0.01, np.float32), "s"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@dataclass(frozen=True)
class Fusing(OnnxrtRunner):
    """ONNX Runtime with an optimizer from ``level`` on, which needs two passes to make the last product wrong."""

    level: str = "all"
    left_out: tuple[str, ...] = ()
    believed: int = 45
    guilty = frozenset({"pass3", "pass8"})
    optimizers = NAMES

    @property
    def name(self) -> str:
        return "fusing"

    @property
    def trust(self) -> int:
        return self.believed

    def levels(self) -> dict[str, OnnxrtRunner]:
        return {name: replace(self, level=name) for name in ("none", "some", "all")}

    def without(self, optimizers: Any) -> OnnxrtRunner:
        return replace(self, left_out=tuple(optimizers))

    def open(self, model: Any, **rest: Any) -> Any:
        opened = OnnxrtRunner(threads=1).open(model, **rest)
        infer = opened.infer
        wrong = self.level != "none" and not self.guilty <= set(self.left_out)

        def changed(feed: Any, fetch: Any = None) -> dict[str, np.ndarray]:
            return {n: v * np.float32(1.01 if wrong and n == "y" else 1) for n, v in infer(feed, fetch).items()}

        opened.infer = changed
        return opened


def noticed(report: Any) -> list[tuple[str, str]]:
    return [(n.subject, n.text) for n in report.notices if n.code == "misoptimized"]


@pytest.mark.parametrize("believed", ["onnxrt", "reference-evaluator"])
def test_the_side_that_differs_from_itself_is_named_whoever_is_the_reference(believed: str) -> None:
    runners = [OnnxrtRunner(threads=1), ReferenceEvaluatorRunner()]
    report = Comparator(int4(), runners, layers="guilty", reference=believed, data_loader=LARGE).compare()
    ((who, text),) = noticed(report)
    assert (report.verdict, who) == ("fail", "onnxrt")
    assert "from level extended on: QDQSelectorActionTransformer" in text
    assert "onnxrt is the side that is off, by its graph optimization" in str(report)
    (remedy,) = report.culprits[0].remedies
    assert "--onnxrt=disabled_optimizers=QDQSelectorActionTransformer" in remedy.text


def test_what_is_proposed_makes_the_outputs_agree() -> None:
    without = OnnxrtRunner(threads=1, disabled_optimizers=("QDQSelectorActionTransformer",))
    assert Comparator(int4(), [without, ReferenceEvaluatorRunner()], data_loader=LARGE).compare()


@pytest.mark.parametrize("trust", [5, 45], ids=["as the reference", "as a candidate"])
def test_several_optimizations_that_only_together_do_it_are_named(trust: int) -> None:
    runners = [OnnxrtRunner(threads=1, optimization="disable"), Fusing(believed=trust)]
    report = Comparator(parsed(CHAIN, w=W), runners, layers="guilty", data_loader=SMALL).compare()
    ((who, text),) = noticed(report)
    assert (report.verdict, who) == ("fail", "fusing")
    assert "from level some on: pass8 with pass3." in text


def test_a_runtime_that_is_wrong_without_optimizations_too_is_not_accused_of_them() -> None:
    @dataclass(frozen=True)
    class Wrong(Fusing):
        guilty = frozenset({"none of them"})

        def levels(self) -> dict[str, OnnxrtRunner]:
            return {name: replace(self, level="all") for name in ("none", "all")}

    runners = [OnnxrtRunner(threads=1, optimization="disable"), Wrong()]
    report = Comparator(parsed(CHAIN, w=W), runners, layers="guilty", data_loader=SMALL).compare()
    assert report.verdict == "fail"
    assert not noticed(report)


def test_two_files_that_differ_are_not_blamed_on_an_optimizer() -> None:
    other = parsed(CHAIN, w=W * np.float32(1.01))
    one = [OnnxrtRunner(threads=1)]
    report = Comparator(parsed(CHAIN, w=W), one, candidate_model=other, layers="guilty", data_loader=SMALL).compare()
    assert report.verdict == "fail"
    assert not noticed(report)


def test_a_side_that_is_as_far_off_without_optimizations_does_not_agree() -> None:
    """It is 99 times the signal off with them, and half of it without."""

    class Far(Fusing):
        def open(self, model: Any, **rest: Any) -> Any:
            opened = OnnxrtRunner(threads=1).open(model, **rest)
            infer, factor = opened.infer, np.float32(1.5 if self.level == "none" else 100)
            opened.infer = lambda feed, fetch=None: {n: factor * v for n, v in infer(feed, fetch).items()}
            return opened

    runners = [OnnxrtRunner(threads=1, optimization="disable"), Far()]
    report = Comparator(parsed(CHAIN, w=W), runners, layers="guilty", data_loader=SMALL).compare()
    assert report.verdict == "fail"
    assert not noticed(report)


LOGS = """g (float[4, 8] x) => (float[4, 8] y) {
    [a] a = MatMul(x, w)
    [y] y = Log(a)
}"""
ABSOLUTE = """g (float[4, 8] x) => (float[4, 8] y) {
    [a] a = MatMul(x, w)
    [b] b = Abs(a)
    [y] y = Log(b)
}"""


@pytest.mark.parametrize("first", [LOGS, ABSOLUTE], ids=["NaN on both sides", "NaN on one side"])
def test_a_file_that_gives_nan_at_every_level_is_not_blamed_on_an_optimizer(first: str) -> None:
    runners = [OnnxrtRunner(threads=1)]
    second = parsed(LOGS, w=W)
    report = Comparator(
        parsed(first, w=W), runners, candidate_model=second, layers="guilty", data_loader=SMALL
    ).compare()
    assert report.verdict == "fail"
    assert not noticed(report)


def test_an_optimizer_that_makes_values_infinite_is_named_beside_nan_on_both_sides() -> None:
    class Infinite(Fusing):
        def open(self, model: Any, **rest: Any) -> Any:
            opened = super().open(model, **rest)
            infer, wrong = opened.infer, self.level != "none" and not self.guilty <= set(self.left_out)

            def changed(feed: Any, fetch: Any = None) -> dict[str, np.ndarray]:
                found = infer(feed, fetch)
                return {n: np.where(v < 0, np.inf, v) if wrong and n == "y" else v for n, v in found.items()}

            opened.infer = changed
            return opened

    runners = [OnnxrtRunner(threads=1, optimization="disable"), Infinite()]
    report = Comparator(parsed(LOGS, w=W), runners, layers="guilty", data_loader=SMALL).compare()
    ((who, text),) = noticed(report)
    assert who == "fusing"
    assert "instead of values that are not finite" in text
    assert "from level some on: pass8 with pass3." in text


@pytest.mark.parametrize(
    ("needed", "found"),
    [
        ({"pass0"}, {"pass0"}),
        ({"pass10"}, {"pass10"}),
        ({"pass2", "pass5", "pass9"}, {"pass2", "pass5", "pass9"}),
        ({"pass1", "pass2", "pass5", "pass9"}, set()),
        ({"another"}, set()),
    ],
)
def test_the_fewest_that_suffice(needed: set[str], found: set[str]) -> None:
    asked = []

    def suffice(chosen: Any) -> bool:
        asked.append(chosen)
        return needed <= set(chosen)

    assert set(fewest(NAMES, suffice)) == found
    assert len(asked) <= 20


def test_onnx_runtime_has_levels_up_to_its_own() -> None:
    assert list(OnnxrtRunner().levels()) == ["disable", "basic", "extended", "all"]
    assert list(OnnxrtRunner(optimization="extended").levels()) == ["disable", "basic", "extended"]
    assert not OnnxrtRunner(optimization="disable").levels()


def test_optimizations_that_are_left_out_already_stay_so() -> None:
    runner = OnnxrtRunner(disabled_optimizers=("ConvAddFusion",)).without(["GeluFusionL2"])
    assert runner.disabled_optimizers == ("ConvAddFusion", "GeluFusionL2")
