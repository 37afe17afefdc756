"""The layers as a table: a row for each, whatever is in it."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

from layerdiff.compare.report.csv import COLUMNS, render

from support.reports import LAYER, full, many_layers, output, report


def rows(found) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render(found))))


def test_there_is_a_row_for_each_layer():
    assert len(rows(many_layers(100))) == 100
    assert rows(report(output())) == []
    assert render(report(output())).strip() == ",".join(COLUMNS)


def test_a_row_holds_what_the_layer_does():
    (first, _) = rows(full())
    assert first["node"] == "/l/conv/Conv"
    assert first["nodes"] == "/l/conv/Conv /l/relu/Relu"
    assert (first["verdict"], first["cause"], first["inside"]) == ("culprit", "overflow", "loop")
    assert (float(first["cumulative_rel_l2"]), first["local_max_abs"]) == (1e-3, "")


def test_names_with_commas_quotes_and_lines_come_back():
    odd = 'a,"b"\nc'
    (row,) = rows(report(output(), layers=(replace(LAYER, node=odd),)))
    assert row["node"] == odd
