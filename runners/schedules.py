"""The same network on the same runner, fed otherwise: token by token behind a cache, or one entry of a batch alone.

What a network gives must not depend on that. Each schedule is a runner, so that it is a side like any other: its
outputs are put together from the runs, and so are the tensors inside, as far as their axes tell how.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..graph.axes import growing
from ..graph.decoders import Decoder, Sizes, decoder
from ..graph.errors import LayerdiffError, RunnerError, UsageError
from ..graph.formats import NumberFormat
from ..graph.implied_shapes import choose_shapes
from ..graph.options import option
from .contract.capabilities import Capabilities
from .contract.runner import Runner
from .contract.session import Session, SessionInfo
from .contract.workload import Workload

if TYPE_CHECKING:
    from ..graph.model import Model
    from .contract.workload import Feed


@dataclass(frozen=True)
class Scheduled(Runner):
    """A runner that is fed otherwise.

    Attributes:
        runner: The runner: its flag, with its value behind a colon (``onnxrt``, ``onnxrt:cuda``, ``emulate:fp16``).
    """

    value_field: ClassVar[str] = "runner"
    value_form: ClassVar[str] = "RUNNER"
    capabilities: ClassVar[Capabilities] = Capabilities(pieces=False, inner_tensors=True)

    runner: str = option("onnxrt", "", "the runner that is fed so: onnxrt, onnxrt:cuda, trt:fp16", metavar="RUNNER")

    @property
    def fed(self) -> Runner:
        """The runner that is fed so.

        Raises:
            UsageError: There is none of this name, or it does not take the value.
        """
        from . import discover

        flag, colon, value = self.runner.partition(":")
        known = discover()
        if flag not in known or issubclass(known[flag], Scheduled):
            names = ", ".join(sorted(name for name, cls in known.items() if not issubclass(cls, Scheduled)))
            raise UsageError(f"--{self.flag}={self.runner}: there is no runner {flag!r}; there are: {names}.")
        return known[flag].from_value(value if colon else None)

    @property
    def name(self) -> str:
        """``decode:onnxrt``."""
        return f"{self.flag}:{self.runner}"

    @property
    def trust(self) -> int:
        """A little less than the runner itself."""
        return self.fed.trust + 1

    @property
    def arithmetic(self) -> NumberFormat:
        """See `Runner.arithmetic`."""
        return self.fed.arithmetic

    @property
    def accumulator(self) -> NumberFormat:
        """See `Runner.accumulator`."""
        return self.fed.accumulator

    @property
    def rounds_every_node(self) -> bool:
        """See `Runner.rounds_every_node`."""
        return self.fed.rounds_every_node

    @property
    def rounds_to_types(self) -> bool:
        """See `Runner.rounds_to_types`."""
        return self.fed.rounds_to_types

    @property
    def in_one_run(self) -> Runner:
        """See `Runner.in_one_run`."""
        return self.fed

    def tensors_shown(self, model: Model) -> frozenset[str]:
        """Those that can be put together; see `Runner.tensors_shown`."""
        try:
            return frozenset(self.joints(model))
        except LayerdiffError:
            return frozenset()

    @abstractmethod
    def joints(self, model: Model) -> Mapping[str, int | None]:
        """Tensors that can be put together, and along which axis; None: the last run gives all of it.

        Raises:
            RunnerError: The model cannot be fed so.
        """


@dataclass(frozen=True)
class DecodeRunner(Scheduled):
    """A decoder fed one token at a time, its cache given back to it: does decoding give what prefill gives?

    Attributes:
        runner: See `Scheduled`.
    """

    flag: ClassVar[str] = "decode"

    @property
    def schedule(self) -> str:
        """See `Runner.schedule`."""
        return "one token at a time behind its cache"

    def open(self, model: Model, *, fetch: Sequence[str] = (), workload: Workload) -> _Decoding:  # type: ignore[override]
        """See `Runner.open`.

        Raises:
            RunnerError: The model is no decoder whose cache can be given back.
        """
        cached = _cached(self.name, model)
        joints = self.joints(model) if fetch else {}
        steps = replace(workload, samples=_in_steps(cached, workload), shapes={}, profiles=())
        inner = self.fed.session(model, fetch=[n for n in fetch if n in joints], workload=steps)
        return _Decoding(self, model, inner, cached)

    def joints(self, model: Model) -> dict[str, int | None]:
        """See `Scheduled.joints`: along the axis of the new tokens; what has an axis of all tokens grows with the
        cache, so that the last run gives all of it. What has both (scores) is not put together."""
        cached = _cached(self.name, model)
        sizes = (Sizes(2, 5, 3), Sizes(2, 7, 3), Sizes(2, 5, 4))
        base, *grown = (_shapes(cached, s) for s in sizes)
        found: dict[str, int | None] = {}
        for name, axes in growing(model, base, grown).items():
            new = [axis for axis, by in enumerate(axes) if by == (2, 0)]
            every = [axis for axis, by in enumerate(axes) if by == (2, 1)]
            others = [axis for axis, by in enumerate(axes) if any(by) and axis not in (*new, *every)]
            if not others and len(new) + len(every) <= 1:
                found[name] = new[0] if new else None
        return found


@dataclass(frozen=True)
class UnbatchedRunner(Scheduled):
    """A model fed one entry of a batch at a time: do its results depend on what else is in the batch?

    Attributes:
        runner: See `Scheduled`.
    """

    flag: ClassVar[str] = "unbatched"

    @property
    def schedule(self) -> str:
        """See `Runner.schedule`."""
        return "one entry of the batch at a time"

    def open(  # type: ignore[override]
        self, model: Model, *, fetch: Sequence[str] = (), workload: Workload
    ) -> _Unbatched:
        """See `Runner.open`.

        Raises:
            RunnerError: The model takes no batches.
        """
        batched = _batched(self.name, model)
        joints = self.joints(model)
        alone = replace(workload, samples=_in_entries(batched, workload), shapes={}, profiles=())
        inner = self.fed.session(model, fetch=[n for n in fetch if n in joints], workload=alone)
        return _Unbatched(self, model, inner, batched, joints)

    def joints(self, model: Model) -> dict[str, int | None]:
        """See `Scheduled.joints`: along the axis that grows with the batch as much as the batch does."""
        batched = _batched(self.name, model)
        cached = decoder(model.inputs)
        if cached is not None and cached.caches:
            base, grown = (_shapes(cached, Sizes(batch, 5, 3)) for batch in (2, 3))
        else:
            chosen = choose_shapes(model.index).shapes
            base = {name: (2, *shape[1:]) if name in batched else shape for name, shape in chosen.items()}
            grown = {name: (3, *shape[1:]) if name in batched else shape for name, shape in chosen.items()}
        found: dict[str, int | None] = {}
        for name, axes in growing(model, base, [grown]).items():
            along = [axis for axis, by in enumerate(axes) if by != (0,)]
            if not along or (len(along) == 1 and axes[along[0]] == (1,)):
                found[name] = along[0] if along else None
        return found


class _Scheduling(Session):
    """A session that is run several times for one sample."""

    def __init__(self, runner: Scheduled, model: Model, inner: Session) -> None:
        self._runner, self._model, self._inner = runner, model, inner
        self._known: Mapping[str, int | None] | None = None
        self.inputs, self.outputs = inner.inputs, inner.outputs

    @property
    def info(self) -> SessionInfo:  # type: ignore[override]
        """That of the runner which is fed."""
        return self._inner.info

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Runs the sample in parts and puts together what they give; see `Session.infer`.

        Raises:
            RunnerError: A tensor cannot be put together.
        """
        names = [spec.name for spec in self.outputs] if fetch is None else list(dict.fromkeys(fetch))
        computed = [name for name in names if name not in feed]
        axes = {name: self._axis(name) for name in computed}
        parts: dict[str, list[np.ndarray]] = {name: [] for name in computed}
        for made in self._runs(feed, computed):
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

    def _axis(self, name: str) -> int | None:
        """Along which axis a tensor is put together."""
        if self._known is None:
            self._known = self._runner.joints(self._model)
        if name not in self._known:
            raise RunnerError(f"{self._runner.name}: {name!r} cannot be put together from several runs.")
        return self._known[name]

    def close(self) -> None:
        """See `Session.close`."""
        self._inner.close()


