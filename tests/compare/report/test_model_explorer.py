"""Node data for Model Explorer: keyed by nodes' names, of which each is there once."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import onnx.parser
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.report.model import Enclosing
from layerdiff.compare.report.model_explorer import COPY, EXACT, render

from support.classical import zipped
from support.models import parsed
from support.reports import LAYER, output, report

TWO = "g (float[2, 3] x) => (float[2, 3] y) { a = Relu(x) y = Exp(a) }"


def compared(path):
    return Comparator(path, [OnnxrtRunner(), OnnxrtRunner(optimization="disable")], layers="all").compare()


@pytest.mark.parametrize("names", [("one", "two"), ("", ""), ("", "two")])
def test_every_key_is_the_name_of_one_node(names, onnx_file, tmp_path):
    path = onnx_file(TWO)
    proto = onnx.load(path)
    for node, name in zip(proto.graph.node, names, strict=True):
        node.name = name
    onnx.save(proto, path)
    files = render(compared(path))
    seen = onnx.load_from_string(files[COPY]) if COPY in files else proto
    assert (COPY in files) == (names != ("one", "two"))
    there = [node.name for node in seen.graph.node]
    assert len(set(there)) == 2
    views = [json.loads(content) for name, content in files.items() if name != COPY]
    assert len(views) == 4
    for view in views:
        assert list(view) == [seen.graph.name]
        assert set(view[seen.graph.name]["results"]) <= set(there)
    assert set(views[-1][seen.graph.name]["results"]) == set(there)


BRANCH = """g (float[2, 3] x) => (float[2, 3] y) {
    s = ReduceSum <keepdims=0> (x)  positive = Greater(s, zero)
    [choice] y = If (positive) <
      then_branch = then () => (float[2, 3] a) { e = Exp(x) a = Sqrt(e) },
      else_branch = other () => (float[2, 3] b) { n = Neg(x) b = Exp(n) }> }"""


def test_a_branch_is_in_the_graph_around_it_and_the_body_of_a_loop_in_one_of_its_own(tmp_path):
    """As Model Explorer's ONNX adapter has them: `benchmarks.explorer` asks it."""
    onnx.save(parsed(BRANCH, zero=np.float32(-1e9)), tmp_path / "m.onnx")
    inner = Enclosing("choice", "If", "then_branch", 1)
    loop = Enclosing("loop", "Loop", "body", 1)
    layers = [
        replace(LAYER, node="Exp_0", nodes=("Exp_0",), inside=(inner,)),
        replace(LAYER, node="Sqrt_1", nodes=("Sqrt_1",), inside=(inner,)),
    ]
    found = report(output(), layers=tuple(layers))
    found = replace(found, model=replace(found.model, source=str(tmp_path / "m.onnx")))
    files = render(found)
    (name,) = (name for name in files if "verdict" in name)
    view = json.loads(files[name])
    copy = onnx.load_from_string(files[COPY])
    branch = next(a.g for n in copy.graph.node if n.name == "choice" for a in n.attribute if a.name == "then_branch")
    assert list(view) == [copy.graph.name]
    assert list(view[copy.graph.name]["results"]) == [f"choice/then_branch/{node.name}" for node in branch.node]
    looped = replace(found, layers=(replace(LAYER, node="n", nodes=("n",), inside=(loop,)),))
    gone = replace(looped, model=replace(found.model, source="gone.onnx"))
    assert list(json.loads(render(gone)[name])) == ["main", "loop/body"]


def test_nodes_that_were_put_in_the_place_of_others_are_in_a_copy(tmp_path):
    """Maps are compared as tensors, by nodes that the file does not have."""
    proto = zipped(["a", "b"])
    onnx.save(proto, tmp_path / "m.onnx")
    files = render(compared(tmp_path / "m.onnx"))
    there = {node.name for node in onnx.load_from_string(files[COPY]).graph.node}
    (verdict,) = (json.loads(content) for name, content in files.items() if "verdict" in name)
    assert {"scale", "p/values", "p/keys"} < {*next(iter(verdict.values()))["results"]} <= there


def test_the_four_views():
    layers = (
        LAYER,
        replace(LAYER, inside=(), node="c", nodes=("c",), verdict="ok", local={"rel_l2": 0.0}, cumulative=None),
    )
    files = {name: json.loads(content) for name, content in render(report(output(), layers=layers)).items()}
    assert list(files) == [
        "1 log10 of the cumulative error.json",
        "2 log10 of the local error.json",
        "3 error over expected noise.json",
        "4 verdict.json",
    ]
    cumulative, local, noise, verdict = files.values()
    assert cumulative["loop/body"]["results"]["/l/conv/Conv"]["value"] == pytest.approx(-3)
    assert cumulative["main"]["results"] == {}
    assert local["main"]["results"]["c"]["value"] == EXACT
    assert noise["loop/body"]["results"]["/l/relu/Relu"]["value"] == 40.0
    assert verdict["main"]["results"]["c"] == {"value": "ok", "bgColor": "#a5d6a7"}
