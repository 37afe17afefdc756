"""Which emulation stands for a runtime whose runs are expensive."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from layerdiff import EmulateRunner
from layerdiff.compare.plans.emulations import emulations, nearest
from layerdiff.compare.report.plan import OutputTrial
from layerdiff.graph.errors import RunnerError
from layerdiff.runners.contract.session import SessionInfo
from layerdiff.runners.trt.runner import TrtRunner

SIDE, COMPARISON = SimpleNamespace(model=None), SimpleNamespace(workload=None)
OWN, EVERY = EmulateRunner(), EmulateRunner(every_node=True)
OWN_ADDING, EVERY_ADDING = (EmulateRunner(every_node=every, fp16_accumulation=True) for every in (False, True))
ABLE = (OWN, EVERY, OWN_ADDING, EVERY_ADDING)


def trials(*errors: float | None) -> tuple[OutputTrial, ...]:
    return tuple(OutputTrial(f"y{i}", "fail", error, error) for i, error in enumerate(errors))


@pytest.mark.parametrize(
    ("runner", "adding", "expected"),
    [
        (OWN, (), (OWN,)),
        (TrtRunner(fp16=True), (), ABLE),
        (TrtRunner(fp16=True), ("conv",), (OWN_ADDING, EVERY_ADDING, OWN, EVERY)),
        (TrtRunner(fp16=True, strongly_typed=True), (), (OWN, EVERY)),
        (TrtRunner(bf16=True), (), tuple(EmulateRunner(format="bf16", every_node=every) for every in (False, True))),
    ],
    ids=["an emulation", "fp16", "fp16 that adds in fp16", "types in the graph", "bf16"],
)
def test_emulations_are_those_of_the_format_the_likeliest_first(runner, adding, expected):
    info = SessionInfo(fp16_accumulation=frozenset(adding))
    assert emulations(runner, SIDE, COMPARISON, info) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "errors", "expected", "ran"),
    [
        (trials(0.1), [0.08], OWN, 1),
        (trials(0.1), [0.001, 0.12], EVERY, 2),
        (trials(None), [0.9, None], EVERY, 2),
        (trials(0.01), [None, 0.002, 0.004, 0.003], OWN_ADDING, 4),
        (trials(0.1, 0.2), [(0.1, 0.001), (0.08, 0.3)], EVERY, 2),
        (trials(0.1), [RunnerError("no kernel"), 0.1], EVERY, 2),
        (trials(0.1), [RunnerError("no kernel")] * 4, OWN, 4),
    ],
    ids=[
        "the first is near",
        "the second",
        "not finite",
        "none is near",
        "the worst output counts",
        "fails",
        "all fail",
    ],
)
def test_the_emulation_is_taken_that_comes_nearest_to_the_runtime(before, errors, expected, ran):
    asked = []

    def whole(emulation):
        asked.append(emulation)
        error = errors[len(asked) - 1]
        if isinstance(error, RunnerError):
            raise error
        return trials(*(error if isinstance(error, tuple) else (error,)))

    assert nearest(ABLE, before, whole) == expected
    assert asked == list(ABLE[:ran])
