"""Stored data: every way to give samples, and what is said about those that do not fit."""

from __future__ import annotations

import base64
import gc
import io
import itertools
import json
import os
import pickle
import tempfile
import weakref

import ml_dtypes
import numpy as np
import pytest
from layerdiff.dataloaders import Iterated, Source, as_source, open_data
from layerdiff.dataloaders.first import First
from layerdiff.dataloaders.random_inputs import DataLoader
from layerdiff.graph.errors import DataError, UsageError
from layerdiff.graph.model import Model
from onnx import TensorProto, helper

from support.models import assembled


def model(*inputs: tuple[str, int, list]) -> Model:
    return Model(assembled([helper.make_node("Identity", [inputs[0][0]], ["y"])], inputs, inputs[:1]))


ONE = model(("x", TensorProto.FLOAT, ["N", 3]))
TWO = model(("a/b:0", TensorProto.FLOAT, ["N", 3]), ("ids", TensorProto.INT64, ["N"]))


def x(number: int, rows: int = 2) -> np.ndarray:
    return np.full((rows, 3), number, np.float32)


def pair(number: int) -> dict[str, np.ndarray]:
    return {"a/b:0": x(number), "ids": np.array([number, number + 1])}


def values(source: Source, of: Model = ONE, name: str = "x") -> list:
    """The first element of each sample."""
    samples = source.bind(of)
    first = [float(sample[name].reshape(-1)[0]) for sample in samples]
    assert first == [float(sample[name].reshape(-1)[0]) for sample in samples]  # any pass gives the same
    assert len(samples) == len(first)
    assert samples.representative
    for sample in samples:
        assert list(sample) == [spec.name for spec in of.inputs]
        assert not any(array.flags.writeable for array in sample.values())
    return first


# -- NumPy files ----------------------------------------------------------------------------------------------------


def test_npz(tmp_path):
    np.savez(tmp_path / "d.npz", **pair(5))
    assert values(open_data(tmp_path / "d.npz"), TWO, "ids") == [5]
    assert open_data(tmp_path / "d.npz").bind(TWO).description == f"1 sample of {tmp_path / 'd.npz'}"


def test_a_folder_of_npz_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 1):
        np.savez_compressed(tmp_path / f"sample{number}.npz", x=x(number))
    (tmp_path / "README").write_text("what these are")
    assert values(open_data(tmp_path)) == [1, 2, 10]
    assert open_data(tmp_path).bind(ONE).description == f"3 samples of {tmp_path}"


def test_a_single_npy(tmp_path):
    np.save(tmp_path / "anything.npy", x(4))
    assert values(open_data(tmp_path / "anything.npy")) == [4]


