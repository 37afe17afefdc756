"""Decoders of language models as they are exported: which inputs are tokens, mask, positions and cache.

The layout is that of Optimum and of ONNX Runtime GenAI: ``input_ids``, ``attention_mask``, ``position_ids``,
``past_key_values.N.key`` and ``.value``, with ``present.N.key`` and ``.value`` among the outputs; ``use_cache_branch``
where one file holds the graphs with and without a cache. They are told by their names and ranks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import DataError
from .specs import Arrays, TensorSpec, is_float

BATCH, TOKENS, PAST = 2, 8, 0
"""Sizes where neither the model nor the user says any: an empty cache, so that a sample is a prompt from its start."""

_SLOT = re.compile(r"(past|present)(?:_key_values?)?[._](?:(\d+)[._](?:self[._])?(key|value)|(key|value)[._](\d+))")


@dataclass(frozen=True)
class Sizes:
    """How much a decoder is fed.

    Attributes:
        batch: Sequences.
        tokens: New tokens of each.
        past: Tokens in the cache before them.
    """

    batch: int
    tokens: int
    past: int

    @property
    def total(self) -> int:
        """Tokens that are looked at: those in the cache and the new ones."""
        return self.past + self.tokens


@dataclass(frozen=True)
class Cache:
    """The keys, or the values, of one layer's attention.

    Attributes:
        past: The input.
        present: The output that holds the new ones behind them; None where there is none.
        axis: Axis of the tokens.
    """

    past: TensorSpec
    present: str | None
    axis: int


@dataclass(frozen=True)
class Decoder:
    """A model that reads tokens behind a cache.

    Attributes:
        ids: Token ids, batch x new tokens.
        mask: 1 for each token in the cache or new, 0 for padding, batch x all tokens; None without such an input.
        positions: Places of the new tokens in their sequences, batch x new tokens; None without such an input.
        caches: Keys and values of each layer; empty for a model without a cache.
        branch: Whether the cache is to be read, one bool; None without such an input.
        logits: Scores of all tokens of the vocabulary, batch x new tokens x vocabulary; None where no output is known
            for them.
    """

    ids: TensorSpec
    mask: TensorSpec | None
    positions: TensorSpec | None
    caches: tuple[Cache, ...]
    branch: TensorSpec | None
    logits: TensorSpec | None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """All inputs that were recognized."""
        single = (self.ids, self.mask, self.positions, self.branch)
        return (*(spec for spec in single if spec is not None), *(cache.past for cache in self.caches))

    def __str__(self) -> str:
        names = ", ".join(spec.name for spec in self.inputs[:4]) + (" ..." if self.inputs[4:] else "")
        layers = (len(self.caches) + 1) // 2
        if not layers:
            return f"a model of token ids ({names})"
        return f"a decoder with a cache of {layers} layer{'s'[: layers != 1]} ({names})"

    def sizes(self, given: Mapping[str, Sequence[int | None]]) -> Sizes:
        """The sizes that shapes of some of the inputs settle.

        Args:
            given: Shapes by input name; None or -1 leaves a dimension open.

        Raises:
            DataError: Two of them contradict each other.
        """
        known = {spec.name: _dimensions(spec, given.get(spec.name, ())) for spec in self.inputs}
        rows = [known[spec.name] for spec in (self.ids, self.positions) if spec is not None]
        mask = () if self.mask is None else known[self.mask.name]
        pasts = [known[cache.past.name] for cache in self.caches]
        batch = _first([dims[0] for dims in (*rows, *([mask] if mask else ()), *pasts) if dims], BATCH)
        total = mask[1] if mask else None
        past = _first([dims[c.axis] for dims, c in zip(pasts, self.caches, strict=True)])
        tokens = _first([dims[1] for dims in rows])
        if tokens is None:
            tokens = TOKENS if total is None else max(total - (past or 0), 0)
        if past is None:
            past = max(total - tokens, 0) if total is not None and self.caches else PAST
        sizes = Sizes(batch or 0, tokens, past)
        for name, shape in self.shapes(sizes).items():
            for axis, dim in enumerate(known[name]):
                if dim is not None and shape[axis] not in (None, dim):
                    raise DataError(
                        f"{name!r} has {dim} on axis {axis}, where {sizes.batch} x {sizes.tokens} new tokens behind "
                        f"{sizes.past} in the cache need {shape[axis]}."
                    )
        return sizes

    def shapes(self, sizes: Sizes) -> dict[str, tuple[int | None, ...]]:
        """The shapes of the inputs but for the branch; None for what neither sizes nor the model tell."""
        found: dict[str, tuple[int | None, ...]] = {self.ids.name: (sizes.batch, sizes.tokens)}
        if self.mask is not None:
            found[self.mask.name] = (sizes.batch, sizes.total)
        if self.positions is not None:
            found[self.positions.name] = (sizes.batch, sizes.tokens)
        for cache in self.caches:
            dims = [dim if isinstance(dim, int) else None for dim in cache.past.shape or ()]
            dims[0], dims[cache.axis] = sizes.batch, sizes.past
            found[cache.past.name] = tuple(dims)
        return found

    def around(self, mask: np.ndarray, past: int) -> dict[str, np.ndarray]:
        """What belongs to tokens besides themselves and the cache: mask, positions and branch.

        Args:
            mask: 1 for each token and 0 for padding, batch x all tokens.
            past: How many of them are in the cache.
        """
        found = {}
        if self.mask is not None:
            found[self.mask.name] = mask.astype(self.mask.dtype)
        if self.positions is not None:
            places = np.maximum(np.cumsum(mask, axis=1) - 1, 0)[:, past:]
            found[self.positions.name] = places.astype(self.positions.dtype)
        if self.branch is not None:
            found[self.branch.name] = np.full(_ones(self.branch), past > 0, self.branch.dtype)
        return found

    def empty(self, batch: int) -> dict[str, np.ndarray]:
        """A cache without tokens.

        Raises:
            DataError: The model says neither how many heads there are nor how wide they are.
        """
        found, shapes = {}, self.shapes(Sizes(batch, 1, 0))
        for cache in self.caches:
            shape = [dim for dim in shapes[cache.past.name] if dim is not None]
            if len(shape) < len(shapes[cache.past.name]):
                raise DataError(f"the cache {cache.past} leaves its heads or their width open, so none can be made.")
            found[cache.past.name] = np.zeros(shape, cache.past.dtype)
        return found


def decoder(inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec] = ()) -> Decoder | None:
    """The decoder that a model is, by the names and ranks of its inputs; None if it is none.

    Args:
        inputs: The inputs of the model. Without a cache, mask and positions, ``input_ids`` alone are a decoder, too.
        outputs: Its outputs, for whoever wants to know where logits and new caches are.
    """
    known, made = {spec.name: spec for spec in inputs}, {spec.name: spec for spec in outputs}
    ids = known.get("input_ids")
    if ids is None or ids.dtype.kind not in "iu" or _rank(ids) != 2:
        return None
    mask, positions, branch = (known.get(n) for n in ("attention_mask", "position_ids", "use_cache_branch"))
    slots = {slot: name for name in made if (slot := _slot(name, "present")) is not None}
    caches = []
    for spec in known.values():
        slot = _slot(spec.name, "past")
        if slot is not None and is_float(spec.dtype) and _rank(spec) in (3, 4):
            caches.append(Cache(spec, slots.get(slot), _token_axis(spec)))
    return Decoder(
        ids,
        mask if mask is not None and _rank(mask) == 2 and mask.dtype.kind in "iub" else None,
        positions if positions is not None and _rank(positions) == 2 and positions.dtype.kind in "iu" else None,
        tuple(caches),
        branch if caches else None,
        _logits(made, {cache.present for cache in caches}),
    )


def _logits(outputs: Mapping[str, TensorSpec], presents: set[str | None]) -> TensorSpec | None:
    if "logits" in outputs:
        return outputs["logits"]
    others = [s for s in outputs.values() if s.name not in presents and is_float(s.dtype) and _rank(s) in (3, None)]
    return others[0] if len(others) == 1 else None


def _slot(name: str, word: str) -> tuple[int, str] | None:
    """Layer and kind of what the name of a cache says."""
    found = _SLOT.fullmatch(name)
    if found is None or found[1] != word:
        return None
    return int(found[2] or found[5]), found[3] or found[4]


def _token_axis(spec: TensorSpec) -> int:
    """The axis of a cache along which tokens lie: the open one behind the batch, else the last but one."""
    dims = spec.shape or ()
    named = [axis for axis, dim in enumerate(dims) if axis and isinstance(dim, str) and re.search("past|seq", dim)]
    free = [axis for axis, dim in enumerate(dims) if axis and not isinstance(dim, int)]
    return next((axes[0] for axes in (named, free) if len(axes) == 1), len(dims) - 2)


def _dimensions(spec: TensorSpec, given: Sequence[int | None]) -> tuple[int | None, ...]:
    """What is known of the dimensions of an input: what the model fixes, else what was given."""
    own = spec.shape or ()
    asked = tuple(given) if len(given) == len(own) else (None,) * len(own)
    return tuple(
        dim if isinstance(dim, int) else None if size is None or size < 0 else size
        for dim, size in zip(own, asked, strict=True)
    )


def _first(sizes: Iterable[int | None], usual: int | None = None) -> int | None:
    return next((size for size in sizes if size is not None), usual)


def _rank(spec: TensorSpec) -> int | None:
    return None if spec.shape is None else len(spec.shape)


def _ones(spec: TensorSpec) -> tuple[int, ...]:
    return (1,) * len(spec.shape or ())


def feed_of_tokens(model: Decoder, ids: np.ndarray, mask: np.ndarray) -> Arrays:
    """All recognized inputs for tokens from the start of their sequences, behind an empty cache.

    Args:
        model: The decoder.
        ids: Token ids, batch x tokens.
        mask: 1 for each token, 0 for padding, of the same shape.

    Raises:
        DataError: See `Decoder.empty`.
    """
    return {model.ids.name: ids.astype(model.ids.dtype), **model.around(mask, 0), **model.empty(len(ids))}
