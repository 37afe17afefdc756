"""Statistics of a pair of tensors: every number against a plain float64 oracle, for every dtype."""

import math

import ml_dtypes
import numpy as np
import pytest
from layerdiff.compare.outputs.tolerance import Tolerance
from layerdiff.compare.statistics import host
from layerdiff.compare.statistics.statistics import CHEAP, FULL, Statistics

FLOATS = ["float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2"]
FLOATS += ["float8_e5m2fnuz", "float4_e2m1fn"]
INTEGERS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "int4", "uint4"]
COMPLEX = ["complex64", "complex128"]


def cheap(reference, candidate):
    """The cheap metrics of one pair."""
    return Statistics(full=False).update(reference, candidate).metrics()


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def close(metrics, expected, **tolerances):
    """Whether two sets of metrics agree; counts exactly."""
    assert list(metrics) == list(expected)
    exact = {k for k, v in expected.items() if v is None or isinstance(v, list)}
    assert {k: metrics[k] for k in exact} == {k: expected[k] for k in exact}
    numbers = [{k: v for k, v in m.items() if k not in exact} for m in (metrics, expected)]
    return numbers[0] == pytest.approx(numbers[1], **tolerances)


def pair(name, shape=(3, 7, 11), seed=0):
    """A tensor of mixed signs where the dtype has them, and one that differs from it in about half the places."""
    rng = np.random.default_rng(seed)
    dtype = dtype_of(name)
    if name in COMPLEX:
        one = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        return one.astype(dtype), (one + 1e-3 * rng.standard_normal(shape)).astype(dtype)
    if name in INTEGERS:
        low, high = {"bool": (0, 2), "int4": (-8, 8), "uint4": (0, 16)}.get(name) or (0, 100)
        if name.startswith("int"):
            low = -high
        one = rng.integers(low, high, shape)
        other = np.where(rng.random(shape) < 0.5, one, rng.integers(low, high, shape))
        return one.astype(dtype), other.astype(dtype)
    one = rng.standard_normal(shape)
    noise = np.where(rng.random(shape) < 0.5, 0, 0.3 * one)
    return one.astype(dtype), (one + noise).astype(dtype)


def oracle(reference, candidate):
    """Everything but max_ulp, whole-tensor, in float64."""
    wide = np.complex128 if reference.dtype.kind == "c" else np.float64
    r, c = reference.astype(wide), candidate.astype(wide)
    e = c - r
    a = np.abs(e)
    nonzero = r != 0
    rr, cc, ee = (np.sum(np.abs(x) ** 2) for x in (r, c, e))
    return {
        "count": r.size,
        "mismatched": int((r != c).sum()),
        "max_abs": a.max(),
        "max_rel": (a[nonzero] / np.abs(r[nonzero])).max(),
        "mean_abs": a.mean(),
        "rmse": math.sqrt(ee / r.size),
        "rel_l2": math.sqrt(ee / rr),
        "snr_db": 10 * math.log10(rr / ee),
        "cosine": np.vdot(r, c).real / math.sqrt(rr * cc),
        "bias": abs(e.mean()) if wide is np.complex128 else e.mean(),
        "nan": [0, 0],
        "inf": [0, 0],
    }


@pytest.mark.parametrize("name", FLOATS + INTEGERS + COMPLEX)
def test_full_metrics_are_the_oracles(name):
    reference, candidate = pair(name)
    metrics = Statistics().update(reference, candidate).metrics()
    assert tuple(metrics) == FULL
    ulp = metrics.pop("max_ulp")
    assert (ulp is None) == (name in INTEGERS)
    assert close(metrics, oracle(reference, candidate), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("name", FLOATS + INTEGERS + COMPLEX)
def test_cheap_metrics_are_the_oracles_to_six_digits(name):
    reference, candidate = pair(name, (5, 300, 70))
    expected = oracle(reference, candidate)
    metrics = cheap(reference, candidate)
    assert tuple(metrics) == CHEAP
    assert close(metrics, {k: expected[k] for k in CHEAP}, rel=2e-6, abs=1e-7)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e-6, 1.0, 1e15, 1e25, 1e38])
