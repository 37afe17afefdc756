"""What a second GPU is worth: the arithmetic of the table, and a rehearsal on a CPU."""

from __future__ import annotations

import json

import pytest

from benchmarks.scale.two_gpus import main as two_gpus
from benchmarks.scale.two_gpus import row, speed_up

KEPT = [
    {"what": "samples", "way": "alone", "few": 20.0, "many": 120.0, "same_report": True},
    {"what": "samples", "way": "shards", "few": 22.0, "many": 74.0, "same_report": True},
    {"what": "samples", "way": "ray-one", "few": 30.0, "many": 130.0, "same_report": True},
    {"what": "samples", "way": "ray", "few": 32.0, "many": 82.0, "same_report": False},
    {"what": "builds", "way": "alone", "many": 50.0},
    {"what": "builds", "way": "two at once", "many": 55.0},
]


@pytest.mark.parametrize(
    ("at", "whole", "beside"),
    [
        (0, None, None),
        (1, 120 / 74, 100 / 52),
        (2, None, None),
        (3, 130 / 82, 2.0),
        (4, None, None),
        (5, 100 / 55, None),
    ],
)
def test_the_speed_up_of_a_way_is_against_the_same_on_one_gpu(at, whole, beside):
    assert speed_up(KEPT[at], KEPT) == (pytest.approx(whole), pytest.approx(beside))


def test_without_the_run_on_one_gpu_there_is_no_speed_up():
    assert speed_up(KEPT[1], KEPT[1:]) == (None, None)


def test_a_row():
    assert row(KEPT[3], KEPT) == ["samples", "ray", "32.0", "82.0", "1.59", "2.00", "no"]


@pytest.mark.slow
def test_a_rehearsal_on_a_cpu(tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    words = ["--ways", "alone", "shards", "--samples", "4", "--builder", "emulate", "--budget", "2"]
    two_gpus([str(out), "--sides", "emulate", *words])
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["what"], r["way"]) for r in found] == [
        *(("samples", way) for way in ("alone", "shards")),
        ("builds", "alone"),
        ("builds", "two at once"),
        ("search", "alone"),
    ]
    assert [r["same_report"] for r in found if r["what"] == "samples"] == [True, True]
    assert capsys.readouterr().out.splitlines()[-1].startswith("| search | alone |")
