"""Asks layerdiff about cases, in this process or in several.

In a module of its own: a spawned process does not import the ``__main__`` of a package, and so would not find ``work``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import baseline, cases, clean
from .case import Case
from .cases import Dropped


def ask(case: Case, folder: Path) -> list[dict[str, Any]]:
    """The culprits that layerdiff names, most guilty first: ``node``, ``cause``, ``evidence``."""
    from layerdiff import Comparator, EmulateRunner, OnnxrtRunner

    reference, candidate = case.write(folder)
    options: dict[str, Any] = {"data_loader": case.feeds(), "layers": "guilty"}
    if candidate is None:
        other = EmulateRunner(format=case.emulate) if case.emulate else OnnxrtRunner(**case.runner)
        comparator = Comparator(reference, [OnnxrtRunner(), other], **options)
    elif case.emulate or case.runner:
        if case.emulate:
            other = EmulateRunner(model=candidate, format=case.emulate)
        else:
            other = OnnxrtRunner(model=candidate, **case.runner)
        runners = [OnnxrtRunner(model=reference), other]
        comparator = Comparator(None, runners, **options)
    else:
        comparator = Comparator(reference, [OnnxrtRunner()], candidate_model=candidate, **options)
    report = comparator.compare()
    failed = [f"{r.name}: {r.error}" for r in report.runners if r.error]
    if failed:
        raise RuntimeError("; ".join(failed))
    return [{"node": c.node, "cause": c.cause, "evidence": c.evidence} for c in report.culprits]


class Calls:
    """Counts the calls of ONNX Runtime's ``run`` while it is entered."""

    def __enter__(self) -> Calls:
        import onnxruntime as ort

        self.count = 0
        self._kept = {name: getattr(ort.InferenceSession, name) for name in ("run", "run_with_iobinding")}
        for name, method in self._kept.items():
            setattr(ort.InferenceSession, name, self._counting(method))
        return self

    def _counting(self, method: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            self.count += 1
            return method(*args, **more)

        return call

    def __exit__(self, *exc: object) -> None:
        import onnxruntime as ort

        for name, method in self._kept.items():
            setattr(ort.InferenceSession, name, method)


def judge(case: Case, folder: Path, baselines: bool) -> dict[str, Any]:
    """Runs one case and scores it."""
    answers: list[dict[str, Any]] = []
    error = None
    began = time.perf_counter()
    with Calls() as calls:
        try:
            answers = ask(case, folder)
        except Exception:  # a crash is a miss, and the table says which
            error = traceback.format_exc(limit=-3).replace(f"{folder}{os.sep}", "")
    seconds = time.perf_counter() - began
    rank = next((i for i, a in enumerate(answers, 1) if a["node"] in case.nodes), None)
    result: dict[str, Any] = {
        "id": case.id,
        "network": case.network,
        "kind": case.kind,
        "clean": case.clean,
        "what": case.what,
        "node": case.node,
        "nodes": sorted(case.nodes),
        "causes": sorted(case.causes),
        "local": case.local,
        "final": case.final,
        "answers": answers,
        "rank": rank,
        "cause_right": rank is not None and answers[rank - 1]["cause"] in case.causes,
        "seconds": seconds,
        "calls": calls.count,
        "error": error,
    }
    if baselines:
        named = baseline.named(case)
        result["baselines"] = {
            method: {
                "first": names[:3],
                "named": len(names),
                "rank": next((i for i, n in enumerate(names, 1) if n in case.nodes), None),
            }
            for method, names in named.items()
        }
    return result


def make(network: str, kind: str, dropped: Dropped) -> Iterator[Case]:
    """The cases of one kind, faults or clean pairs, in one network."""
    if kind in clean.TITLES:
        return clean.generate([kind], [network])
    return cases.generate([kind], [network], dropped)


def work(network: str, kind: str, options: argparse.Namespace) -> tuple[list[dict[str, Any]], Dropped]:
    """The cases of one kind in one network."""
    dropped = Dropped()
    results = []
    root = Path(options.keep) if options.keep else Path(tempfile.mkdtemp(prefix="layerdiff-faults-"))
    for case in make(network, kind, dropped):
        if options.case and case.id not in options.case:
            continue
        folder = root / case.id.replace("/", "-")
        results.append(judge(case, folder, not options.no_baselines))
        if not options.keep:
            for file in folder.glob("*.onnx"):
                file.unlink()
            folder.rmdir()
        if options.limit and len(results) >= options.limit:
            break
    if not options.keep:
        root.rmdir()
    return results, dropped