@pytest.mark.parametrize("relative", [1e-7, 1e-3, 1.0, 1e3])
def test_cheap_metrics_neither_overflow_nor_underflow(scale, relative):
    rng = np.random.default_rng(3)
    reference = (scale * rng.uniform(-1, 1, 70_001)).astype(np.float32)
    with np.errstate(over="ignore"):
        candidate = (reference + relative * scale * rng.uniform(-1, 1, 70_001)).astype(np.float32)
    if not np.isfinite(candidate).all():
        pytest.skip("the candidate itself overflows")
    expected = oracle(reference, candidate)
    metrics = cheap(reference, candidate)
    for key in ("max_abs", "rmse", "rel_l2", "snr_db"):
        assert metrics[key] == pytest.approx(expected[key], rel=1e-5, abs=0), key
    assert metrics["cosine"] == pytest.approx(expected["cosine"], abs=1e-6)


def test_cheap_metrics_where_one_side_is_nearly_zero():
    rng = np.random.default_rng(4)
    big, small = rng.standard_normal((2, 70_000)).astype(np.float32)
    small *= np.float32(1e-5)
    for reference, candidate in ((big, small), (small, big), (np.float32(1e-24) * big, big)):
        expected, metrics = oracle(reference, candidate), cheap(reference, candidate)
        assert metrics["cosine"] == pytest.approx(expected["cosine"], abs=1e-6)
        assert metrics["rel_l2"] == pytest.approx(expected["rel_l2"], rel=1e-5, abs=0)


def test_errors_whose_squares_underflow_are_kept():
    reference = np.zeros(70_000, np.float32)
    reference[::7] = 1
    candidate = np.where(reference == 0, np.float32(1e-25), reference)
    assert cheap(reference, candidate)["rmse"] == pytest.approx(1e-25 * math.sqrt(6 / 7), rel=1e-5, abs=0)


def test_a_cosine_is_one_only_where_nothing_turned():
    reference = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    assert cheap(reference, reference)["cosine"] == 1.0
    turned = reference + np.float32(1e-3) * np.roll(reference, 1)
    assert 1 - cheap(reference, turned)["cosine"] == pytest.approx(0.5e-6, rel=0.1)


def test_scaling_a_tensor_shows_in_everything_but_the_cosine():
    """Cosine similarity is 1 for a tensor three times too large; the other metrics are there beside it."""
    reference = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    metrics = Statistics().update(reference, 3 * reference).metrics()
    assert metrics["cosine"] == pytest.approx(1.0)
    assert metrics["rel_l2"] == pytest.approx(2.0)
    assert metrics["mismatched"] == 5000


def test_snr_does_not_depend_on_the_sign_of_the_tensor():
    reference = np.random.default_rng(0).uniform(1, 2, 1000).astype(np.float32)
    one = Statistics().update(reference, reference * np.float32(1.01)).metrics()["snr_db"]
    other = Statistics().update(-reference, -reference * np.float32(1.01)).metrics()["snr_db"]
    assert one == other == pytest.approx(40, abs=0.01)


def test_forty_percent_garbage_is_counted():
    reference = np.zeros(1000, np.float32)
    candidate = reference.copy()
    candidate[::5] = 1
    candidate[1::5] = -1
    assert Statistics().update(reference, candidate, Tolerance(1e-3, 1e-3)).mismatched == 400


INTEGER_EXTREMES = [
    ("uint64", 2**64 - 1, 0),
    ("uint64", 0, 2**64 - 1),
    ("int64", -(2**63), 2**63 - 1),
    ("int64", 2**63 - 1, -(2**63)),
    ("int64", 2**53, 2**53 + 1),
    ("uint64", 2**63, 2**63 + 1),
    ("uint8", 0, 255),
    ("int8", -128, 127),
    ("uint32", 0, 2**32 - 1),
]


