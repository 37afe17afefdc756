"""Options of runners that change nothing are told."""

from __future__ import annotations

import pytest
from layerdiff import EmulateRunner, Model, OnnxrtRunner

from support.models import parsed

MODEL = "g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"


@pytest.mark.parametrize(
    ("runner", "notes"),
    [
        (EmulateRunner(format="fp16", percentile=50), ["percentile=50 changes nothing in fp16."]),
        (EmulateRunner(format="bf16", unscaled=True), ["unscaled changes nothing in bf16."]),
        (EmulateRunner(format="e4m3", unscaled=True), []),
        (EmulateRunner(format="e5m2", unscaled=True, percentile=99), ["percentile=99 changes nothing in e5m2."]),
        (EmulateRunner(format="fp16"), []),
        (OnnxrtRunner(tf32=True), ["tf32 changes nothing on cpu: it is CUDA's."]),
        (OnnxrtRunner(), []),
    ],
)
def test_options_that_change_nothing_are_told(runner, notes):
    with runner.session(Model(parsed(MODEL))) as session:
        assert [note for note in session.info.notes if "changes nothing" in note] == notes
