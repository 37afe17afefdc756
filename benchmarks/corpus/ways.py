"""The ways in which a model of the onnx package is compared with itself, and what came of each.

In a module of its own: a spawned process does not import the ``__main__`` of a package.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layerdiff import Comparator, DataLoader, EmulateRunner, OnnxrtRunner, ReferenceEvaluatorRunner
from layerdiff.graph.errors import LayerdiffError
from layerdiff.runners.contract.runner import Runner

from .models import DATA, CorpusModel, corpus

ORT = OnnxrtRunner(threads=1)
OUTCOMES = ("agree", "disagree", "undecided", "unsupported", "crash", "lost")


@dataclass(frozen=True)
class Way:
    """One way to compare a model with itself.

    Attributes:
        label: As on the command line.
        candidate: What is compared with ONNX Runtime.
        given: Whether the data that come with the model are used where there are any.
        layers: See `Rules.layers`.
    """

    label: str
    candidate: Runner
    given: bool = False
    layers: str | None = None


WAYS = (
    Way("--onnxrt --reference-evaluator, given data", ReferenceEvaluatorRunner(), given=True),
    Way("--onnxrt --onnxrt --layers=all", OnnxrtRunner(threads=1), layers="all"),
    Way("--onnxrt --emulate fp16 --layers", EmulateRunner(format="fp16", threads=1), layers="guilty"),
    Way("--onnxrt --reference-evaluator, random data", ReferenceEvaluatorRunner()),
    Way("--onnxrt --emulate int8 --layers", EmulateRunner(format="int8", threads=1), layers="guilty"),
)


@dataclass(frozen=True)
class Outcome:
    """What came of one comparison.

    Attributes:
        kind, model, way: What was compared.
        what: One of `OUTCOMES`.
        why: The reason of the first output that does not agree, or the error.
        culprits: Layers that were named, as ``node: cause``.
    """

    kind: str
    model: str
    way: str
    what: str
    why: str = ""
    culprits: tuple[str, ...] = ()


def compared(entry: CorpusModel, way: Way) -> Outcome:
    """Compares one model in one way."""

    def outcome(what: str, why: str = "", culprits: tuple[str, ...] = ()) -> Outcome:
        line = next(iter(why.replace(f"{DATA}/", "").strip().splitlines()), "")
        return Outcome(entry.kind, entry.name, way.label, what, line, culprits)

    try:
        model = entry.model()
        sample = entry.sample(model) if way.given else None
        data: Any = DataLoader(samples=1) if sample is None else [sample]
        options: dict[str, Any] = {"nan_equal": True, "layers": way.layers}
        report = Comparator(model, [ORT, way.candidate], data_loader=data, **options).compare()
    except LayerdiffError as error:
        return outcome("unsupported", str(error))
    except Exception as error:
        return outcome("crash", f"{type(error).__name__}: {error}")
    culprits = tuple(f"{c.node}: {c.cause.value}" for c in report.culprits)
    failed = [r.error for r in report.runners if r.error]
    if failed or not report.outputs:
        return outcome("unsupported", next(iter(failed), "no output to compare") or "")
    lost = [n.text for n in report.notices if n.code == "layers-not-compared"]
    if lost:
        return outcome("lost", lost[0], culprits)
    verdicts = [o.verdict for o in report.outputs]
    bad = next((o for o in report.outputs if o.verdict != "pass"), None)
    what = "agree" if bad is None else "disagree" if set(verdicts) - {"pass", "undecided"} else "undecided"
    return outcome(what, "" if bad is None else f"{bad.tensor}: {bad.reason}", culprits)


def outcomes(path: Path) -> list[Outcome]:
    """The outcomes that a file holds, of each comparison the last one."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return list({(o["model"], o["way"]): Outcome(**o) for o in map(json.loads, lines)}.values())


def share(first: int, step: int, path: Path | None) -> list[Outcome]:
    """Compares each ``step``-th model from ``first`` on, in all ways.

    Args:
        first, step: Which models.
        path: Of a file that every outcome is appended to, one line of JSON each. What it holds is not done again.
    """
    found = []
    known = {} if path is None else {(o.model, o.way): o for o in outcomes(path)}
    for number, entry in enumerate(corpus()):
        if number % step != first:
            continue
        for way in WAYS:
            before = known.get((entry.name, way.label))
            if before is not None:
                found.append(before)
                continue
            found.append(compared(entry, way))
            if path is not None:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(found[-1])) + "\n")
    return found
