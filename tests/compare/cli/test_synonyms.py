"""Options of other tools are answered with what they are called here, and that exists."""

from __future__ import annotations

import re

import pytest
from layerdiff import UsageError
from layerdiff.compare.cli.arguments import parse
from layerdiff.compare.cli.synonyms import SYNONYMS, meant

TWO = ["m.onnx", "--onnxrt", "--onnxrt"]


@pytest.mark.parametrize("flag", SYNONYMS)
def test_what_is_proposed_is_an_option(flag, capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    proposed = re.findall(r"(--[a-z][a-z-]*)", SYNONYMS[flag])
    assert set(proposed) <= known
    assert flag not in known


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("--iterations=3", r"--iterations; here that is --samples N\."),
        ("--val-range=0,1", r"here that is --float-range LO,HI, --int-range"),
        ("--val_range=0,1", r"here that is --float-range LO,HI, --int-range"),
        ("--minShapes=x:1", r"here that is --shape NAME:min..opt..max\."),
        ("--sampels=3", r"did you mean --samples\?"),
    ],
)
def test_a_foreign_option_gets_the_right_answer(word, answer):
    with pytest.raises(UsageError, match=answer):
        parse([*TWO, word])


def test_an_own_option_is_no_synonym():
    assert meant("--samples") is None


@pytest.mark.parametrize(
    ("words", "layers"),
    [(["--layers"], "guilty"), (["--layers", "all"], "all"), (["--layers", "ALL"], "all"), (["--layers=all"], "all")],
)
def test_the_value_of_layers_may_stand_apart(words, layers):
    assert parse([*TWO, *words]).rules.layers == layers
    assert parse(["--onnxrt", "--onnxrt", *words, "m.onnx"]).models == ("m.onnx",)


def test_a_model_that_is_called_like_a_value_stays_a_model(tmp_path, monkeypatch):
    (tmp_path / "all").write_text("")
    monkeypatch.chdir(tmp_path)
    assert parse(["--onnxrt", "--onnxrt", "--layers", "all"]).models == ("all",)
