"""Node data for Model Explorer: keyed by nodes' names, of which each is there once."""

from __future__ import annotations

import json
from dataclasses import replace

import onnx
import onnx.parser
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.report.model_explorer import COPY, EXACT, render

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
