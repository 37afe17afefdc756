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


def test_of_an_opset_that_nobody_knows_the_greatest_that_is_known_is_told():
    network = parsed("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    network.opset_import[0].version = 999
    with pytest.raises(
        BuildError, match=r"opset 999 of ai\.onnx, .* none above \d+\. Export it in opset \d+"
    ) as raised:
        OnnxrtRunner().session(Model(network))
    assert len(str(raised.value)) < 250
