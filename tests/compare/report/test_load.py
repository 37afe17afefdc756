"""A saved report comes back as it was, and follows the published schema."""

from __future__ import annotations

import json

import jsonschema
import pytest
from layerdiff import Comparator, DataLoader, OnnxrtRunner, UsageError
from layerdiff.compare.report.json import render, to_json
from layerdiff.compare.report.load import from_json, load_report
from layerdiff.compare.report.schema import schema, text

from support.paths import ROOT
from support.reports import full, output, report

RELU = "g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }"
PUBLISHED = ROOT / "docs" / "report.schema.json"


def content(found) -> dict:
    return json.loads(render(found))


@pytest.mark.parametrize("found", [full(), report(), report(output(), errors={"onnxrt": "crashed"})], ids=range(3))
def test_what_was_saved_comes_back(found, tmp_path):
    (tmp_path / "report.json").write_text(render(found))
    again = load_report(tmp_path / "report.json")
    assert to_json(again) == content(found)
    assert (again.verdict, again.exit_status) == (found.verdict, found.exit_status)
    assert again.culprits == from_json(content(again)).culprits


@pytest.mark.parametrize("found", [full(), report(), report(output("undecided"))], ids=range(3))
def test_it_follows_the_schema(found):
    jsonschema.validate(content(found), schema())


@pytest.mark.parametrize(
    "broken",
    [{"verdict": "good"}, {"outputs": [{}]}, {"layers": {}}, {"seed": "0"}, {"schema": "layerdiff.report/2"}],
    ids=str,
)
def test_the_schema_refuses_what_does_not_follow_it(broken):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content(full()), **broken}, schema())


def test_the_published_schema_is_the_one_in_force():
    """``python -m layerdiff.compare.report.schema > docs/report.schema.json`` writes it."""
    assert PUBLISHED.read_text("utf-8") == text()
    jsonschema.Draft202012Validator.check_schema(schema())


def test_the_schema_explains_every_attribute():
    outputs = schema()["properties"]["outputs"]["items"]["properties"]
    plain = {"candidate", "tensor", "verdict", "tolerance"}  # names that say it
    assert {name for name, of in outputs.items() if "description" not in of} <= plain


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (b"{", "not JSON"),
        (b"[]", "it has no schema"),
        (b'{"schema": "layerdiff.report/2"}', r"its schema is 'layerdiff.report/2', and 'layerdiff.report/1' is"),
        (b'{"schema": "layerdiff.report/1"}', "a damaged report: KeyError 'reference'"),
    ],
)
def test_what_is_no_report_is_refused(words, message, tmp_path):
    (tmp_path / "report.json").write_bytes(words)
    with pytest.raises(UsageError, match=message):
        load_report(tmp_path / "report.json")


def test_a_missing_report_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_report(tmp_path / "report.json")


def test_keys_of_a_later_version_are_passed_over():
    later = content(full())
    later["outputs"][0]["colour"] = "red"
    assert from_json({**later, "mood": "good"}) == from_json(content(full()))


def test_a_run_says_how_it_came_to_be(onnx_file):
    def of(seed):
        runners = [OnnxrtRunner(), OnnxrtRunner()]
        loader = DataLoader(seed=seed)
        return content(Comparator(onnx_file(RELU), runners, data_loader=loader, rtol=0.5, atol=0.0).compare())

    one, two, other = of(0), of(0), of(1)
    assert one["settings"] == {"rtol": 0.5, "atol": 0.0}
    assert one["data_sha256"] == two["data_sha256"] != other["data_sha256"]
    assert len(one["data_sha256"]) == 64
    jsonschema.validate(one, schema())
