"""What a runtime does not repeat is said before anything is blamed, and nothing else is blamed for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.causes.nondeterminism import find
from layerdiff.compare.layers.collisions import collisions
from layerdiff.compare.report.terminal.show import show
from layerdiff.graph.cutting.slices import original_name
from layerdiff.graph.index import GraphIndex
from rich.console import Console

from support.models import normal, parsed

CHAIN = """g (float[4, 8] x) => (float[4, 8] y) {
    [a] a = MatMul(x, w)
    [b] b = Neg(a)
    [c] c = Add(b, k)
    [y] y = MatMul(c, w)
}"""
W, K = normal(8, 8), normal(8, seed=1)


@dataclass(frozen=True)
class Unsteady(OnnxrtRunner):
    """ONNX Runtime, which gives a multiple of some tensor: at each run another one."""

    tensor: str = "c"
    factor: Callable[[int], float] = lambda run: 1 + 0.1 * (run % 2)
    constant: float = 1.0
    believed: int = 45

    @property
    def name(self):
        return "unsteady"

    @property
    def trust(self):
        return self.believed

    def open(self, model, **rest):
        opened = OnnxrtRunner(threads=1).open(model, **rest)
        infer, runs = opened.infer, iter(range(1, 1000))

        def changed(feed, fetch=None):
            factor = self.constant * self.factor(next(runs))
            return {
                name: array * np.float32(factor) if original_name(name) == self.tensor else array
                for name, array in infer(feed, fetch).items()
            }

        opened.infer = changed
        return opened


def compare(runner: OnnxrtRunner, **options):
    model = parsed(CHAIN, w=W, k=K)
    data = [{"x": normal(4, 8, seed=i)} for i in range(2)]
    return Comparator(model, [OnnxrtRunner(threads=1), runner], data_loader=data, layers="all", **options).compare()


def causes(report) -> list[tuple[str, str]]:
    return [(c.node, c.cause.value) for c in report.culprits]


@pytest.mark.parametrize("trust", [45, 0], ids=["candidate", "reference"])
@pytest.mark.parametrize("tensor", ["a", "b", "c"])
def test_a_layer_that_comes_and_goes_is_called_so_on_either_side(tensor, trust):
    report = compare(Unsteady(tensor=tensor, believed=trust))
    assert causes(report)[0] == (tensor, "nondeterminism")
    assert "run twice on the same values, unsteady does not give the same bits" in report.culprits[0].evidence
    assert not any("another program" in warning for warning in report.warnings)


def test_a_fault_that_stays_is_not_called_chance_for_a_little_noise():
    report = compare(Unsteady(tensor="y", constant=1.5, factor=lambda run: 1 + 1e-5 * run))
    assert causes(report) == [("y", "scale")]


def test_every_runner_is_run_twice_on_the_first_sample_that_differs(function_runner, identity_model):
    runs: dict[str, list[float]] = {"one": [], "other": [], "third": []}

    def runner(name: str, wrong: float):
        def made(feed):
            runs[name].append(float(feed["x"][0]))
            return {"y": feed["x"] * (2 if feed["x"][0] == wrong else 1)}

        return function_runner(function=made, label=name)

    data = [{"x": np.full(2, v, np.float32)} for v in (1, 2, 3)]
    runners = [runner("one", -1), runner("other", 2), runner("third", -1)]
    Comparator(identity_model, runners, data_loader=data, layers="guilty").compare()
    assert runs["one"][:4] == [1, 2, 2, 3]
    assert runs["other"][:4] == [1, 2, 2, 3]
    assert runs["third"][:3] == [1, 2, 3]


def test_it_is_shown_above_the_culprits():
    report = compare(Unsteady(tensor="y"))
    console = Console(record=True, width=200)
    show(report, console)
    text = console.export_text()
    assert text.index("unsteady is not deterministic") < text.index("culprit 1")
    assert len(re.findall("unsteady is not deterministic", text)) == 1


# -- scatters


def scatter(op: str, **attributes) -> GraphIndex:
    node = onnx.helper.make_node(op, ["z", "i", "u"], ["y"], "scatter", **attributes)
    info = onnx.helper.make_tensor_value_info
    shapes = {"z": [4, 3], "i": None, "u": None}
    inputs = [info(n, onnx.TensorProto.INT64 if n == "i" else onnx.TensorProto.FLOAT, s) for n, s in shapes.items()]
    graph = onnx.helper.make_graph([node], "g", inputs, [info("y", onnx.TensorProto.FLOAT, [4, 3])])
    return GraphIndex(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), None)


@pytest.mark.parametrize(
    ("op", "attributes", "indices", "found"),
    [
        ("ScatterND", {}, [[0], [1]], None),
        ("ScatterND", {}, [[0], [0], [1]], (3, 2, False)),
        ("ScatterND", {"reduction": "add"}, [[0], [0], [1]], (3, 2, True)),
        ("ScatterND", {"reduction": "max"}, [[0], [0], [1]], None),
        ("ScatterND", {"reduction": "mul"}, [[0, 1], [0, 2], [0, 1]], (3, 2, True)),
        ("ScatterND", {}, [[-1], [3]], (2, 1, False)),
        ("ScatterElements", {"axis": 0}, [[0, 0, 0]], None),
        ("ScatterElements", {"axis": 1}, [[0, 0, 1]], (3, 2, False)),
        ("ScatterElements", {"axis": -1, "reduction": "add"}, [[2, -1, 1]], (3, 2, True)),
        ("ScatterElements", {"axis": 0}, [[0, 1], [0, 2]], (4, 3, False)),
    ],
)
def test_updates_that_collide(op, attributes, indices, found):
    seen = [
        (c.updates, c.places, c.adds) for c in collisions(scatter(op, **attributes), (0,), {"i": np.array(indices)})
    ]
    assert seen == ([] if found is None else [found])


def test_scatters_with_colliding_updates_are_told_and_nothing_is_called_another_program():
    model = parsed(
        "g (int64[64, 1] i, float[64, 4] u) => (float[4, 4] y) <float[4, 4] z = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}>"
        ' { [scatter] s = ScatterND<reduction: string = "add">(z, i, u) y = Neg(s) }',
        opset=18,
    )
    data = [{"i": np.arange(64).reshape(-1, 1) % 4, "u": normal(64, 4)}]
    runners = [OnnxrtRunner(threads=1), Unsteady(tensor="s")]
    report = Comparator(model, runners, data_loader=data, layers="guilty").compare()
    (notice,) = [n for n in report.notices if n.code == "updates-collide"]
    assert notice.text.startswith(
        "scatter (ScatterND) writes 64 updates to 4 places, and the order in which they are combined"
    )
    assert not any("another program" in warning for warning in report.warnings)


# -- the cause


@pytest.mark.parametrize(
    ("first", "second", "error", "chance"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.1, False),
        ([1.0, 2.0], [1.0, 2.2], 0.1, True),
        ([1.0, 2.0], [1.0, 2.0001], 0.1, False),
        ([1.0, 2.0], [1.0, np.nan], np.inf, True),
        ([1.0, 2.0], [1.0, 2.2], np.inf, False),
    ],
)
def test_the_cause_needs_most_of_the_error_to_come_and_go(first, second, error, chance):
    runs = {"it": ({"y": np.array(first)}, {"y": np.array(second)})}
    assert (find(runs, error) is not None) == chance


def with_dropout(training: bool | None) -> onnx.ModelProto:
    """A network with a Dropout that drops half of what it reads, if it is in training mode; without one for None."""
    dropout = "[drop] c = Dropout(b, half, training)" if training is not None else "[same] c = Identity(b)"
    text = f"""g (float[64, 8] x) => (float[64, 8] y) {{
        [a] a = MatMul(x, w) [b] b = Relu(a) {dropout} [y] y = MatMul(c, w) }}"""
    constants = {} if training is None else {"half": np.float32(0.5), "training": np.array(training)}
    return parsed(text, w=W, **constants)


@pytest.mark.parametrize(
    ("modes", "blamed", "evidence"),
    [
        ((False, True), ("drop", "attribute"), "training_mode False against True"),
        ((None, True), ("b", "wrong-op"), "Dropout drop is in the candidate alone"),
        ((False, None), None, ""),
    ],
)
@pytest.mark.parametrize("optimization", ["all", "disable"])
def test_what_the_graph_draws_is_no_chance_of_the_runtime(optimization, modes, blamed, evidence):
    one, other = map(with_dropout, modes)
    runner = OnnxrtRunner(threads=1, optimization=optimization)
    data = [{"x": normal(64, 8, seed=i)} for i in range(2)]
    report = Comparator(one, [runner], candidate_model=other, data_loader=data, layers="guilty").compare()
    assert causes(report) == ([blamed] if blamed else [])
    assert all(evidence in culprit.evidence for culprit in report.culprits)
