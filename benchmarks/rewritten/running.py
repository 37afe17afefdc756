"""Builds a case and asks layerdiff about it, within a time limit."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from benchmarks import trained
from benchmarks.blind.running import answer_of
from benchmarks.faults.case import distance
from benchmarks.kit.results import Results
from benchmarks.kit.runtime import run

from .cases import SUBJECTS
from .expectation import CASES, Case, Pair, chosen

Result = dict[str, Any]
REAL = 1e-6
"""Least relative L2 error at an output that the mistake in a case makes, where the file itself differs."""


def cases(names: Sequence[str]) -> list[Case]:
    """The cases of these names, or of these subjects, in the order of the page; all if none are given."""
    wanted = [name for given in names for name in ([c.name for c in _of(given)] if given in SUBJECTS else [given])]
    return list(chosen(wanted)) if names else [case for subject in SUBJECTS for case in _of(subject)]


def known_names() -> list[str]:
    """What may be asked for: subjects and cases."""
    return [*SUBJECTS, *CASES]


def _of(subject: str) -> list[Case]:
    return [case for case in CASES.values() if case.subject == subject]


def effect(pair: Pair) -> float:
    """The greatest relative L2 error at an output that the other file makes, computed as both are written."""
    if pair.candidate is None:
        return float("nan")
    found = [run(proto, pair.feeds[:1])[0] for proto in (pair.reference, pair.candidate)]
    return max(distance(found[0][name], found[1][name]) for name in found[0])


def ask(pair: Pair) -> Any:
    """layerdiff's report on a pair."""
    from layerdiff import Comparator, EmulateRunner, OnnxrtRunner

    with tempfile.TemporaryDirectory(prefix="layerdiff-rewritten-") as folder:
        paths = [Path(folder) / "reference.onnx", Path(folder) / "candidate.onnx"]
        onnx.save(pair.reference, paths[0])
        options: dict[str, Any] = {"data_loader": list(pair.feeds), "layers": "guilty"}
        if pair.candidate is not None:
            onnx.save(pair.candidate, paths[1])
            options["candidate_model"] = paths[1]
        runners: list[Any] = [OnnxrtRunner(threads=1, **({} if pair.optimize else {"optimization": "disable"}))]
        if pair.emulate:
            form, *switches = pair.emulate.split(",")
            runners.append(EmulateRunner(format=form, threads=1, **dict.fromkeys(switches, True)))
        return Comparator(paths[0], runners, **options).compare()


def asked(case: Case, seconds: float) -> Result:
    """A case, what layerdiff said of it, and what is wrong with that.

    Raises:
        Unavailable: A trained network, or a tool that writes the file, is not to be had.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = case.build()
    reports: list[Any] = []

    def question() -> Any:
        reports.append(ask(pair))
        return reports[0]

    made = effect(pair)
    answered = answer_of(question, seconds)
    warned = [*reports[0].warnings] if reports else []
    result = {
        "id": case.name,
        "subject": case.subject,
        "effect": made,
        "at": [*pair.at],
        "warnings": warned,
        **answered,
    }
    return {**result, "wrong": judged(case, result)}


def judged(case: Case, result: Result) -> str:
    """What is wrong with an answer; empty if nothing is."""
    if result["error"]:
        return str(result["error"])
    if not case.expected.healthy and "pass" not in case.expected.verdicts and result["effect"] < REAL:
        return "the mistake changes nothing"
    return case.expected.wrong(result["verdict"], result["answers"], result["at"], result["warnings"])


def work(name: str, seconds: float, path: Path) -> list[Result]:
    """One case; its result is written as it comes, one line of JSON."""
    kept = Results(path, float("inf"))
    try:
        kept.add(asked(CASES[name], seconds))
    except trained.Unavailable as error:
        print(f"{name}: {error}", flush=True)
    return kept.kept
