"""Faults planted without reading the code: they are real and where they say, and the score is fair."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import onnx
import pytest

from benchmarks.blind.case import Network, network, plant
from benchmarks.blind.graph import graphs, named
from benchmarks.blind.plants import KINDS
from benchmarks.blind.running import scored
from benchmarks.blind.table import false_culprits, first
from benchmarks.kit import networks

NETWORKS = ("mixed", "lstm", "bert")


@cache
def net(name: str) -> Network:
    made = networks.network(name)
    proto = onnx.ModelProto()
    proto.CopyFrom(made.proto)
    return network(name, named(proto), made.samples(3, 1))


def nodes_of(proto: onnx.ModelProto) -> Mapping[str, bytes]:
    return {node.name: node.SerializeToString() for graph in graphs(proto) for node in graph.node}


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_changes_the_nodes_that_it_names_and_no_others(kind):
    case = next((c for name in NETWORKS if (c := plant(net(name), kind, 1)) is not None), None)
    if case is None:
        pytest.skip("needs another network")
    original = net(case.network).proto
    before, after = nodes_of(original), nodes_of(case.candidate)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    inside = {n.name for graph in graphs(original) for n in graph.node for a in n.attribute if a.HasField("g")}
    assert case.nodes
    assert changed <= case.nodes | inside | (after.keys() - before.keys()) | {
        n.name for graph in graphs(original) for n in graph.node if n.op_type == "Constant"
    }
    assert case.effect > 1e-5
    assert case.candidate.SerializeToString() != original.SerializeToString()


def answer(node: str, cause: str = "weights") -> dict[str, object]:
    return {"node": node, "candidate_node": "", "inside": [], "tensors": [], "cause": cause}


def test_a_fault_is_found_at_its_place_alone():
    case = plant(net("mixed"), next(iter(KINDS)), 1)
    there = next(iter(case.nodes))
    cause = next(iter(case.causes))
    for answers, rank in (([there], 1), (["elsewhere", there], 2), (["elsewhere"], None), ([], None)):
        result = scored(case, {"answers": [answer(n, cause) for n in answers], "verdict": "fail", "error": None})
        assert result["rank"] == rank
        assert first(result) == (rank == 1)
        assert result["cause_right"] == (rank is not None)


@pytest.mark.parametrize(
    ("kind", "verdict", "cause", "accused"),
    [
        ("emulated_fp16", "pass", "overflow", True),
        ("emulated_fp16", "fail", "overflow", False),
        ("emulated_fp16", "undecided", "spread", False),
        ("emulated_fp16", "fail", "weights", True),
        ("int8", "undecided", "quantization", False),
        ("int8", "undecided", "weights", True),
    ],
)
def test_what_accuses_nobody_is_no_false_culprit(kind, verdict, cause, accused):
    result = {"kind": kind, "outputs": {"y": verdict}, "error": None, "answers": [answer("a", cause)]}
    assert bool(false_culprits(result)) is accused
