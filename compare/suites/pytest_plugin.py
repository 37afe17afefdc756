"""A fixture for pytest: a comparison as a test, whose failure shows the report.

def test_the_engine(compare_models):
    compare_models("model.onnx", reference="onnxrt", candidate="emulate=fp16", data="heldout.npz")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ...runners.contract.runner import Runner
    from ..report.model import Report


@pytest.fixture
def compare_models() -> Callable[..., Report]:
    """Compares a candidate with a reference, and fails the test unless they agree; returns the report.

    ``compare_models(model, *, candidate, reference=None, candidate_model=None, data=None, expect="pass", **rules)``.
    Runners are values or what the command line calls them (``"trt=fp16"``), and there may be several candidates in a
    list. The reference is ``onnxrt`` if none is given; with a second model, it is the first model on the most trusted
    of the candidates' runners. Data are a path or what `Comparator` takes; rules are the fields of `Rules`.
    """
    return _compare_models


def _compare_models(
    model: Any,
    *,
    candidate: Runner | str | Sequence[Runner | str] = (),
    reference: Runner | str | None = None,
    candidate_model: Any = None,
    data: Any = None,
    expect: str = "pass",
    **rules: Any,
) -> Report:
    __tracebackhide__ = True
    from ...dataloaders import as_source
    from ...graph.errors import LayerdiffError
    from ...runners.contract.naming import distinct_names
    from ..comparator import Comparator
    from .checks import EXPECTED, unexpected

    if expect not in EXPECTED:
        pytest.fail(f"compare_models: expect={expect!r}; there are: {', '.join(EXPECTED)}.", pytrace=False)
    if candidate_model is not None and reference is not None:
        both = "compare_models: with a candidate_model, the reference is the first model: leave reference= out."
        pytest.fail(both, pytrace=False)
    if "data_loader" in rules:
        pytest.fail("compare_models: data_loader is called data here: data=[...], or a path.", pytrace=False)
    candidates = [candidate] if isinstance(candidate, str) or not isinstance(candidate, Sequence) else list(candidate)
    if not candidates:
        pytest.fail('compare_models: no candidate; name one: candidate="emulate=fp16".', pytrace=False)
    failure = ""
    try:
        runners = [_runner(one) for one in candidates]
        if candidate_model is None:
            runners = [_runner(reference or "onnxrt"), *runners]
            rules.setdefault("reference", distinct_names(runners)[0])
        loader = None if data is None else as_source(data)
        report = Comparator(model, runners, candidate_model=candidate_model, data_loader=loader, **rules).compare()
    except LayerdiffError as error:  # the place in here where it was raised says nothing of the test
        failure = f"compare_models: {error}"
    if failure:  # outside of the handler, or pytest shows the error that was handled too
        pytest.fail(failure, pytrace=False)
    wrong = unexpected(report.verdict, expect)
    if wrong:
        pytest.fail(f"{wrong}\n\n{report}", pytrace=False)
    return report


def _runner(named: Runner | str) -> Runner:
    """A runner, from what the command line calls it: ``onnxrt``, ``emulate=fp16``; or a function, as one.

    Raises:
        UsageError: It is something else.
    """
    from ...graph.errors import UsageError
    from ...runners.contract.runner import Runner
    from ...runners.function import FunctionRunner

    if isinstance(named, Runner):
        return named
    if callable(named) and not isinstance(named, type):
        return FunctionRunner(function=named)
    if not isinstance(named, str):
        what = 'a runner, a function, or a text as on the command line: "emulate=fp16"'
        raise UsageError(f"{named!r} is no runner: give {what}.")
    from ..cli.arguments import runners_named

    (runner,) = runners_named([f"--{named}"])
    return runner
