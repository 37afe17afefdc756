"""Options: dataclass fields that are keyword arguments in Python and flags on the command line.

One declaration gives the flag, its help, how its text is read, and what values are legal in either form:

    rtol: float | None = option(None, "--rtol", "relative tolerance", Number(least=0), metavar="R")
"""

from __future__ import annotations

import difflib
import math
import numbers
import os
import re
from collections.abc import Sequence
from dataclasses import Field, field, fields
from typing import Any

from .errors import LayerdiffError, UsageError

_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)


class Refused(ValueError):
    """A value is not what its option expects."""


class Kind:
    """What values an option takes. Text is read and values are checked by the same rule; both raise ValueError.

    Attributes:
        expected: Completes "expected ...".
        repeated: Whether the option may be given several times; `collect` then makes one value of them.
    """

    expected = "text"
    repeated = False

    def read(self, text: str) -> Any:
        """The value that a command line means."""
        return text

    def check(self, value: Any) -> None:
        """Refuses values that are not legal."""

    def collect(self, values: Sequence[Any]) -> Any:
        """The value of an option that was given several times."""
        return tuple(values)

    def refusal(self) -> Refused:
        """To be raised: what was expected."""
        return Refused(f"expected {self.expected}")


class Choice(Kind):
    """One of some words. On the command line, case does not matter."""

    def __init__(self, *words: str) -> None:
        self.words = words
        named = [word for word in words if word]
        self.expected = f"{', '.join(named[:-1])} or {named[-1]}"

    def read(self, text: str) -> str:
        """See `Kind.read`."""
        meant = {word.casefold(): word for word in self.words}
        if text.casefold() in meant:
            return meant[text.casefold()]
        near = difflib.get_close_matches(text.casefold(), meant, n=1)
        raise Refused(f"expected {self.expected}; did you mean {meant[near[0]]}?") if near else self.refusal()

    def check(self, value: Any) -> None:
        """See `Kind.check`."""
        if value not in self.words:
            raise self.refusal()


class Whole(Kind):
    """A whole number, ``least`` or more, and ``most`` at most."""

    def __init__(self, least: int | None = None, most: int | None = None) -> None:
        self.least, self.most = least, most
        self.expected = "a whole number"
        if least is not None:
            self.expected += f", {least} or more" if most is None else f" from {least} to {most}"

    def read(self, text: str) -> int:
        """See `Kind.read`."""
        if not re.fullmatch(r"[+-]?\d+", text):
            raise self.refusal()
        self.check(int(text))
        return int(text)

    def check(self, value: Any) -> None:
        """See `Kind.check`."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refusal()
        if (self.least is not None and value < self.least) or (self.most is not None and value > self.most):
            raise self.refusal()


class Threads(Whole):
    """A number of threads, 0 for a runtime's own choice; far more than a machine has cores for hang it."""

    def __init__(self) -> None:
        super().__init__(0, max(64, 8 * (os.cpu_count() or 1)))
        self.expected += f" on a machine of {os.cpu_count() or 1} cores"


class Number(Kind):
    """A finite number, ``least`` or more, and ``most`` at most."""

    def __init__(self, least: float = 0, most: float = math.inf) -> None:
        self.least, self.most = least, most
        self.expected = f"a number, {least:g} or more" if most == math.inf else f"a number from {least:g} to {most:g}"
        if least == -math.inf:
            self.expected = "a number"

    def read(self, text: str) -> float:
        """See `Kind.read`."""
        try:
            value = float(text)
        except ValueError:
            raise self.refusal() from None
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """See `Kind.check`."""
        if not (math.isfinite(value) and self.least <= value <= self.most):
            raise self.refusal()


class Size(Kind):
    """Bytes: ``512MB``, ``2GiB``, ``1.5G`` or a bare number. Decimal prefixes unless there is an ``i``."""

    expected = "a size such as 512MB or 2GiB"

    def read(self, text: str) -> int:
        """See `Kind.read`."""
        match = _SIZE.fullmatch(text)
        value = 0
        if match:
            base = 1024 if match[3] else 1000
            value = int(float(match[1]) * base ** " kmgt".index(match[2].lower() or " "))
        if not value:
            raise self.refusal()
        return value

    def check(self, value: Any) -> None:
        """See `Kind.check`."""
        if not isinstance(value, int) or value < 1:
            raise self.refusal()


