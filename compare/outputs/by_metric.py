"""Deciders that ask what a metric on labelled data, or of distributions, makes of the difference."""

from __future__ import annotations

from .evidence import Decision, MetricLoss, OutputEvidence
from .metric import AGREE, LOGITS

CACHE = 1 / 8
"""Largest relative L2 error of a cache that passes since the logits that were computed from it do."""


def by_metric(evidence: OutputEvidence) -> Decision | None:
    """Passes an output by how often the candidate is right, where nothing else could decide it."""
    measured = evidence.metric
    if measured is None or not evidence.coverage.complete:
        return None
    if measured.value is None:
        return _not_measured(measured)
    if measured.metric != LOGITS and measured.guessing is not None and measured.reference <= measured.guessing:
        reason = (
            f"{measured.metric} of the reference, {measured.reference:.4g}, is no better than always answering the "
            f"same ({measured.guessing:.4g}), so it decides nothing; do the labels belong to the data?"
        )
        if measured.own:
            reason = (
                f"{measured.metric} of the reference, {measured.reference:.4g}, is no better than that of zeros "
                f"({measured.guessing:.4g}), so it decides nothing; higher has to be better"
            )
        if measured.metric == AGREE:
            reason = "the reference decides every row alike, so that agreement with it decides nothing; give more data"
        return Decision("undecided", reason)
    if measured.own and evidence.relative >= 1:
        reason = f"the error is as large as the output or larger, whatever {measured.metric} says"
        return Decision("undecided", f"{reason}; if the output does not matter, give it a --tolerance, or leave it out")
    if measured.cache and evidence.relative > CACHE:
        reason = f"relative error {evidence.relative:.2g} of a cache, where {CACHE:g} passes with logits that pass"
        return Decision("undecided", reason)
    if not measured.exceeded:
        doubt = measured.doubt or _constants_pass(measured)
        if doubt and measured.cache:
            doubt = "the logits that are computed from this cache do not pass"
        return Decision("undecided", doubt) if doubt else Decision("pass", decided_by=measured.metric)
    if measured.cache:
        return Decision("undecided", "the logits that are computed from this cache do not pass")
    return _exceeded(measured)


def loses_too_much(evidence: OutputEvidence) -> Decision | None:
    """An output that passes otherwise, and loses more of a metric than is allowed where that is binding."""
    measured = evidence.metric
    if measured is None or not measured.binding or measured.cache:
        return None
    if measured.value is None:
        return _not_measured(measured)
    if measured.exceeded:
        return _exceeded(measured)
    return Decision("undecided", measured.doubt) if measured.doubt else None


def _not_measured(measured: MetricLoss) -> Decision:
    return Decision("undecided", f"{measured.metric} could not be measured or is not finite, so it decides nothing")


def _constants_pass(measured: MetricLoss) -> str:
    """Why nothing that keeps the allowed drop is a pass: a constant answer keeps it, too. Empty: it does not."""
    if not measured.lets_constants_pass or measured.guessing is None:
        return ""
    lead = measured.reference - measured.guessing
    if measured.metric == LOGITS:
        return (
            f"zeros in the place of the logits, every token equally probable, would pass as well: they lose {lead:.3g} "
            f"nats, where --metric-drop allows {measured.allowed:g}, so that it decides nothing; give a smaller one"
        )
    what = "zeros in the place of the outputs" if measured.own else "always giving the same answer"
    return (
        f"{what} would pass as well: {measured.metric} is {measured.guessing:.4g} then, {lead:.3g} under the "
        f"reference's {measured.reference:.4g}, where --metric-drop allows {measured.allowed:g}, so that it decides "
        f"nothing; give a --metric-drop of less than {lead:.3g}, or data whose right answers differ more"
    )


def _exceeded(measured: MetricLoss) -> Decision:
    reason = measured.reason or (
        f"{measured.metric} is {measured.value:.4g}, {measured.lost / measured.rows:.3g} under the reference's "
        f"{measured.reference:.4g}; --metric-drop allows {measured.allowed:g}"
    )
    return Decision("fail", reason, decided_by=measured.metric)
