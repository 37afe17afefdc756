"""Decoders of language models: what is recognized by names and ranks, and what is made to fit."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.decoders import Sizes, decoder, feed_of_tokens
from layerdiff.graph.errors import DataError
from layerdiff.graph.specs import TensorSpec

INT64, FLOAT = np.dtype(np.int64), np.dtype(np.float32)


def ints(name: str, *dims) -> TensorSpec:
    return TensorSpec(name, INT64, dims)


def floats(name: str, *dims) -> TensorSpec:
    return TensorSpec(name, FLOAT, dims)


def cached(past: str = "past_key_values.{}.{}", present: str = "present.{}.{}", dims=("b", 2, "past", 8)):
    """Inputs and outputs of a decoder of two layers."""
    slots = [(layer, kind) for layer in range(2) for kind in ("key", "value")]
    inputs = [ints("input_ids", "b", "s"), ints("attention_mask", "b", "t"), ints("position_ids", "b", "s")]
    return (
        [*inputs, *(floats(past.format(*slot), *dims) for slot in slots)],
        [floats("logits", "b", "s", 64), *(floats(present.format(*slot), "b", 2, "t", 8) for slot in slots)],
    )


@pytest.mark.parametrize(
    ("past", "present"),
    [
        ("past_key_values.{}.{}", "present.{}.{}"),
        ("past_key_values_{}_{}", "present_{}_{}"),
        ("past.{}.{}", "present.{}.{}"),
        ("past_key_values.{}.{}", "present_key_values.{}.{}"),
    ],
)
def test_caches_are_told_by_their_names(past, present):
    found = decoder(*cached(past, present))
    assert [(cache.past.name, cache.present, cache.axis) for cache in found.caches] == [
        (past.format(layer, kind), present.format(layer, kind), 2) for layer in range(2) for kind in ("key", "value")
    ]
    assert (found.ids.name, found.mask.name, found.positions.name) == ("input_ids", "attention_mask", "position_ids")
    assert found.logits.name == "logits"


def test_kind_before_layer():
    inputs = [ints("input_ids", "b", "s"), floats("past_key_0", "b", 2, "p", 8), floats("past_value_0", "b", 2, "p", 8)]
    found = decoder(inputs, [floats("logits", "b", "s", 9), floats("present_key_0", "b", 2, "t", 8)])
    assert [(cache.past.name, cache.present) for cache in found.caches] == [
        ("past_key_0", "present_key_0"),
        ("past_value_0", None),
    ]


@pytest.mark.parametrize(
    ("dims", "axis"),
    [
        (("b", 2, "past_sequence_length", 8), 2),
        (("b", "past_seq", 2, 8), 1),
        (("b", 2, None, 8), 2),
        ((1, 2, 16, 8), 2),
    ],
)
def test_the_axis_of_the_tokens(dims, axis):
    assert {cache.axis for cache in decoder(*cached(dims=dims)).caches} == {axis}


@pytest.mark.parametrize(
    "inputs",
    [
        [floats("x", "b", 3)],
        [floats("input_ids", "b", "s")],
        [ints("input_ids", "b")],
        [ints("attention_mask", "b", "s")],
    ],
)
def test_what_is_no_decoder(inputs):
    assert decoder(inputs, [floats("logits", "b", "s", 64)]) is None


def test_a_mask_of_another_rank_is_left_to_the_user():
    inputs = [
        ints("input_ids", "b", "s"),
        floats("attention_mask", "b", 1, "s", "t"),
        ints("position_ids", 3, "b", "s"),
    ]
    found = decoder(inputs, [])
    assert (found.mask, found.positions, found.logits) == (None, None, None)


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({}, Sizes(2, 8, 0)),
        ({"input_ids": (3, 5)}, Sizes(3, 5, 0)),
        ({"past_key_values.1.value": (None, None, 4, None)}, Sizes(2, 8, 4)),
        ({"attention_mask": (-1, 12), "input_ids": (1, 2)}, Sizes(1, 2, 10)),
        ({"attention_mask": (1, 12)}, Sizes(1, 12, 0)),
        ({"attention_mask": (1, 12), "past_key_values.0.key": (1, 2, 9, 8)}, Sizes(1, 3, 9)),
    ],
)
def test_sizes_follow_from_any_shape_that_is_given(given, sizes):
    assert decoder(*cached()).sizes(given) == sizes


def test_sizes_that_the_model_fixes():
    inputs, outputs = cached(dims=(4, 2, 15, 8))
    inputs[1] = ints("attention_mask", 4, 16)
    assert decoder(inputs, outputs).sizes({}) == Sizes(4, 1, 15)


@pytest.mark.parametrize(
    "given",
    [
        {"input_ids": (2, 8), "past_key_values.0.key": (3, 2, 0, 8)},
        {"input_ids": (2, 8), "attention_mask": (2, 9), "past_key_values.0.key": (2, 2, 4, 8)},
        {"past_key_values.0.key": (2, 2, 4, 8), "past_key_values.1.key": (2, 2, 5, 8)},
    ],
)
def test_shapes_that_contradict_each_other_are_refused(given):
    with pytest.raises(DataError, match=r"on axis \d, where 2 x \d+ new tokens behind \d in the cache need"):
        decoder(*cached()).sizes(given)


def test_mask_and_positions_of_padded_prompts():
    found = decoder(*cached())
    feed = feed_of_tokens(found, np.array([[5, 6, 7], [8, 0, 0]]), np.array([[1, 1, 1], [1, 0, 0]]))
    assert feed["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert feed["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]
    assert feed["past_key_values.1.value"].shape == (2, 2, 0, 8)


def test_positions_go_on_behind_the_cache():
    found = decoder(*cached())
    assert found.around(np.ones((1, 7)), 4)["position_ids"].tolist() == [[4, 5, 6]]


@pytest.mark.parametrize(("past", "read"), [(0, False), (3, True)])
def test_a_merged_decoder_reads_its_cache_where_there_is_one(past, read):
    inputs, outputs = cached()
    found = decoder([*inputs, TensorSpec("use_cache_branch", np.dtype(bool), (1,))], outputs)
    assert found.around(np.ones((1, 3 + past)), past)["use_cache_branch"].tolist() == [read]


def test_a_cache_of_unknown_width_cannot_be_made():
    found = decoder(*cached(dims=("b", "heads", "past", 8)))
    with pytest.raises(DataError, match="leaves its heads or their width open"):
        found.empty(2)
