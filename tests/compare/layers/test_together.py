"""Layers that are right one by one and wrong where they are built together are found in the network as it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from layerdiff import OnnxrtRunner
from layerdiff.graph.cutting.slices import original_name
from layerdiff.graph.errors import BuildError

from support.layerwise import compare, only
from support.models import normal, parsed

STEPS = 12
WEIGHTS = {f"w{i}": normal(16, 16, seed=i) / np.float32(4) for i in range(STEPS)}
DATA = [{"x": normal(4, 16, seed=50)}]


def chain() -> onnx.ModelProto:
    nodes = [f"[m{i}] m{i} = MatMul({f't{i - 1}' if i else 'x'}, w{i}) [t{i}] t{i} = Tanh(m{i})" for i in range(STEPS)]
    text = f"g (float[4,16] x) => (float[4,16] y) {{ {' '.join(nodes)} [y] y = Identity(t{STEPS - 1}) }}"
    return parsed(text, **WEIGHTS)


@dataclass(frozen=True)
class Fusing(OnnxrtRunner):
    """ONNX Runtime, whose kernel for two products in a row is wrong where nobody asks for what lies between them."""

    first: int = 5
    last: int = 7
    refuses: str = ""
    always: bool = False

    @property
    def name(self) -> str:
        return "fusing"

    def levels(self) -> dict[str, Any]:
        return {}

    def open(self, model: Any, **rest: Any) -> Any:
        nodes = {original_name(node.name): node for node in model.proto.graph.node}
        if self.refuses in nodes and model.derived:
            raise BuildError(f"no kernel for {self.refuses}.")
        inside = {f"{kind}{i}" for i in range(self.first, self.last) for kind in "tm"}
        seen = {original_name(o.name) for o in model.outputs}
        if not {f"m{self.first}", f"m{self.last}"} <= set(nodes) or (inside & seen and not self.always):
            return OnnxrtRunner(threads=1).open(model, **rest)
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        for weight in proto.graph.initializer:
            if weight.name == f"w{self.last}":
                weight.CopyFrom(onnx.numpy_helper.from_array(-WEIGHTS[weight.name], weight.name))
        return OnnxrtRunner(threads=1).open(model.derive(proto), **rest)


def test_the_smallest_part_that_is_wrong_is_told():
    report = compare(chain(), Fusing(threads=1), DATA)
    culprit = only(report)
    assert (report.verdict, culprit.node, culprit.cause) == ("fail", "m7", "wrong-op")
    assert culprit.evidence.startswith(
        "built together, 6 nodes, m5 to t7, make a relative error of 2 at 't7'; built layer by layer, they make 0"
    )
    assert culprit.remedies[0].text.startswith("mark 't5' as an output of the network, too")
    assert "measured" in culprit.remedies[0].text
    assert not any(notice.code == "fidelity" for notice in report.notices)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (8, 9), (0, 11), (10, 11), (3, 8)])
def test_it_is_found_wherever_it_is(first, last):
    culprit = only(compare(chain(), Fusing(threads=1, first=first, last=last), DATA))
    assert culprit.node == f"m{last}"
    assert f" nodes, m{first} to {'y' if last == STEPS - 1 else f't{last}'}, make" in culprit.evidence


def test_layers_that_explain_the_error_are_not_searched_again():
    report = compare(chain(), Fusing(threads=1, first=7, always=True), DATA)
    assert report.verdict == "fail"
    assert not any("built together" in culprit.evidence for culprit in report.culprits)


def test_a_network_that_agrees_is_not_searched():
    report = compare(chain(), Fusing(threads=1, first=STEPS), DATA)
    assert (report.verdict, report.culprits) == ("pass", ())


def test_where_no_part_can_be_built_the_verdict_stays():
    report = compare(chain(), Fusing(threads=1, refuses="m0"), DATA)
    assert report.verdict == "fail"
    assert not any("built together" in culprit.evidence for culprit in report.culprits)


@pytest.mark.parametrize("place", [0, 1, 7, STEPS - 1])
def test_halving_finds_the_ends(place):
    from layerdiff.compare.layers.together import first_wrong, last_wrong

    assert first_wrong(lambda p: p >= place, -1, STEPS - 1) == place
    assert last_wrong(lambda p: p <= place, -1, STEPS) == place
