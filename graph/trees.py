"""Trees at a threshold: which rows of an ensemble's input lie so near one that rounding may send them another way."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from .nodes import attribute_ints
from .operators import ML_DOMAIN

ENSEMBLES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble")


def rows_at_thresholds(node: onnx.NodeProto, x: np.ndarray, step: float) -> np.ndarray | None:
    """Rows of which a feature is as near to one of its thresholds as rounding may move it.

    Args:
        node: A TreeEnsembleClassifier, TreeEnsembleRegressor or TreeEnsemble.
        x: What it is given, ``(rows, features)``.
        step: Rounding, relative to the larger of feature and threshold.

    Returns:
        A boolean for each row; None for other operators, and of trees whose thresholds are not told.
    """
    if node.domain != ML_DOMAIN or node.op_type not in ENSEMBLES or x.ndim != 2:
        return None
    told = {a.name: a for a in node.attribute}
    prefix = "nodes_splits" if node.op_type == "TreeEnsemble" else "nodes_values"
    name = next((n for n in (f"{prefix}_as_tensor", prefix) if n in told), "")
    features = np.array(attribute_ints(node, "nodes_featureids") or [], np.int64)
    if not name or not len(features):
        return None
    attribute = told[name]
    values = numpy_helper.to_array(attribute.t) if attribute.type == onnx.AttributeProto.TENSOR else attribute.floats
    thresholds = np.asarray(values, np.float64)
    if len(thresholds) != len(features) or features.max() >= x.shape[1]:
        return None
    found = np.zeros(len(x), bool)
    for feature in np.unique(features):
        mine = np.unique(thresholds[features == feature])
        column = x[:, feature].astype(np.float64)
        at = np.searchsorted(mine, column)
        for nearest in (mine[np.clip(at, 0, len(mine) - 1)], mine[np.clip(at - 1, 0, len(mine) - 1)]):
            found |= np.abs(column - nearest) <= step * np.maximum(np.abs(column), np.abs(nearest))
    return found