class _Decoding(_Scheduling):
    def __init__(self, runner: Scheduled, model: Model, inner: Session, cached: Decoder) -> None:
        super().__init__(runner, model, inner)
        self._cached = cached
        self._ends = {c.present: None for c in cached.caches} | (
            {} if cached.logits is None else {cached.logits.name: 1}
        )

    def _axis(self, name: str) -> int | None:
        return self._ends[name] if name in self._ends else super()._axis(name)

    def _runs(self, feed: Feed, names: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
        presents = {cache.present: cache.past.name for cache in self._cached.caches if cache.present is not None}
        caches = {past: feed[past] for past in presents.values()}
        wanted = list(dict.fromkeys([*names, *presents]))
        for step in _steps(self._cached, feed):
            made = self._inner.infer({**step, **caches}, wanted)
            caches = {past: made[present] for present, past in presents.items()}
            yield made


class _Unbatched(_Scheduling):
    def __init__(
        self,
        runner: Scheduled,
        model: Model,
        inner: Session,
        batched: Sequence[str],
        joints: Mapping[str, int | None],
    ) -> None:
        super().__init__(runner, model, inner)
        self._batched, self._known = batched, joints

    def _runs(self, feed: Feed, names: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
        for entry in _entries(self._runner.name, self._batched, feed):
            yield self._inner.infer(entry, names)


def _cached(who: str, model: Model) -> Decoder:
    """The decoder that a model is.

    Raises:
        RunnerError: It is none, or one token cannot be fed to it behind a cache.
    """
    found = decoder(model.inputs, model.outputs)
    if found is None or not found.caches or any(cache.present is None for cache in found.caches):
        raise RunnerError(
            f"{who}: {model.source} is no decoder with a cache, which takes input_ids and past_key_values.N.key and "
            ".value, and gives present.N.key and .value."
        )
    fixed = [
        spec for spec in (found.ids, found.mask) if spec is not None and isinstance((spec.shape or (0, 0))[1], int)
    ]
    if fixed:
        raise RunnerError(f"{who}: the model fixes the number of tokens, {fixed[0]}: its cache cannot grow.")
    return found


def _shapes(cached: Decoder, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs; a head's width that the model leaves open is 8."""
    shapes = cached.shapes(sizes)
    return {name: tuple(8 if dim is None else dim for dim in shape) for name, shape in shapes.items()}


def _steps(cached: Decoder, feed: Feed) -> Iterator[dict[str, np.ndarray]]:
    """What each token is fed with, but for the cache."""
    past = feed[cached.caches[0].past.name].shape[cached.caches[0].axis]
    alone = {spec.name for spec in (cached.ids, cached.positions) if spec is not None}
    for token in range(feed[cached.ids.name].shape[1]):
        step = {name: array[:, token : token + 1] if name in alone else array for name, array in feed.items()}
        if cached.mask is not None:
            step[cached.mask.name] = feed[cached.mask.name][:, : past + token + 1]
        if cached.branch is not None:
            branch = feed[cached.branch.name]
            step[cached.branch.name] = np.full(branch.shape, past + token > 0, branch.dtype)
        yield step


def _in_steps(cached: Decoder, workload: Workload) -> Any:
    """The samples as they will be fed, for runtimes that build for their shapes: the caches hold zeros."""
    samples = workload.samples
    if samples is None:
        return None

    def stepwise() -> Iterable[Feed]:
        for feed in samples():
            for token, step in enumerate(_steps(cached, feed)):
                caches = {}
                for cache in cached.caches:
                    shape = list(feed[cache.past.name].shape)
                    shape[cache.axis] += token
                    caches[cache.past.name] = np.zeros(shape, cache.past.dtype)
                yield {**step, **caches}

    return stepwise


def _batched(who: str, model: Model) -> tuple[str, ...]:
    """Names of the inputs whose leading axis is the batch: those that leave it open.

    Raises:
        RunnerError: There is none.
    """
    found = tuple(s.name for s in model.inputs if s.shape and not isinstance(s.shape[0], int))
    if not found:
        inputs = ", ".join(map(str, model.inputs))
        raise RunnerError(f"{who}: no input leaves its first axis open, so that none is a batch: {inputs}.")
    return found


def _entries(who: str, batched: Sequence[str], feed: Feed) -> Iterator[dict[str, np.ndarray]]:
    """The entries of a batch, each as a batch of one."""
    sizes = {feed[name].shape[0] for name in batched}
    if len(sizes) > 1:
        told = ", ".join(f"{name} {list(feed[name].shape)}" for name in batched)
        raise RunnerError(f"{who}: the first axes of the inputs are no batch, they differ: {told}.")
    for entry in range(sizes.pop()):
        yield {name: array[entry : entry + 1] if name in batched else array for name, array in feed.items()}


def _in_entries(batched: Sequence[str], workload: Workload) -> Any:
    """See `_in_steps`."""
    samples = workload.samples
    if samples is None:
        return None
    return lambda: (entry for feed in samples() for entry in _entries("unbatched", batched, feed))