@pytest.mark.parametrize(("name", "reference", "candidate"), INTEGER_EXTREMES)
@pytest.mark.parametrize("full", [True, False])
def test_integer_differences_do_not_wrap_around(name, reference, candidate, full):
    s = Statistics(full).update(np.array([reference], name), np.array([candidate], name))
    assert s.measures()["max_abs"] == abs(candidate - reference)
    assert s.measures()["bias"] == pytest.approx(candidate - reference)
    assert s.mismatched == 1


MIXED = [(2**64 - 1, -(2**63)), (2**63, -1), (5, 5), (0, -1), (2**63 + 5, 7), (1, -(2**63))]


@pytest.mark.parametrize(("unsigned", "signed"), MIXED)
def test_uint64_against_int64_is_exact(unsigned, signed):
    u, i = np.array([unsigned], np.uint64), np.array([signed], np.int64)
    for s in (Statistics().update(u, i), Statistics().update(i, u)):
        assert s.measures()["max_abs"] == abs(unsigned - signed)
        assert s.mismatched == (unsigned != signed)
    assert Statistics().update(u, i).measures()["bias"] == pytest.approx(signed - unsigned)


def test_the_place_of_the_greatest_errors():
    reference = np.full((2, 3, 4), 2.0, np.float32)
    reference[1, 0, 3] = 1e-3
    candidate = reference.copy()
    candidate[1, 2, 1] = 7
    candidate[1, 0, 3] = 1
    s = Statistics().update(np.zeros(1, np.float32), np.zeros(1, np.float32), sample=0)
    s.update(reference, candidate, sample=4)
    greatest, relative = s.max_abs_at, s.max_rel_at
    assert (greatest.value, greatest.sample, greatest.index) == (5, 4, (1, 2, 1))
    assert (greatest.reference, greatest.candidate) == (2, 7)
    assert (relative.sample, relative.index, relative.candidate) == (4, (1, 0, 3), 1)
    assert relative.value == pytest.approx(999)
    assert (s.worst_sample, s.worst.index) == (4, (1, 2, 1))


@pytest.mark.parametrize("full", [True, False])
def test_the_worst_element_is_the_one_furthest_beyond_its_tolerance(full):
    reference = np.array([1000.0, 0.1], np.float32)
    candidate = np.array([1001.0, 0.2], np.float32)
    s = Statistics(full).update(reference, candidate, Tolerance(1e-2, 0))
    assert s.mismatched == 1
    assert s.worst.index == (1,)
    assert s.use == pytest.approx(100, rel=1e-5)
    assert s.max_abs_at.index == (0,)


NAN, INF = math.nan, math.inf
# reference, candidate, mismatched, mismatched if NaN equals NaN
NONFINITE = [
    (NAN, NAN, 1, 0),
    (NAN, 1.0, 1, 1),
    (1.0, NAN, 1, 1),
    (INF, INF, 0, 0),
    (-INF, -INF, 0, 0),
    (INF, -INF, 1, 1),
    (INF, NAN, 1, 1),
    (INF, 65504.0, 1, 1),
    (65504.0, INF, 1, 1),
    (-0.0, 0.0, 0, 0),
]


@pytest.mark.parametrize(("one", "other", "strict", "lenient"), NONFINITE)
@pytest.mark.parametrize("name", ["float16", "float32", "float64", "bfloat16", "complex64", "float8_e5m2"])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("tolerance", [None, Tolerance(0.5, 1e30), Tolerance(1e30, math.inf)])
def test_nan_and_infinities(one, other, strict, lenient, name, full, tolerance):
    dtype = dtype_of(name)
    if "float8" in name:
        one, other = (min(x, 57344.0) if math.isfinite(x) else x for x in (one, other))
    reference, candidate = np.array([1, one, 2]).astype(dtype), np.array([1, other, 2]).astype(dtype)
    for equal_nan, expected in ((False, strict), (True, lenient)):
        allowed = tolerance
        s = Statistics(full, equal_nan=equal_nan).update(reference, candidate, allowed)
        assert s.mismatched == s.broken == expected
        assert s.agree == (not expected)
        assert s.nan == [int(np.isnan(one)), int(np.isnan(other))]
        assert s.inf == [int(np.isinf(one)), int(np.isinf(other))]
        metrics = s.metrics()
        assert (metrics["max_abs"] is None) == (metrics["rmse"] is None) == bool(expected)
        assert s.metrics(finite_only=True)["max_abs"] == 0
        if expected:
            assert s.worst.index == (1,)


