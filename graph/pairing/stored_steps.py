"""In what steps the candidate stores weights of the reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .affine import Affine
from .constants import constant_value, integers_step, quantization_step
from .normal_form import NormalForm
from .pairs import Pairing
from .turned import TRANSPOSES
from .weight_changes import both_steps, within_steps


def stored_steps(pairing: Pairing, nodes: Mapping[int, int], folded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weight of the reference -> the distance between neighbouring values that the candidate stores it in.

    Args:
        pairing: The matched nodes that compute something from the data.
        nodes: These, and those that compute constants.
        folded: The same of weights into which something was multiplied.

    Returns:
        Arrays that broadcast against the weights. What is not stored as scaled integers is left out, and what the
        reference stores so too, unless the steps of both explain what differs: those err by both.
    """
    found = dict(folded)
    for n, m in nodes.items():
        for name, other in _weights(pairing, n, m):
            shape = _shape(pairing, name)
            if name in found or shape is None:
                continue
            step = _step(pairing, name, other)
            if step is None:
                continue
            turned = shape != pairing.c.shape(other) and shape[::-1] == pairing.c.shape(other)
            step = step.T if turned else step
            if step.size == 1 or (step.ndim == len(shape) and _broadcasts(step.shape, shape)):
                found[name] = step
    return found


def _shape(pairing: Pairing, name: str) -> tuple[int, ...] | None:
    """The shape of a constant of the reference, be it computed; None where it is not known."""
    shape = pairing.r.shape(name)
    if shape is not None and all(isinstance(d, int) for d in shape):
        return tuple(d for d in shape if isinstance(d, int))
    value = constant_value(pairing.r.index, name)
    return None if value is None else value.shape


def _step(pairing: Pairing, name: str, other: str) -> np.ndarray | None:
    """The step of a weight of the candidate; of one that the reference stores in other steps too, those of both, where
    they explain the difference."""
    step, own = quantization_step(pairing.c.index, other), quantization_step(pairing.r.index, name)
    if step is None and own is None:
        value = constant_value(pairing.r.index, name) if other in pairing.c.index.producer else None
        return None if value is None else integers_step(pairing.c.index, other, value)
    if step is None or own is None:
        return step
    both = both_steps(own, step)
    values = constant_value(pairing.r.index, name), constant_value(pairing.c.index, other)
    if both is None or values[0] is None or values[1] is None or not within_steps(values[0], values[1], both):
        return None
    return np.asarray(np.hypot(own, step))


def _weights(pairing: Pairing, n: int, m: int) -> list[tuple[str, str]]:
    """The weights of two matched nodes that stand in the same place."""
    if n in pairing.r.forms and m in pairing.c.forms:
        mine, theirs = pairing.r.forms[n].weights, pairing.c.forms[m].weights
        return [(mine[slot], theirs[slot]) for slot in sorted(mine.keys() & theirs.keys())]
    reads = zip(pairing.r.index.nodes[n].input, pairing.c.index.nodes[m].input, strict=False)
    return [(a, b) for a, b in reads if a in pairing.r.index.initializers and b]


def _broadcasts(step: tuple[int, ...], shape: tuple[object, ...]) -> bool:
    return all(a in (1, b) for a, b in zip(step, shape, strict=True))


def unfolded_step(form: NormalForm, product: Affine, whole: Affine, stored: Affine) -> np.ndarray | None:
    """In what steps a product's own weights are stored, where something was multiplied into those that are.

    Args:
        form: The product of the reference.
        product, whole: What it does alone, and with what was multiplied in.
        stored: What the candidate's product does.

    Returns:
        Shaped like the weights, or None where they are not stored as scaled integers.
    """
    if stored.step is None:
        return None
    axes = tuple(range(1, product.weight.ndim))
    alone, together = (np.abs(a.weight).max(axis=axes, keepdims=True, initial=0.0) for a in (product, whole))
    factor = np.divide(together, alone, out=np.ones_like(alone), where=alone > 0)
    step = np.divide(stored.step, factor, out=np.zeros_like(stored.step * factor), where=factor > 0)
    if form.op == "Conv" or (form.op == "Gemm" and form.settings.get(TRANSPOSES)):
        return np.asarray(step)
    if form.op == "ConvTranspose":
        groups = int(form.settings.get("group", 1) or 1)
        step = step.reshape(groups, step.shape[0] // groups, *step.shape[1:])
        return np.asarray(np.moveaxis(step, 1, 2).reshape(-1, step.shape[1], *step.shape[3:]))
    return np.asarray(step.T)
