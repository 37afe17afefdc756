"""The campaign over exported architectures: what counts as what."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff import EmulateRunner

from benchmarks.exported.__main__ import main, page
from benchmarks.exported.architectures import ARCHITECTURES
from benchmarks.exported.conversions import OTHER_EXPORTER
from benchmarks.exported.ways import Outcome, compared
from support.models import normal, parsed

TEXT = "g (float[4, 8] x) => (float[4, 8] y) { h = MatMul(x, w) y = Tanh(h) }"
FEED = {"x": normal(4, 8)}


@pytest.fixture
def files(tmp_path):
    """A file, and one with another weight."""
    weight = normal(8, 8, seed=1)
    for name, factor in (("one", 1), ("other", 2)):
        onnx.save(parsed(TEXT, w=weight * np.float32(factor)), tmp_path / f"{name}.onnx")
    return tmp_path / "one.onnx", tmp_path / "other.onnx"


def test_what_a_comparison_counts_as(files):
    one, other = files
    assert compared(one, one, FEED, "m", "w").what == "pass"
    assert compared(one, EmulateRunner(format="int8"), FEED, "m", "w").what == "undecided"
    wrong = compared(one, other, FEED, "m", "w")
    assert (wrong.what, wrong.culprits) == ("fail", ("MatMul_0: weights",))
    broken = one.with_name("broken.onnx")
    broken.write_bytes(b"no model")
    assert compared(one, broken, FEED, "m", "w").what == "lost"


def test_the_page_counts_false_culprits_and_tells_of_each():
    lost = Outcome(
        "bert", "quantize_static", "undecided", "", ("a: quantization", "b: quantization"), "and become the same"
    )
    false = Outcome("vit", OTHER_EXPORTER, "fail", "", ("a: weights",), "1 of 2 weights differ")
    text = page([Outcome("vit", "quantize_static", "undecided"), lost, false])
    assert "| quantize_static | 0 | 2 | 0 | 0 | 0 | 0 | 1 | 0 |" in text
    assert "| the other exporter | 0 | 0 | 1 | 0 | 0 | 0 | 1 | 1 |" in text
    assert "- bert, quantize_static: a: quantization and 1 more. *A mask takes" in text
    assert "- vit, the other exporter: a: weights. *Not looked into.*" in text


def test_names_are_there_once():
    names = [architecture.name for architecture in ARCHITECTURES]
    assert len(set(names)) == len(names) > 30


def test_a_name_that_no_architecture_has_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--only", "NOTHING"])
    assert ended.value.code == 2
    assert "no architecture has 'NOTHING' in its name" in capsys.readouterr().err


@pytest.mark.slow
def test_one_architecture_in_all_ways(capsys):
    pytest.importorskip("torchvision")
    pytest.importorskip("onnxconverter_common")
    assert main(["--only", "squeezenet"]) == 0
    assert "| the other exporter | 1 |" in capsys.readouterr().out