@pytest.mark.parametrize("file", ["a/b:0.npy", "a_b_0.npy"])
def test_a_folder_with_one_npy_for_each_input(tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    np.save(tmp_path / file, x(7))
    np.save(tmp_path / "ids.npy", np.array([7, 8]))
    assert values(open_data(tmp_path), TWO, "a/b:0") == [7]


def test_a_folder_of_folders(tmp_path):
    for number in (0, 1):
        (tmp_path / f"s{number}").mkdir()
        np.save(tmp_path / f"s{number}" / "ids.npy", pair(number)["ids"])
        np.save(tmp_path / f"s{number}" / "a_b_0.npy", x(number))
    assert values(open_data(tmp_path), TWO, "ids") == [0, 1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"])
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_dtypes_that_numpy_saves_as_raw_bytes(tmp_path, dtype, suffix):
    dtype = np.dtype(getattr(ml_dtypes, dtype))
    from layerdiff.graph.specs import dtype_to_onnx

    data = np.array([1, 2, 3]).astype(dtype)
    file = tmp_path / f"x.{suffix}"
    np.savez(file, x=data) if suffix == "npz" else np.save(file, data)
    (sample,) = open_data(file).bind(model(("x", dtype_to_onnx(dtype), [3])))
    assert sample["x"].dtype == dtype
    assert sample["x"].tolist() == data.tolist()


@pytest.mark.parametrize("stored", [np.array(["a", "é"]), np.array([b"a", "é".encode()]), np.array(["a", "é"], object)])
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_strings(tmp_path, stored, suffix):
    file = tmp_path / f"x.{suffix}"
    np.savez(file, x=stored) if suffix == "npz" else np.save(file, stored)
    (sample,) = open_data(file).bind(model(("x", TensorProto.STRING, [2])))
    assert sample["x"].dtype == object
    assert sample["x"].tolist() == ["a", "é"]


def test_another_byte_order(tmp_path):
    np.save(tmp_path / "x.npy", x(3).astype(">f4"))
    assert values(open_data(tmp_path / "x.npy")) == [3]


def test_one_sample_of_a_folder_at_a_time(tmp_path):
    for number in range(20):
        np.savez(tmp_path / f"{number}.npz", x=x(number))
    alive: list[weakref.ref] = []
    for sample in open_data(tmp_path).bind(ONE):
        alive.append(weakref.ref(sample["x"]))
        del sample
        assert sum(ref() is not None for ref in alive) <= 1
    assert len(alive) == 20


# -- Polygraphy -----------------------------------------------------------------------------------------------------


def encoded(array: np.ndarray, legacy: bool = False) -> dict:
    stream = io.BytesIO()
    np.save(stream, array)
    if legacy:
        return {"array": stream.getvalue().decode("latin-1"), "__polygraphy_encoded_ndarray": "x"}
    return {"array": base64.b64encode(stream.getvalue()).decode(), "polygraphy_class": "ndarray"}


@pytest.mark.parametrize("legacy", [False, True])
def test_polygraphy_inputs(tmp_path, legacy):
    (tmp_path / "in.json").write_text(json.dumps([{"x": encoded(x(n), legacy)} for n in (3, 4)]))
    assert values(open_data(tmp_path / "in.json")) == [3, 4]


def test_a_folder_of_polygraphy_iterations(tmp_path):
    for number in (0, 1, 2):
        (tmp_path / f"{number:010}.json").write_text(json.dumps({"x": encoded(x(number))}))
    assert values(open_data(tmp_path)) == [0, 1, 2]


def test_what_polygraphy_itself_saves(tmp_path):
    serde = pytest.importorskip("polygraphy.json")
    serde.save_json([{"x": x(6)}, {"x": x(7)}], str(tmp_path / "in.json"))
    assert values(open_data(tmp_path / "in.json")) == [6, 7]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ('{"polygraphy_class": "RunResults", "lst": []}', "these are outputs"),
        ('[{"x": {"tensor": "AAAA", "polygraphy_class": "Tensor"}}]', "'x' is a torch.Tensor"),
        ('[{"x": [1, 2]}]', "'x' is list, not an array that Polygraphy saved"),
        ('[{"x": {"array": "AAAA", "polygraphy_class": "ndarray"}}]', "'x' cannot be decoded"),
        ("[3]", "expected dicts of arrays by input name, found int"),
        ("[]", "holds no sample"),
    ],
)
def test_json_that_is_something_else(tmp_path, content, message):
    (tmp_path / "in.json").write_text(content)
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / "in.json").bind(ONE)


# -- scripts --------------------------------------------------------------------------------------------------------

SCRIPTS = {
    "yields": "import numpy as np\ndef load_data():\n    for n in (1, 2): yield {'x': np.full((2, 3), n, 'f')}",
    "returns": "import numpy as np\ndef load_data(): return [{'x': np.full((2, 3), n, 'f')} for n in (1, 2)]",
    "uses a module beside it": "import numpy as np, beside\ndef load_data():\n    return beside.samples()",
}