def test_a_difference_that_overflows_is_infinite():
    big = np.array([1.7e308, 1])
    s = Statistics().update(big, -big)
    assert s.measures()["max_abs"] == math.inf
    assert s.mismatched == 2


def test_float32_differences_that_overflow_float32_are_finite():
    big = np.array([3e38], np.float32)
    for full in (True, False):
        assert Statistics(full).update(big, -big).metrics()["max_abs"] == pytest.approx(6e38)


def test_strings():
    reference = np.array([["a", b"b", "\u00e4"]], object)
    s = Statistics().update(reference, np.array([[b"a", "c", "\u00e4".encode()]], object))
    metrics = s.metrics()
    assert (metrics["count"], metrics["mismatched"], metrics["max_abs"]) == (3, 1, None)
    assert (s.worst.index, s.worst.reference, s.worst.candidate) == ((0, 1), "b", "c")
    assert Statistics().update(np.array(["x", "yy"]), np.array(["x", "yy"], object)).agree
    assert Statistics().update(np.array(["1"]), np.array([1])).mismatched == 1


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), ()])
@pytest.mark.parametrize("name", ["float32", "int64", "bool", "bfloat16"])
@pytest.mark.parametrize("full", [True, False])
def test_empty_tensors_and_scalars(shape, name, full):
    x = np.ones(shape, dtype_of(name))
    s = Statistics(full).update(x, x, Tolerance(0.1, 0.1))
    assert (s.count, s.agree) == (x.size, True)
    assert s.metrics()["max_abs"] == 0
    assert s.metrics()["snr_db"] is None


def test_nothing_compared_does_not_agree():
    assert not Statistics().agree


def test_a_shape_mismatch_is_no_crash_and_no_agreement():
    for shapes in (((2, 3), (3, 2)), ((4,), (2, 2)), ((0,), (0, 1)), ((), (1,))):
        s = Statistics().update(np.zeros(shapes[0]), np.zeros(shapes[1]))
        assert s.shape_mismatch == shapes
        assert not s.agree
        assert s.metrics()["max_abs"] is None


def test_different_dtypes_compare_by_value():
    one = np.array([1, 2, 3], np.int32)
    s = Statistics().update(one, np.array([1, 2, 3.5], np.float32))
    assert (s.mismatched, s.measures()["max_abs"], s.dtypes) == (1, 0.5, ("int32", "float32"))
    half = Statistics().update(np.array([1.0], np.float32), np.array([1 + 2**-10], np.float16))
    assert half.max_ulp == 1


@pytest.mark.parametrize("name", [*FLOATS, "float8_e8m0fnu"])
def test_ulp_counts_the_values_between(name):
    dtype = dtype_of(name)
    width = dtype.itemsize
    if width <= 2:
        with np.errstate(invalid="ignore"):
            values = np.arange(256**width, dtype=f"u{width}").view(dtype).astype(np.float64)
        ladder = np.unique(values[np.isfinite(values)]).astype(dtype)
        rng = np.random.default_rng(0)
        for a, b in rng.integers(0, ladder.size, (20, 2)):
            assert Statistics().update(ladder[a : a + 1], ladder[b : b + 1]).max_ulp == abs(int(a) - int(b))
        return
    one = dtype.type(1)
    above, zero = np.nextafter(one, dtype.type(2)), dtype.type(0)
    tiny = np.nextafter(zero, one)
    for a, b, steps in ((one, above, 1), (zero, tiny, 1), (-tiny, tiny, 2), (-zero, zero, 0), (-above, -one, 1)):
        assert Statistics().update(np.array([a]), np.array([b])).max_ulp == steps
    top = np.finfo(dtype).max
    top_rank = int(np.array([top]).view(f"i{width}")[0])
    assert Statistics().update(np.array([-top]), np.array([top])).max_ulp == 2 * top_rank


