"""``--shard`` and ``layerdiff merge``: the report of one run on all samples, whatever the shares; what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner, UsageError
from layerdiff.compare.cli.command import main
from onnx import numpy_helper

from support.models import parsed

TIMES = ("date", "seconds")
NETWORK = """
    net (float[N, 8] x) => (float[N, 4] scores, int64[N] label)
    { h = MatMul(x, w1) r = Relu(h) scores = MatMul(r, w2) label = ArgMax<axis = 1, keepdims = 0>(scores) }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network, seven samples whose first element is their number, and labels."""
    folder, rng = tmp_path_factory.mktemp("shares"), np.random.default_rng(0)
    weights = {"w1": rng.standard_normal((8, 16)), "w2": rng.standard_normal((16, 4))}
    onnx.save(parsed(NETWORK, **{n: w.astype(np.float32) for n, w in weights.items()}), folder / "net.onnx")
    (folder / "data").mkdir()
    for number in range(7):
        x = rng.standard_normal((5, 8)).astype(np.float32)
        x[0, 0] = number
        np.savez(folder / "data" / f"sample{number}.npz", x=x)
    (folder / "holes").mkdir()
    for number, hole in enumerate([0.0, np.nan, -np.inf, np.nan]):
        x = rng.standard_normal((5, 8)).astype(np.float32)
        x[2, 1:3] = [0, hole]
        np.savez(folder / "holes" / f"sample{number}.npz", x=x)
    np.save(folder / "labels.npy", rng.integers(0, 4, 35))
    (folder / "breaking.py").write_text(BREAKING)
    return folder


BREAKING = """
import numpy as np
import onnxruntime as ort

session = ort.InferenceSession("net.onnx")


def breaks(feed):
    if feed["x"][0, 0] == 3:
        raise ValueError("three is too much")
    return dict(zip(["scores", "label"], session.run(["scores", "label"], dict(feed))))
