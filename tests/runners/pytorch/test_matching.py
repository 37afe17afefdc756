"""Which value of a PyTorch program an ONNX tensor is: never one that two exports merely call alike."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.model import Model
from layerdiff.runners.pytorch.matching import Value
from layerdiff.runners.pytorch.matching import matched as matched_with

from support.models import parsed

EYE = {"w": np.eye(4, dtype=np.float32)}
SCOPES = {"linear": "['', 'fc', 'linear']", "relu": "['', 'relu']", "y": "['', 'out', 'linear_1']"}


def today(text, scopes=SCOPES):
    """An export of the exporter of today: metadata by the tensor that a node makes."""
    proto = parsed(text, **EYE)
    for node in proto.graph.node:
        if node.output[0] in scopes:
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes[node.output[0]])
    return Model(proto).index


def older(text):
    """An export of the older exporter: a node is called like the tensor that it makes, with slashes for ``__``."""
    proto = parsed(text, **EYE)
    for node in proto.graph.node:
        node.name = node.output[0].replace("__", "/").replace("_0_", ".0")
    return Model(proto).index


CHAIN = "g (float[4, 4] x) => (float[4, 4] y) { linear = MatMul(x, w) relu = Relu(linear) y = MatMul(relu, w) }"
VALUES = [Value("linear", "fc", ("relu",)), Value("relu", "", ("linear_1",)), Value("linear_1", "out", ("",))]


def matched(index, values, own=None):
    """The values of a program that a file's tensors are, where PyTorch exports the program as ``own``."""
    return matched_with(index, values, lambda: own)


def test_a_tensor_named_like_a_node_in_the_same_module_is_its_value():
    assert matched(today(CHAIN), VALUES) == {"linear": "linear", "relu": "relu"}


@pytest.mark.parametrize(
    "value",
    [
        Value("linear", "other", ("relu",)),  # another module's
        Value("linear_9", "fc", ("relu",)),
    ],
)
def test_what_does_not_agree_in_name_and_module_is_not_matched(value):
    assert "linear" not in matched(today(CHAIN), [value, *VALUES[1:]])


def test_a_tensor_inside_what_one_node_became_is_not_matched():
    scopes = {**SCOPES, "relu": "['', 'gelu']"}  # computed for another node of the program
    assert "relu" not in matched(today(CHAIN, scopes), VALUES)


def test_one_of_several_results_is_named_by_what_takes_it():
    text = "g (float[4, 4] x) => (float[4, 4] y) { getitem = MatMul(x, w) y = Relu(getitem) }"
    scopes = {"getitem": "['', 'bn', 'batch_norm']"}
    values = [Value("batch_norm", "bn", ("getitem",)), Value("getitem", "bn", ("",), "batch_norm")]
    assert matched(today(text, scopes), values) == {"getitem": "getitem"}


MODULES = "g (float[4, 4] x) => (float[4, 4] y) { __a__M = MatMul(x, w) __R = Relu(__a__M) y = MatMul(__R, w) }"


def test_of_an_older_export_the_one_tensor_that_leaves_a_module_is_matched():
    values = [Value("linear", "a", ("relu",)), Value("relu", "", ("linear_1",)), Value("linear_1", "b", ("",))]
    assert matched(older(MODULES), values) == {"__a__M": "linear"}


def test_a_module_that_two_values_leave_is_not_matched():
    values = [Value("linear", "a", ("relu", "linear_1")), Value("more", "a", ("relu",)), Value("relu", "", ("",))]
    assert matched(older(MODULES), values) == {}


def test_behind_a_convolution_with_a_folded_normalization_it_is_the_normalizations_value():
    values = [Value("conv", "a", ("bn",)), Value("bn", "n", ("relu",)), Value("relu", "", ("",))]
    assert matched(older(MODULES), values) == {"__a__M": "bn"}


def test_a_value_that_others_than_the_folded_module_read_is_not_matched():
    values = [Value("conv", "a", ("bn", "relu")), Value("bn", "n", ("relu",)), Value("relu", "", ("",))]
    assert matched(older(MODULES), values) == {}


def test_a_graph_of_another_exporter_has_no_matches():
    assert matched(Model(parsed(CHAIN, **EYE)).index, VALUES) == {}


def test_a_file_that_does_not_tell_is_paired_with_what_the_program_is_exported_as_today():
    """Another exporter's, or one whose names an optimizer has changed."""
    text = "g (float[4, 4] x) => (float[4, 4] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }"
    assert matched(Model(parsed(text, **EYE)).index, VALUES, today(CHAIN)) == {"a": "linear", "b": "relu"}


def test_an_older_export_is_paired_before_it_is_matched_by_modules():
    values = [Value("linear", "fc", ("relu",)), Value("relu", "", ("linear_1",)), Value("linear_1", "out", ("",))]
    assert matched(older(MODULES), values, today(CHAIN)) == {"__a__M": "linear", "__R": "relu"}
