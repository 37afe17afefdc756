"""The plan's file: the canonical JSON that all else is made from.

Its form is documented in ``docs/plan.md``. It is written whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ...graph.errors import UsageError
from ..report.files import write
from ..report.plain import plain, typed
from ..report.plan import SCHEMA, Plan, Status

if TYPE_CHECKING:
    from ...graph.model import Model

STATUS = get_args(Status)


@dataclass(frozen=True)
class Origin:
    """What a plan was made for.

    Attributes:
        source, digest: The model.
        reference, candidate: The runners, as Python writes them.
        format: The narrow format.
        data, data_digest: The samples.
        rules: What decides.
        versions: Of what ran.
    """

    source: str
    digest: str
    reference: str
    candidate: str
    format: str
    data: str
    data_digest: str
    rules: str
    versions: Mapping[str, str]


def save(path: str, origin: Origin, plan: Plan) -> None:
    """Writes the file.

    Raises:
        UsageError: It cannot be written.
    """
    content = {
        "schema": SCHEMA,
        "origin": plain(origin),
        **{name: plain(value) for name, value in vars(plan).items() if name != "path"},
    }
    write(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n", path, "--fix")


def read(path: str, flag: str = "--plan") -> Mapping[str, Any]:
    """A plan's file, checked.

    Raises:
        UsageError: It cannot be read, or is no plan.
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{flag} {path}: cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise UsageError(f"{flag} {path}: is no JSON: {error}.") from None
    problem = problem_of(content)
    if problem:
        raise UsageError(f"{flag} {path}: is no plan: {problem}.")
    checked: Mapping[str, Any] = content
    return checked


def applicable(content: Mapping[str, Any], path: str, flag: str = "--plan") -> None:
    """Makes sure that a checked file holds a plan that passed, or that nothing has to be kept.

    Raises:
        UsageError: It does not: keeping nothing would pass for a plan.
    """
    if content["status"] not in ("found", "not needed"):
        raise UsageError(f"{flag} {path}: holds no plan that passed: {content.get('why') or content['status']}.")


def problem_of(content: Any) -> str:
    """What is wrong with the content of a plan's file; empty if nothing is."""
    if not isinstance(content, dict):
        return "expected an object"
    if content.get("schema") != SCHEMA:
        return f"its schema is {content.get('schema')!r}, expected {SCHEMA!r}"
    wanted: Sequence[tuple[str, type | tuple[type, ...]]] = (
        ("origin", dict),
        ("candidate", str),
        ("format", str),
        ("status", str),
        ("kept", list),
        ("keep", list),
        ("minimal", bool),
    )
    for name, kind in wanted:
        if not isinstance(content.get(name), kind):
            return f"{name!r} is missing or of another type"
    if content["status"] not in STATUS:
        return f"its status is {content['status']!r}, expected one of {', '.join(STATUS)}"
    if not all(isinstance(name, str) for name in content["keep"]):
        return "'keep' holds something else than names of nodes"
    for layer in content["kept"]:
        if not isinstance(layer, dict) or not isinstance(layer.get("nodes"), list) or "format" not in layer:
            return "'kept' holds something else than layers with 'nodes' and 'format'"
    try:
        typed(Plan, content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"a part of it is missing or of another type: {error}"
    return ""


def refuse_another(path: str, model: Model) -> None:
    """Makes sure that a plan does not replace the plan of another model.

    Raises:
        UsageError: It would, or the file is no plan.
    """
    if not Path(path).is_file() or not Path(path).stat().st_size:
        return
    origin = read(path, "--fix")["origin"]
    if origin.get("digest") not in (None, model.digest):
        raise UsageError(f"--fix {path}: holds the plan of another model ({origin.get('source')}): name another file.")


def plan_from(content: Mapping[str, Any], path: str = "") -> Plan:
    """The plan that a checked file holds."""
    found: Plan = typed(Plan, content)
    return replace(found, path=path)
