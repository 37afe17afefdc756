"""Arrays in the types that tensors ask for."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.specs import TensorSpec, cast


@pytest.mark.parametrize(("given", "taken"), [("float32", "float16"), ("complex128", "complex64")])
def test_floating_numbers_are_cast_to_the_type_that_is_asked_for(given, taken):
    assert cast(np.ones(3, given), TensorSpec("x", np.dtype(taken), (3,))).dtype == taken


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("given", "taken"), [("complex64", "float32"), ("int64", "float32")])
def test_numbers_of_another_kind_are_returned_as_they_are(given, taken):
    array = np.ones(3, given)
    assert cast(array, TensorSpec("x", np.dtype(taken), (3,))) is array