class Names(Kind):
    """Names, separated by commas on the command line."""

    expected = "names, separated by commas"

    def read(self, text: str) -> tuple[str, ...]:
        """See `Kind.read`."""
        return tuple(name.strip() for name in text.split(",") if name.strip())


class Pair(Kind):
    """Two numbers that are finite and, on the command line, separated by a comma.

    Args:
        form: What the two are called: ``LO,HI``.
        whole: Whether both are whole numbers.
        ordered: Whether they are the ends of a range, which must not be empty.
        least: The least value of both.
    """

    def __init__(self, form: str, *, whole: bool = False, ordered: bool = False, least: float = -math.inf) -> None:
        self.whole = whole
        self.ordered = ordered
        self.least = least
        self.expected = f"{form}, two {'whole ' if whole else ''}numbers" + (", 0 or more" if least == 0 else "")

    def read(self, text: str) -> tuple[Any, Any]:
        """See `Kind.read`. Whole numbers are exact, beyond 2^53 too."""
        try:
            low, high = (_exact(part, self.whole) for part in text.split(","))
        except ValueError:
            raise self.refusal() from None
        self.check((low, high))
        return low, high

    def check(self, value: Any) -> None:
        """See `Kind.check`."""
        try:
            low, high = value
            finite = math.isfinite(low) and math.isfinite(high)
        except (TypeError, ValueError):
            raise self.refusal() from None
        if not finite:
            raise ValueError("both numbers must be finite")
        if min(low, high) < self.least or (self.whole and (low != int(low) or high != int(high))):
            raise self.refusal()
        if self.ordered and low > high:
            raise ValueError(f"the range is empty, {low} is more than {high}")
        if self.ordered and self.whole and low == high:
            raise ValueError(f"the range is empty, since {high} is not included")


class Axes(Kind):
    """An order of axes, as ``numpy.transpose`` takes it: ``0,2,3,1``."""

    expected = "axes in another order, such as 0,2,3,1"

    def read(self, text: str) -> tuple[int, ...]:
        """See `Kind.read`."""
        if not re.fullmatch(r"\d+(,\d+)*", text):
            raise self.refusal()
        axes = tuple(map(int, text.split(",")))
        self.check(axes)
        return axes

    def check(self, value: Any) -> None:
        """See `Kind.check`."""
        try:
            every = sorted(value) == list(range(len(value)))
        except TypeError:
            raise self.refusal() from None
        if not every or not value:
            raise self.refusal()


class Named(Kind):
    """Values by name: ``NAME:VALUE`` or ``NAME=VALUE`` on the command line, once for each name; a mapping in Python."""

    repeated = True

    def __init__(self, kind: Kind, form: str) -> None:
        self.kind = kind
        self.expected = form

    def read(self, text: str) -> tuple[str, Any]:
        """See `Kind.read`."""
        name, value = self.split(text)
        try:
            return name, self.kind.read(value)
        except Refused:
            raise self.refusal() from None

    def split(self, text: str) -> tuple[str, str]:
        """Name and value, split at the last separator: names may hold colons, values hold neither."""
        at = max(text.rfind(":"), text.rfind("="))
        if at < 1:
            raise self.refusal()
        return text[:at], text[at + 1 :]

    def check(self, value: Any) -> None:
        """See `Kind.check`."""
        for name, one in value.items():
            try:
                self.kind.check(one)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None

    def collect(self, values: Sequence[Any]) -> dict[str, Any]:
        """See `Kind.collect`."""
        found: dict[str, Any] = {}
        for name, value in values:
            if found.setdefault(name, value) != value:
                raise ValueError(f"{name!r} cannot be both {_plainly(found[name])} and {_plainly(value)}")
        return found


def _plainly(value: Any) -> str:
    """A value as the command line has it."""
    return ",".join(f"{one:g}" for one in value) if isinstance(value, tuple) else repr(value)


