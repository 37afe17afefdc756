"""What a runner opens on a model: something that runs samples, and says what it turned out to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from ...graph.specs import TensorSpec
    from .device import DeviceArray
    from .workload import Feed


@dataclass(frozen=True)
class SessionInfo:
    """What a session turned out to be, for the report.

    Attributes:
        options: The settings in force, defaults included; values that JSON can hold.
        versions: Package or library -> version.
        notes: Sentences that the user should read (nodes that fell back to the CPU, clamped weights).
        narrow_sums: Names of nodes whose products add up in FP16 for certain, as far as the runtime tells.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    narrow_sums: frozenset[str] = frozenset()


class Session(ABC):
    """A model, or a piece of one, ready to run. A context manager: leaving it frees what it holds."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    info: SessionInfo = SessionInfo()
    device: str = ""
    """Where `infer_on_device` leaves what it can (``"cuda:0"``); empty where that is host memory."""

    @abstractmethod
    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Runs once.

        Args:
            feed: One array for every input. The arrays are read-only and stay the caller's.
            fetch: Tensors to return; None means the model's outputs. Tensors that `Runner.open` was not told of cost a
                second session at their first use, where the runtime can give them at all.

        Returns:
            The fetched tensors by name, in the order of ``fetch``. The arrays are the caller's.

        Raises:
            RunnerError: The runtime failed, or cannot give a tensor that was asked for.
        """

    def infer_on_device(
        self, feed: Mapping[str, np.ndarray | DeviceArray], fetch: Sequence[str] | None = None
    ) -> dict[str, np.ndarray | DeviceArray]:
        """Runs once, as `infer` does, and downloads only what cannot stay on `device`.

        Args:
            feed: One array for every input, in host memory or on `device`.
            fetch: See `infer`.

        Returns:
            The fetched tensors. Arrays on the device may be read until this session runs again or closes; later, they
            refuse to be.

        Raises:
            RunnerError: See `infer`.
        """
        import numpy as np

        return dict(self.infer({name: np.asarray(array) for name, array in feed.items()}, fetch))

    def close(self) -> None:  # noqa: B027 - most sessions have nothing to free
        """Frees what the session holds. May be called twice."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
