"""Which tensors of a network can be put together from several runs, and along which axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ...graph.axes import growing
from ...graph.decoders import Decoder, Sizes, decoder
from ...graph.errors import RunnerError
from ...graph.implied_shapes import choose_shapes

if TYPE_CHECKING:
    from ...graph.model import Model

Joints: TypeAlias = "dict[str, int | None]"
"""Tensor -> the axis along which it is put together; None: the last run gives all of it."""


def of_tokens(who: str, model: Model) -> Joints:
    """Of a decoder that is fed one token at a time: along the axis of the new tokens.

    What has an axis of all tokens grows with the cache, so that the last run gives all of it. What has both (scores) is
    not put together.

    Raises:
        RunnerError: See `cached`.
    """
    known = cached(who, model)
    base, *grown = (_shapes(known, s) for s in (Sizes(2, 5, 3), Sizes(2, 7, 3), Sizes(2, 5, 4)))
    found: Joints = {}
    for name, axes in growing(model, base, grown).items():
        new = [axis for axis, by in enumerate(axes) if by == (2, 0)]
        every = [axis for axis, by in enumerate(axes) if by == (2, 1)]
        others = [axis for axis, by in enumerate(axes) if any(by) and axis not in (*new, *every)]
        if not others and len(new) + len(every) <= 1:
            found[name] = new[0] if new else None
    return found


def of_entries(who: str, model: Model) -> Joints:
    """Of a model that is fed one entry of a batch at a time: along the axis that grows as much as the batch does.

    Raises:
        RunnerError: See `batched`.
    """
    names, known = batched(who, model), decoder(model.inputs)
    if known is not None and known.caches:
        base, grown = (_shapes(known, Sizes(batch, 5, 3)) for batch in (2, 3))
    else:
        chosen = choose_shapes(model.index).shapes
        base, grown = (
            {name: (batch, *shape[1:]) if name in names else shape for name, shape in chosen.items()}
            for batch in (2, 3)
        )
    found: Joints = {}
    for name, axes in growing(model, base, [grown]).items():
        along = [axis for axis, by in enumerate(axes) if by != (0,)]
        if not along or (len(along) == 1 and axes[along[0]] == (1,)):
            found[name] = along[0] if along else None
    for spec in model.outputs:  # behind operators whose shapes are not known, what the file declares counts
        if spec.name not in found and spec.shape and not isinstance(spec.shape[0], int):
            found[spec.name] = 0
    return found


def cached(who: str, model: Model) -> Decoder:
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
    counted = [spec for spec in (found.ids, found.mask) if spec is not None and spec.shape is not None]
    fixed = [spec for spec in counted if spec.shape is not None and isinstance(spec.shape[1], int)]
    if fixed:
        raise RunnerError(f"{who}: the model fixes the number of tokens, {fixed[0]}: its cache cannot grow.")
    return found


def batched(who: str, model: Model) -> tuple[str, ...]:
    """Names of the inputs whose leading axis is the batch: those that leave it open.

    Raises:
        RunnerError: There is none.
    """
    found = tuple(s.name for s in model.inputs if s.shape and not isinstance(s.shape[0], int))
    if not found:
        inputs = ", ".join(map(str, model.inputs))
        raise RunnerError(f"{who}: no input leaves its first axis open, so that none is a batch: {inputs}.")
    return found


def _shapes(known: Decoder, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs; a head's width that the model leaves open is 8."""
    shapes = known.shapes(sizes)
    return {name: tuple(8 if dim is None else dim for dim in shape) for name, shape in shapes.items()}
