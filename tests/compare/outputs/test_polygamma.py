"""Derivatives of the logarithm of the gamma function, against SciPy's."""

import numpy as np
import pytest
from layerdiff.compare.outputs.polygamma import digamma, tetragamma, trigamma
from scipy import special


@pytest.mark.parametrize("x", [1e-6, 0.01, 0.5, 1.0, 1.4616, 2.0, 3.5, 8.0, 11.99, 12.0, 40.0, 1e7])
@pytest.mark.parametrize(("ours", "order"), [(digamma, 0), (trigamma, 1), (tetragamma, 2)])
def test_the_value_is_that_of_scipy(ours, order, x):
    expected = float(special.digamma(x)) if order == 0 else float(special.polygamma(order, x))
    assert ours(x) == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert np.isfinite(ours(x))
