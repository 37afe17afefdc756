"""Inputs that look like real ones, pictures and texts, and those that lie beside a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np


def image(rng: np.random.Generator, channels: int, size: int) -> np.ndarray:
    """A structured picture of zero mean and unit deviation: smooth fields, an edge, and a little noise."""
    result = np.zeros((channels, size, size))
    for cells in (4, 8, 16):
        coarse = rng.normal(0, 1, (channels, cells, cells)) + 0.7 * rng.normal(0, 1, (1, cells, cells))
        where = np.linspace(0, cells - 1.001, size)
        low, part = where.astype(int), where % 1
        rows = coarse[:, low] * (1 - part)[None, :, None] + coarse[:, low + 1] * part[None, :, None]
        both = rows[:, :, low] * (1 - part)[None, None] + rows[:, :, low + 1] * part[None, None]
        result += both * (4 / cells) ** 0.7
    y, x = np.mgrid[:size, :size] / size
    angle, shift = rng.uniform(0, np.pi), rng.uniform(0.3, 0.7)
    side = (x - shift) * np.cos(angle) + (y - shift) * np.sin(angle) > 0
    result += side[None] * rng.normal(0, 1.2, (channels, 1, 1)) + rng.normal(0, 0.15, result.shape)
    result -= result.mean(axis=(1, 2), keepdims=True)
    return (result / result.std()).astype(np.float32)


def images(channels: int, size: int, name: str) -> Callable[[int, int], list[dict[str, np.ndarray]]]:
    """Feeds of pictures."""

    def make(seed: int, count: int) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng([seed, size])
        return [{name: image(rng, channels, size)[None]} for _ in range(count)]

    return make


def texts(length: int, words: int, name: str, mask: str | None = None):
    """Feeds of token numbers, frequent words first (Zipf's law), with the mask of a shorter text where asked for."""

    def make(seed: int, count: int) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng([seed, length])
        feeds = []
        for _ in range(count):
            used = int(rng.integers(length * 5 // 8, length * 7 // 8)) if mask else length
            ids = np.minimum(rng.zipf(1.3, (1, length)), words - 1).astype(np.int64)
            ids[:, used:] = 0
            feeds.append({name: ids})
            if mask:
                feeds[-1][mask] = (np.arange(length)[None] < used).astype(np.int64)
        return feeds

    return make


def stored(network: Path, rows: int) -> dict[str, np.ndarray]:
    """At most so many rows of a network's own inputs: ``NAME.npz`` or ``heldout.npz`` beside it, nothing without."""
    files = (network.with_suffix(".npz"), network.with_name("heldout.npz"))
    found = next((path for path in files if path.is_file()), None)
    return {} if found is None else {name: array[:rows] for name, array in np.load(found).items()}