def test_the_histogram_holds_the_exponents_of_the_errors():
    error = np.array([0, 0.25, 0.3, -0.49, 1, 1.99, 2.0**-30, 1e-310])
    histogram = Statistics().update(np.zeros(8), error).histogram
    assert histogram == {-2: 3, 0: 2, -30: 1, -1023: 1}


@pytest.mark.parametrize("name", ["float32", "bfloat16", "int64", "complex64"])
@pytest.mark.parametrize("full", [True, False])
def test_merging_parts_is_seeing_it_all(name, full):
    whole, parts = Statistics(full), []
    for sample in range(5):
        reference, candidate = pair(name, (2, 3 + sample, 5), sample)
        allowed = Tolerance(1e-3, 1e-3)
        whole.update(reference, candidate, allowed, sample)
        parts.append(Statistics(full).update(reference, candidate, allowed, sample))
    merged = Statistics(full)
    for part in reversed(parts):
        merged.merge(part)
    assert close(merged.metrics(), whole.metrics(), rel=1e-12)
    exact = ("max_abs_at", "max_rel_at", "use_at", "histogram", "mismatched", "max_ulp", "samples", "nan", "inf")
    exact += ("least", "greatest")
    assert {k: getattr(merged, k) for k in exact} == {k: getattr(whole, k) for k in exact}


@pytest.mark.parametrize("size", [1, 63, host.RUN, host.RUN + 1, host.BLOCK - 1, 3 * host.BLOCK])
@pytest.mark.parametrize("full", [True, False])
def test_every_element_is_read_whatever_the_size(size, full):
    reference = np.ones(size, np.float32)
    for at in {0, size // 2, size - 1}:
        candidate = reference.copy()
        candidate[at] = 3
        s = Statistics(full).update(reference, candidate)
        assert (s.mismatched, s.max_abs_at.index, s.max_abs_at.value) == (1, (at,), 2)
        assert s.measures()["rmse"] == pytest.approx(2 / math.sqrt(size), rel=1e-6)


def test_tensors_that_are_views_are_read_in_c_order():
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    candidate = base.T.copy()
    candidate[5, 2] += 1
    s = Statistics().update(base.T, candidate)
    assert (s.mismatched, s.max_abs_at.index) == (1, (5, 2))


def test_inputs_are_not_changed():
    reference, candidate = pair("float32", (70_000,))
    copies = reference.copy(), candidate.copy()
    for x in (reference, candidate):
        x.setflags(write=False)
    Statistics(False).update(reference, candidate, Tolerance(1e-3, 0))
    Statistics(True).update(reference, candidate, Tolerance(1e-3, 0))
    assert (reference == copies[0]).all()
    assert (candidate == copies[1]).all()


def test_the_greatest_error_of_64_bit_integers_is_told_from_one_that_float64_rounds_to_the_same():
    most = np.iinfo(np.int64).max
    found = Statistics().update(np.array([most, 0]), np.array([1, most]))
    assert found.max_abs_at.value == most
    assert found.max_abs_at.index == (1,)


def test_the_range_is_that_of_the_reference_where_both_are_finite():
    reference, candidate = np.array([3, -2, np.inf, 9, np.nan]), np.array([1, 1, np.inf, np.inf, np.nan])
    found = Statistics().update(reference, candidate)
    assert (found.least, found.greatest, found.magnitude, found.one_value) == (-2, 3, 3, False)
    assert Statistics().update(np.ones(3, bool), np.ones(3, bool)).one_value
    assert not Statistics().update(np.full(3, 1j), np.full(3, 1j)).one_value
