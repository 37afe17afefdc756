"""What simpler methods would have named, given every tensor of both runs.

`polygraphy` is the method that users have today: mark every tensor as an output, compare with the default tolerances,
take the first tensor that fails in the order of the graph. `plain` is the least that deserves the name of a localizer:
the first tensor whose relative L2 error exceeds a fixed threshold. Both pair tensors as Polygraphy does.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx

from benchmarks.kit.runtime import observe

from .case import Case, distance, floats

PLAIN_THRESHOLD = 1e-5
VERSION = 1
"""Raised when the methods change, so that results of older ones are not taken."""
NAMED = 3
"""How many tensors a method names."""


def tensors(case: Case) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]]]:
    """Every tensor of reference and candidate, one dict a sample, in the order of the graphs.

    As ``polygraphy run --onnxrt --onnx-outputs mark all`` gets them: all marked, graph optimizations as they are.
    """
    feeds = case.feeds()
    reference = observe(case.reference, feeds, marked(case.reference), optimize=True)
    other = case.candidate if case.candidate is not None else case.reference
    if case.emulate is None:
        return reference, observe(other, feeds, marked(other), optimize=not case.runner)
    from layerdiff import EmulateRunner, load

    names = marked(other)
    with EmulateRunner(format=case.emulate).open(load(other), fetch=names) as opened:
        return reference, [opened.infer(feed, names) for feed in feeds]


def marked(proto: onnx.ModelProto) -> list[str]:
    """The tensors that ``--onnx-outputs mark all`` marks: all that nodes make, Constants aside."""
    constants = {o for n in proto.graph.node if n.op_type == "Constant" for o in n.output}
    return [name for name in floats(proto) if name not in constants]


def polygraphy(reference: list[dict[str, np.ndarray]], candidate: list[dict[str, np.ndarray]]) -> list[str]:
    """The first tensors, in the graph's order, that fail ``Comparator.compare_accuracy`` with default tolerances.

    At most `NAMED`: where both have the same names, tensors are handed over one by one, which changes no verdict, and
    the rest is left out. Where they have not, Polygraphy pairs names by its own rules, and gets everything at once.
    """
    if reference[0].keys() != candidate[0].keys():
        return _failures(reference, candidate)[:NAMED]
    failed: list[str] = []
    for name in reference[0]:
        failed += _failures([{name: sample[name]} for sample in reference], [{name: s[name]} for s in candidate])
        if len(failed) == NAMED:
            break
    return failed


def _failures(reference: list[dict[str, np.ndarray]], candidate: list[dict[str, np.ndarray]]) -> list[str]:
    from polygraphy.comparator import Comparator, IterationResult, RunResults
    from polygraphy.logger import G_LOGGER

    results = RunResults()
    results.append(("reference", [IterationResult(dict(sample), runner_name="reference") for sample in reference]))
    results.append(("candidate", [IterationResult(dict(sample), runner_name="candidate") for sample in candidate]))
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it divides by zero on tensors that are all zeros
        accuracy = Comparator.compare_accuracy(results)
    failed: set[str] = set()
    for result in accuracy:  # one for each comparison function, of which the default is one
        for outcomes in result.values():
            for sample in outcomes:
                failed |= {name for name, outcome in sample.items() if not outcome}
    return [name for name in reference[0] if name in failed]


def plain(reference: list[dict[str, np.ndarray]], candidate: list[dict[str, np.ndarray]]) -> list[str]:
    """Tensors of one name whose relative L2 error on any sample exceeds a fixed threshold, in the graph's order."""
    result = []
    for name, value in reference[0].items():
        if name not in candidate[0] or value.dtype.kind != "f":
            continue
        if max(distance(r[name], c[name]) for r, c in zip(reference, candidate, strict=True)) > PLAIN_THRESHOLD:
            result.append(name)
    return result


METHODS: dict[str, Callable[..., list[str]]] = {"polygraphy": polygraphy, "plain": plain}


def named(case: Case) -> dict[str, list[str]]:
    """For each method, the nodes that it names, first to last.

    They do not depend on layerdiff (emulated cases aside), so they are kept in the temporary folder for the next run.
    """
    digest = hashlib.sha256(f"{VERSION} {sorted(case.runner.items())} {metadata.version('polygraphy')}".encode())
    for proto in (case.reference, case.candidate):
        digest.update(b"none" if proto is None else proto.SerializeToString(deterministic=True))
    kept = Path(tempfile.gettempdir()) / "layerdiff-faults-baselines" / f"{digest.hexdigest()}.json"
    if case.emulate is None and kept.is_file():
        return json.loads(kept.read_text())
    reference, candidate = tensors(case)
    maker = {o: n.name for n in case.reference.graph.node for o in n.output}
    result = {
        method: list(dict.fromkeys(maker[t] for t in function(reference, candidate)))
        for method, function in METHODS.items()
    }
    if case.emulate is None:
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(result))
    return result
