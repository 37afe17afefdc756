"""Random data: inside their ranges, the same at every pass, and never more than one sample in memory."""

from __future__ import annotations

import gc
import pickle
import weakref

import ml_dtypes
import numpy as np
import pytest
from layerdiff.dataloaders import DataLoader
from layerdiff.graph.errors import DataError
from layerdiff.graph.model import Model
from layerdiff.graph.specs import dtype_from_onnx
from onnx import TensorProto

from support.models import of_nodes


def model(nodes: str, inputs: str, **weights) -> Model:
    return Model(of_nodes(nodes, inputs, opset=21, ir=10, **weights))


def identity(kind: str, dims: str = "64,16") -> Model:
    made = model("y = Identity(x)", f"x {kind} {dims}")
    made.proto.graph.output[0].CopyFrom(made.proto.graph.input[0])
    made.proto.graph.output[0].name = "y"
    return made


def drawn(loader: DataLoader, of: Model) -> np.ndarray:
    """All values of the input ``x``."""
    return np.concatenate([sample["x"].reshape(-1) for sample in loader.bind(of)])


FLOATS = ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"]
INTEGERS = [f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]
SMALL = ["INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1", "FLOAT8E8M0"]
SMALL = [kind for kind in SMALL if kind in TensorProto.DataType.keys()]  # noqa: SIM118 - no dict


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*FLOATS, *INTEGERS, *SMALL, "BOOL", "STRING", "COMPLEX64", "COMPLEX128"])
def test_every_type_can_be_drawn(kind):
    of = identity(kind, "3,4")
    (sample,) = DataLoader(samples=1).bind(of)
    x = sample["x"]
    assert (x.dtype, x.shape) == (dtype_from_onnx(TensorProto.DataType.Value(kind)), (3, 4))
    assert not x.flags.writeable
    if kind == "STRING":
        assert all(isinstance(word, str) and word.isascii() and word for word in x.reshape(-1))


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("ends", [(0.0, 2.0), (-1.0, 1.0), (0.1, 0.3), (-240.0, 240.0), (0.5, 0.5)])
def test_floats_stay_in_their_range_and_fill_it(kind, ends):
    x = drawn(DataLoader(float_range=ends), identity(kind)).astype(np.float64)
    assert ends[0] <= x.min() <= x.max() <= ends[1]
    width = ends[1] - ends[0]
    assert x.min() - ends[0] <= 0.26 * width  # as near as two bits of significand come
    assert ends[1] - x.max() <= 0.26 * width


def test_the_whole_range_of_a_float_does_not_overflow():
    x = drawn(DataLoader(float_range=(-3e38, 3e38)), identity("FLOAT"))
    assert np.isfinite(x).all()
    assert x.min() < -2e38 < 2e38 < x.max()


@pytest.mark.parametrize(
    ("kind", "ends"),
    [
        ("INT64", (0, 2)),
        ("INT64", (-3, 4)),
        ("INT8", (-128, 128)),
        ("UINT64", (2**64 - 4, 2**64)),
        ("INT64", (-(2**63), 2**63)),
        ("UINT8", (250, 256)),
        ("INT4", (-8, 8)),
    ],
)
def test_integers_stay_in_their_range_and_fill_it(kind, ends):
    x = [int(v) for v in drawn(DataLoader(int_range=ends), identity(kind))]
    assert ends[0] <= min(x) <= max(x) < ends[1]
    if ends[1] - ends[0] <= 256:
        assert set(x) == set(range(*ends))


DEFAULTS = [("FLOAT", 0, 1), ("INT64", 0, 1), ("INT32", 0, 1), ("UINT8", 0, 255), ("INT8", -128, 127), ("BOOL", 0, 1)]


@pytest.mark.parametrize(("kind", "least", "most"), DEFAULTS)
def test_defaults(kind, least, most):
    x = drawn(DataLoader(samples=32), identity(kind)).astype(float)
    assert (round(x.min()), round(x.max())) == (least, most)


# -- what the graph implies -------------------------------------------------------------------------------------------

EMBEDDING = model(
    """a = Gather(words, ids)
       b = Gather(kinds, types)
       s = Add(a, b)
       f = Cast<to=1>(mask)
       n = Sub(one, f)
       m = Mul(n, large)
       u = Unsqueeze(m, last)
       y = Add(s, u)""",
    "ids INT64 N,S;types INT64 N,S;mask INT64 N,S",
    words=np.zeros((30522, 4), "f"),
    kinds=np.zeros((2, 4), "f"),
    one=np.float32(1),
    large=np.float32(-1e4),
    last=np.array([-1]),
)


