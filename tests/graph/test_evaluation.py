"""Constants that are computed: what NumPy would warn of on the way is not the user's."""

import warnings

import numpy as np
from layerdiff.graph.model import Model
from layerdiff.graph.pairing.constants import constant_value

from support.models import parsed


def test_a_constant_that_passes_through_infinities_is_computed_without_a_warning():
    places = np.array([0, 1, 4], np.float32)  # as of relative positions: those near are taken as they are
    body = "l = Log(p) i = Cast<to=7>(l) y = Gather(x, i)"
    model = Model(parsed(f"g (float[8] x) => (float[3] y) {{ {body} }}", p=places))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = constant_value(model.index, "i")
    assert found is not None
    assert found[1:].tolist() == [0, 1]
