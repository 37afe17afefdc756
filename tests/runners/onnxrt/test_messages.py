"""What ONNX Runtime says, with what to do about it."""

from __future__ import annotations

import pytest
from layerdiff import OnnxrtRunner
from layerdiff.graph.errors import BuildError
from layerdiff.graph.model import Model

from support.models import parsed


def test_of_an_operator_that_nobody_knows_the_option_is_named():
    network = parsed("g (float[2] x) => (float[2] y) { y = acme.Frob(x) }", domains=["acme"])
    with pytest.raises(BuildError, match=r"acme:Frob.* is not a registered .*: --ort-custom-ops LIB\."):
        OnnxrtRunner().session(Model(network))
