"""What was recorded, handed out as if it were computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...graph.digest import arrays_digest
from ...graph.errors import DataError, RunnerError
from ...graph.recordings import Recording
from ...graph.specs import STRING, TensorSpec
from ..contract.session import Session, SessionInfo

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..contract.workload import Feed


class RecordedSession(Session):
    """Gives what was recorded for the sample that it is fed.

    Args:
        who: What messages call the runner.
        recording: What was recorded.
        model: The model that the others run.
        inputs: Digests of the samples that will be run, in order.

    Raises:
        RunnerError: The recording is of another number of samples, of other inputs, or of another model.
    """

    def __init__(self, who: str, recording: Recording, model: Model, inputs: Sequence[str]) -> None:
        self._who, self._recording = who, recording
        self._specs = model.index.specs
        self._numbers: dict[str, list[int]] = {}
        for number, digest in enumerate(inputs):
            self._numbers.setdefault(digest, []).append(number)
        _check_inputs(who, recording, inputs)
        self.inputs = model.inputs
        self.outputs = _outputs(who, recording, model)
        held = () if recording.inputs else self._inputs_recorded
        untold = [spec.name for spec in model.inputs if spec.name not in held]
        what = f"the inputs {', '.join(map(repr, untold))}" if held else "its inputs"
        note = f"The recording does not tell {what}: its samples were taken to be these, in this order."
        notes = () if recording.inputs or not untold else (note,)
        self.info = SessionInfo({"recorded": recording.runner, "samples": len(recording)}, notes=notes)

    @property
    def _inputs_recorded(self) -> tuple[str, ...]:
        """The inputs that were recorded as arrays of their names."""
        tensors = set(self._recording.tensors) - {spec.name for spec in self.outputs}
        return tuple(spec.name for spec in self.inputs if spec.name in tensors)

    def hold_inputs(self, samples: Iterable[Feed]) -> None:
        """Makes sure that inputs which were recorded as arrays are those of the samples; digests were compared already.

        Raises:
            RunnerError: They are others.
        """
        names = () if self._recording.inputs else self._inputs_recorded
        for number, sample in enumerate(samples if names else ()):
            recorded = self._read(number)
            for name in names:
                if not _same(self._as_typed(name, recorded[name]), sample[name]):
                    raise RunnerError(
                        f"{self._who}: was made on other inputs: {name!r} of sample {number} has other values than the "
                        "recorded array of that name.\nName the inputs it was made on with --data."
                    )

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """What was recorded for these inputs; see `Session.infer`.

        Raises:
            RunnerError: They are not those of a sample, or a tensor was not recorded.
        """
        wanted = {spec.name: feed[spec.name] for spec in self.inputs}
        numbers = self._numbers.get(arrays_digest(wanted))
        if numbers is None:
            raise RunnerError(f"{self._who}: it was asked for inputs that are no sample, and computes nothing.")
        numbers.append(numbers.pop(0))  # of samples with the same inputs, one after the other
        recorded = self._read(numbers[-1])
        names = [spec.name for spec in self.outputs] if fetch is None else list(fetch)
        missing = [name for name in names if name not in recorded and name not in feed]
        if missing:
            raise RunnerError(f"{self._who}: sample {numbers[-1]} has no {', '.join(map(repr, missing))}.")
        return {name: self._as_typed(name, recorded[name]) if name in recorded else feed[name] for name in names}

    def _read(self, number: int) -> dict[str, np.ndarray]:
        try:
            return self._recording.read(number)
        except DataError as error:
            raise RunnerError(f"{self._who}: {error}") from None

    def _as_typed(self, name: str, array: np.ndarray) -> np.ndarray:
        """With types that files hold as bytes (bfloat16) or as fixed text."""
        spec = self._specs.get(name)
        if array.dtype.kind in "SU":
            return array.astype(STRING)
        if spec is not None and array.dtype.kind == "V" and array.dtype.itemsize == spec.dtype.itemsize:
            return array.view(spec.dtype)
        return array


def _same(recorded: np.ndarray, given: np.ndarray) -> bool:
    """Whether an input is the recorded one, which may have another width."""
    if recorded.shape != given.shape:
        return False
    if recorded.dtype != STRING and given.dtype != STRING and recorded.dtype != given.dtype:
        narrow = min(recorded.dtype, given.dtype, key=lambda dtype: dtype.itemsize)
        with np.errstate(over="ignore", invalid="ignore"):
            recorded, given = recorded.astype(narrow), given.astype(narrow)
    return bool(((recorded == given) | ((recorded != recorded) & (given != given))).all())


def _check_inputs(who: str, recording: Recording, inputs: Sequence[str]) -> None:
    if len(recording) != len(inputs):
        held = f"{len(recording)} recorded sample{'s'[: len(recording) != 1]}"
        raise RunnerError(
            f"{who}: holds {held}, and {len(inputs)} are compared.\n"
            f"Name the inputs it was made on with --data, all of them."
        )
    for number, (recorded, digest) in enumerate(zip(recording.inputs, inputs, strict=bool(recording.inputs))):
        if recorded != digest:
            raise RunnerError(
                f"{who}: was made on other inputs: those of sample {number} have SHA-256 {recorded[:12]}..., "
                f"these have {digest[:12]}...\nName the inputs it was made on with --data; --save-inputs saves them."
            )


def _outputs(who: str, recording: Recording, model: Model) -> tuple[TensorSpec, ...]:
    """The model's outputs that were recorded, and what was recorded that is no tensor of the model."""
    tensors = recording.tensors
    own = {spec.name: spec for spec in model.outputs}
    inner = {*model.index.producer, *model.index.inputs}
    found = [own[name] for name in own if name in tensors]
    if not found:
        raise RunnerError(
            f"{who}: holds none of the outputs {', '.join(own)}; it holds {', '.join(tensors[:5]) or 'nothing'}"
            f"{', ...' if tensors[5:] else ''}."
        )
    strange = [name for name in tensors if name not in own and name not in inner]
    return (*found, *(TensorSpec(name, np.dtype(np.float32), None) for name in strange))
