"""The parts of localizing, each on its own: judging one layer, keeping tensors, laying out layers."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from layerdiff.compare.causes.judgement import channel_axis, format_loss, judge
from layerdiff.compare.lockstep.units import plan
from layerdiff.compare.runs.memory import reused
from layerdiff.compare.runs.spill import Store
from layerdiff.graph.formats import BF16, E4M3, FP16, FP32, INT8
from layerdiff.graph.model import Model
from layerdiff.graph.rounding.roundings import roundings

from support import networks

NETWORKS = {f.__name__: f for f in networks.FEEDS}
HALF, SINGLE = roundings(FP32, FP16), roundings(FP32, FP32)
RNG = np.random.default_rng(0)
Y = RNG.standard_normal((32, 64)).astype(np.float32)
NOISE = (HALF.gain * HALF.operand * Y * RNG.standard_normal(Y.shape)).astype(np.float32)
ERROR = (HALF.operand * Y * RNG.standard_normal(Y.shape)).astype(np.float32)


# ---- judging one layer ----------------------------------------------------------------------------------------------


def changed(index, value) -> np.ndarray:
    y = (Y + ERROR).astype(np.float32)
    y[index] = value
    return y


@pytest.mark.parametrize(
    ("what", "candidate", "reason"),
    [
        ("equal", Y, None),
        ("rounded", Y + ERROR, None),
        ("three times the noise", Y + 3 * ERROR, None),
        ("nine times the noise", Y + 9 * ERROR, "noise"),
        ("one NaN", changed((3, 4), np.nan), "finite"),
        ("one infinity", changed((3, 4), np.inf), "finite"),
        ("one row is off", changed(4, 1.005 * Y[4]), "slice"),
        ("what is small is off", np.where(np.abs(Y) < 0.1, 1.02 * Y, Y + ERROR), "slice"),
        ("all larger by 0.1 %", Y + ERROR + 1e-3 * Y, "gain"),
        ("another shape", Y[:16], "shape"),
        ("transposed", Y.T, "shape"),
    ],
)
def test_a_layer_is_beyond_its_noise_for_a_reason(what, candidate, reason):
    verdict = judge(Y, candidate.astype(np.float32), NOISE, HALF, sample=3)
    assert verdict.reason == reason
    assert verdict.beyond == (reason is not None)
    assert verdict.sample == 3


def test_the_same_infinities_and_nans_on_both_sides_are_equal():
    y, c = Y.copy(), (Y + ERROR).astype(np.float32)
    y[0, :3] = c[0, :3] = [np.inf, -np.inf, np.nan]
    assert not judge(y, c, NOISE, HALF).beyond
    c[0, 1] = np.inf
    assert judge(y, c, NOISE, HALF).reason == "finite"


def test_what_a_relu_cut_off_may_be_lifted_over_zero_by_rounding_but_not_by_more():
    y = np.maximum(RNG.standard_normal((4, 8, 16, 16)), 0).astype(np.float32)
    y[:, 3] = 0  # a dead channel: no noise is expected there
    noise = (HALF.gain * HALF.operand * y * RNG.standard_normal(y.shape)).astype(np.float32)
    for lifted, beyond in ((2 * HALF.operand, False), (0.05, True)):
        c = y.copy()
        c[:, 3, 8, 8] = lifted
        assert judge(y, c, noise, HALF).beyond == beyond


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_the_verdict_does_not_depend_on_the_scale_between_fp32_runtimes(scale):
    y = Y.astype(np.float64) * scale
    noise = SINGLE.gain * SINGLE.inner * y * np.random.default_rng(1).standard_normal(y.shape)
    error = SINGLE.inner * y * np.random.default_rng(2).standard_normal(y.shape)
    y32 = y.astype(np.float32)
    assert not judge(y32, (y + error).astype(np.float32), noise.astype(np.float32), SINGLE).beyond
    assert judge(y32, (y + 30 * error).astype(np.float32), noise.astype(np.float32), SINGLE).beyond


def test_subnormals_of_the_format_are_no_error():
    y = (1e-7 * Y).astype(np.float32)
    rounded = y.astype(np.float16).astype(np.float32)
    assert not judge(y, rounded, 1e-7 * NOISE, HALF).beyond


@pytest.mark.parametrize(
    ("reference", "candidate", "beyond"),
    [
        (np.arange(4000), np.arange(4000), False),
        (np.arange(4000), np.where(np.arange(4000) == 7, 8, np.arange(4000)), True),
        (np.arange(4000) > 9, np.arange(4000) > 10, True),
        (np.zeros(4000, np.int8), np.eye(1, 4000, 7, dtype=np.int8)[0], False),  # a quantizer at the border of a step
        (np.zeros(4000, np.int8), 2 * np.eye(1, 4000, 7, dtype=np.int8)[0], True),
        (np.zeros(4000, np.int8), np.ones(4000, np.int8), True),
    ],
)
def test_integers_are_equal_but_for_a_quantizers_rounding(reference, candidate, beyond):
    verdict = judge(reference, candidate, None, SINGLE)
    assert verdict.beyond == beyond
    assert verdict.reason == ("integer" if beyond else None)
    assert math.isinf(verdict.excess) == beyond


def test_without_known_noise_only_what_is_plainly_wrong_is_beyond():
    assert not judge(Y, 3 * Y, None, HALF, known=False).beyond
    assert judge(Y, 3 * Y, None, HALF, known=False).relative == pytest.approx(2)
    assert judge(Y, changed((0, 0), np.nan), None, HALF, known=False).beyond
    assert judge(Y, Y[:1], None, HALF, known=False).beyond


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((2, 16, 4, 4), 1),
        ((2, 8, 4, 4), None),
        ((8, 32), 1),
        ((8, 9, 32), 2),
        ((8, 9), None),
        ((32,), None),
        ((), None),
    ],
)
def test_channels_are_where_the_weights_belong(shape, axis):
    assert channel_axis(shape) == axis


@pytest.mark.parametrize(
    ("values", "fmt", "loss"),
    [
        ([1.0, 65504.0], FP16, None),
        ([1.0, 65519.0], FP16, None),  # rounds to 65,504
        ([1.0, 65520.0], FP16, "overflow"),
        ([1.0, 70000.0], FP16, "overflow"),
        ([1.0, -70000.0], FP16, "overflow"),
        ([1.0, 70000.0], BF16, None),
        ([1.0, 500.0], E4M3, "overflow"),
        ([1e-6, 2e-6, 3.3e-6], FP16, "underflow"),
        ([1e-6, 1.0], FP16, None),  # small beside what is large: nobody misses it
        ([1e-6, 2e-6], BF16, None),
        ([0.0, 0.0], FP16, None),
        ([np.inf, 1.0], FP16, None),
        ([np.nan], FP16, None),
        ([], FP16, None),
        ([1e9], INT8, None),
    ],
)
def test_what_a_format_cannot_hold(values, fmt, loss):
    assert format_loss(np.array(values, np.float32), fmt) == loss


def test_integers_overflow_no_floating_format():
    assert format_loss(np.array([1 << 40]), FP16) is None


# ---- keeping tensors ------------------------------------------------------------------------------------------------

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(3.5),
    np.array([], np.int64),
    np.array([True, False]),
    np.array([[1, 2]], ml_dtypes.bfloat16),
    np.array(1.5, ml_dtypes.bfloat16),
    np.array([1, 2], ml_dtypes.float8_e4m3fn),
    np.array(["a", "bc"], object),
]


@pytest.mark.parametrize("limit", [0, 1 << 20])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_an_array_comes_back_as_it_was_from_memory_and_from_disk(limit, array):
    with Store(limit) as store:
        store.put("reference", 0, "t", array)
        for _ in range(2):
            back = store.get("reference", 0, "t")
            assert (back.dtype, back.shape) == (array.dtype, array.shape)
            assert np.array_equal(back, array)


def test_a_dropped_array_makes_room_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = np.zeros(100, np.float32)
    with Store(500) as store:
        store.put("reference", 0, "a", array)
        store.put("reference", 0, "b", array)
        assert store.used == 400
        assert len(list(tmp_path.glob("*/*.npy"))) == 1
        store.drop("reference", 0, ["a", "b", "never"])
        assert store.used == 0
        assert list(tmp_path.glob("*/*.npy")) == []
        assert not store.has("reference", 0, "a")
        store.put("reference", 1, "a", array)
        assert store.used == 400
    assert list(tmp_path.iterdir()) == []


def test_streams_and_samples_are_apart():
    with Store(1 << 20) as store:
        for stream in ("reference", "candidate"):
            for sample in (0, 1):
                store.put(stream, sample, "t", np.array([stream == "reference", sample]))
        assert store.get("candidate", 1, "t").tolist() == [0, 1]
        store.drop("candidate", 1, ["t"])
        assert store.has("candidate", 0, "t")
        assert store.has("reference", 1, "t")


# ---- laying out layers ----------------------------------------------------------------------------------------------


def layout(name: str, memory: int = 1 << 30, every: bool = False):
    index = Model(NETWORKS[name]()).index
    names = {n: n for n in (*index.producer, *index.inputs)}
    return index, plan(index, index, names, every=every, memory=memory)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("memory", [1 << 10, 1 << 15, 1 << 30])
def test_layers_run_after_what_they_read_and_are_numbered_in_order(name, every, memory):
    index, laid = layout(name, memory, every)
    ready = set(index.inputs)
    for number, step in enumerate(laid.steps):
        assert step.index == number
        made = [n for unit in step.units for n in unit.reference.outputs]
        assert set(step.reference.inputs) <= ready
        assert set(step.reference.outputs) == set(made)
        for unit in step.units:
            assert set(unit.reference.inputs) <= ready | set(made)
            assert unit.main in unit.reference.nodes
        ready.update(made)
    assert [u.number for u in sorted(laid.units, key=lambda u: u.number)] == list(range(len(laid.units)))
    assert set(index.outputs) <= ready
    assert laid.unmatched == ()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_node_that_an_output_needs_is_in_a_layer(name):
    index, laid = layout(name)
    inside = {p for unit in laid.units for p in unit.reference.nodes}
    needed, stack = set(), list(index.outputs)
    while stack:
        position = index.producer.get(stack.pop())
        if position is not None and position not in needed:
            needed.add(position)
            stack.extend(index.reads[position])
    assert needed <= inside


def test_what_has_no_counterpart_is_no_border():
    index = Model(networks.residual()).index
    names = {n: n for n in (*index.producer, *index.inputs) if n != "out1"}
    laid = plan(index, index, names, memory=1 << 30)
    assert laid.unmatched == ("out1",)
    around = next(unit for unit in laid.units if unit.reference.outputs == ("a2_relu",))
    assert {index.names[p] for p in around.reference.nodes} >= {"n_out1", "n_a2", "n_a2_bn", "n_a2_relu"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_that_was_freed_is_kept_while_localizing_and_given_back_behind():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    with reused(1, 2):
        for _ in range(3):
            arrays = [np.ones(1 << 22, np.float32) for _ in range(8)]  # 128 MiB
            del arrays
    assert resident() < before + (32 << 20)
