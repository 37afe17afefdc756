"""Faults planted without reading the code: they are real and where they say, and the score is fair."""

from __future__ import annotations

from functools import cache

import onnx
import pytest

from benchmarks.blind.case import REAL, Network, network, plant
from benchmarks.blind.graph import Graph, named
from benchmarks.blind.plants import KINDS
from benchmarks.blind.running import CLEAN, FAULT, scored
from benchmarks.blind.table import cause_right, false_culprits, first, markdown, row
from benchmarks.kit import networks

NETWORKS = ("mixed", "lstm", "bert", "resnet", "mobilenet")
TRAINED_ONLY = {"index_off_by_one", "clip_maximum", "slice_shifted", "mask_inverted"}
"""Kinds that no network of the kit has a place for."""


@cache
def net(name: str) -> Network:
    made = networks.network(name)
    proto = onnx.ModelProto()
    proto.CopyFrom(made.proto)
    return network(name, named(proto), made.samples(3, 1))


def computed(proto: onnx.ModelProto) -> dict[str, tuple[object, ...]]:
    """What each node computes from which tensors: its operator, attributes, and inputs, constants by their values."""
    graph = Graph(proto)

    def read(name: str) -> object:
        values = graph.weight(name)
        return name if values is None else (values.shape, str(values.dtype), values.tobytes())

    return {
        node.name: (
            node.op_type,
            sorted(a.SerializeToString() for a in node.attribute if not a.HasField("g")),
            [read(name) for name in node.input],
            list(node.output),
        )
        for node in graph.nodes()
        if not (node.op_type in ("Constant", "Identity") and graph.weight(node.output[0]) is not None)
    }


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - TRAINED_ONLY))
def test_a_fault_changes_the_model_at_the_nodes_that_it_names_and_at_no_others(kind):
    case = next((c for name in NETWORKS if (c := plant(net(name), kind, 1)) is not None), None)
    assert case is not None, f"no network has a place for {kind}"
    before, after = computed(net(case.network).proto), computed(case.candidate)
    changed = {name for name, what in before.items() if after.get(name) != what}
    assert case.effect > REAL
    assert changed
    assert changed <= case.nodes


@pytest.mark.parametrize("kind", sorted(TRAINED_ONLY))
def test_no_network_has_a_place_for_kinds_that_are_not_tested(kind):
    assert not any(plant(net(name), kind, 1) for name in NETWORKS)


def answer(node: str = "elsewhere", cause: str = "weights", **more: object) -> dict[str, object]:
    return {"node": node, "candidate_node": None, "inside": [], "tensors": [], "cause": cause, **more}


def fault(answers: list[dict[str, object]], verdict: str = "fail", kind: str = "weight_1pct") -> dict[str, object]:
    return scored(plant(net("resnet"), kind, 1), {"answers": answers, "verdict": verdict, "error": None})


def place(kind: str = "weight_1pct") -> tuple[str, str]:
    """A node that the fault names, and what the node makes."""
    case = plant(net("resnet"), kind, 1)
    return min(case.nodes), min(case.tensors)


NODE, TENSOR = "the node", "its tensor"


@pytest.mark.parametrize(
    ("answers", "rank"),
    [
        ([{"node": NODE}], 1),
        ([{"candidate_node": NODE}], 1),
        ([{"inside": [NODE]}], 1),
        ([{"tensors": [TENSOR]}], 1),
        ([{}, {"node": NODE}], 2),
        ([{}], None),
        ([], None),
    ],
)
def test_a_fault_is_found_by_its_node_or_what_the_node_makes_and_only_first_is_top_1(answers, rank):
    names = dict(zip((NODE, TENSOR), place(), strict=True))
    named_answers = [
        answer(**{k: [names[x] for x in v] if isinstance(v, list) else names[v] for k, v in a.items()}) for a in answers
    ]
    result = fault(named_answers)
    assert result["rank"] == rank
    assert first(result) == (rank == 1)


@pytest.mark.parametrize(
    ("kind", "cause", "honest"),
    [
        ("weight_1pct", "weights", True),
        ("weight_1pct", "saturation", False),
        ("relu_clipped", "wrong-op", True),
        ("relu_clipped", "saturation", True),
        ("relu_clipped", "weights", False),
    ],
)
def test_a_cause_is_right_if_it_is_honest_for_the_kind(kind, cause, honest):
    assert cause_right(fault([answer(place(kind)[0], cause)], kind=kind)) is honest


def test_a_cause_at_another_node_is_never_right():
    assert not cause_right(fault([answer("elsewhere", "weights")]))


@pytest.mark.parametrize(("verdict", "passes"), [("pass", 1), ("undecided", 0), ("fail", 0)])
def test_a_fault_that_passes_is_counted_and_is_a_miss(verdict, passes):
    assert row("", [fault([], verdict)])[1:] == [1, "0 (0 %)", "0 (0 %)", "0 (0 %)", passes, 0]


def test_a_fault_that_the_runtime_does_not_show_takes_no_part_and_is_told():
    excused = {"group": FAULT, "id": "a", "network": "a", "kind": "alpha", "excused": True}
    assert row("", [excused, fault([answer(place()[0])])])[1:] == [1, *["1 (100 %)"] * 3, 0, 1]


@pytest.mark.parametrize(
    ("kind", "verdict", "cause", "accused"),
    [
        ("fp16", "fail", "overflow", False),
        ("fp16", "fail", "underflow", False),
        ("fp16", "undecided", "overflow", True),
        ("fp16", "pass", "underflow", True),
        ("fp16", "undecided", "spread", False),
        ("fp16", "fail", "weights", True),
        ("int8", "undecided", "quantization", False),
        ("fp16", "undecided", "quantization", True),
        ("int8", "undecided", "weights", True),
    ],
)
def test_what_accuses_nobody_is_no_false_culprit(kind, verdict, cause, accused):
    assert bool(false_culprits(healthy(kind, verdict, cause))) is accused


def healthy(kind: str, verdict: str, cause: str) -> dict[str, object]:
    return {
        "group": CLEAN, "id": f"resnet/{kind}", "network": "resnet", "kind": kind, "outputs": {"y": verdict},
        "verdict": verdict, "error": None, "answers": [answer("a", cause)],
    }  # fmt: skip


def test_the_page_of_a_partial_run_says_so_and_how_to_make_the_whole_one():
    page = markdown([fault([answer(place()[0])]), healthy("fp16", "fail", "overflow")], 20)
    assert "**This is a partial run**" in page
    assert "`python -m benchmarks.blind`" in page.split("**This is a partial run**")[1]
    assert "0 of\n1 pairs would be without a false one; with these rules 1 are." in page
