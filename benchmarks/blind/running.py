"""Asks layerdiff about planted faults and healthy forms, each within a time limit."""

from __future__ import annotations

import contextlib
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks import trained

from . import healthy
from .case import Case, Network, network, plant
from .graph import named

Result = dict[str, Any]
Share = tuple[int, int]
"""Which of how many shares of a network's cases."""
SEEDS = 4
"""Faults of one kind in one network, at most."""
FAULT, CLEAN = "fault", "clean"
CRASHES = {("magika", "perm_changed")}
"""Networks and kinds of faults that end the process inside ONNX Runtime 1.32 (an assertion of std::clamp)."""


class OutOfTime(BaseException):
    """A case took longer than its limit. No Exception: whatever is being done must not go on without it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Ends what is inside with `OutOfTime` after so many seconds; for the main thread of a process, on POSIX."""

    def stop(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@lru_cache(maxsize=1)
def load(name: str) -> Network:
    """A trained network with its inputs.

    Raises:
        Unavailable: It is neither in the cache nor to be had.
    """
    files = trained.fetch(name)
    feeds = []
    for path in sorted(files.data.glob("*.npz")):
        with np.load(path) as arrays:
            feeds.append(dict(arrays))
    return network(name, named(onnx.load(str(files.model))), feeds)


def ask(net: Network, candidate: onnx.ModelProto | None, runner: Any) -> Any:
    """layerdiff's report on a network beside a candidate: another file, or the same one in another runner."""
    from layerdiff import Comparator, OnnxrtRunner

    with tempfile.TemporaryDirectory(prefix="layerdiff-blind-") as folder:
        paths = [Path(folder) / "reference.onnx", Path(folder) / "candidate.onnx"]
        onnx.save(net.proto, paths[0])
        options: dict[str, Any] = {"data_loader": list(net.feeds), "layers": "guilty"}
        if candidate is not None:
            onnx.save(candidate, paths[1])
            options["candidate_model"] = paths[1]
        return Comparator(paths[0], [OnnxrtRunner(threads=1), *([runner] if runner else [])], **options).compare()


def answer_of(question: Callable[[], Any], seconds: float) -> Result:
    """What layerdiff says, or why it says nothing; nodes that stand around a culprit are ``inside``, and those of which
    it says that they differ, too, are ``told``."""
    began = time.perf_counter()
    result: Result = {"verdict": None, "answers": [], "error": None}
    try:
        with time_limit(seconds):
            report = question()
    except OutOfTime:
        result["error"] = f"no answer within {seconds:.0f} s"
    except Exception as error:  # a crash is a miss, and the page says which
        result["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        result["verdict"] = report.verdict
        result["outputs"] = {o.tensor: o.verdict for o in report.outputs}
        result["error"] = next((str(r.error).splitlines()[0] for r in report.runners if r.error), None)
        result["answers"] = [
            {
                "node": c.node,
                "candidate_node": c.candidate_node,
                "inside": [enclosing.node for enclosing in c.inside],
                "tensors": list(c.tensors),
                "told": [name for fact in c.facts if (name := getattr(fact, "node", "").partition(" ")[2])],
                "cause": str(c.cause.value),
                "evidence": c.evidence,
                "contribution": c.contribution,
            }
            for c in report.culprits
        ]
    result["seconds"] = time.perf_counter() - began
    return result


def right(case: Case, answer: Result) -> bool:
    """Whether a culprit is at the place of the fault: a node there, or one that makes a tensor that is made there."""
    places = {answer["node"], answer["candidate_node"], *answer["inside"]}
    return bool(places & case.nodes or {*answer["tensors"]} & case.tensors)


def scored(case: Case, answered: Result) -> Result:
    """A fault and what layerdiff said of it."""
    rank = next((i for i, a in enumerate(answered["answers"], 1) if right(case, a)), None)
    return {
        "group": FAULT,
        "id": case.id,
        "network": case.network,
        "kind": case.kind,
        "what": case.what,
        "nodes": sorted(case.nodes),
        "causes": sorted(case.causes),
        "effect": case.effect,
        "rank": rank,
        **answered,
    }


def faults(
    name: str, kinds: list[str], count: int, seconds: float, known: set[str], share: Share = (0, 1)
) -> Iterator[Result]:
    """Plants so many faults in a network, of kinds in a drawn order, and asks about those that are not known yet.

    Kinds without a place in the network yield nothing; faults that the deployed runtime does not show are left out,
    and said to be. Either takes no part in the count.
    """
    net = load(name)
    order = list(kinds)
    random.Random(name).shuffle(order)
    planted = 0
    barren = {kind for network, kind in CRASHES if network == name}
    for seed in range(1, SEEDS + 1):
        for kind in (kind for kind in order if kind not in barren):
            if planted == count:
                return
            case = plant(net, kind, seed)
            if case is None:
                barren.add(kind)
                continue
            if case.excused:
                if case.id not in known and not share[0]:
                    yield {"group": FAULT, "id": case.id, "network": name, "kind": kind, "excused": True}
                continue
            planted += 1
            if case.id not in known and planted % share[1] == share[0]:
                yield scored(case, answer_of(lambda case=case: ask(net, case.candidate, None), seconds))


def clean(name: str, seconds: float, known: set[str], share: Share = (0, 1)) -> Iterator[Result]:
    """Asks about every healthy form of a network that is not known yet."""
    from layerdiff import EmulateRunner, OnnxrtRunner

    net = load(name)
    for form in list(healthy.TITLES)[share[0] :: share[1]]:
        result: Result = {"group": CLEAN, "id": f"{name}/{form}", "network": name, "kind": form}
        if result["id"] in known:
            continue
        runner = EmulateRunner(format=form, threads=1) if form in healthy.FORMATS else None
        if form in healthy.OPTIMIZATIONS:
            runner = OnnxrtRunner(threads=1, optimization="disable")
        candidate = healthy.make(net, form) if form in healthy.FORMS else None
        if form in healthy.FORMS and candidate is None:
            continue
        asked = answer_of(lambda candidate=candidate, runner=runner: ask(net, candidate, runner), seconds)
        yield result | asked


def work(
    name: str,
    share: Share,
    kinds: list[str],
    groups: list[str],
    count: int,
    seconds: float,
    known: set[str],
    path: Path,
):
    """A share of everything about one network; each result is written as it comes, one line of JSON."""
    from benchmarks.kit.results import Results

    kept = Results(path, float("inf"))
    try:
        if FAULT in groups:
            for result in faults(name, kinds, count, seconds, known, share):
                kept.add(result)
        if CLEAN in groups:
            for result in clean(name, seconds, known, share):
                kept.add(result)
    except trained.Unavailable as error:
        print(f"{name}: {error}", flush=True)
    return kept.kept
