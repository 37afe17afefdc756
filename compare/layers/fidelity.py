"""Is the program that was observed the one that is deployed?

Looking at a layer can change the program: pieces are smaller, and a marked tensor cannot be fused away. So the whole
model is run first, as it would be deployed, and its outputs are remembered by their hashes; what is observed later is
held against them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..report.model import Cause, Fidelity, Notice
from . import texts
from .observation import relative_error

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..report.model import OutputResult
    from ..statistics.statistics import Statistics
    from .observation import LayerObservation
    from .walked import Walked

MIN_FIDELITY = 0.5
"""Share of the deployed error below which an observed run explains it in part only."""
MAX_FIDELITY = 2.0
"""Share above which it makes errors that the deployed run does not make."""
ALIKE = 0.01
"""Share of the deployed error to within which an observed run makes the same: what comes and goes makes another."""
EXPLAINS = 0.5
"""Share of the observed error at the outputs from which on a layer explains it."""
REPRODUCED = 0.1
"""Share of what a layer does to the outputs in the walk that the deployed outputs must show for it to be theirs."""


def fidelity(
    candidate: str, tensor: str, deployed: float | None, observed: float, identical: Iterable[bool | None]
) -> Fidelity:
    """How much of the deployed error at one output an observed run shows.

    Args:
        candidate, tensor: Whose output.
        deployed, observed: Relative L2 errors against the reference; None or infinite where they are not finite.
        identical: For each sample, whether the output is the deployed one bit by bit.
    """
    flags = list(identical)
    bits = None if not flags or None in flags else all(flags)
    share: float | None = None
    if deployed is not None and math.isfinite(deployed) and math.isfinite(observed):
        share = observed / deployed if deployed else (1.0 if not observed else None)
    if bits:
        share = 1.0
    return Fidelity(candidate, tensor, deployed, observed if math.isfinite(observed) else None, share, bits)


def fidelity_notice(found: Fidelity) -> Notice | None:
    """What to say of an observed run; None if it shows the deployed one."""
    if found.bit_identical:
        return None
    if found.share is None:
        return texts.other_program(found) if found.deployed_error == 0 and found.observed_error else None
    if MIN_FIDELITY <= found.share <= MAX_FIDELITY:
        return None
    return texts.unlike_deployed(found, found.share, found.share > MAX_FIDELITY)


def fidelities(
    candidate: str,
    walked: Walked,
    outputs: Sequence[OutputResult],
    chance: bool = False,
    plain: bool = False,
    healed: bool = False,
) -> tuple[list[Fidelity], list[Notice]]:
    """Whether the run in pieces is the candidate as it is deployed: of each output, and what to say of it.

    Args:
        candidate: Its name.
        walked: What was seen in pieces.
        outputs: What its outputs showed.
        chance: Whether a side need not give the same bits twice, so that two runs differ without being two programs.
        plain: Whether no layer is beyond rounding and both sides compute in FP32: of an output that passes, nothing
            has to be explained.
        healed: Whether layers are, of which nothing is left behind: of an output that errs less in pieces, too, and of
            no other.
    """
    found: list[Fidelity] = []
    doubts: list[Notice] = []
    for output in outputs:
        if output.metrics is None or output.tensor not in walked.identical or output.transposed is not None:
            continue  # of one with its axes in another order, the error is that of the right order
        seen = walked.outputs.get(output.tensor)
        observed = math.inf if seen is None else _error_beside(seen, output.metrics)
        flags = walked.identical[output.tensor] if seen is not None else ()
        found.append(fidelity(candidate, output.tensor, output.metrics.get("rel_l2"), observed, flags))
        more = found[-1].share is None or found[-1].share > 1
        asked = not plain or (healed and more) or output.verdict != "pass"
        if seen is not None and asked and (notice := fidelity_notice(found[-1])) is not None:
            doubts.append(texts.runs_differ(found[-1]) if chance else notice)
    return found, doubts


def as_deployed(output: OutputResult, walked: Walked) -> bool:
    """Whether a walk makes the error that an output has as deployed, to within `ALIKE` of it."""
    deployed, seen = (output.metrics or {}).get("rel_l2"), walked.outputs.get(output.tensor)
    observed = math.inf if seen is None else relative_error(seen)
    return deployed is not None and math.isfinite(observed) and abs(observed - deployed) <= ALIKE * deployed


def in_pieces_only(layer: LayerObservation, walked: Walked, outputs: Sequence[OutputResult], index: GraphIndex) -> bool:
    """Whether what a layer does to the outputs, run in pieces, is not in the outputs as deployed.

    A runtime may keep a layer inside a kernel, or in a wider format, as long as nobody looks.

    Args:
        layer: The layer.
        walked: What was seen in pieces.
        outputs: What the candidate's outputs showed.
        index: The reference's graph.
    """
    if layer.comes_and_goes or layer.contribution is None or layer.contribution < EXPLAINS:
        return False
    errors = _errors_behind(layer, walked, outputs, index)
    return bool(errors) and all(real is not None and REPRODUCED * seen > real for real, seen in errors)


def made_by_pieces(layer: LayerObservation, walked: Walked, outputs: Sequence[OutputResult], index: GraphIndex) -> bool:
    """Whether a layer errs in pieces alone: the outputs behind it are off there, and equal bit by bit as deployed.

    A runtime fuses other nodes in a piece than in the whole network, and may compute another program for it. What the
    format of a piece cannot hold stays: whoever computes the layer alone meets it.

    Args:
        layer, walked, outputs, index: As of `in_pieces_only`.
    """
    found = None if layer.diagnosis is None else layer.diagnosis.cause
    if layer.comes_and_goes or layer.refused is not None or found in (Cause.OVERFLOW, Cause.UNDERFLOW):
        return False
    errors = _errors_behind(layer, walked, outputs, index)
    return bool(errors) and not any(real != 0 for real, _ in errors)


def _errors_behind(
    layer: LayerObservation, walked: Walked, outputs: Sequence[OutputResult], index: GraphIndex
) -> list[tuple[float | None, float]]:
    """Relative L2 errors of the outputs that depend on a layer and are off in pieces: as deployed, and in pieces.

    None where values are not finite. Without outputs of another shape: no elements were compared.
    """
    found = []
    reached = _behind(index, layer.blamed_outputs)
    for output in outputs:
        seen, metrics = walked.outputs.get(output.tensor), output.metrics
        if seen is None or metrics is None or output.tensor not in reached or not relative_error(seen):
            continue
        deployed = metrics.get("rel_l2")
        if output.verdict != "fail" or deployed:
            found.append((deployed, _error_beside(seen, metrics)))
    return found


def _error_beside(seen: Statistics, deployed: Mapping[str, Any]) -> float:
    """The relative L2 error of an output in pieces, to be held against that of the deployed one: of the finite values,
    where as many are not finite on either side as there."""
    if seen.broken and (list(seen.nan), list(seen.inf)) == (deployed.get("nan"), deployed.get("inf")):
        value = seen.metrics(finite_only=True)["rel_l2"]
        return math.inf if value is None else float(value)
    return relative_error(seen)


def _behind(index: GraphIndex, tensors: Sequence[str]) -> set[str]:
    """Tensors, and all that depend on them."""
    reached, waiting = set(tensors), list(tensors)
    while waiting:
        for position in index.consumers.get(waiting.pop(), ()):
            new = {name for name in index.nodes[position].output if name} - reached
            reached |= new
            waiting.extend(new)
    return reached