@pytest.mark.parametrize("case", SCRIPTS)
def test_scripts(tmp_path, case):
    (tmp_path / "beside.py").write_text(
        "import numpy as np\ndef samples():\n    return [{'x': np.full((2, 3), n, 'f')} for n in (1, 2)]"
    )
    (tmp_path / "data.py").write_text(SCRIPTS[case])
    assert values(open_data(tmp_path / "data.py")) == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def other(): pass", r"data\.py: has no function load_data\(\)"),
        ("def load_data(:", r"data\.py: SyntaxError: .*, line 1"),
        (
            "import no_such_module_here",
            r"ModuleNotFoundError: No module named 'no_such_module_here' \(data\.py, line 1\)",
        ),
        ("def load_data():\n    return 1 / 0", r"data\.py: ZeroDivisionError: division by zero \(data\.py, line 2\)"),
        ("def load_data():\n    yield {}[3]", r"data\.py: sample 0: KeyError: 3 \(data\.py, line 2\)"),
        ("def load_data():\n    return 5", r"data\.py: load_data\(\) returned 5: it has to give dicts"),
        ("def load_data():\n    pass", r"data\.py: load_data\(\) returned None: it has to give dicts"),
        ("def load_data():\n    return 'x.npz'", r"data\.py: load_data\(\) returned 'x.npz': it has to give dicts"),
        ("def load_data():\n    return []", r"data\.py holds no sample"),
        ("raise SystemExit(0)", r"data\.py: Ended: it called sys\.exit\(0\)"),
        ("import os; os._exit(0)", r"data\.py: Ended: it called os\._exit\(0\)"),
    ],
)
def test_scripts_that_fail(tmp_path, text, message):
    (tmp_path / "data.py").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        open_data(tmp_path / "data.py").bind(ONE)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_what_a_script_forks_may_leave(tmp_path):
    (tmp_path / "data.py").write_text("import os; 1 / (os.waitpid(os.fork() or os._exit(7), 0)[1] - (7 << 8))")
    with pytest.raises(DataError, match="ZeroDivisionError"):
        open_data(tmp_path / "data.py").bind(ONE)


# -- iterables ------------------------------------------------------------------------------------------------------


def generate():
    for number in range(3):
        yield {"x": x(number)}


@pytest.mark.parametrize(
    "data",
    [
        [{"x": x(n)} for n in range(3)],
        tuple({"x": x(n)} for n in range(3)),
        [{"x": [[n, n, n]]} for n in range(3)],
        generate,
        generate(),
        iter([{"x": x(n)} for n in range(3)]),
    ],
    ids=["list", "tuple", "lists for arrays", "function", "generator", "iterator"],
)
def test_iterables(data):
    assert values(as_source(data)) == [0, 1, 2]


def test_one_dict_is_one_sample():
    assert values(as_source({"x": x(9)})) == [9]


def test_as_source(tmp_path):
    loader = DataLoader()
    assert as_source(loader) is loader
    np.savez(tmp_path / "d.npz", x=x(1))
    assert as_source(str(tmp_path / "d.npz")) == open_data(tmp_path / "d.npz")
    with pytest.raises(DataError, match="int is no iterable of dicts"):
        as_source(3)


@pytest.mark.parametrize("once", [True, False], ids=["generator", "function"])
def test_iterables_are_not_kept(once):
    """Neither while they are checked nor while they are read is more than the sample at hand alive."""
    alive: list[weakref.ref] = []
    most = 0

    def many():
        nonlocal most
        for number in range(20):
            array = x(number)
            alive.append(weakref.ref(array))
            most = max(most, sum(ref() is not None for ref in alive))
            sample = {"x": array}
            del array
            yield sample
            del sample

    samples = Iterated(many() if once else many).bind(ONE)
    for sample in samples:
        del sample
    gc.collect()
    assert len(alive) == (20 if once else 40)
    assert most <= 2
    assert not any(ref() is not None for ref in alive)


def test_a_spooled_generator_leaves_no_files_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    samples = Iterated(generate()).bind(ONE)
    assert len(list(samples)) > 1
    assert len(list(tmp_path.iterdir())) == 1
    del samples
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_spooled_strings_and_bfloat16():
    of = model(("s", TensorProto.STRING, ["N"]), ("b", TensorProto.BFLOAT16, ["N"]))
    data = [{"s": np.array(["a", "bcd"], object), "b": np.array([1, 2], ml_dtypes.bfloat16)}, {"s": [], "b": []}]
    first, second = Iterated(iter(data)).bind(of)
    assert first["s"].tolist() == ["a", "bcd"]
    assert first["b"].dtype == ml_dtypes.bfloat16
    assert (second["s"].dtype, second["s"].shape, second["b"].shape) == (np.dtype(object), (0,), (0,))


