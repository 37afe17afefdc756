"""Inputs of decoders: what is drawn together, and prompts as text or token ids."""

from __future__ import annotations

import importlib.util
import sys
import types

import numpy as np
import pytest
from layerdiff import Model, OnnxrtRunner
from layerdiff.compare.cli.command import main
from layerdiff.dataloaders import DataLoader, Prompts, open_data
from layerdiff.graph.errors import DataError, MissingPackage

from examples.tiny_decoder import Size, decoder
from support.models import parsed

TINY = Model(decoder(Size(layers=1, vocabulary=32)))
IDS = "3 1 4\n1,5\n\n9 2 6 5\n"


@pytest.fixture
def prompts(tmp_path):
    """Writes a file of prompts."""

    def write(text: str, name: str = "prompts.txt"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def tokenizer(tmp_path):
    """The path of a tokenizer that knows a few words."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 3, "cat": 7, "sat": 1, "?": 0}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


# ---- random ones ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "past"),
    [({}, 0), ({"past_key_values.0.key": (2, 2, 3, 8)}, 3), ({"attention_mask": (2, 12), "input_ids": (2, 8)}, 4)],
)
def test_mask_positions_and_cache_fit_each_other(shapes, past):
    samples = DataLoader(samples=2, shapes=shapes).bind(TINY)
    for sample in samples:
        assert sample["input_ids"].shape == (2, 8)
        assert sample["attention_mask"].tolist() == [[1] * (8 + past)] * 2
        assert sample["position_ids"].tolist() == [list(range(past, past + 8))] * 2
        assert {sample[f"past_key_values.0.{kind}"].shape for kind in ("key", "value")} == {(2, 2, past, 8)}
    with OnnxrtRunner().session(TINY) as session:
        assert session.infer(samples[0])["logits"].shape == (2, 8, 32)


def test_what_was_recognized_is_said():
    (note, *_) = DataLoader(shapes={"past_key_values.0.key": (2, 2, 3, 8)}).bind(TINY).notes
    assert note.startswith("The model was recognized as a decoder with a cache of 1 layer (input_ids, attention_mask, ")
    assert "2 x 8 tokens behind 3 in the cache, whose keys and values are random" in note


def test_a_range_of_the_users_wins():
    sample = DataLoader(ranges={"position_ids": (7, 8)}).bind(TINY)[0]
    assert set(sample["position_ids"].reshape(-1).tolist()) == {7}


def test_without_a_cache_nothing_is_settled():
    model = Model(parsed("g (int64[N, S] input_ids) => (int64[N, S] y) { y = Identity(input_ids) }"))
    assert not any("recognized" in note for note in DataLoader().bind(model).notes)


# ---- prompts --------------------------------------------------------------------------------------------------------


def test_token_ids_one_prompt_a_line(prompts):
    samples = open_data(prompts(IDS)).bind(TINY)
    assert [sample["input_ids"].tolist() for sample in samples] == [[[3, 1, 4]], [[1, 5]], [[9, 2, 6, 5]]]
    assert all((sample["attention_mask"] == 1).all() for sample in samples)
    assert samples.description.endswith("prompts.txt, 9 tokens")
    assert samples.representative
    assert not any(array.flags.writeable for array in next(iter(samples)).values())


def test_shorter_prompts_of_a_batch_are_padded_and_masked(prompts):
    first, second = Prompts(path=prompts(IDS), batch=2).bind(TINY)
    assert first["input_ids"].tolist() == [[3, 1, 4], [1, 5, 0]]
    assert first["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert first["position_ids"].tolist() == [[0, 1, 2], [0, 1, 1]]
    assert second["input_ids"].tolist() == [[9, 2, 6, 5]]


@pytest.mark.parametrize("folder", [False, True])
def test_text_through_a_tokenizer(prompts, tokenizer, folder):
    source = Prompts(path=prompts("a cat sat\nsat a dog\n"), tokenizer=tokenizer.parent if folder else tokenizer)
    assert [sample["input_ids"].tolist() for sample in source.bind(TINY)] == [[[3, 7, 1]], [[1, 3, 0]]]


def test_json_lines(prompts, tokenizer):
    lines = '"a cat"\n[1, 2]\n{"text": "sat"}\n{"prompt": "cat"}\n{"input_ids": [4]}\n'
    source = Prompts(path=prompts(lines, "p.jsonl"), tokenizer=tokenizer)
    assert [s["input_ids"].tolist() for s in source.bind(TINY)] == [[[3, 7]], [[1, 2]], [[1]], [[7]], [[4]]]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("a cat sat\n", "p.txt", "'a cat sat' is text. Name its tokenizer with --tokenizer"),
        ("\n\n", "p.txt", "holds no prompt"),
        ("3 32\n", "p.txt", r"prompt 1 holds the token 32, and the model takes 0 to 31 \(indexes 'embedding'"),
        ("{\n", "p.jsonl", "line 1: not JSON"),
        ("[1, -2]\n", "p.jsonl", "line 1: a text, or a list of token ids, is expected"),
        ("[true]\n", "p.jsonl", "line 1: a text, or a list of token ids, is expected"),
        ("{}\n", "p.jsonl", "line 1: a text, or a list of token ids, is expected"),
    ],
)
def test_what_is_no_prompt_is_refused(prompts, text, name, message):
    with pytest.raises(DataError, match=message):
        open_data(prompts(text, name)).bind(TINY)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        open_data(tmp_path / "p.txt").bind(TINY)


def test_a_model_without_tokens_takes_no_prompts(prompts):
    model = Model(parsed("g (float[N, 3] x) => (float[N, 3] y) { y = Identity(x) }"))
    with pytest.raises(DataError, match="prompts are for a model with input_ids; this one has x"):
        open_data(prompts(IDS)).bind(model)


@pytest.mark.skipif(importlib.util.find_spec("tokenizers") is None, reason="needs tokenizers")
@pytest.mark.parametrize(("text", "message"), [(None, "there is no file"), ("{}", "cannot be used")])
def test_a_tokenizer_that_is_none(prompts, tmp_path, text, message):
    path = tmp_path / "tokenizer.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        Prompts(path=prompts("a cat"), tokenizer=path).bind(TINY)


def test_without_the_package_the_extra_is_named(prompts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(MissingPackage, match=r"layerdiff\[llm\]"):
        Prompts(path=prompts("a cat"), tokenizer=tmp_path).bind(TINY)


def test_what_the_tokenizer_raises_is_its_failure(prompts, tmp_path, monkeypatch):
    def refuse(path):
        raise RuntimeError("no such merges")

    module = types.SimpleNamespace(Tokenizer=types.SimpleNamespace(from_file=refuse))
    monkeypatch.setitem(sys.modules, "tokenizers", module)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be used: no such merges"):
        Prompts(path=prompts("a cat"), tokenizer=tmp_path).bind(TINY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "2"], "--batch is for prompts: name their file with --data"),
        (["--tokenizer", "t.json", "--data", "d.npz"], "--tokenizer: for prompts, and --data is no file of prompts"),
        (["--batch", "0", "--data", "p.txt"], "a whole number, 1 or more"),
    ],
)
def test_options_of_prompts_need_prompts(capsys, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    np.savez("d.npz", x=np.zeros(3))
    assert main(["m.onnx", "--onnxrt", "--emulate", "fp16", *options]) == 2
    assert message in capsys.readouterr().err
