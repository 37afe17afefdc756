"""A session on a model whose tensors have other names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...runners.contract.session import Session

if TYPE_CHECKING:
    import numpy as np

    from ...graph.specs import TensorSpec
    from ...runners.contract.workload import Feed


class RenamedSession(Session):
    """A session under the names that its tensors have elsewhere.

    Args:
        session: The session; it is closed with this one.
        names: What each tensor is called by the session, by the name that is used here.
    """

    def __init__(self, session: Session, names: Mapping[str, str]) -> None:
        self._session, self._names = session, names
        back = {theirs: own for own, theirs in names.items()}
        self.inputs, self.outputs = _called(session.inputs, back), _called(session.outputs, back)
        self.info = session.info

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Session.infer`."""
        wanted = [spec.name for spec in self.outputs] if fetch is None else list(fetch)
        given = {self._names[name]: array for name, array in feed.items()}
        made = self._session.infer(given, [self._names[name] for name in wanted])
        return {name: made[self._names[name]] for name in wanted}

    def close(self) -> None:
        """Closes the session."""
        self._session.close()


def _called(specs: Sequence[TensorSpec], names: Mapping[str, str]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, name=names[spec.name]) for spec in specs)