def test_data_that_change_between_passes_are_refused():
    calls = iter(range(9))

    def fresh():
        return [{"x": x(next(calls))}]

    samples = Iterated(fresh).bind(ONE)
    with pytest.raises(DataError, match="sample 0 is not what it was at the first pass"):
        list(samples)


def test_data_that_run_out_are_refused():
    data = [{"x": x(0)}, {"x": x(1)}]
    samples = Iterated(data).bind(ONE)
    del data[1]
    with pytest.raises(DataError, match="1 samples at this pass, 2 at the first"):
        list(samples)


# -- what does not fit ----------------------------------------------------------------------------------------------

UNFIT = {
    "missing": ({"a/b:0": x(0)}, "lacks the input 'ids'; it has 'a/b:0'."),
    "misspelt": ({"a/b:0": x(0), "idz": np.array([1, 2])}, "lacks the input 'ids' (is it 'idz'?)."),
    "unknown": (pair(0) | {"labels": np.zeros(2)}, "has 'labels', which the model does not take; its inputs are"),
    "dtype": (
        pair(0) | {"a/b:0": x(0).astype("f8")},
        "'a/b:0' is float64, the model takes float32. Convert it with astype('float32').",
    ),
    "integers for floats": (pair(0) | {"a/b:0": x(0).astype("i4")}, "'a/b:0' is int32, the model takes float32."),
    "int32 for int64": (pair(0) | {"ids": np.zeros(2, "i4")}, "'ids' is int32, the model takes int64."),
    "strings": (pair(0) | {"ids": np.array(["a", "b"])}, "'ids' is string, the model takes int64."),
    "raw bytes of another size": (pair(0) | {"ids": np.zeros(2, "V2")}, "'ids' is void16, the model takes int64."),
    "raw bytes for plain numbers": (pair(0) | {"ids": np.zeros(2, "V8")}, "'ids' is void64, the model takes int64."),
    "rank": (
        pair(0) | {"ids": np.zeros((2, 1), "i8")},
        "'ids' is 2x1, of rank 2; the model's input is ids (int64, N).",
    ),
    "dimension": (
        pair(0) | {"a/b:0": np.zeros((2, 4), "f")},
        "'a/b:0' is 2x4; the model's input is a/b:0 (float32, Nx3): axis 1 must be 3.",
    ),
    "two sizes of one symbol": (
        pair(0) | {"ids": np.zeros(5, "i8")},
        "'N' is 2 in 'a/b:0' and 5 in 'ids'; it is one size.",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
@pytest.mark.parametrize("how", ["npz", "list", "generator"])
def test_unfit_data(tmp_path, case, how):
    sample, message = UNFIT[case]
    if how == "npz":
        np.savez(tmp_path / "d.npz", **sample)
        source = open_data(tmp_path / "d.npz")
    else:
        source = as_source([sample] if how == "list" else iter([sample]))
    with pytest.raises(DataError) as caught:
        source.bind(TWO)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sample", "message"),
    [(3, "sample 0 is int; expected a dict"), ({"x": [["a"] * 3]}, "'x' cannot be read as float32")],
)
def test_samples_that_are_no_arrays(sample, message):
    with pytest.raises(DataError, match=message):
        as_source([sample]).bind(ONE)


def test_a_later_sample_that_does_not_fit_is_named(tmp_path):
    np.savez(tmp_path / "0.npz", x=x(0))
    np.savez(tmp_path / "1.npz", x=np.zeros((2, 4), "f"))
    with pytest.raises(DataError, match=r"1\.npz: 'x' is 2x4"):
        open_data(tmp_path).bind(ONE)
    with pytest.raises(DataError, match="sample 1 lacks the input 'x'"):
        as_source([{"x": x(0)}, {}]).bind(ONE)


# -- what cannot be read --------------------------------------------------------------------------------------------


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        open_data(tmp_path / "gone.npz")


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="the folder is empty"):
        open_data(tmp_path)


