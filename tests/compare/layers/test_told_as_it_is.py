"""What a culprit is told to be, and what puts it right, where a nearby cause would mislead."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed


def networks(text: str, mine: str, theirs: str, **constants: object):
    return (parsed(text.format(change), **constants) for change in (mine, theirs))


def test_a_factor_from_an_iteration_on_is_no_inverted_condition():
    text = """g (float[4,8] x) => (float[4,8] y) {{
        [loop] y = Loop(count, yes, x) <body = body (int64 i, bool go, float[4,8] h) => (bool on, float[4,8] k) {{
            [on] on = Identity(go) [fc] m = MatMul(h, w) [sum] s = Add(m, x) {0} }}> }}"""
    late = "[late] c = Greater(i, three) [fac] f = Where(c, more, one) [mul] t = Mul(s, f) [tanh] k = Tanh(t)"
    given = {"count": np.int64(6), "yes": np.bool_(True), "three": np.int64(3), "w": normal(8, 8) / 4}
    sides = networks(text, "[tanh] k = Tanh(s)", late, more=np.float32(1.02), one=np.float32(1), **given)
    report = compare(*sides, [{"x": normal(4, 8)}])
    assert report.culprits
    assert not any("inverted" in culprit.evidence for culprit in report.culprits)
