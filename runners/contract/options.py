"""Options of runners: the fields that `graph.options.option` declares, as the command line gives them to one runner.

``threads: int = option(0, "--ort-threads", "threads of ONNX Runtime", Threads())`` is the keyword
``OnnxrtRunner(threads=4)``, an option of one runner on the command line, ``--onnxrt=threads=4``, and the default for
every runner that has the field, ``--ort-threads 4``. What may stand behind ``--onnxrt=`` is `grammar`'s.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...graph.errors import UsageError
from ...graph.options import Choice, Kind, Number, Whole

_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Option:
    """A field that is an option.

    Attributes:
        name: The field: keyword in Python, KEY on the command line.
        flag: The long option; empty where there is none.
        help: What it means, in one line.
        default: Value of the field when the option is not given.
        kind: What values it takes.
        metavar: What help calls the value.
    """

    name: str
    flag: str
    help: str
    default: Any
    kind: Kind
    metavar: str

    @property
    def switch(self) -> bool:
        """Whether it takes no value."""
        return isinstance(self.default, bool)

    @property
    def repeats(self) -> bool:
        """Whether it may be given several times, and the field is a tuple."""
        return isinstance(self.default, tuple)

    @property
    def choices(self) -> tuple[str, ...]:
        """The legal values; empty where they cannot be listed."""
        return self.kind.words if isinstance(self.kind, Choice) else ()

    @property
    def form(self) -> str:
        """What help shows for its value."""
        return "|".join(self.choices) or self.metavar

    def read(self, text: str, written: str) -> Any:
        """The value that a text stands for; of an option that repeats, one of them.

        Args:
            text: The text.
            written: How the option was written, for messages.

        Raises:
            UsageError: It stands for none.
        """
        if self.switch:
            if text.casefold() not in _TRUTH:
                raise UsageError(f"{written}: expected true or false.")
            return _TRUTH[text.casefold()]
        try:
            return self.kind.read(text)
        except ValueError as error:
            raise UsageError(f"{written}: {error}.") from None


@functools.cache
def options_of(cls: type, also: str = "") -> Mapping[str, Option]:
    """The options that a configuration class declares, by field.

    Args:
        cls: The class, a dataclass.
        also: A field that is one even if it is not declared with `option`; empty: none.

    Raises:
        UsageError: The class holds options, but is no dataclass, which would not have the fields.
    """
    lost = [name for c in cls.__mro__ for name, value in vars(c).items() if isinstance(value, dataclasses.Field)]
    if lost:
        raise UsageError(f"{cls.__name__}.{lost[0]} is an option: write @dataclass(frozen=True) above the class.")
    return {f.name: _option(f) for f in dataclasses.fields(cls) if "flag" in f.metadata or f.name == also}


def _option(f: dataclasses.Field[Any]) -> Option:
    told = f.metadata
    kind = told.get("kind")
    if kind is None:  # what the default is tells how text is read
        kind = {int: Whole(), float: Number(-math.inf)}.get(type(f.default), Kind())
    metavar = told.get("arguments", {}).get("metavar") or ("N" if isinstance(kind, Whole) else "VALUE")
    return Option(f.name, told.get("flag", ""), told.get("help", ""), f.default, kind, metavar)


def as_tuples(configuration: Any) -> None:
    """Makes a single text of an option that repeats, and paths, what they are kept as; for ``__post_init__``."""
    for name, known in options_of(configuration.__class__).items():
        if known.repeats:
            value = getattr(configuration, name)
            several = value if isinstance(value, Iterable) and not isinstance(value, (str, os.PathLike)) else (value,)
            kept = tuple(os.fspath(v) if isinstance(v, os.PathLike) else v for v in several)
            object.__setattr__(configuration, name, kept)


def written(name: str, value: Any) -> str:
    """A setting as the command line takes it: ``optimization=disable``, ``decomposed``, ``plugins=a,plugins=b``."""
    if value is True:
        return name
    values: Sequence[Any] = value if isinstance(value, tuple) else (value,)
    return ",".join(f"{name}={str(v).lower() if isinstance(v, bool) else str(v).replace(',', ',,')}" for v in values)


def command_word(runner: Any) -> str:
    """A runner as a shell takes it, with every setting that is not the usual one: ``--emulate=fp16,keep=fc``."""
    cls: Any = type(runner)
    told: list[str] = []
    for name, known in options_of(cls, cls.value_field).items():
        value = getattr(runner, name)
        if name == cls.value_field and value:
            told.insert(0, str(value).replace(",", ",,"))
        elif value != known.default and value is not None:
            told.append(written(name, value))
    return shlex.quote(f"--{cls.flag}={','.join(told)}" if told else f"--{cls.flag}")


def hyphenated(name: str) -> str:
    """``MyRuntimeRunner`` as ``my-runtime``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name.removesuffix("Runner") or name)
    return words.replace("_", "-").lower()
