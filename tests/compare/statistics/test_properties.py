"""Statistics against a slow model in exact arithmetic, for tensors of any dtype, shape, strides, byte order and values.

``LAYERDIFF_PROPERTIES=1000 pytest tests/compare/statistics/test_properties.py`` tries so many of each.
"""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layerdiff.compare.statistics.statistics import Statistics

REALS = ("float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn")
INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "int4", "uint4")
ODD = (0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-45, 6e-8, 65504.0, 3e38)
HELD = 1e-12
"""Relative error of sums in float64 over the terms' sizes: eighty terms, each of a few roundings."""

tried = settings(
    max_examples=int(os.environ.get("LAYERDIFF_PROPERTIES", "15")),
    derandomize="LAYERDIFF_PROPERTIES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def dtype_of(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, None) or name)


@st.composite
def pairs(draw: st.DrawFn, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Two tensors of one shape and dtype, laid out in memory in two ways of their own."""
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = dtype_of(name)
    odd = draw(st.sampled_from((0.0, 0.2, 1.0)))
    reference = _values(rng, shape, dtype, odd)
    other = _values(rng, shape, dtype, odd)
    candidate = np.where(rng.random(shape) < draw(st.sampled_from((0.0, 0.5, 1.0))), other, reference).astype(dtype)
    return _laid_out(draw, reference), _laid_out(draw, candidate)


def _values(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype, odd: float) -> np.ndarray:
    if dtype.name in INTEGERS:
        if dtype.name == "bool":
            return np.asarray(rng.random(shape) < 0.5)
        low, high = (int(f(dtype)) for f in (lambda d: ml_dtypes.iinfo(d).min, lambda d: ml_dtypes.iinfo(d).max))
        edges = np.array([low, high, 0, 1], object)
        drawn = np.array([random.Random(int(s)).randint(low, high) for s in rng.integers(0, 2**40, math.prod(shape))])
        chosen = [
            edges[i] if flip else d
            for i, flip, d in zip(
                rng.integers(0, 4, drawn.size), rng.random(drawn.size) < odd, drawn.tolist(), strict=True
            )
        ]
        return np.array(chosen, object).astype(np.int8 if dtype.kind == "V" else dtype).astype(dtype).reshape(shape)
    with np.errstate(all="ignore"):
        values = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)
        values = np.where(rng.random(shape) < odd, rng.choice(ODD, shape), values)
        return values.astype(dtype)


def _laid_out(draw: st.DrawFn, array: np.ndarray) -> np.ndarray:
    """The same values in another order in memory, with gaps, backwards, or with the bytes the other way round."""
    how = draw(st.sampled_from(("C", "F", "gaps", "backwards", "swapped", "read-only")))
    if how == "F":
        return np.array(array, order="F")
    if how == "gaps" and array.ndim:
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if how == "backwards" and array.ndim:
        return array[::-1].copy()[::-1]
    if how == "swapped" and array.dtype.kind in "iuf" and array.dtype.itemsize > 1:
        return array.astype(array.dtype.newbyteorder())
    if how == "read-only":
        array = array.copy()
        array.flags.writeable = False
    return array


def exactly(value: Any) -> Fraction | float:
    """A number as a fraction; NaN and infinities as they are."""
    wide = float(value) if not isinstance(value, (int, np.integer, np.bool_)) else int(value)
    return wide if isinstance(wide, float) and not math.isfinite(wide) else Fraction(wide)


class Model:
    """The same statistics, element by element."""

    def __init__(self, reference: np.ndarray, candidate: np.ndarray, atol: Fraction, rtol: Fraction) -> None:
        as_list = [
            a.astype(np.float64 if a.dtype.name in REALS else object).ravel().tolist() for a in (reference, candidate)
        ]
        both = [(exactly(r), exactly(c)) for r, c in zip(*as_list, strict=True)]
        finite = [(r, c) for r, c in both if isinstance(r, Fraction) and isinstance(c, Fraction)]
        same = [r == c for r, c in both if not (isinstance(r, Fraction) and isinstance(c, Fraction))]
        self.count = len(both)
        self.finite = len(finite)
        self.nan = [sum(x != x for x in side) for side in zip(*both, strict=True)] or [0, 0]
        self.inf = [sum(x in (math.inf, -math.inf) for x in side) for side in zip(*both, strict=True)] or [0, 0]
        self.broken = same.count(False)
        errors = [c - r for r, c in finite]
        self.differ = sum(e != 0 for e in errors) + self.broken
        self.outside = sum(abs(c - r) > atol + rtol * abs(r) for r, c in finite) + self.broken
        self.max_abs = max(map(abs, errors), default=Fraction(0))
        self.sums = {
            "sum_abs": sum(map(abs, errors)),
            "sum_error": sum(errors),
            "sum_ee": sum(e * e for e in errors),
            "sum_rr": sum(r * r for r, _ in finite),
            "sum_cc": sum(c * c for _, c in finite),
            "sum_rc": sum(r * c for r, c in finite),
        }
        self.sizes = {
            "sum_error": self.sums["sum_abs"],
            "sum_rc": sum(abs(r * c) for r, c in finite),
        }


def agrees(found: Statistics, model: Model, outside: int) -> None:
    """Counts and maxima exactly, sums within the rounding of float64."""
    assert (found.count, found.finite, found.broken) == (model.count, model.finite, model.broken)
    assert (found.nan, found.inf, found.mismatched) == (model.nan, model.inf, outside)
    most = 0.0 if found.max_abs_at is None else found.max_abs_at.value
    assert most == pytest.approx(float(model.max_abs), rel=2**-52, abs=0)
    for name, exact in model.sums.items():
        size = float(model.sizes.get(name, exact))
        if size < 1e300:  # sums of squares of float64 overflow; of all other formats they do not
            assert abs(Fraction(getattr(found, name)) - exact) <= HELD * size + 1e-300, name
    assert sum(found.histogram.values()) == model.differ - model.broken


@pytest.mark.parametrize("name", REALS + INTEGERS)
def test_statistics_are_those_of_exact_arithmetic(name):
    @tried
    @given(pair=pairs(name))
    def holds(pair):
        found = Statistics().update(*pair)
        model = Model(*pair, Fraction(0), Fraction(0))
        agrees(found, model, model.differ)

    holds()


@pytest.mark.parametrize("name", REALS + INTEGERS)
def test_partial_statistics_merge_in_any_order(name):
    @tried
    @given(pairs_=st.lists(pairs(name), min_size=2, max_size=5), order=st.randoms(use_true_random=False))
    def holds(pairs_, order):
        whole = Statistics()
        for sample, pair in enumerate(pairs_):
            whole.update(*pair, sample=sample)
        parts = [Statistics().update(*pair, sample=sample) for sample, pair in enumerate(pairs_)]
        order.shuffle(parts)
        while len(parts) > 1:  # any two, again and again
            one, other = parts.pop(order.randrange(len(parts))), parts.pop(order.randrange(len(parts)))
            parts.insert(order.randrange(len(parts) + 1), one.merge(other))
        (merged,) = parts
        exact = ("count", "finite", "mismatched", "broken", "nan", "inf", "samples", "max_ulp", "histogram")
        places = ("broken_at", "max_abs_at", "max_rel_at", "use_at")
        for key in exact:
            assert getattr(merged, key) == getattr(whole, key), key
        for key in places:
            assert repr(getattr(merged, key)) == repr(getattr(whole, key)), key
        for key in ("sum_abs", "sum_ee", "sum_rr", "sum_cc"):
            assert getattr(merged, key) == pytest.approx(getattr(whole, key), rel=HELD, abs=1e-300), key

    holds()


@dataclass(frozen=True)
class Rule:
    """NumPy's rule."""

    rtol: float
    atol: float

    def allowed(self, magnitude: Any) -> Any:
        return self.atol + self.rtol * magnitude


@pytest.mark.parametrize("name", ["float16", "float32", "bfloat16", "int8"])
def test_mismatches_are_those_of_the_rule_in_exact_arithmetic(name):
    """Powers of two as tolerances of short significands, so that float64 holds each limit exactly."""

    @tried
    @given(pair=pairs(name), atol=st.sampled_from((0.0, 2**-10)), rtol=st.sampled_from((0.0, 2**-12, 2**-3)))
    def holds(pair, atol, rtol):
        atol = 0.0 if rtol else atol
        found = Statistics().update(*pair, Rule(rtol, atol))
        model = Model(*pair, Fraction(atol), Fraction(rtol))
        agrees(found, model, model.outside)

    holds()
