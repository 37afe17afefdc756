"""A candidate that refuses a sample: its layers show where it begins to go wrong."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.cli.command import main

from support.models import normal, parsed

# the last of a text that are cut out are as many as the layer behind adds
TEXT = """g (float[N, 8] x, int64[1] START) => (float[M, 8] y) {
  end = Constant<value = int64[1] {100}>() axis = Constant<value = int64[1] {0}>()
  a = MatMul(x, w) r = Relu(a) s = Slice(r, from, end, axis) b = MatMul(s, v) c = Add(b, bias) y = Tanh(c)
}"""
WEIGHTS = {"w": normal(8, 8, seed=1), "v": normal(8, 8, seed=2), "bias": normal(4, 8, seed=3)}
DATA = [{"x": normal(6, 8, seed=i)} for i in range(2)]


def cut(start: int) -> onnx.ModelProto:
    """The network; rows before ``start`` are cut off."""
    text = TEXT.replace(", int64[1] START", "").replace("r, from", "r, begin")
    return parsed(text, begin=np.array([start], np.int64), **WEIGHTS)


@pytest.mark.parametrize("layers", ["guilty", "all"])
def test_the_layer_that_makes_what_another_one_cannot_take_is_the_culprit(layers):
    runner = OnnxrtRunner(optimization="disable")
    report = Comparator(cut(2), [runner], candidate_model=cut(3), data_loader=DATA, layers=layers).compare()
    assert report.verdict == "error"
    assert report.culprits[0].op == "Slice"
    assert [notice for notice in report.notices if notice.code == "walk-stopped"]
    assert "failed; layers were compared, and no output, on 2 samples" in str(report)


def test_what_is_refused_on_the_references_values_is_told_with_the_names_of_the_file():
    text = """g (float[N, 8] x) => (float[N, 8] y) {
      a = MatMul(x, w) t = Tanh(a) u = Abs(t) s = Mul(u, seven) i = Cast<to=7>(s) [pick] g = Gather(table, i)
      y = Relu(g) }"""
    weights = {"w": WEIGHTS["w"], "seven": np.array(7.9, np.float32)}
    whole, other = (parsed(text, table=normal(rows, seed=4), **weights) for rows in (8, 4))
    runner = OnnxrtRunner(optimization="disable")
    report = Comparator(whole, [runner], candidate_model=other, data_loader=DATA, layers="all").compare()
    culprit = report.culprits[0]
    assert "cannot run it on the reference's values: onnxrt: Gather 'pick': indices" in culprit.evidence
    assert culprit.remedies[0].text.startswith("look at what the second file has up to the node that is named")


BLOCK = "[pick{0}] p{0} = Gather<axis=0>(t{0}, i) [fc{0}] m{0} = MatMul(p{0}, w{0}) [sum{0}] s{1} = Add(s{0}, m{0}) "


def blocks(offset: int) -> onnx.ModelProto:
    """Blocks that look up a table of their own, each by the same index."""
    inside = "".join(BLOCK.format(n, n + 1) for n in range(3))
    text = f"g (float[4,8] s0, int64[4] ids) => (float[4,8] y) {{ [index] i = Add(ids, offset) {inside} y = Neg(s3) }}"
    tables = {f"t{n}": normal(10, 8, seed=n) for n in range(3)} | {f"w{n}": normal(8, 8, seed=n + 3) for n in range(3)}
    return parsed(text, offset=np.array(offset), **tables)


def test_what_is_refused_in_each_block_for_one_reason_is_told_once():
    data = [{"s0": normal(4, 8), "ids": np.arange(4)}]
    for layers in ("guilty", "all"):
        report = Comparator(
            blocks(1), [OnnxrtRunner()], candidate_model=blocks(100), data_loader=data, layers=layers
        ).compare()
        (culprit,) = report.culprits
        assert (culprit.node, culprit.cause) == ("index", "weights")
        assert culprit.evidence.startswith("value 1 against 100; the candidate cannot run it")
        assert culprit.evidence.endswith("nor can it run 2 more layers, for the same reason: pick1, pick2")


def test_the_exit_status_is_that_of_a_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    onnx.save(cut(2), "one.onnx")
    onnx.save(cut(3), "other.onnx")
    np.savez("data.npz", **DATA[0])
    assert main(["one.onnx", "other.onnx", "--onnxrt", "--data", "data.npz", "--layers"]) == 3
    assert "culprit 1: Slice" in capsys.readouterr().out
    assert main(["one.onnx", "other.onnx", "--onnxrt", "--data", "data.npz"]) == 3
    assert "nothing was compared" in capsys.readouterr().out


def test_a_batch_that_an_export_has_baked_in_is_told():
    text = """g (float[N, 4, 8] x) => (float[N, M, 8] y) {{ {}
      [lin] h = MatMul(x, w) [cat] c = Concat<axis=1>(e, h) y = Tanh(c) }}"""
    sized = """[shape] all = Shape(x) [size] n = Gather(all, first) [dims] d = Concat<axis=0>(n, rest)
      [expand] e = Expand(token, d)"""
    given = {"w": normal(8, 8, seed=1), "token": normal(1, 1, 8, seed=2), "first": np.array([0], np.int64)}
    one = parsed(text.format(sized), **given, rest=np.array([1, 8], np.int64))
    other = parsed(text.format("[expand] e = Expand(token, d)"), **given, d=np.array([1, 1, 8], np.int64))
    data = [{"x": normal(3, 4, 8, seed=3)}]
    report = Comparator(one, [OnnxrtRunner()], candidate_model=other, data_loader=data, layers="guilty").compare()
    (culprit,) = report.culprits
    assert culprit.node == "expand"
    assert (
        "computed from the sizes of the input 'x' in the reference, and a constant in the candidate" in culprit.evidence
    )
    assert "its export has a constant there" in culprit.remedies[0].text
