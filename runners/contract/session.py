"""What a runner opens on a model: something that runs samples, and says what it turned out to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .latency import Latency, time_runs

if TYPE_CHECKING:
    import numpy as np

    from ...graph.specs import TensorSpec
    from .device import DeviceArray
    from .workload import Feed

Formats = tuple[str, str]
"""Number formats of a node: what it computes in, and what its output is kept in; empty where that is not known."""

STEPS = "layerdiff.steps"
"""The logger that is told, at level DEBUG, of each step that its process may not survive ("parsing conv1 [Conv]")."""


@dataclass(frozen=True)
class Calibration:
    """The ranges of activations that INT8 or FP8 found on a whole model. A piece of the model is given the same.

    Attributes:
        method: How they were found, in the runner's words (``entropy2``, ``qdq-max``, ``percentile 99.9``).
        ranges: Largest magnitude of each tensor, by name.
        cache: The same as the runtime serializes it, where it does not tell the ranges.
    """

    method: str
    ranges: Mapping[str, float] = field(default_factory=dict)
    cache: bytes = b""


@dataclass(frozen=True)
class SessionInfo:
    """What a session turned out to be: plain data, which can be pickled.

    `Runner.for_pieces` takes what the session on the whole model was, so that pieces of it are run in the same way.

    Attributes:
        options: The settings in force, defaults included; values that JSON can hold.
        versions: Package or library -> version.
        notes: Sentences that the user should read (nodes that fell back to the CPU, clamped weights).
        fp16_accumulation: Names of nodes whose products add up in FP16 for certain, as far as the runtime tells.
        kernels: Positions of nodes that run as one kernel, as far as the runtime tells; each node in at most one set.
        node_formats: Number formats that the runtime chose for nodes, by name, where it had a choice.
        idle: Why nothing was done that was asked for (there was nothing to round to the format, or to be fed
            otherwise); empty where something was. An output that agrees then proves nothing.
        not_run: Why `Session.infer` can give nothing, though the runtime took the network (there is no GPU to run it
            on); empty where it can.
        quantizes_activations: Whether products multiply dequantized weights with activations that stay float, which the
            runtime may quantize by itself where it multiplies.
        calibration: What INT8 or FP8 was calibrated to.
        timing_cache: Timings of kernels, as the runtime serializes them, which make the next build fast.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fp16_accumulation: frozenset[str] = frozenset()
    kernels: tuple[frozenset[int], ...] = ()
    node_formats: Mapping[str, Formats] = field(default_factory=dict)
    idle: str = ""
    not_run: str = ""
    quantizes_activations: bool = True
    calibration: Calibration | None = None
    timing_cache: bytes = field(default=b"", repr=False)


class Session(ABC):
    """A model, or a piece of one, ready to run. A context manager: leaving it frees what it holds.

    Attributes:
        inputs: What `infer` must be fed.
        outputs: What it gives if it is asked for nothing else.
        info: What it turned out to be. It may learn something while it runs.
        device: Where `infer_on_device` leaves what it can (``"cuda:0"``); empty where that is host memory.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    info: SessionInfo = SessionInfo()
    device: str = ""

    @abstractmethod
    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Runs once.

        Args:
            feed: One array for every input. Sessions of this package do not write into them; those of others are
                given copies.
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

    def latency(self, feed: Feed, runs: int) -> Latency:
        """Times ``runs`` runs after a warm-up, from outside; a runtime with clocks of its own uses those.

        Raises:
            RunnerError: See `infer`.
        """
        return time_runs(lambda: self.infer(feed), runs)

    def close(self) -> None:  # noqa: B027 - most sessions have nothing to free
        """Frees what the session holds. May be called twice."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
