"""Networks whose outputs are far smaller than the terms they were made of: rounding passes there, and faults show."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import EmulateRunner, Model
from layerdiff.compare.outputs.term_sizes import terms
from layerdiff.compare.outputs.tolerance import HARMLESS, automatic
from layerdiff.compare.statistics.statistics import Statistics
from layerdiff.graph.formats import BF16, FP16, FP32
from layerdiff.graph.index import GraphIndex

from benchmarks.tolerance.faults import faults
from benchmarks.tolerance.running import inner, run
from benchmarks.tolerance.small import CASES, build, exact

pytest.importorskip("onnxruntime")


def uses(network_, candidate, number_format):
    """The greatest share of the tolerance that an element uses, by its own size and by that of its terms."""
    index = GraphIndex(network_.proto)
    own, all_ = [], []
    found = terms(index, "y")
    for feed, reference, other in zip(network_.feeds, run(network_.proto, network_.feeds), candidate, strict=True):
        made = automatic(index, "y", [FP32, number_format])
        size = found.sizes(reference["y"], inner(network_.proto, feed, found.tensors), made.share)
        assert size is not None
        for kept, behind in ((own, None), (all_, size)):
            allowed = made.allowed(reference["y"], behind)
            kept.append(Statistics(False).update(reference["y"], other["y"], allowed).use)
    return max(own), max(all_)


def emulated(network_, number_format):
    with EmulateRunner(format=number_format.name).open(Model(network_.proto)) as session:
        return [session.infer(feed) for feed in network_.feeds]


def off(network_, candidate):
    """Relative L2 error of all samples together."""
    reference = np.concatenate([r["y"].ravel() for r in run(network_.proto, network_.feeds)]).astype(np.float64)
    other = np.concatenate([c["y"].ravel() for c in candidate]).astype(np.float64)
    return np.linalg.norm(other - reference) / np.linalg.norm(reference)


@pytest.mark.parametrize("name", CASES)
def test_rounding_passes_however_small_outputs_are_unless_it_ruins_them(name):
    made = build(name, CASES[name])
    candidates = [
        (FP32, run(made.proto, made.feeds, optimize=True)),
        (FP32, exact(made)),
        (FP16, emulated(made, FP16)),
        (BF16, emulated(made, BF16)),
    ]
    for number_format, outputs in candidates:
        use, error = uses(made, outputs, number_format)[1], off(made, outputs)
        if error < max(HARMLESS / 10, 3 * number_format.u):
            assert use < 0.9, number_format.name
        if error > max(2 * HARMLESS, 8 * number_format.u):
            assert use > 1, number_format.name


def test_their_own_size_does_not_tell():
    """What the rule would say without terms: up to ten thousand times too strict."""
    for name in ("Conv, Relu, every channel", "Conv, Sigmoid", "Conv, Swish in pieces"):
        made = build(name, CASES[name])
        own, by_terms = uses(made, exact(made), FP32)
        assert own > 40 > 1 > by_terms


@pytest.mark.parametrize("name", ["Conv, Relu", "Conv, Clip to 0 and 6", "Gemm, Relu", "difference of two like Convs"])
def test_their_faults_still_show(name):
    made = build(name, CASES[name])
    found = {f"{f.kind} at {f.node}": run(f.proto, made.feeds) for f in faults(made.proto)}
    assert len(found) > 5
    for fault, outputs in found.items():
        assert uses(made, outputs, FP32)[1] > 1, fault
