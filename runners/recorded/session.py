"""What was recorded, handed out as if it were computed."""

from __future__ import annotations

from collections.abc import Sequence
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
        self.info = SessionInfo(
            options={"recorded": recording.runner, "samples": len(recording)},
            notes=()
            if recording.inputs
            else ("The recording does not tell its inputs: its samples were taken to be these, in this order.",),
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
        try:
            recorded = self._recording.read(numbers[-1])
        except DataError as error:
            raise RunnerError(f"{self._who}: {error}") from None
        names = [spec.name for spec in self.outputs] if fetch is None else list(fetch)
        missing = [name for name in names if name not in recorded and name not in feed]
        if missing:
            raise RunnerError(f"{self._who}: sample {numbers[-1]} has no {', '.join(map(repr, missing))}.")
        return {name: self._as_typed(name, recorded[name]) if name in recorded else feed[name] for name in names}

    def _as_typed(self, name: str, array: np.ndarray) -> np.ndarray:
        """With types that files hold as bytes (bfloat16) or as fixed text."""
        spec = self._specs.get(name)
        if array.dtype.kind in "SU":
            return array.astype(STRING)
        if spec is not None and array.dtype.kind == "V" and array.dtype.itemsize == spec.dtype.itemsize:
            return array.view(spec.dtype)
        return array


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