def test_the_graph_decides():
    samples = DataLoader(samples=40).bind(EMBEDDING)
    arrays = {name: np.stack([sample[name] for sample in samples]) for name in ("ids", "types", "mask")}
    assert arrays["ids"].min() >= 0
    assert 20_000 < arrays["ids"].max() < 30_522
    assert set(np.unique(arrays["types"])) == {0, 1}
    assert set(np.unique(arrays["mask"])) == {0, 1}
    assert arrays["mask"][..., 0].all()  # no row drops everything
    assert samples.description == "40 random samples, seed 0, ranges inferred from the graph"
    assert "'ids' is drawn from [0, 30522): indexes 'words', 30522 along axis 0." in samples.notes


def test_the_user_narrows_what_the_graph_allows():
    ids = drawn(DataLoader(ranges={"x": (5, 9)}), model("y = Gather(t, x)", "x INT64 99", t=np.zeros((30, 2), "f")))
    assert set(ids) == {5, 6, 7, 8}


@pytest.mark.parametrize("ends", [(0, 100), (25, 100), (-20, 3), (29, 30)])
def test_a_general_range_never_leaves_the_table(ends):
    ids = drawn(DataLoader(int_range=ends), model("y = Gather(t, x)", "x INT64 999", t=np.zeros((30, 2), "f")))
    assert 0 <= ids.min() <= ids.max() < 30
    assert (ids.min(), ids.max() + 1) == (max(0, ends[0]), min(30, ends[1]))


@pytest.mark.parametrize("ends", [(30, 100), (50, 100), (-9, 0), (-30, -20)])
def test_a_general_range_beside_the_table_is_refused(ends):
    network = model("y = Gather(t, x)", "x INT64 999", t=np.zeros((30, 2), "f"))
    with pytest.raises(DataError, match=r"the graph allows 'x' \[0, 30\) alone \(indexes 't', 30 along axis 0\)"):
        DataLoader(int_range=ends).bind(network)


HINTS = {
    "read as bool": ("y = Cast<to=9>(x)", {}),
    "compared with 0": ("y = Equal(x, z)", {"z": np.array(0)}),
    "subtracted from 1": ("y = Sub(one, x)", {"one": np.array(1)}),
    "classes": ("y = OneHot(x, d, v)", {"d": np.array(5), "v": np.float32([0, 1])}),
}


@pytest.mark.parametrize("ends", [(-30, 30), (3, 9), (0, 2), (-5, 1)])
@pytest.mark.parametrize("case", HINTS)
def test_what_the_user_says_wins_over_hints(case, ends):
    nodes, weights = HINTS[case]
    network = model(nodes, "x INT64 999", **weights)
    for loader in (DataLoader(int_range=ends), DataLoader(ranges={"x": ends})):
        values = drawn(loader, network)
        assert (values.min(), values.max() + 1) == ends


def test_domains_bend_the_default():
    assert drawn(DataLoader(float_range=(-1, 1)), model("y = Log(x)", "x FLOAT 999")).min() > 0
    assert drawn(DataLoader(), model("y = Acosh(x)", "x FLOAT 999")).min() >= 1
    assert drawn(DataLoader(), model("n = Neg(x)\ny = Sqrt(n)", "x FLOAT 999")).max() <= 0


def test_a_shape_input_gets_the_one_legal_value():
    samples = DataLoader().bind(model("y = Reshape(v, x)", "v FLOAT N,6;x INT64 1"))
    assert [sample["x"].tolist() for sample in samples] == [[12]] * 4


def test_a_float_mask_holds_zeros_and_ones():
    of = model("n = Sub(one, x)\ny = Mul(n, large)", "x FLOAT 50,9", one=np.float32(1), large=np.float32(-1e9))
    assert set(drawn(DataLoader(), of)) == {0.0, 1.0}


def test_what_nobody_knows_is_named():
    samples = DataLoader().bind(model("y = Add(x, z)", "x FLOAT 3;z FLOAT 3"))
    assert len(samples.notes) == 1
    assert samples.notes[0].startswith("x [0, 1), z [0, 1): no range is known")
    assert samples.description == "4 random samples, seed 0"
    assert not samples.representative
    assert DataLoader(float_range=(0, 1)).bind(model("y = Add(x, z)", "x FLOAT 3;z FLOAT 3")).notes == ()


