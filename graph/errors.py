"""Every error that layerdiff raises on purpose.

::

    LayerdiffError
    ├── UsageError                 the call or its input is wrong                   exit status 2
    │   ├── ModelError             the model cannot be read or lacks what was asked
    │   ├── DataError              the data cannot be read or do not fit the model
    │   └── OutputError            a file cannot be written
    └── RunnerError                a runtime failed                                 exit status 3
        ├── RunnerDied             its process ended, or was ended since it took too long
        ├── WrongResult            it returned something that is no outputs of the model
        ├── MissingPackage         the runtime is not installed
        ├── ProviderUnavailable    installed, but the device or provider is not there or not in use
        └── BuildError             the runtime refused to build the model

A message is one or two lines: what happened, with which values, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class LayerdiffError(Exception):
    """Base class of all errors that a caller may want to catch."""

    exit_status = 2
    of_sizes: ClassVar[bool] = True
    """Whether it may be that inputs of other sizes would have done."""


def said(error: BaseException) -> str:
    """What an error says; empty where not even that can be had, of an exception of somebody else's."""
    try:
        return str(error).strip()
    except Exception:
        return ""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without a full stop; the name of its type where it says nothing."""
    return next(iter(said(error).splitlines()), "").rstrip(".") or type(error).__name__


def no_room(folder: object, error: OSError) -> str:
    """What is said where the temporary folder does not take what is put there."""
    why = (error.strerror or str(error)).rstrip(".")
    return f"{folder}: temporary files cannot be written: {why}; name a folder with more room by TMPDIR"


def may_be_of_sizes(error: BaseException) -> bool:
    """Whether it may be that inputs of other sizes would have done: so of whatever a runtime raises."""
    return getattr(error, "of_sizes", True) is not False


class UsageError(LayerdiffError):
    """The call is wrong: an option, a name, or a combination of them."""


class ModelError(UsageError):
    """A model cannot be read, or does not hold what was asked for."""


class DataError(UsageError):
    """Input data cannot be read, or do not fit the model."""


class OutputError(UsageError):
    """A file that was asked for cannot be written. What was found is worth more than the file."""


class RunnerError(LayerdiffError):
    """A runtime failed while opening or running a model."""

    exit_status = 3


class RunnerDied(RunnerError):
    """The process that a runner was opened in ended, or was ended since it took too long."""

    of_sizes = False


class WrongResult(RunnerError):
    """A runner returned something that is no outputs of the model."""

    of_sizes = False


class MissingPackage(RunnerError):
    """A runtime's package is not installed."""

    of_sizes = False

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed. Install it with: pip install 'layerdiff[{extra}]'")
        self.extra = extra


class ProviderUnavailable(RunnerError):
    """A provider or device that was asked for is not there, or is not the one in use."""

    of_sizes = False


class BuildError(RunnerError):
    """A runtime refused to build the model."""
