"""A model is recognized by its digest, and can be sent to another process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff import ModelError, OnnxrtRunner
from layerdiff.graph import digest
from layerdiff.graph.cutting.slices import backward, slice_model
from layerdiff.graph.engine import opaque
from layerdiff.graph.load import load, load_engine
from layerdiff.graph.model import Model

TEXT = "g (float[n, 64] x) => (float[n, 64] y) { h = MatMul(x, w) r = Relu(h) y = Add(r, b) }"
WEIGHTS = {
    "w": np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32),  # stays in the file
    "b": np.arange(64, dtype=np.float32),  # is read
}
FEED = {"x": np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32)}

Write = Callable[..., Path]


@pytest.fixture
def path(onnx_file: Write) -> Path:
    return onnx_file(TEXT, **WEIGHTS)


def saved(path: Path, name: str, **options: object) -> Path:
    """The same model in another file."""
    target = path.with_name(name)
    onnx.save(onnx.load(path), target, **options)
    return target


def moved(path: Path) -> Model:
    (path.parent / "elsewhere").mkdir()
    return load(shutil.copy(path, path.parent / "elsewhere" / "other.onnx"))


def by_another_program(path: Path) -> Model:
    proto = onnx.load(path)
    proto.producer_name, proto.doc_string, proto.graph.name = "somebody else", "what it is", "net"
    return Model(proto)


SAME = {
    "loaded again": load,
    "in memory": lambda path: Model(onnx.load(path)),
    "copied under another name": moved,
    "with external data": lambda path: load(
        saved(path, "external.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    ),
    "of another program": by_another_program,
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_one_network_has_one_digest_however_it_is_stored(path: Path, make: Callable[[Path], Model]) -> None:
    model, other = load(path), make(path)
    assert other.digest == model.digest
    assert other.same_network(model)
    assert model.same_network(other)


def changed(edit: Callable[[onnx.ModelProto], None]) -> Callable[[Path], Model]:
    def make(path: Path) -> Model:
        proto = onnx.load(path)
        edit(proto)
        return Model(proto)

    return make


def set_weight(name: str, position: int) -> Callable[[onnx.ModelProto], None]:
    def edit(proto: onnx.ModelProto) -> None:
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        values = np.array(onnx.numpy_helper.to_array(tensor))
        values.reshape(-1)[position] = np.nextafter(values.reshape(-1)[position], np.float32(9))
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))

    return edit


OTHERS = {
    "a large weight": changed(set_weight("w", 4095)),
    "a small weight": changed(set_weight("b", 3)),
    "an operator": changed(lambda proto: setattr(proto.graph.node[1], "op_type", "Neg")),
    "an attribute": changed(lambda p: p.graph.node[0].attribute.append(onnx.helper.make_attribute("a", 1))),
    "an opset": changed(lambda proto: setattr(proto.opset_import[0], "version", 18)),
    "the name of a tensor": changed(
        lambda p: (p.graph.node[1].output.__setitem__(0, "z"), p.graph.node[2].input.__setitem__(0, "z"))
    ),
    "the order of outputs": changed(
        lambda proto: proto.graph.output.insert(0, onnx.helper.make_empty_tensor_value_info("h"))
    ),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_what_changes_a_network_changes_its_digest(path: Path, make: Callable[[Path], Model]) -> None:
    model, other = load(path), make(path)
    assert other.digest != model.digest
    assert not other.same_network(model)


def test_weights_that_differ_everywhere_are_not_all_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = []

    def contents(proto: onnx.ModelProto, folder: Path | None, *, excerpt: bool = False) -> str:
        whole.append(not excerpt)
        return digest.contents(proto, folder, excerpt=excerpt)

    monkeypatch.setattr("layerdiff.graph.model.contents", contents)
    proto = onnx.load(path)
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(WEIGHTS["w"] * 2, "w"))
    assert not load(path).same_network(Model(proto))
    assert not any(whole)


def constant(location: str) -> Model:
    """A model whose only weight is a Constant with external data."""
    tensor = onnx.TensorProto(name="c", data_type=onnx.TensorProto.FLOAT, dims=[64], data_location=1)
    tensor.external_data.add(key="location", value=location)
    node = onnx.helper.make_node("Constant", [], ["y"], value=tensor)
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [64])
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [y]))


def test_external_data_of_constants_count(tmp_path: Path) -> None:
    digests = []
    for last in (0.0, 1.0):
        np.append(np.zeros(63, np.float32), np.float32(last)).tofile(tmp_path / "c.bin")
        digests.append(Model(constant("c.bin"), folder=tmp_path).digest)
    assert len(set(digests)) == 2


def test_pieces_have_digests_of_their_own(path: Path) -> None:
    model, again, other = load(path), load(path), OTHERS["a large weight"](path)
    part = backward(model.index, ["r"], ["h"])
    piece, same, different = (slice_model(m, part, {}) for m in (model, again, other))
    assert piece.digest == same.digest
    assert piece.same_network(same)
    assert piece.digest not in (model.digest, different.digest)
    assert piece.derive(model.proto).digest != piece.digest


def test_an_engine_is_part_of_the_digest_and_not_of_the_network(path: Path) -> None:
    engines = []
    for name in ("a.engine", "b.engine"):
        path.with_name(name).write_bytes(name.encode())
        engines.append(load_engine(path.with_name(name), path))
    assert len({model.digest for model in (load(path), *engines)}) == 3
    assert engines[0].same_network(engines[1])


# -- sent to another process -------------------------------------------------------------------------------------------


def in_memory(path: Path) -> Model:
    return Model(onnx.load(path), source="mine")


def first_half(path: Path) -> Model:
    model = load(path)
    return slice_model(model, backward(model.index, ["h"], ["x"]), {})


def engine(path: Path) -> Model:
    path.with_name("net.engine").write_bytes(b"an engine")
    return load_engine(path.with_name("net.engine"), path)


def opaque_engine(path: Path) -> Model:
    path.with_name("alone.engine").write_bytes(b"an engine")
    model = load_engine(path.with_name("alone.engine"))
    return Model(opaque("alone", load(path).inputs, load(path).outputs), source=model.source, engine=model.engine)


SENT = {
    "a file": load,
    "in memory": in_memory,
    "a piece": first_half,
    "an engine": engine,
    "an opaque one": opaque_engine,
}


def facts(model: Model) -> tuple[object, ...]:
    weight = model.index.weight("w")
    return (
        model.digest,
        model.source,
        model.label,
        model.derived,
        model.opaque,
        [str(spec) for spec in (*model.inputs, *model.outputs)],
        None if weight is None else weight.tobytes(),
    )


@pytest.mark.parametrize("make", SENT.values(), ids=SENT)
def test_a_model_arrives_as_it_was(path: Path, make: Callable[[Path], Model]) -> None:
    model = make(path)
    assert facts(pickle.loads(pickle.dumps(model))) == facts(model)


def outputs(model: Model) -> dict[str, np.ndarray]:
    with OnnxrtRunner().open(model) as session:
        return session.infer(FEED)


def outputs_elsewhere(sent: bytes, folder: Path) -> dict[str, np.ndarray]:
    os.chdir(folder)
    return outputs(pickle.loads(sent))


def test_a_model_runs_in_another_process_and_another_folder(
    path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    models = [load(path.name), first_half(Path(path.name)), in_memory(path)]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.starmap(outputs_elsewhere, [(pickle.dumps(model), elsewhere) for model in models])
    for mine, theirs in zip(map(outputs, models), there, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            np.testing.assert_array_equal(theirs[name], value)


def test_a_file_that_changed_on_the_way_is_refused(path: Path) -> None:
    sent = pickle.dumps(load(path))
    onnx.save(OTHERS["a small weight"](path).proto, path)
    with pytest.raises(ModelError, match=r"model\.onnx has changed since it was loaded"):
        pickle.loads(sent)
    path.unlink()
    with pytest.raises(ModelError, match="no such file"):
        pickle.loads(sent)


def test_a_piece_whose_weights_changed_on_the_way_is_refused(path: Path) -> None:
    sent = pickle.dumps(first_half(path))
    os.utime(path, ns=(1, 1))
    with pytest.raises(ModelError, match=r"model\.onnx, weights of .*model\.onnx, has changed"):
        pickle.loads(sent)


def test_an_engine_that_changed_on_the_way_is_refused(path: Path) -> None:
    sent = pickle.dumps(opaque_engine(path))
    path.with_name("alone.engine").write_bytes(b"another engine")
    with pytest.raises(ModelError, match=r"alone\.engine has changed since it was loaded"):
        pickle.loads(sent)


def test_a_file_that_was_only_touched_is_taken(path: Path) -> None:
    sent = pickle.dumps(load(path))
    os.utime(path, ns=(1, 1))
    assert pickle.loads(sent).digest == load(path).digest


@pytest.mark.tf
def test_a_tensorflow_program_arrives_as_it_was() -> None:
    pytest.importorskip("tensorflow")
    pytest.importorskip("tf2onnx")
    path = Path(__file__).parents[2] / "examples" / "digits" / "digits.pb"
    model, onnx_model = load(path), load(path.with_suffix(".onnx"))
    other = pickle.loads(pickle.dumps(model))
    assert other.digest == model.digest
    assert other.tf.inputs == model.tf.inputs
    assert not model.same_network(onnx_model)