@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        ({"int_range": (0, 5)}, "FLOAT", "--int-range 0,5 changes nothing: no input holds whole numbers."),
        ({"int_range": (0, 5)}, "BOOL", "--int-range 0,5 changes nothing: no input holds whole numbers."),
        ({"float_range": (0, 5)}, "INT64", "--float-range 0,5 changes nothing: no input holds floats."),
        ({"int_range": (0, 5)}, "INT64", None),
        ({"float_range": (0, 5)}, "FLOAT16", None),
    ],
)
def test_a_range_of_no_input_is_told(given, kind, told):
    notes = DataLoader(**given).bind(identity(kind)).notes
    assert [note for note in notes if "changes nothing" in note] == ([] if told is None else [told])


def test_chosen_dimensions_are_told():
    notes = DataLoader(float_range=(0, 1)).bind(model("y = Relu(x)", "x FLOAT batch,4,len")).notes
    assert notes == ("'x' is 2x4x8: batch=2, len=8 chosen here, since the model leaves them open (--shape x:DIMS).",)


# -- the same at every pass -------------------------------------------------------------------------------------------


def bytes_of(samples):
    return [[(name, array.tobytes()) for name, array in sample.items()] for sample in samples]


def test_every_pass_gives_the_same_bytes():
    samples = DataLoader(samples=3).bind(EMBEDDING)
    assert bytes_of(samples) == bytes_of(samples) == bytes_of(DataLoader(samples=3).bind(EMBEDDING))
    assert len({str(sample) for sample in bytes_of(samples)}) == 3


def test_another_seed_gives_others():
    assert bytes_of(DataLoader(seed=1).bind(EMBEDDING)) != bytes_of(DataLoader(seed=0).bind(EMBEDDING))


def test_a_sample_can_be_made_by_itself():
    samples = DataLoader(samples=5).bind(EMBEDDING)
    assert bytes_of([samples[3]]) == bytes_of(samples)[3:4]
    with pytest.raises(IndexError):
        samples[5]


def test_more_samples_or_inputs_do_not_change_the_others():
    one, two = identity("FLOAT"), model("y = Add(x, z)", "z FLOAT 1,16;x FLOAT 64,16")
    short, long = DataLoader(samples=2).bind(one), DataLoader(samples=9).bind(two)
    assert [s["x"].tobytes() for s in short] == [s["x"].tobytes() for s in long][:2]
    assert not np.array_equal(next(iter(long))["x"][0], next(iter(long))["z"][0])


def test_memory_does_not_grow_with_the_number_of_samples():
    """At no moment are arrays of more than the sample at hand and the one before it alive."""
    alive: list[weakref.ref] = []
    most = 0
    for sample in DataLoader(samples=50).bind(EMBEDDING):
        alive += [weakref.ref(array) for array in sample.values()]
        del sample
        most = max(most, sum(ref() is not None for ref in alive))
    assert len(alive) == 150
    gc.collect()
    assert most <= 3
    assert not any(ref() is not None for ref in alive)


def test_samples_can_be_sent_to_another_process():
    samples = DataLoader(samples=2).bind(EMBEDDING)
    assert bytes_of(pickle.loads(pickle.dumps(samples))) == bytes_of(samples)
    loader = DataLoader(ranges={"x": (0, 1)})
    assert pickle.loads(pickle.dumps(loader)) == loader


# -- refusals ---------------------------------------------------------------------------------------------------------

TABLE = model("y = Gather(t, x)", "x INT64 N", t=np.zeros((30, 2), "f"))

