"""The cheapest layers to keep so that the error that the others are expected to leave stays within what is allowed.

An integer program (scipy's `milp`) over the blocks, of which a prediction makes a few dozen at most. What was seen to
fail is a cut: one of the layers that were narrow there has to be kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...graph.interrupts import uninterrupted
from .predict import HUGE

if TYPE_CHECKING:
    from .layers import Layers
    from .predict import Block, Prediction

SECONDS = 10.0
"""Most time for one integer program."""


def choose(
    layers: Layers, prediction: Prediction, failed: Sequence[Collection[int]], allowed: float
) -> frozenset[int] | None:
    """The layers to keep.

    Args:
        layers: The layers, their costs and borders.
        prediction: The errors of blocks.
        failed: Sets of kept layers that did not pass.
        allowed: The share of what is allowed that the others may be expected to take.

    Returns:
        Their numbers; None where nothing that did not fail is expected to do.
    """
    blocks = prediction.blocks
    chosen = _program(layers, blocks, failed, allowed)
    return None if chosen is None else frozenset(n for i in chosen for n in blocks[i].layers)


def _program(
    layers: Layers, blocks: Sequence[Block], failed: Sequence[Collection[int]], allowed: float
) -> list[int] | None:
    """Positions of the blocks to keep. Variables: whether each block is kept, and whether each border is cast."""
    with uninterrupted():
        from scipy.optimize import Bounds, LinearConstraint, milp

    owner = {number: i for i, block in enumerate(blocks) for number in block.layers}
    borders = [
        (b.cost, [owner.get(b.maker, -1), *(owner[r] for r in b.readers)])
        for b in layers.borders
        if len({owner.get(b.maker, -1), *(owner[r] for r in b.readers)}) > 1
    ]
    n, m = len(blocks), len(borders)
    cost = np.array([*(sum(layers.all[k].cost for k in b.layers) for b in blocks), *(c for c, _ in borders)])
    scale = max(float(cost.max(initial=0.0)), 1.0)
    rows, low = [], []
    for output in {name for b in blocks for name in b.shares}:
        squares = np.array([min(b.shares.get(output, 0.0), HUGE) ** 2 for b in blocks])
        # one block beyond what is allowed has to be kept, however large its error
        squares = np.minimum(squares, 4 * allowed**2 + 4)
        rows.append(np.concatenate([squares, np.zeros(m)]))
        low.append(float(squares.sum()) - allowed**2)
    for kept in failed:
        row = np.zeros(n + m)
        row[[i for i, b in enumerate(blocks) if not set(b.layers) <= set(kept)]] = 1
        rows.append(row)
        low.append(1.0)
    for j, (_, ends) in enumerate(borders):
        for one, other in ((a, b) for a in ends[:1] for b in ends[1:] if a != b):
            for sign in (1, -1):
                row = np.zeros(n + m)
                row[n + j] = 1
                if one >= 0:
                    row[one] -= sign
                row[other] += sign
                rows.append(row)
                low.append(0.0)
    found = milp(
        cost / scale + 1e-9,
        constraints=LinearConstraint(np.array(rows), np.array(low), np.inf) if rows else (),
        integrality=np.concatenate([np.ones(n), np.zeros(m)]),
        bounds=Bounds(0, 1),
        options={"time_limit": SECONDS},
    )
    return None if found.x is None else [i for i in range(n) if found.x[i] > 0.5]
