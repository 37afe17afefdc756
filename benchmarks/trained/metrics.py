"""How right the networks are: functions for ``--metric benchmarks.trained.metrics:NAME``, higher is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def characters(outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
    """The share of the characters that a reader of text reads right.

    Args:
        outputs: One output: scores (N, T, classes); class 0 stands for nothing (CTC).
        labels: Classes of the characters, (N, length), filled up with 0.

    Returns:
        1 less the edit distance by the text's length, at least 0; the mean over the rows.
    """
    (scores,) = outputs.values()
    values = []
    for classes, label in zip(scores.argmax(-1), labels, strict=True):
        changes = np.flatnonzero(np.diff(classes, prepend=-1))
        found = [int(c) for c in classes[changes] if c]
        right = [int(c) for c in label if c]
        values.append(max(0.0, 1 - edits(found, right) / len(right)))
    return float(np.mean(values))


def edits(a: Sequence[int], b: Sequence[int]) -> int:
    """The smallest number of insertions, deletions and replacements that make ``b`` of ``a``."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y)))
    return row[-1]


def decisions(outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
    """The share of probabilities on the right side of one half: those of the output with one value a label."""
    (probability,) = (value for value in outputs.values() if value.size == len(labels))
    return float(np.mean((probability.ravel() > 0.5) == labels.astype(bool)))