"""


def untimed(path):
    """A report without its times."""

    def without(value):
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k not in TIMES}
        return [without(v) for v in value] if isinstance(value, list) else value

    return json.dumps(without(json.loads(path.read_text())), indent=1)


def in_shares(words, order, out):
    """Runs shares and merges them in some order."""
    for index in order:
        main([*words, "--shard", f"{index}/{len(order)}", "--json", f"share{index}.json"])
    return main(["merge", *(f"share{index}.json" for index in order), "-o", out])


COMMANDS = {
    "FP32": ["net.onnx", "--onnxrt", "--onnxrt=optimization=disable", "--data", "data"],
    "FP16": ["net.onnx", "--onnxrt", "--emulate", "fp16", "--data", "data"],
    "several": ["net.onnx", "--onnxrt", "--emulate=bf16", "--reference-evaluator", "--data", "data"],
    "INT8": ["net.onnx", "--onnxrt", "--emulate", "int8", "--data", "data", "--labels", "labels.npy",
             "--metric", "top1", "--metric-output", "scores"],
    "tolerance": ["net.onnx", "--onnxrt", "--emulate", "bf16", "--data", "data", "--rtol", "0.001", "--atol", "0.001"],
    "random": ["net.onnx", "--onnxrt", "--emulate", "fp16", "--samples", "5", "--seed", "3", "--shape", "x:3x8"],
    "not finite": ["net.onnx", "--onnxrt", "--onnxrt=optimization=disable", "--data", "holes"],
    "failing": ["net.onnx", "--onnxrt", "--runner", "breaking:breaks", "--data", "data"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "order"),
    [
        ("FP32", [2, 1]),
        ("FP16", [1, 3, 2]),
        ("FP16", [*range(9, 0, -1)]),  # more shares than samples
        ("several", [2, 3, 1]),
        ("INT8", [2, 1]),
        ("tolerance", [2, 1]),
        ("random", [3, 2, 1]),
        ("not finite", [2, 1]),
        ("failing", [1, 2]),
        ("failing", [3, 1, 2]),
    ],
)
def test_the_merged_report_is_that_of_one_run(command, order, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    words = COMMANDS[command]
    whole = main([*words, "--json", "whole.json"])
    merged = in_shares(words, order, "whole_.json")
    (folder / "whole_.json").write_text((folder / "whole_.json").read_text().replace("whole_.json", "whole.json"))
    assert merged == whole
    assert untimed(folder / "whole_.json") == untimed(folder / "whole.json")


def test_a_share_is_no_verdict_and_says_so(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main([*COMMANDS["FP32"], "--shard", "1/2"]) == 1
    printed = capsys.readouterr().out
    assert "This is share 1 of 2." in printed
    assert "on 4 of 7 samples of" in printed
    assert "undecided" in printed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["share1.json"], "share 2, 3 of 3 is missing"),
        (["share1.json", "share2.json", "again.json"], "again.json: share 1 of 3 once more"),
        (["share1.json", "other.json", "share3.json"], "other.json: not a share of the comparison"),
        (["share1.json", "whole.json", "share3.json"], "whole.json: not a share of a comparison"),
        (["share1.json", "gone.json"], "gone.json: cannot be read"),
        (["share1.json", "share2.json", "share1.json"], "share1.json: named twice"),
    ],
    ids=["missing", "doubled", "foreign", "whole", "gone", "named twice"],
)  # fmt: skip
def test_what_are_not_the_shares_of_one_run_is_refused_in_a_line(given, message, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    in_shares(COMMANDS["FP32"], [1, 2, 3], "merged.json")
    main([*COMMANDS["FP16"], "--shard", "2/3", "--json", "other.json"])
    main([*COMMANDS["FP32"], "--json", "whole.json"])
    (folder / "again.json").write_text((folder / "share1.json").read_text())
    capsys.readouterr()
    assert main(["merge", *given, "-o", "merged.json"]) == 2
    assert message in capsys.readouterr().err.splitlines()[0]


def test_where_reports_go_and_how_words_are_put_does_not_part_shares(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    model, *words = COMMANDS["FP16"]
    main([model, *words, "--shard", "1/2", "--json", "share1.json"])
    main([*words, model, "--shard=2/2", "--json=share2.json", "-q", "--html", "two.html", "--resume", "kept"])
    main([model, *words, "--json", "whole.json"])
    whole = json.loads((folder / "whole.json").read_text())
    capsys.readouterr()
    assert main(["merge", "share1.json", "share2.json", "-o", "merged.json"]) in (0, 1), capsys.readouterr().err
    merged = json.loads((folder / "merged.json").read_text())
    assert merged["outputs"] == whole["outputs"]


@pytest.mark.parametrize("which", ["net.onnx", "other.onnx"])
def test_a_model_that_changed_since_is_refused(which, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    proto = onnx.load(folder / "net.onnx")
    for name in ("net.onnx", "other.onnx"):
        onnx.save(proto, tmp_path / name)
    words = ["net.onnx", "other.onnx", "--onnxrt", "--samples", "4", "--shape", "x:2x8"]
    for index in (1, 2):
        main([*words, "--shard", f"{index}/2", "--json", f"s{index}.json"])
    changed = numpy_helper.to_array(proto.graph.initializer[0]) * np.float32(1.001)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(changed, proto.graph.initializer[0].name))
    onnx.save(proto, tmp_path / which)
    capsys.readouterr()
    assert main(["merge", "s1.json", "s2.json", "-o", "merged.json"]) == 2
    assert f"{which} is not the model that the shares were made on" in capsys.readouterr().err
    assert not (tmp_path / "merged.json").exists()


@pytest.mark.parametrize("changed", ["weights beside the model", "calibration data"])
def test_shares_on_other_files_of_the_same_names_are_refused(changed, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def write(scale):
        proto = onnx.load(folder / "net.onnx")
        if changed == "weights beside the model":
            value = numpy_helper.to_array(proto.graph.initializer[0]) * np.float32(scale)
            proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(value, proto.graph.initializer[0].name))
        onnx.save(proto, "net.onnx", save_as_external_data=True, location="weights", size_threshold=0)
        np.savez("calibration.npz", x=np.full((5, 8), scale if changed == "calibration data" else 1, np.float32))

    words = ["net.onnx", "--onnxrt", "--emulate", "int8", "--samples", "4", "--shape", "x:5x8"]
    words += ["--calibration-data", "calibration.npz"]
    for index in (1, 2):
        (tmp_path / "weights").unlink(missing_ok=True)
        write(index)
        main([*words, "--shard", f"{index}/2", "--json", f"s{index}.json"])
    capsys.readouterr()
    assert main(["merge", "s1.json", "s2.json", "-o", "merged.json"]) == 2
    told = "another network" if changed == "weights beside the model" else "another set of calibration data"
    assert f"s2.json: not a share of the comparison that s1.json is of: it has {told}" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["an output less", "another name"])
def test_a_damaged_share_is_told_in_a_line(damage, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for index in (1, 2):
        main([*COMMANDS["FP32"], "--shard", f"{index}/2", "--json", f"share{index}.json"])
    content = json.loads((folder / "share1.json").read_text())
    outputs = content["shard"]["runners"][1]["outputs"]
    if damage == "an output less":
        del outputs[1]
    else:
        outputs[1]["zzz"] = outputs[1].pop("scores")
    (folder / "share1.json").write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["merge", "share1.json", "share2.json", "-o", "merged.json"]) == 2
    (told,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("layerdiff merge: "))
    assert ".json: a damaged report: " in told


def test_a_share_is_not_overwritten(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for index in (1, 2):
        main([*COMMANDS["FP32"], "--shard", f"{index}/2", "--json", f"share{index}.json"])
    before = (folder / "share1.json").read_bytes()
    assert main(["merge", "share1.json", "share2.json", "-o", "share1.json"]) == 2
    assert "share1.json: that is an input" in capsys.readouterr().err
    assert (folder / "share1.json").read_bytes() == before


def test_samples_that_changed_since_are_refused(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(folder)
    words = ["net.onnx", "--onnxrt", "--emulate", "fp16", "--data", str(tmp_path)]
    for number in range(2):
        np.savez(tmp_path / f"s{number}.npz", x=np.ones((1, 8), np.float32))
    for index in (1, 2):
        main([*words, "--shard", f"{index}/2", "--json", f"share{index}.json"])
    np.savez(tmp_path / "s1.npz", x=np.zeros((1, 8), np.float32))
    assert main(["merge", "share1.json", "share2.json", "-o", "merged.json"]) == 2


@pytest.mark.parametrize(
    "flag", ["--layers", "--fix=plan.json", "--latency=3", "--save-outputs=o.json", "--save-worst=w", "--baseline=b"]
)
def test_what_needs_all_samples_is_refused(flag, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main([*COMMANDS["FP16"], "--shard", "1/2", flag]) == 2
    assert "is for a run on all of them" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["0/2", "3/2", "1", "a/b"])
def test_a_share_is_one_of_n(share, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main([*COMMANDS["FP32"], "--shard", share]) == 2
    assert "I/N, the I-th of N shares" in capsys.readouterr().err


@pytest.mark.parametrize("share", [(1, 2, 3), (0, 1), (1, 0), "1/2"])
def test_a_share_in_python_is_a_pair(share, folder):
    with pytest.raises(UsageError, match="I/N, the I-th of N shares"):
        Comparator(folder / "net.onnx", [OnnxrtRunner(), OnnxrtRunner()], shard=share)


# ---- suites ---------------------------------------------------------------------------------------------------------

SUITE = """
[defaults]
runners = ["onnxrt", "emulate=fp16"]
data = "data"
[[check]]
name = "first"
model = "net.onnx"
[[check]]
name = "second"
model = "net.onnx"
runners = ["onnxrt", "emulate=bf16"]
[[check]]
name = "third"
model = "net.onnx"
expect = "fail"
"""


def suite(folder, *words):
    (folder / "checks.toml").write_text(SUITE)
    return main(["--suite", "checks.toml", "-q", *words])


@pytest.mark.parametrize("count", [2, 4])
def test_the_merged_suite_is_that_of_one_run(count, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    whole = suite(folder, "--json", "whole.json")
    for index in range(1, count + 1):
        suite(folder, "--shard", f"{index}/{count}", "--json", f"share{index}.json")
    shares = [f"share{index}.json" for index in range(count, 0, -1)]
    assert main(["merge", *shares, "-o", "merged.json"]) == whole
    assert untimed(folder / "merged.json") == untimed(folder / "whole.json")


def test_a_merged_suite_is_shown_as_a_suite_is(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "checks.toml").write_text(SUITE)
    main(["--suite", "checks.toml"])
    whole = capsys.readouterr().out
    for index in (1, 2):
        suite(folder, "--shard", f"{index}/2", "--json", f"share{index}.json")
    capsys.readouterr()
    main(["merge", "share1.json", "share2.json", "-o", "merged.json"])
    seconds = re.compile(r" +\d+\.\d$", re.MULTILINE)
    assert seconds.sub("", capsys.readouterr().out) == seconds.sub("", whole)
    main(["merge", "share1.json", "share2.json", "-o", "merged.json", "-v"])
    assert capsys.readouterr().out.count("reference: onnxrt on") == 3


@pytest.mark.parametrize("damage", ["a check less", "no report"])
def test_a_damaged_share_of_a_suite_is_told_in_a_line(damage, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for index in (1, 2):
        suite(folder, "--shard", f"{index}/2", "--json", f"share{index}.json")
    content = json.loads((folder / "share1.json").read_text())
    if damage == "a check less":
        del content["checks"][0]
    else:
        del content["checks"][0]["report"]
    (folder / "share1.json").write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["merge", "share1.json", "share2.json", "-o", "merged.json"]) == 2
    assert capsys.readouterr().err.startswith("layerdiff merge: share1.json: a damaged report: ")


def test_shares_of_suites_that_expect_something_else_do_not_merge(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    suite(folder, "--shard", "1/2", "--json", "share1.json")
    (folder / "other.toml").write_text(SUITE.replace('expect = "fail"', 'expect = "pass"'))
    main(["--suite", "other.toml", "-q", "--shard", "2/2", "--json", "share2.json"])
    capsys.readouterr()
    assert main(["merge", "share1.json", "share2.json", "-o", "merged.json"]) == 2
    assert "share2.json: not a share of the suite that share1.json is of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [(["share1.json"], "share 2 of 2 is missing"), (["share1.json", "share1_.json"], "share 1 of 2 once more")],
)
def test_a_missing_or_doubled_share_of_a_suite_is_refused(given, message, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    suite(folder, "--shard", "1/2", "--json", "share1.json")
    (folder / "share1_.json").write_text((folder / "share1.json").read_text())
    assert main(["merge", *given, "-o", "merged.json"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("changes", ["net.onnx", "labels.npy", "data/sample3.npz", "nothing"])
def test_a_share_of_a_suite_that_was_run_on_something_else_is_refused(changes, folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(folder, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    text = SUITE.replace('expect = "fail"', 'labels = "labels.npy"\nmetric = "top1"\nmetric_output = "scores"')
    Path("checks.toml").write_text(text)
    for index in (1, 2):
        main(["--suite", "checks.toml", "-q", "--shard", f"{index}/2", "--json", f"share{index}.json"])
    if changes == "net.onnx":
        model = onnx.load(changes)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((8, 16), np.float32), "w1"))
        onnx.save(model, changes)
    elif changes == "labels.npy":
        np.save(changes, np.zeros(35, int))
    elif changes != "nothing":
        np.savez(changes, x=np.ones((5, 8), np.float32))
    capsys.readouterr()
    status = main(["merge", "share1.json", "share2.json", "-o", "merged.json", "-q"])
    told = capsys.readouterr().err
    assert (status == 2) == (changes != "nothing"), told
    if status == 2:
        assert re.match("layerdiff merge: share1.json: check '(first|third)' does not belong to this run: its ", told)
        assert "has changed since, or is another one here; run the share again." in told


def test_a_suite_is_merged_where_its_models_are(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for index in (1, 2):
        suite(folder, "--shard", f"{index}/2", "--json", f"share{index}.json")
    (folder / "net.onnx").rename(folder / "away.onnx")
    capsys.readouterr()
    try:
        assert main(["merge", "share1.json", "share2.json", "-o", "merged.json"]) == 2
    finally:
        (folder / "away.onnx").rename(folder / "net.onnx")
    assert "check 'first': what it was run on cannot be read here" in capsys.readouterr().err