REFUSALS = {
    "no such input": ({"ranges": {"z": (0, 1)}}, TABLE, "ranges (--range): 'z' is no input. The model has 'x'."),
    "outside the table": (
        {"ranges": {"x": (0, 31)}}, TABLE,
        "--range x:0,31: the graph allows [0, 30) alone (indexes 't', 30 along axis 0); [0, 31) is outside.",
    ),
    "below the table": ({"ranges": {"x": (-1, 3)}}, TABLE, "the graph allows [0, 30) alone"),
    "broken numbers for integers": ({"ranges": {"x": (0, 2.5)}}, TABLE, "expected LO,HI, two whole numbers"),
    "an empty range of integers": ({"ranges": {"x": (4, 4)}}, TABLE, "the range is empty, since 4 is not included"),
    "below a domain": ({"float_range": (-2.0, -1.0)}, model("y = Log(x)", "x FLOAT 9"), "'x' [1e-06, inf] alone"),
    "above a domain": ({"float_range": (1.5, 2.0)}, model("y = Acos(x)", "x FLOAT 9"), "'x' [-1, 1] alone (input of"),
    "a reversed range": ({"float_range": (2.0, 1.0)}, TABLE, "float_range=(2.0, 1.0): the range is empty"),
    "an empty int_range": ({"int_range": (2, 2)}, TABLE, "int_range=(2, 2): the range is empty"),
    "broken int_range": ({"int_range": (0, 1.5)}, TABLE, "expected LO,HI, two whole numbers"),
    "not finite": ({"float_range": (0.0, float("inf"))}, TABLE, "both numbers must be finite"),
    "NaN": ({"ranges": {"x": (float("nan"), 1)}}, TABLE, "ranges: x: both numbers must be finite"),
    "no pair": ({"int_range": 5}, TABLE, "int_range=5: expected LO,HI, two whole numbers."),
    "three numbers": ({"int_range": (1, 2, 3)}, TABLE, "int_range=(1, 2, 3): expected LO,HI, two whole numbers"),
    "too much for FP16": ({"float_range": (0.0, 1e6)}, identity("FLOAT16"), "float16 holds -65504 to 65504"),
    "too much for FP8": ({"float_range": (0.0, 500.0)}, identity("FLOAT8E4M3FN"), "float8_e4m3fn holds -448 to 448"),
    "too much for one input": ({"ranges": {"x": (-1, 1)}}, identity("UINT8"), "uint8 holds 0 to 255"),
    "too much for int8": ({"int_range": (0, 200)}, identity("INT8"), "int8 holds -128 to 127"),
    "strings have none": ({"ranges": {"x": (0, 1)}}, identity("STRING"), "the input holds strings"),
    "no sample": ({"samples": 0}, TABLE, "samples=0: expected a whole number, 1 or more"),
    "negative seed": ({"seed": -1}, TABLE, "seed=-1: expected a whole number"),
    "unknown shape": ({"shapes": {"z": (1,)}}, TABLE, "A shape is given for 'z', which is no input"),
    "shape of another rank": ({"shapes": {"x": (1, 2)}}, TABLE, "The shape 1x2 of 'x' has 2 dimensions"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_name_the_values(case):
    arguments, of, message = REFUSALS[case]
    with pytest.raises(DataError) as caught:
        DataLoader(**arguments).bind(of)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# -- through a runtime ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*FLOATS, *INTEGERS, "BOOL", "STRING"])
def test_what_is_drawn_passes_through_onnx_runtime_unchanged(kind):
    pytest.importorskip("onnxruntime")
    if "FLOAT8" in kind or kind == "BFLOAT16":
        pytest.importorskip("onnxruntime", minversion="1.20", reason="older ones cannot be given these types")
    from layerdiff.runners.onnxrt.runner import OnnxrtRunner

    of = identity(kind, "N,5")
    with OnnxrtRunner(threads=1).open(of) as session:
        for sample in DataLoader(samples=2).bind(of):
            y = session.infer(sample)["y"]
            assert y.dtype == sample["x"].dtype
            assert y.tolist() == sample["x"].tolist()


def test_bfloat16_is_drawn_evenly():
    x = drawn(DataLoader(samples=20), identity("BFLOAT16")).astype(np.float64)
    assert x.mean() == pytest.approx(0.5, abs=0.01)
    assert drawn(DataLoader(samples=1), identity("BFLOAT16")).dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("dims", "shapes", "way"),
    [
        ("1048576,1048576", {}, "export a model of a smaller one"),
        ("N,16", {"x": (99999999999, 16)}, "give a smaller one with --shape x:DIMS"),
    ],
)
def test_an_input_that_no_memory_holds_is_refused_with_its_size(dims, shapes, way):
    with pytest.raises(DataError, match=rf"input 'x' of shape \d+x\d+ is .* GiB, and this machine has .*: {way}"):
        DataLoader(shapes=shapes).bind(identity("FLOAT", dims))