def test_a_folder_of_other_things(tmp_path):
    (tmp_path / "notes.md").write_text("nothing")
    for path in (tmp_path, tmp_path / "notes.md"):
        with pytest.raises(DataError, match=r"nothing in it can be read; expected .*\.npz.* or a \.py file"):
            open_data(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive at all"])
def test_an_archive_that_is_none(tmp_path, content):
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz: cannot be read"):
        open_data(tmp_path / "d.npz").bind(ONE)


def test_an_array_cut_short(tmp_path):
    np.save(tmp_path / "x.npy", x(1))
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content[:-4])
    with pytest.raises(DataError, match=r"x\.npy: cannot be read"):
        list(open_data(tmp_path / "x.npy").bind(ONE))


def test_a_damaged_archive(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).random((2, 3), np.float32))
    content = bytearray((tmp_path / "d.npz").read_bytes())
    at = content.index(b"\x93NUMPY") + 130
    content[at] ^= 255
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz: cannot be read: Bad CRC"):
        list(open_data(tmp_path / "d.npz").bind(ONE))


def test_a_single_npy_for_two_inputs(tmp_path):
    np.save(tmp_path / "x.npy", x(1))
    with pytest.raises(DataError, match=r"the model has 2 inputs; give a folder with a/b:0\.npy, ids\.npy"):
        open_data(tmp_path / "x.npy").bind(TWO)


def test_stored_samples_can_be_sent_to_another_process(tmp_path):
    np.savez(tmp_path / "d.npz", x=x(4))
    (sample,) = pickle.loads(pickle.dumps(open_data(tmp_path / "d.npz").bind(ONE)))
    assert sample["x"][0, 0] == 4


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no such device")
def test_a_device_is_no_data(tmp_path):
    (tmp_path / "data.npz").symlink_to("/dev/null")
    for path in ("/dev/null", tmp_path / "data.npz"):
        with pytest.raises(DataError, match="neither a regular file nor a folder, but a device or a pipe"):
            open_data(path)


@pytest.mark.parametrize(("most", "told"), [(1, ()), (2, ()), (3, ("--samples 3: there are no more than 2.",))])
def test_the_first_of_fewer_samples_are_all_and_that_is_told(most, told):
    samples = First(Iterated([{"x": x(1)}, {"x": x(2)}]), most).bind(ONE)
    assert (len(samples), samples.notes) == (min(most, 2), told)


def test_of_what_has_no_end_only_as_much_is_taken_as_is_asked_for(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(
        "import itertools, numpy as np\n"
        "def load_data():\n    return ({'x': np.full((2, 3), i, np.float32)} for i in itertools.count())\n"
    )
    endless = ({"x": x(number)} for number in itertools.count())
    for source in (open_data(str(script)), as_source(endless), as_source(lambda: ({"x": x(1)} for _ in iter(int, 1)))):
        samples = First(source, 3).bind(ONE)
        assert samples.description.startswith("the first 3 samples of ")
        assert [len(list(samples)) for _ in range(2)] == [3, 3]


def test_hidden_files_of_a_folder_are_nobodys_data(tmp_path):
    for name in ("a.npz", ".b.npz"):
        np.savez(tmp_path / name, x=x(1))
    assert len(open_data(str(tmp_path)).bind(ONE)) == 1


def test_a_generator_that_was_used_up_is_told(identity_model):
    generator = ({"x": np.ones(3, np.float32)} for _ in range(2))
    model = Model(identity_model)
    assert len(Iterated(generator).bind(model)) == 2
    with pytest.raises(DataError, match="this generator was used up before, as by an earlier comparison: give a list"):
        Iterated(generator).bind(model)


def test_a_sample_that_the_temporary_folder_does_not_take_whole_is_told_in_one_line(monkeypatch):
    """NumPy may write less than all of an array and say nothing."""
    monkeypatch.setattr("numpy.save", lambda path, array, **_: path.write_bytes(b"less"))
    samples = ({"x": np.zeros((2, 3), np.float32)} for _ in range(2))
    with pytest.raises(UsageError, match=r"No space left on device; name a folder with more room by TMPDIR$"):
        Iterated(samples).bind(ONE)
