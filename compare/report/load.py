"""A saved report back as a value: what ``--json`` wrote, in the types of `model`.

Everything that the JSON form holds comes back, so that every format can be made of it later. What it does not hold:
numbers that were not finite (they are None), and the parts of a culprit's evidence, which comes back as one fact.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...graph.errors import UsageError
from .history import Change, Provenance
from .inputs import DataInfo, ModelInfo, known
from .model import (
    SCHEMA,
    AccuracyResult,
    Culprit,
    Fidelity,
    LayerResult,
    Notice,
    OutputResult,
    Report,
    RunnerResult,
)
from .plain import typed
from .plan import Applied, Plan
from .shard import Shard


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Evidence as a saved report tells it.

    Attributes:
        text: All clauses.
    """

    text: str


def load_report(path: str | os.PathLike[str]) -> Report:
    """The report that ``--json`` wrote to a file.

    Raises:
        UsageError: The file cannot be read, or is no such report.
    """
    return from_json(read_json(path), str(path))


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a file holds as JSON.

    Raises:
        UsageError: It cannot be read, or is no JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON: {error}.") from None


@contextlib.contextmanager
def of_a_report(name: str | os.PathLike[str]) -> Iterator[None]:
    """Says of a report that was loaded that it is damaged, where that is found only when something is made of it.

    Raises:
        UsageError: It is.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UsageError(f"{name}: a damaged report: {type(error).__name__} {error}.") from error


def from_json(content: Any, name: str = "the report") -> Report:
    """The report of which `json.to_json` made a dict.

    Args:
        content: The dict.
        name: What to call it in messages.

    Raises:
        UsageError: It is not such a dict, or of another version of the contract.
    """
    schema = content.get("schema") if isinstance(content, Mapping) else None
    if schema != SCHEMA:
        found = f"its schema is {schema!r}" if schema else "it has no schema"
        raise UsageError(f"{name}: not a report that --json wrote: {found}, and {SCHEMA!r} is expected.")
    with of_a_report(name):
        return _report(content)


def _report(content: Mapping[str, Any]) -> Report:
    notes = typed(tuple[str, ...], content.get("data_notes", ()))
    return Report(
        reference=typed(str, content["reference"]),
        model=_model(content["model"]),
        candidate_model=None if content["candidate_model"] is None else _model(content["candidate_model"]),
        data=DataInfo(
            typed(int, content["samples"]),
            typed(int, content["seed"]),
            typed(str, content["data"]),
            bool(content.get("representative", content["seed"] is None)),
            notes,
            functools.partial(known, content.get("data_sha256")),
        ),
        runners=tuple(map(_runner, content["runners"])),
        outputs=_all(OutputResult, content["outputs"]),
        layers=_all(LayerResult, content["layers"]),
        culprits=tuple(map(_culprit, content["culprits"])),
        fidelity=_all(Fidelity, content["fidelity"]),
        notices=_all(Notice, content["notices"]),
        saved=typed(tuple[str, ...], content["saved"]),
        accuracy=_all(AccuracyResult, content["accuracy"]),
        provenance=Provenance(
            typed(str, content.get("layerdiff", "")),
            typed(str, content.get("date", "")),
            typed(str, content.get("command")),
            typed(Mapping[str, Any], content.get("settings", {})),
        ),
        changes=_all(Change, content.get("changes", ())),
        baseline=content.get("baseline"),
        plan=typed(Plan, content.get("plan")),
        applied=typed(Applied, content.get("applied")),
        shard=typed(Shard, content.get("shard")),
    )


def _model(content: Mapping[str, Any]) -> ModelInfo:
    source, nodes, digest = content["source"], content["nodes"], content["sha256"]
    return ModelInfo(typed(str, source), typed(int, nodes), functools.partial(known, typed(str, digest)))


def _runner(content: Mapping[str, Any]) -> RunnerResult:
    seconds = content["seconds"]
    flat = {**content, "open_seconds": seconds["open"], "infer_seconds": seconds["infer"]}
    return typed(RunnerResult, flat)


def _culprit(content: Mapping[str, Any]) -> Culprit:
    found = typed(Culprit, {**content, "facts": ()})
    return dataclasses.replace(found, facts=(Recorded(content["evidence"]),) if content["evidence"] else ())


def _all(cls: Any, items: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(typed(cls, item) for item in items)
