"""How the report stands on a terminal: lines that are folded, names that are long, and what numbers mean."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from layerdiff import UsageError
from layerdiff.compare.report.model import Fidelity
from layerdiff.compare.report.terminal.folding import say
from layerdiff.compare.report.terminal.show import show
from rich.console import Console

from support.reports import full, output, report


def shown(found, width: int, verbose: bool = False) -> str:
    file = io.StringIO()
    show(found, Console(file=file, width=width), verbose=verbose)
    return file.getvalue()


def said(text: str, width: int) -> list[str]:
    file = io.StringIO()
    say(Console(file=file, width=width), text)
    return file.getvalue().splitlines()


def test_what_is_folded_stays_set_off():
    assert said("  value 1 at [2, 3]", 14) == ["  value 1 at", "    [2, 3]"]
    assert said("warning: one two", 12) == ["warning: one", "  two"]
    assert said("a_name_that_is_long", 8) == ["a_name_that_is_long"]
    assert said("one\n\ntwo", 40) == ["one", "", "two"]


@pytest.mark.parametrize("width", [60, 200])
def test_layers_of_several_candidates_are_listed_with_the_candidate(width):
    found = full()
    other = [replace(layer, candidate="emulate:int8") for layer in found.layers]
    lines = shown(replace(found, layers=(*found.layers, *other)), width, verbose=True).splitlines()
    layer = found.layers[0]
    for candidate in (layer.candidate, "emulate:int8"):
        assert any(line.startswith(candidate) and layer.path in line for line in lines)


@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_is_wider_than_the_terminal(verbose):
    found = full()
    runners = [replace(runner, options={f"option{i}": "value" for i in range(20)}) for runner in found.runners]
    lines = shown(replace(found, runners=tuple(runners)), 60, verbose).splitlines()
    assert not [line for line in lines if len(line) > 60]


def test_numbers_that_are_shown_on_request_are_explained():
    text = " ".join(shown(full(), 60, verbose=True).split())
    assert "z: the local error over the expected one" in text
    assert "of bound: the greatest share" in text


def test_long_names_are_shortened_on_the_terminal_alone():
    name = "n" * 5000
    found = report(output(verdict="fail", tensor=name, reason=f"{name} is off"))
    assert name not in shown(found, 80)
    assert "(5,000 characters)" in shown(found, 80)
    assert json.loads(found.render("json"))["outputs"][0]["tensor"] == name


def test_a_note_on_data_is_one_line_whatever_an_input_is_called():
    found = report(output())
    found = replace(found, data=replace(found.data, notes=("x\n\x1b[31m [0, 1): no range is known.",)))
    assert "note: x\\n\\x1b[31m [0, 1): no range is known.\n" in shown(found, 100)


@pytest.mark.parametrize("use", [None, float("inf")])
def test_a_share_that_was_not_measured_is_a_dash_as_in_a_report_read_back(use):
    line = next(line for line in shown(report(output("fail", use=use)), 200).splitlines() if line.startswith("y "))
    assert "1000x" not in line
    assert shown(report(output("fail", use=use)), 200) == shown(report(output("fail", use=None)), 200)


def test_a_format_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(UsageError, match=r"no format is called 'nope'; there are: csv, html, json,"):
        report(output()).render("nope")


def test_what_a_layer_by_layer_run_shows_is_told_in_errors():
    seen = Fidelity("emulate:fp16", "y", 2e-3, 2.32e-3, 1.16, False)
    text = shown(report(output("fail"), layers=full().layers, fidelity=(seen,)), 300)
    assert (
        "run layer by layer, emulate:fp16 has a relative L2 error of 2.32e-03 at y, and of 2.00e-03 as deploy" in text
    )
