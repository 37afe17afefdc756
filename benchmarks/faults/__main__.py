"""Runs the cases, keeps the score and writes the table. See ``python -m benchmarks.faults --help``."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.kit.networks import NETWORKS
from benchmarks.kit.pages import DOCS, write_page

from . import baseline, cases, clean, table
from .case import Case
from .cases import DERIVED, Dropped
from .plants import KINDS

PAGE = DOCS / "faults.md"


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


def line(result: dict[str, Any]) -> str:
    """One case in one line, for the terminal."""
    said = ", ".join(f"{a['node']} ({a['cause']})" for a in result["answers"][:3]) or "nobody"
    if len(result["answers"]) > 3:
        said += f" and {len(result['answers']) - 3} more"
    if result["error"]:
        said = result["error"].strip().split("\n")[-1]
    if result["clean"]:
        mark = "ok  " if not result["answers"] and not result["error"] else "MISS"
        return f"{mark} {result['id']}: {said}"
    mark = "ok  " if result["rank"] == 1 else f"#{result['rank']}  " if result["rank"] else "MISS"
    cause = "" if result["cause_right"] else "  [cause]"
    return f"{mark} {result['id']} at {result['node']} ({result['what']}; {'|'.join(result['causes'])}): {said}{cause}"


EVERY = [*KINDS, *DERIVED, *clean.KINDS]


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument(
        "--kind", action="append", choices=EVERY, metavar="KIND", help=f"only this kind: {', '.join(EVERY)}"
    )
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="only this network")
    parser.add_argument("--case", action="append", metavar="ID", help="only this case (network/kind/number)")
    parser.add_argument("--limit", type=int, help="at most so many cases of each kind in each network")
    parser.add_argument("--clean", action="store_true", help="only the clean pairs")
    parser.add_argument("--list", action="store_true", help="list the cases and run nothing")
    parser.add_argument("--keep", metavar="FOLDER", help="keep the models of every case there")
    parser.add_argument("--no-baselines", action="store_true", help="leave out what Polygraphy would have named")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--misses", action="store_true", help="print only the cases that are missed")
    parser.add_argument("--results", metavar="FILE", help="write every case as JSON (default: a temporary file)")
    parser.add_argument("--again", metavar="FILE", help="run nothing: write the table of an earlier run's --results")
    parser.add_argument("--write", action="store_true", help=f"write the table to docs/{PAGE.name} (complete runs do)")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.again:
        earlier = json.loads(Path(options.again).read_text())
        write_page(PAGE, table.markdown(earlier["cases"], earlier["dropped"], earlier["jobs"]))
        print(table.summary(earlier["cases"], earlier["seconds"]))
        return 0
    kinds = options.kind or ([*clean.KINDS] if options.clean else EVERY)
    names = options.network or list(NETWORKS)
    if options.case:
        names = sorted({i.split("/")[0] for i in options.case})
        kinds = sorted({i.split("/")[1] for i in options.case})
    if options.list:
        for case in (case for name in names for kind in kinds for case in make(name, kind, Dropped())):
            print(case.id, case.node or "", case.what, sep="\t")
        return 0
    began = time.perf_counter()
    results, dropped = answered([(name, kind, options) for name in names for kind in kinds], options)
    seconds = time.perf_counter() - began
    path = Path(options.results or Path(tempfile.gettempdir()) / "layerdiff-faults.json")
    path.write_text(
        json.dumps({"cases": results, "dropped": dropped, "seconds": seconds, "jobs": options.jobs}, indent=1)
    )
    complete = not (options.kind or options.network or options.case or options.limit or options.clean)
    print(table.summary(results, seconds))
    print(f"every case: {path}")
    if options.write or (complete and not options.no_baselines):
        write_page(PAGE, table.markdown(results, dropped, options.jobs))
    return 0


def answered(jobs: list[Any], options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """The results of all jobs, each printed as it comes, and the places that were left out, by kind."""
    results: list[dict[str, Any]] = []
    dropped: dict[str, list[str]] = {}
    for part, left_out in run(jobs, options.jobs):
        results += part
        for kind, why in left_out.places.items():
            dropped.setdefault(kind, []).extend(why)
        for result in part:
            if not options.misses or not table.right(result):
                print(line(result), flush=True)
    return results, dropped


def run(jobs: list[Any], processes: int) -> Iterator[tuple[list[dict[str, Any]], Dropped]]:
    """Does the jobs, in order."""
    if processes < 2:
        yield from (work(*job) for job in jobs)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from pool.map(work, *zip(*jobs, strict=True))


if __name__ == "__main__":
    sys.exit(main())
