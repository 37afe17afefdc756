"""An engine that was built where there is no GPU to run it on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from ...graph.errors import RunnerError
from ..contract.session import Session, SessionInfo
from . import cuda

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..contract.workload import Feed


class BuiltSession(Session):
    """Says what was built, and runs nothing.

    Args:
        model: The network.
        info: What was built; its ``not_run`` says why it is not run.
    """

    def __init__(self, model: Model, info: SessionInfo) -> None:
        self.inputs, self.outputs, self.info = model.inputs, model.outputs, info

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> NoReturn:
        """Refuses.

        Raises:
            RunnerError: Always.
        """
        raise RunnerError(f"nothing can be run: {self.info.not_run}.")


def why_not_run(compute_capability: Sequence[str]) -> str:
    """That an engine was built, for which GPUs, and why it is not run.

    Args:
        compute_capability: Compute capabilities that it was built for; empty: the builder's own choice.
    """
    which = f" for compute capability {' and '.join(compute_capability)}" if compute_capability else ""
    return f"its engine was built{which}, and there is no NVIDIA GPU to run it on: {cuda.why_no_gpu()}"