class Renamed(Named):
    """Other names by name: ``NAME=OTHER``, once for each name; a mapping in Python. Both names may hold colons."""

    def __init__(self, form: str) -> None:
        super().__init__(Kind(), form)

    def split(self, text: str) -> tuple[str, str]:
        """See `Named.split`."""
        name, separator, other = text.partition("=")
        if not (name and separator and other):
            raise self.refusal()
        return name, other

    def check(self, value: Any) -> None:
        """See `Kind.check`."""
        both: dict[str, str] = {}
        for name, other in value.items():
            if other in both:
                raise ValueError(f"{other!r} cannot be both {both[other]!r} and {name!r}")
            both[other] = name


def option(default: Any, flag: str, help: str, kind: Kind | None = None, group: str = "", **arguments: Any) -> Any:
    """A dataclass field that is also a command-line option.

    Args:
        default: Value of the field when the option is not given; ``dict`` for an empty mapping.
        flag: The option, e.g. ``"--ort-optimization"``. Runners may share one (``--ort-threads``); a runner's option
            without one is given to it alone, ``--RUNNER=KEY=VALUE``.
        help: One line for ``compare --help``.
        kind: What values it takes; text as it stands if not given.
        group: Under which heading the help shows it.
        arguments: Passed to ``argparse.ArgumentParser.add_argument`` (``choices``, ``metavar``, ``action``, ``const``).
            A ``bool`` field becomes a switch, a ``tuple`` field without a kind an option that may be repeated. With
            ``const``, the flag alone means that, and another value is attached: ``--layers=all``.
    """
    metadata = {"flag": flag, "help": help, "kind": kind, "group": group, "arguments": arguments}
    if default is dict:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def options(cls: type) -> list[Field[Any]]:
    """The fields of a dataclass that are options."""
    return [f for f in fields(cls) if "flag" in f.metadata]


def check(configuration: Any, error: type[LayerdiffError] = UsageError) -> None:
    """Refuses values that their options do not take; for ``__post_init__``.

    Raises:
        LayerdiffError: Of the given type: ``samples=0: expected a whole number, 1 or more.``
    """
    for f in options(type(configuration)):
        value, kind = getattr(configuration, f.name), f.metadata["kind"]
        if isinstance(f.default, bool) and type(value).__name__ not in ("bool", "bool_"):  # "false" is true in Python
            raise error(f"{f.name}={value!r}: expected True or False.")
        if kind is None and not _of_type(f, value):
            expected = "texts" if isinstance(f.default, tuple) else _PLAIN[type(f.default)]
            raise error(f"{f.name}={value!r}: expected {expected}.")
        if kind is None or value is None:
            continue
        try:
            kind.check(value)
        except (ValueError, TypeError, AttributeError, OverflowError) as wrong:
            refusal = wrong if isinstance(wrong, ValueError) else kind.refusal()
            what = f.name if kind.repeated else f"{f.name}={value}"
            raise error(f"{what}: {refusal}.") from None


_PLAIN = {str: "a text", type(None): "a text", int: "a whole number", float: "a number"}


def _of_type(f: Field[Any], value: Any) -> bool:
    """Whether a value is of the type of a field without a kind: one that is declared as text takes text or a path, one
    with several texts these, and one with a number that."""
    declared = f.type if isinstance(f.type, str) else getattr(f.type, "__name__", "") or str(f.type)
    if isinstance(f.default, tuple):
        return declared != "tuple[str, ...]" or all(isinstance(one, (str, os.PathLike)) for one in value)
    if declared in ("str", "str | None"):
        return isinstance(value, (str, os.PathLike)) or (value is None and f.default is None)
    if declared == "float" and isinstance(f.default, float):
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    if declared == "int" and isinstance(f.default, int) and not isinstance(f.default, bool):
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return True


def _exact(text: str, whole: bool) -> float:
    if re.fullmatch(r"\s*[+-]?\d+\s*", text):
        return int(text)
    if whole:
        raise ValueError
    return float(text)
