"""The JSON Schema of the report, made from the types that it is made of: ``docs/report.schema.json``.

``python -m layerdiff.compare.report.schema`` prints it. Objects may have more keys than it knows: keys are added within
one version of the contract.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from .history import Change
from .json import ACCURACY_OPTIONAL, CULPRIT_OPTIONAL, LAYER_OPTIONAL
from .model import SCHEMA, AccuracyResult, Culprit, Fidelity, LayerResult, Notice, OutputResult, RunnerResult, Verdict
from .plain import hints_of
from .plan import Applied, Plan
from .shard import Shard

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SCALARS = {str: "string", bool: "boolean", int: "integer", float: ["number", "null"]}  # null: not finite
_TEXT, _NUMBER, _WHOLE = {"type": "string"}, {"type": "number"}, {"type": "integer"}
_FREE: dict[str, Any] = {"type": "object"}

_OPTIONAL = {AccuracyResult: ACCURACY_OPTIONAL, LayerResult: LAYER_OPTIONAL, Culprit: CULPRIT_OPTIONAL}


def schema() -> dict[str, Any]:
    """The schema."""
    model = _object(source=_TEXT, sha256=_or_null(_TEXT), nodes=_or_null(_WHOLE))
    evidence = {"type": "string", "description": "What shows the cause, the most telling clause first."}
    properties: dict[str, Any] = {
        "schema": {"const": SCHEMA},
        "layerdiff": {**_TEXT, "description": "The version that wrote the report."},
        "date": {**_TEXT, "description": "When it was made, UTC, ISO 8601."},
        "command": {**_or_null(_TEXT), "description": "The command line that repeats the run; null from Python."},
        "settings": {**_FREE, "description": "Rules that are not at their defaults."},
        "verdict": _of(Verdict),
        "reference": _TEXT,
        "model": model,
        "candidate_model": _or_null(model),
        "samples": _WHOLE,
        "seed": _or_null(_WHOLE),
        "data": {**_TEXT, "description": 'Completes "on ...".'},
        "data_sha256": {**_or_null(_TEXT), "description": "Of names, dtypes, shapes and bytes of all samples."},
        "data_notes": _list(_TEXT),
        "representative": {"type": "boolean", "description": "False for random samples."},
        "runners": _list(_runner()),
        "outputs": _list(_without(_of(OutputResult), "out_of_range")),
        "accuracy": _list(_of(AccuracyResult)),
        "layers": _list(_of(LayerResult)),
        "culprits": _list(_with(_without(_of(Culprit), "facts"), evidence=evidence)),
        "fidelity": _list(_of(Fidelity)),
        "warnings": _list(_TEXT),
        "notices": _list(_of(Notice)),
        "saved": _list(_TEXT),
        "plan": _or_null(_of(Plan)),
        "applied": _or_null(_of(Applied)),
        "shard": {**_or_null(_of(Shard)), "description": "Of --shard, what layerdiff merge needs; null of all others."},
        "changes": _list(_of(Change)),
        "baseline": {**_or_null(_TEXT), "description": "The earlier report that this one was held against."},
    }
    return {"$schema": DIALECT, "title": SCHEMA, **_object(**properties)}


def text() -> str:
    """The file."""
    return json.dumps(schema(), indent=1) + "\n"


def _runner() -> dict[str, Any]:
    seconds = _object(open=_or_null(_NUMBER), infer=_or_null(_NUMBER))
    return _with(_without(_of(RunnerResult), "open_seconds", "infer_seconds"), seconds=seconds)


def _of(hint: Any) -> dict[str, Any]:
    """The schema of what `json.plain` makes of a value of a type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        return _or_null(_of(inner[0]))
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if origin is tuple:
        return _list(_of(arguments[0]))
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    return dict(_FREE) if origin is not None and issubclass(origin, Mapping) else {}


def _dataclass(cls: Any) -> dict[str, Any]:
    hints, told = hints_of(cls), _attributes(cls)
    properties = {}
    for f in dataclasses.fields(cls):
        of = _of(hints[f.name])
        properties[f.name] = {**of, "description": told[f.name]} if f.name in told else of
    left_out = _OPTIONAL.get(cls, ())
    return {"type": "object", "properties": properties, "required": [n for n in properties if n not in left_out]}


def _attributes(cls: type) -> dict[str, str]:
    """What the docstring says of each attribute."""
    section = (cls.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^ {8}(\w[\w, ]*): (.*(?:\n {12}.*)*)", section, re.MULTILINE)
    return {name: " ".join(body.split()) for names, body in entries for name in re.split(r",\s*", names)}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _with(of: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {**of, "properties": {**of["properties"], **properties}, "required": [*of["required"], *properties]}


def _without(of: dict[str, Any], *names: str) -> dict[str, Any]:
    kept = {name: value for name, value in of["properties"].items() if name not in names}
    return {**of, "properties": kept, "required": [name for name in of["required"] if name not in names]}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _or_null(of: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [of, {"type": "null"}]}


if __name__ == "__main__":
    print(text(), end="")
