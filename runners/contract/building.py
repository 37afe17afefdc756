"""What runners answer whose sessions run engines: data that are built first, and may be built in another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...graph.model import Model
    from .workload import Workload


class Building:
    """The part of a runner that builds without opening. A runner with `Capabilities.builds_apart` overrides `build` and
    `opened_on`; one whose engines can be given other weights also the other two."""

    def build(self, model: Model, workload: Workload, refittable: bool = False) -> Any:
        """What a session on ``model`` would run, built and not opened: data that can be pickled, for `opened_on`.

        Args:
            model: See `Runner.open`.
            workload: The shapes to build for, without samples.
            refittable: Whether `refit` is to be given it.

        Raises:
            RunnerError: See `Runner.open`.
        """
        raise NotImplementedError(f"{type(self).__name__}: builds_apart is set, and there is no build().")

    def opened_on(self, made: Any) -> Any:
        """The same runner, which opens what `build` gave for the next model in place of building it."""
        raise NotImplementedError(f"{type(self).__name__}: builds_apart is set, and there is no opened_on().")

    @property
    def refits(self) -> bool:
        """Whether what `build` gives for one model can be given the weights of another, in a moment."""
        return False

    def refit(self, model: Model, made: Any, before: Model) -> Any:
        """What was built for one model, with the weights of another.

        Args:
            model: One that differs from ``before`` in the values of its weights and in the names of its nodes alone.
            made: What `build` gave, refittable.
            before: The model that it was built for.

        Raises:
            BuildError: They differ in something that cannot be replaced.
        """
        raise NotImplementedError(f"{type(self).__name__}: it refits, and there is no refit().")
