"""Sessions that run one sample several times, and put together what the runs give."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np

from ...graph.errors import RunnerError
from ..contract.session import Session, SessionInfo

if TYPE_CHECKING:
    from ...graph.decoders import Decoder
    from ..contract.workload import Feed
    from .joints import Joints

Samples: TypeAlias = "Callable[[], Iterable[Feed]] | None"
"""See `Workload.samples`."""


class ScheduledSession(Session):
    """A session that is run several times for one sample.

    Args:
        who: What messages call the runner.
        inner: The session that is fed.
        joints: Finds out how tensors are put together; it is asked when one is that the session does not know.

    Attributes:
        alike: Why nothing is fed otherwise as long as each sample is one run.
    """

    alike: ClassVar[str]

    def __init__(self, who: str, inner: Session, joints: Callable[[], Joints]) -> None:
        self._who, self._inner = who, inner
        self._otherwise = False
        self._told: tuple[SessionInfo, SessionInfo] | None = None
        self._joints = functools.cache(joints)
        self.inputs, self.outputs = inner.inputs, inner.outputs

    @property
    def info(self) -> SessionInfo:  # type: ignore[override]
        """That of the runner which is fed; idle as long as it was fed whole samples."""
        info = self._inner.info
        if self._otherwise or info.idle:
            return info
        if self._told is None or self._told[0] is not info:
            self._told = info, replace(info, idle=self.alike)
        return self._told[1]

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Runs the sample in parts and puts together what they give; see `Session.infer`.

        Raises:
            RunnerError: A tensor cannot be put together.
        """
        names = [spec.name for spec in self.outputs] if fetch is None else list(dict.fromkeys(fetch))
        axes = {name: self._axis(name) for name in names if name not in feed}
        parts: dict[str, list[np.ndarray]] = {name: [] for name in axes}
        for run, made in enumerate(self._runs(feed, list(axes))):
            self._otherwise = self._otherwise or (run > 0 and self._parts_differ(feed))
            for name, axis in axes.items():
                if axis is None:
                    parts[name].clear()
                parts[name].append(made[name])
        joined = {
            name: parts[name][-1] if axis is None else np.concatenate(parts[name], axis=axis)
            for name, axis in axes.items()
        }
        return {name: joined[name] if name in joined else np.asarray(feed[name]) for name in names}

    @abstractmethod
    def _runs(self, feed: Feed, names: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
        """Runs a sample part by part."""

    def _parts_differ(self, feed: Feed) -> bool:
        """Whether what a sample is run as are not several times the same."""
        return True

    def _axis(self, name: str) -> int | None:
        """Along which axis a tensor is put together."""
        if name not in self._joints():
            raise RunnerError(f"{self._who}: {name!r} cannot be put together from several runs.")
        return self._joints()[name]

    def close(self) -> None:
        """See `Session.close`."""
        self._inner.close()


class DecodingSession(ScheduledSession):
    """A decoder fed one token at a time: each run gets the cache that the one before it gave.

    Args:
        who, inner, joints: See `ScheduledSession`.
        decoder: What the inputs and outputs of the model are.
    """

    alike = "no sample has more than one token, which was read as it is (--data or --shape gives more)"

    def __init__(self, who: str, inner: Session, joints: Callable[[], Joints], decoder: Decoder) -> None:
        super().__init__(who, inner, joints)
        self._decoder = decoder
        self._ends: dict[str | None, int | None] = {cache.present: None for cache in decoder.caches}
        if decoder.logits is not None:
            self._ends[decoder.logits.name] = 1

    def _axis(self, name: str) -> int | None:
        return self._ends[name] if name in self._ends else super()._axis(name)

    def _runs(self, feed: Feed, names: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
        mask = None if self._decoder.mask is None else feed[self._decoder.mask.name].astype(np.int8)
        if mask is not None and (np.diff(mask, axis=1) < 0).any():
            raise RunnerError(
                f"{self._who}: a prompt ends before the batch does, and padding behind it has no place in a cache.\n"
                "Give prompts of one length to a batch, or one prompt to a sample (--batch 1)."
            )
        presents = {cache.present: cache.past.name for cache in self._decoder.caches if cache.present is not None}
        caches = {past: feed[past] for past in presents.values()}
        wanted = list(dict.fromkeys([*names, *presents]))
        for step in _steps(self._decoder, feed):
            made = self._inner.infer({**step, **caches}, wanted)
            caches = {past: made[present] for present, past in presents.items()}
            yield made


class UnbatchedSession(ScheduledSession):
    """A model fed one entry of a batch at a time.

    Args:
        who, inner, joints: See `ScheduledSession`.
        batched: Names of the inputs whose leading axis is the batch.
    """

    alike = "no batch has more than one entry, or entries that differ (--batch, --shape or --data gives others)"

    def __init__(self, who: str, inner: Session, joints: Callable[[], Joints], batched: Sequence[str]) -> None:
        super().__init__(who, inner, joints)
        self._batched = batched

    def _runs(self, feed: Feed, names: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
        for entry in _entries(self._who, self._batched, feed):
            yield self._inner.infer(entry, names)

    def _parts_differ(self, feed: Feed) -> bool:
        return any(bool((feed[name] != feed[name][:1]).any()) for name in self._batched)


def _steps(decoder: Decoder, feed: Feed) -> Iterator[dict[str, np.ndarray]]:
    """What each token is fed with, but for the cache."""
    first = decoder.caches[0]
    past = feed[first.past.name].shape[first.axis]
    alone = {spec.name for spec in (decoder.ids, decoder.positions) if spec is not None}
    for token in range(feed[decoder.ids.name].shape[1]):
        step = {name: array[:, token : token + 1] if name in alone else array for name, array in feed.items()}
        if decoder.mask is not None:
            step[decoder.mask.name] = feed[decoder.mask.name][:, : past + token + 1]
        if decoder.branch is not None:
            branch = feed[decoder.branch.name]
            step[decoder.branch.name] = np.full(branch.shape, past + token > 0, branch.dtype)
        yield step


def in_steps(decoder: Decoder, samples: Samples) -> Samples:
    """The samples as they will be fed, for runtimes that build for their shapes: the caches hold zeros."""

    def stepwise() -> Iterator[Feed]:
        for feed in samples() if samples is not None else ():
            for token, step in enumerate(_steps(decoder, feed)):
                caches = {}
                for cache in decoder.caches:
                    shape = list(feed[cache.past.name].shape)
                    shape[cache.axis] += token
                    caches[cache.past.name] = np.zeros(shape, cache.past.dtype)
                yield {**step, **caches}

    return None if samples is None else stepwise


def _entries(who: str, batched: Sequence[str], feed: Feed) -> Iterator[dict[str, np.ndarray]]:
    """The entries of a batch, each as a batch of one."""
    sizes = {feed[name].shape[0] for name in batched}
    if len(sizes) > 1:
        told = ", ".join(f"{name} {list(feed[name].shape)}" for name in batched)
        raise RunnerError(f"{who}: the first axes of the inputs are no batch, they differ: {told}.")
    for entry in range(sizes.pop()):
        yield {name: array[entry : entry + 1] if name in batched else array for name, array in feed.items()}


def in_entries(who: str, batched: Sequence[str], samples: Samples) -> Samples:
    """See `in_steps`."""
    if samples is None:
        return None
    return lambda: (entry for feed in samples() for entry in _entries(who, batched, feed))
