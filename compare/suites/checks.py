"""A file of checks: which comparisons there are, and what each is expected to give.

    stop = false                          # whether to stop at the first check that does not come out as expected

    [defaults]                            # options that every check has unless it says otherwise
    runners = ["onnxrt", "emulate=fp16"]

    [[check]]
    name = "digits in FP16"
    model = "digits.onnx"                 # models = ["trained.onnx", "exported.onnx"] for two
    data = "heldout.npz"
    expect = "pass"                       # or "fail", "undecided": known failures

What else a check holds are options of ``compare`` without their dashes: a text, a number, ``true`` for a switch, a list
for one that is given several times. Paths are relative to the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...graph.errors import LayerdiffError, UsageError
from ..cli.arguments import Request, parse

EXPECTED = ("pass", "fail", "undecided")
_OWN = ("name", "model", "models", "runners", "expect")
_NOT_OF_A_CHECK = ("help", "version", "suite")
_PATHS = (
    "data",
    "baseline",
    "calibration-data",
    "labels",
    "save-worst",
    "json",
    "junit",
    "markdown",
    "csv",
    "html",
    "text",
    "model-explorer",
)


@dataclass(frozen=True)
class Check:
    """One comparison of a file of checks.

    Attributes:
        name: What it is called in the table.
        words: Its command line.
        request: What that asks for.
        expect: The verdict that is expected.
    """

    name: str
    words: tuple[str, ...]
    request: Request
    expect: str = "pass"


@dataclass(frozen=True)
class Checks:
    """A file of checks.

    Attributes:
        checks: The comparisons, in the order of the file.
        stop: Whether to stop at the first one that does not come out as expected.
    """

    checks: tuple[Check, ...]
    stop: bool = False


def read_checks(path: str | os.PathLike[str]) -> Checks:
    """Reads a file of checks; every one of them, before any is run.

    Raises:
        UsageError: It cannot be read, or a check in it cannot be understood.
    """
    content = _toml(path)
    for key in content:
        if key not in ("stop", "defaults", "check"):
            raise UsageError(f"{path}: unknown key {key!r}; there are: stop, defaults, check.")
    given, defaults, stop = content.get("check", []), content.get("defaults", {}), content.get("stop", False)
    if not isinstance(given, list) or not given or not all(isinstance(check, dict) for check in given):
        raise UsageError(f"{path}: no [[check]] in it, so nothing would be compared.")
    if not isinstance(defaults, dict) or not isinstance(stop, bool):
        raise UsageError(f"{path}: expected a table [defaults], and stop = true or false.")
    checks = tuple(_check(i, _with_defaults(check, defaults), Path(path)) for i, check in enumerate(given, 1))
    names = [check.name for check in checks]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{path}: {names.count(name)} checks are called {name!r}; give each a name of its own.")
    return Checks(checks, stop)


def _toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib  # type: ignore[no-redef]
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--suite {path}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UsageError(f"--suite {path}: not TOML: {error}.") from None


def _with_defaults(check: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A check's own keys, and the defaults of the others; ``model`` and ``models`` are two names of one."""
    own = {"model", "models"} if {"model", "models"} & set(check) else set()
    return {**{key: value for key, value in defaults.items() if key not in own}, **check}


def _check(number: int, given: Mapping[str, Any], path: Path) -> Check:
    models = given.get("models", [given["model"]] if "model" in given else [])
    models = [models] if isinstance(models, str) else models
    runners = given.get("runners", [])
    name = str(given.get("name") or " ".join([*map(str, models), *map(str, runners)]))
    where = f"{path}, check {number} ({name})"
    if given.get("expect", "pass") not in EXPECTED:
        raise UsageError(f"{where}: expect = {given['expect']!r}; there are: {', '.join(EXPECTED)}.")
    if {"model", "models"} <= set(given):
        raise UsageError(f'{where}: model and models; of two files say models = ["trained.onnx", "exported.onnx"].')
    if not models or not isinstance(runners, list):
        raise UsageError(f'{where}: name a model, and runners as a list: model = "model.onnx", runners = ["onnxrt"].')
    words = [_beside(path, str(model)) for model in models] + [f"--{runner}" for runner in runners]
    for key, value in given.items():
        if key not in _OWN:
            words += _words(key, value, path, where)
    try:
        return Check(name, tuple(words), parse(words), str(given.get("expect", "pass")))
    except LayerdiffError as error:
        raise UsageError(f"{where}: {error}") from error


def _words(key: str, value: Any, path: Path, where: str) -> Iterator[str]:
    flag = f"--{key.replace('_', '-')}"
    if flag[2:] in _NOT_OF_A_CHECK:
        raise UsageError(f"{where}: {key} is no option of a check.")
    for one in value if isinstance(value, list) else [value]:
        if one is False:
            continue
        if isinstance(one, (dict, list)):
            raise UsageError(f"{where}: {key} is an option of compare: a text, a number, true, or a list of those.")
        if one == "":
            raise UsageError(f"{where}: {key} is empty.")
        text = _beside(path, str(one)) if flag[2:] in _PATHS else str(one)
        yield flag if one is True else f"{flag}={text}"


def _beside(path: Path, name: str) -> str:
    """A path that a file of checks names, from where the command runs."""
    return name if os.path.isabs(name) else os.path.normpath(path.parent / name)


def unexpected(verdict: str, expect: str) -> str:
    """What is wrong with a verdict, in a clause; empty if it is the expected one."""
    return "" if verdict == expect else f"{verdict}, {expect} expected"


def names_of(checks: Sequence[Check]) -> tuple[str, ...]:
    """The names of checks."""
    return tuple(check.name for check in checks)
