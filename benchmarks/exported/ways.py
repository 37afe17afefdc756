"""What comes of an architecture and what is made of it, compared layer by layer.

In a module of its own: a spawned process does not import the ``__main__`` of a package.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.runners.contract.runner import Runner

from .architectures import ARCHITECTURES, Architecture
from .conversions import CONVERSIONS, EMULATIONS, OTHER_EXPORTER, Feed, exported

OUTCOMES = ("pass", "undecided", "fail", "not made", "not run", "lost")


@dataclass(frozen=True)
class Outcome:
    """What came of one comparison.

    Attributes:
        architecture, way: What was compared.
        what: One of `OUTCOMES`.
        why: What kept it from being made, run or compared.
        culprits: Layers that were named, as ``node: cause``.
        evidence: What is said of the first.
    """

    architecture: str
    way: str
    what: str
    why: str = ""
    culprits: tuple[str, ...] = ()
    evidence: str = ""


def compared(reference: Path, candidate: Path | Runner, feed: Feed, architecture: str, way: str) -> Outcome:
    """Compares a file with what was made of it, or with its emulation."""
    runners: list[Runner] = [OnnxrtRunner(threads=1)]
    if isinstance(candidate, Runner):
        runners.append(candidate)
    other = None if isinstance(candidate, Runner) else candidate
    try:
        report = Comparator(
            reference, runners, candidate_model=other, data_loader=[dict(feed)], layers="guilty"
        ).compare()
    except Exception as error:
        return Outcome(architecture, way, "lost", f"{type(error).__name__}: {_line(str(error))}")
    failed = [_line(r.error) for r in report.runners if r.error]
    if failed:
        return Outcome(architecture, way, "not run", failed[0])
    culprits = tuple(f"{c.node}: {c.cause.value}" for c in report.culprits)
    lost = [notice.text for notice in report.notices if notice.code == "layers-not-compared"]
    evidence = report.culprits[0].evidence if culprits else ""
    return Outcome(architecture, way, "lost" if lost else report.verdict, *lost[:1] or ("",), culprits, evidence)


def _line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def ways_of(architecture: Architecture, folder: Path) -> Iterator[Outcome]:
    """All comparisons of one architecture, whose files are written into a folder."""
    name, feed = architecture.name, architecture.feed()
    made: list[Path] = []
    for dynamo in (False, True):
        target = folder / f"{'dynamo' if dynamo else 'script'}.onnx"
        try:
            exported(architecture, feed, target, dynamo=dynamo)
            made.append(target)
        except Exception as error:
            way = OTHER_EXPORTER if made or dynamo else "the older exporter"
            yield Outcome(name, way, "not made", f"{type(error).__name__}: {_line(str(error))}")
    if not made:
        return
    source, *others = made
    for other in others:
        yield compared(source, other, feed, name, OTHER_EXPORTER)
    for way, convert in CONVERSIONS.items():
        target = folder / "converted.onnx"
        try:
            convert(architecture, source, target, feed)
        except Exception as error:
            yield Outcome(name, way, "not made", f"{type(error).__name__}: {_line(str(error))}")
            continue
        yield compared(source, target, feed, name, way)
    for fmt in EMULATIONS:
        runner = EmulateRunner(format=fmt, threads=1)
        yield compared(source, runner, feed, name, f"--emulate {fmt}")


def outcomes(path: Path) -> list[Outcome]:
    """The outcomes that a file holds, of each comparison the last one."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = (Outcome(**{**o, "culprits": tuple(o["culprits"])}) for o in map(json.loads, lines))
    return list({(o.architecture, o.way): o for o in found}.values())


def share(first: int, step: int, path: Path | None, only: str) -> list[Outcome]:
    """Compares each ``step``-th architecture from ``first`` on, of those whose name holds ``only``.

    ``path``: of a file that every outcome is appended to, one line of JSON each. An architecture that it holds is not
    done again.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found = []
    known = [] if path is None else outcomes(path)
    chosen = [one for one in ARCHITECTURES if only in one.name]
    for architecture in chosen[first::step]:
        before = [outcome for outcome in known if outcome.architecture == architecture.name]
        if before:
            found += before
            continue
        with tempfile.TemporaryDirectory() as folder:
            mine = list(ways_of(architecture, Path(folder)))
        found += mine
        if path is not None:
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(outcome)) + "\n" for outcome in mine)
    return found
