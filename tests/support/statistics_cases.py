"""Pairs of tensors that statistics are taken of, and what it takes for two statistics to be the same."""

import math

import ml_dtypes
import numpy as np
import pytest
from layerdiff.compare.outputs.tolerance import user

RNG = np.random.default_rng(7)


def normal(*shape, dtype=np.float32, scale=1.0):
    return (RNG.standard_normal(shape) * scale).astype(dtype)


def noisy(x, amount):
    return (x.astype(np.float64) * (1 + amount * RNG.standard_normal(x.shape))).astype(x.dtype)


def planted(x, values):
    x = x.copy()
    x.reshape(-1)[[i for i, _ in values]] = [v for _, v in values]
    return x


def pairs():
    nan, inf = math.nan, math.inf
    x = normal(3, 17, 41)
    yield "float32", x, noisy(x, 1e-6)
    yield "equal", x, x.copy()
    yield "far apart", x, normal(3, 17, 41, scale=1e3)
    yield "outliers", x, planted(noisy(x, 1e-6), [(0, 7.0), (2090, -9.0), (1999, 9.0)])
    yield "the same maximum twice", np.zeros(2500, np.float32), planted(np.zeros(2500, np.float32), [(5, 1), (1500, 1)])
    yield "zeros in the reference", planted(x, [(i, 0) for i in range(9)]), noisy(x, 1e-6)
    yield "all zero against small", np.zeros((40, 50), np.float32), normal(40, 50, scale=1e-30)
    yield "subnormal", normal(40, 50, scale=1e-40), normal(40, 50, scale=1e-40)
    yield "not finite", planted(x, [(3, nan), (1700, inf), (9, -inf)]), planted(x, [(3, nan), (1700, inf), (9, inf)])
    yield "not finite on one side", x, planted(noisy(x, 1e-6), [(3, nan), (1004, inf), (1200, 3.0)])
    yield "all NaN", np.full(2000, nan, np.float32), np.full(2000, nan, np.float32)
    yield (
        "nothing finite in a block",
        planted(np.ones(2000, np.float32), [(i, inf) for i in range(1000)]),
        np.ones(2000, np.float32),
    )
    half = normal(2, 3000, dtype=np.float16)
    yield "float16", half, noisy(half, 1e-3)
    yield "float16 at its end", planted(half, [(4, 65504)]), planted(half, [(4, inf), (9, -65504)])
    brain = normal(2, 3000).astype(ml_dtypes.bfloat16)
    yield "bfloat16", brain, noisy(brain, 1e-2)
    wide = normal(7, 300, dtype=np.float64)
    yield "float64", wide, noisy(wide, 1e-15)
    yield "float64, differences that overflow", planted(wide, [(3, 1.7e308)]), planted(wide, [(3, -1.7e308)])
    yield "float64, opposite signs", np.full(1500, 1e300), np.full(1500, -1e300)
    for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"):
        info = np.iinfo(name)
        ends = RNG.integers(info.min, info.max, 1500, name, endpoint=True)
        yield name, ends, RNG.permutation(ends)
        yield f"{name}, a few", ends, planted(ends, [(1200, info.min), (1201, info.max), (3, ends[3])])
    yield "int64, neighbours of 2^53", np.full(1100, 2**53, np.int64), np.full(1100, 2**53 + 1, np.int64)
    yield "int64, end to end", np.full(1100, -(2**63), np.int64), np.full(1100, 2**63 - 1, np.int64)
    flags = RNG.random(3000) < 0.5
    yield "bool", flags, planted(flags, [(2222, not flags[2222])])
    yield "one element", np.ones((), np.float32), np.full((), 1.5, np.float32)


PAIRS = {name: (reference, candidate) for name, reference, candidate in pairs()}
RULES = {
    "none": None,
    "user": user(1e-6, 1e-6),
    "exact": user(0.0, 0.0),
    "relative": user(1e-6, 0.0),
}


def assert_same(found, plain):
    for key in (
        "count",
        "finite",
        "mismatched",
        "broken",
        "samples",
        "nan",
        "inf",
        "max_ulp",
        "histogram",
        "dtypes",
        "least",
        "greatest",
    ):
        assert getattr(found, key) == getattr(plain, key), key
    for key in ("broken_at", "max_abs_at", "max_rel_at", "use_at"):
        one, other = getattr(found, key), getattr(plain, key)
        assert (one is None) == (other is None), key
        if one is not None:
            assert one.value == pytest.approx(other.value, rel=1e-12)
            assert type(one.value) is type(other.value)
            for part in ("sample", "index"):
                assert getattr(one, part) == getattr(other, part), key
            assert repr(one.reference) == repr(other.reference)
            assert repr(one.candidate) == repr(other.candidate)
    measures, expected = found.measures(), plain.measures()
    assert list(measures) == list(expected)
    # A mean of errors of both signs cancels: its rounding is one of the mean of their magnitudes.
    level = {"bias": plain.sum_abs / max(plain.finite, 1), "cosine": 1.0}
    for key, value in expected.items():
        if value is None:
            assert measures[key] is None
            continue
        slack = {"rel": 1e-12, "abs": 1e-12 * level.get(key, 0), "nan_ok": True}
        assert measures[key] == pytest.approx(value, **slack), key
