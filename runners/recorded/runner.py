"""Recorded outputs as a runner: a Jetson, a phone or yesterday can be a side."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...graph.errors import DataError, RunnerError, UsageError
from ...graph.formats import FORMATS, FP32, NumberFormat
from ...graph.options import Choice, option
from ..contract.capabilities import Capabilities
from ..contract.runner import Runner

if TYPE_CHECKING:
    from ...graph.model import Model
    from ...graph.recordings import Recording
    from ..contract.workload import Workload
    from .session import RecordedSession


@dataclass(frozen=True)
class RecordedRunner(Runner):
    """Recorded outputs: what --save-outputs or Polygraphy wrote, or a folder of .npz, on the same inputs.

    Nothing is computed. Tensors inside the network that were recorded too can be compared layer by layer.

    Attributes:
        path: A ``.json`` that ``--save-outputs`` wrote, here or in Polygraphy; an ``.npz``, which is one sample; or a
            folder of these, one a sample.
        runner: Whose outputs, where several runners' are in it; empty: there is one.
        format: The number format that they were computed in; empty: what the file says, else FP32.
    """

    flag: ClassVar[str] = "load-outputs"
    value_field: ClassVar[str] = "path"
    value_required: ClassVar[bool] = True
    value_form: ClassVar[str] = "PATH"
    capabilities: ClassVar[Capabilities] = Capabilities(
        any_model=False, pieces=False, inner_tensors=True, computes=False
    )

    path: str | os.PathLike[str] = option("", "", "the recording", metavar="PATH")
    runner: str = option("", "", "whose outputs, where several runners' are in it", metavar="NAME")
    format: str = option(
        "",
        "",
        "what they were computed in, where the file does not tell: their errors are held against its rounding",
        Choice("", "fp32", "tf32", "fp16", "bf16", "e4m3", "int8"),
        metavar="FORMAT",
    )

    @property
    def name(self) -> str:
        """``recorded:`` and the name of the file."""
        return f"recorded:{Path(self.path).name}"

    @property
    def arithmetic(self) -> NumberFormat:
        """The format that the outputs were computed in."""
        return FORMATS[self.format] if self.format else FP32

    @property
    def stored_in(self) -> str:
        """The file or folder, wherever links to it are, and whose outputs of it where it has several runners'."""
        chosen, path = self._recording(), os.path.realpath(self.path)
        return path if len(_loaded(os.fspath(self.path), _stamp(self.path))) == 1 else f"{path}, runner {chosen.runner}"

    def for_model(self, model: Model) -> RecordedRunner:
        """With the number format that the recording tells; see `Runner.for_model`.

        Raises:
            UsageError: The recording tells another format than the user.
        """
        told = self._recording().format
        if told not in FORMATS:
            return self
        if self.format not in ("", told):
            raise UsageError(
                f"--{self.flag} {self.path}: format={self.format}, and the recording says that it was computed in "
                f"{told}. Leave format= out."
            )
        return replace(self, format=told)

    def tensors_shown(self, model: Model) -> frozenset[str]:
        """See `Runner.tensors_shown`."""
        return frozenset(self._recording().tensors)

    def open(self, model: Model, *, workload: Workload) -> RecordedSession:  # type: ignore[override]
        """Reads the recording and makes sure that it is of the samples that will be run.

        Raises:
            UsageError: There is no such recording.
            RunnerError: It is one of other samples, or of another model.
        """
        from ...graph.digest import arrays_digest
        from .session import RecordedSession

        if workload.samples is None:
            raise RunnerError(f"{self.name}: there are no samples that the recorded outputs could belong to.")
        inputs = [arrays_digest(sample) for sample in workload.samples()]
        session = RecordedSession(self.name, self._recording(), model, inputs)
        session.hold_inputs(workload.samples())
        return session

    def _recording(self) -> Recording:
        try:
            found = _loaded(os.fspath(self.path), _stamp(self.path))
        except DataError as error:
            raise DataError(f"--{self.flag} {error}") from None
        names = [recording.runner for recording in found]
        chosen = [recording for recording in found if self.runner in ("", recording.runner)]
        if len(chosen) != 1:
            what = f"there is no {self.runner!r} in it" if self.runner else f"it is of {len(found)} runners"
            told = f"; say which: --{self.flag}={self.path},runner={names[0]}" if names else ""
            raise UsageError(f"--{self.flag} {self.path}: {what} ({', '.join(names) or 'none'}){told}.")
        return chosen[0]


def _stamp(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Tells one state of a file from another; None where there is no file."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


@functools.lru_cache(maxsize=2)
def _loaded(path: str, stamp: tuple[int, int] | None) -> tuple[Recording, ...]:
    """The recordings in a file, which is read once for all that is asked of it: a JSON of outputs is large."""
    from ...graph.recordings import load_recordings

    return load_recordings(path)
