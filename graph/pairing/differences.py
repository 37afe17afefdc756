"""What differs between two matched nodes without running them: attributes, weights, operators.

Weights are compared block by block, so that files are mapped and never read whole into memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from ..index import GraphIndex
from ..specs import is_float
from ..weights import stored_bytes
from .affine import Affine
from .constants import constant_value, quantization_step
from .normal_form import Canonical, schema_defaults

BLOCK = 1 << 20
"""Elements that are compared at a time."""

FOLD_NOISE = 16 * 2.0**-24
"""Relative error that multiplying a normalization into weights may leave: a handful of FP32 operations."""


@dataclass(frozen=True)
class Difference:
    """What differs between a node of the reference and the node of the candidate that it is matched with.

    Attributes:
        node: Position in the reference.
        candidate_node: Position in the candidate.
        kind: ``attribute``, ``weights`` or ``op``.
        name: Attribute, or name of the weight input in the operator's schema (``w``, ``b``, ``scale``).
        detail: A phrase with the values: ``epsilon 1e-05 against 0.01``.
        expected_by_format: The number format that the candidate stores this weight in, where rounding to it explains
            the whole difference; None otherwise.
    """

    node: int
    candidate_node: int
    kind: str
    name: str
    detail: str
    expected_by_format: str | None = None


def node_differences(
    reference: GraphIndex, n: int, a: Canonical, candidate: GraphIndex, m: int, b: Canonical
) -> list[Difference]:
    """What differs between two nodes, each given with its graph, position and canonical writing."""
    if a.family != b.family:
        return [Difference(n, m, "op", "", f"{a.op} against {b.op}")]
    found: list[Difference] = []
    if a.op == b.op:
        found.extend(_settings(reference, n, a, candidate, m, b))
        found.extend(_weights(reference, n, a, candidate, m, b))
        found.extend(_bodies(reference.nodes[n], candidate.nodes[m], n, m))
    return found


def _newest_default(index: GraphIndex, position: int, name: str) -> Any:
    node = index.nodes[position]
    defaults = schema_defaults(
        node.op_type, onnx.defs.onnx_opset_version(), "" if node.domain == "ai.onnx" else node.domain
    )
    return {k.lower(): v for k, v in defaults.items()}.get(name)


def _settings(
    reference: GraphIndex, n: int, a: Canonical, candidate: GraphIndex, m: int, b: Canonical
) -> Iterator[Difference]:
    opset = reference.opset.get(reference.nodes[n].domain, 0) != candidate.opset.get(candidate.nodes[m].domain, 0)
    for name in sorted(a.settings.keys() | b.settings.keys()):
        if name in a.weights or name in b.weights:
            continue  # computed on one side: not known without running
        x = a.settings.get(name, _newest_default(reference, n, name))
        y = b.settings.get(name, _newest_default(candidate, m, name))
        if name in ("axis", "axes"):
            x, y = (_positive(v, reference, n, candidate, m) for v in (x, y))
        if same_setting(x, y):
            continue
        if opset and (x is None or y is None) and name != "axes" and a.op != "Clip":
            continue  # one of the opsets does not have it
        if name == "to" and a.op == "Cast":
            continue
        yield Difference(n, m, "attribute", name, f"{name} {_shown(x)} against {_shown(y)}")


def _positive(value: Any, reference: GraphIndex, n: int, candidate: GraphIndex, m: int) -> Any:
    """Axes counted from the front, where the rank is known on either side."""
    for index, position in ((reference, n), (candidate, m)):
        spec = index.specs.get(index.nodes[position].input[0])
        if spec is not None and spec.shape:
            if isinstance(value, int) and value < 0:
                return value + len(spec.shape)
            if isinstance(value, list) and all(isinstance(v, int) for v in value):
                return [v + len(spec.shape) if v < 0 else v for v in value]
    return value


def same_setting(x: Any, y: Any) -> bool:
    """Whether two values of an attribute mean the same; numbers may differ by a rounding to FP32."""
    if isinstance(x, (list, tuple)) and isinstance(y, (list, tuple)):
        return len(x) == len(y) and all(same_setting(i, j) for i, j in zip(x, y, strict=True))
    if isinstance(x, (int, float)) and isinstance(y, (int, float)):
        return x == y or (x != x and y != y) or abs(x - y) <= 2.0**-23 * max(abs(x), abs(y))
    if isinstance(x, onnx.TensorProto) and isinstance(y, onnx.TensorProto):
        return bool(np.array_equal(onnx.numpy_helper.to_array(x), onnx.numpy_helper.to_array(y)))
    return type(x) is type(y) and x == y


def _shown(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, onnx.TensorProto):
        return "a constant"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _weights(
    reference: GraphIndex, n: int, a: Canonical, candidate: GraphIndex, m: int, b: Canonical
) -> Iterator[Difference]:
    values: dict[str, tuple[np.ndarray | None, np.ndarray | None]] = {}
    for slot in sorted(a.weights.keys() | b.weights.keys()):
        if slot in a.settings or slot in b.settings:
            continue
        names = a.weights.get(slot), b.weights.get(slot)
        if names[0] and names[1] and same_bytes(reference, names[0], candidate, names[1]):
            continue
        x, y = (None if k is None else constant_value(i, k) for i, k in zip((reference, candidate), names, strict=True))
        if (names[0] is not None and x is None) or (names[1] is not None and y is None):
            continue  # computed from shapes, or by an operator that is not known here
        values[slot] = x, y
    for slot, (x, y) in values.items():
        if x is None or y is None:
            present = x if y is None else y
            assert present is not None
            if slot not in ("const",) and not np.any(present):
                continue  # a bias of zeros is no bias
            amount = f"{present.size:,} values" if present.size > 1 else f"{present.reshape(-1)[:1].tolist()[0]!r}"
            text = f"{slot} {'absent' if x is None else amount} against {'absent' if y is None else amount}"
            yield Difference(n, m, "weights", slot, text)
            continue
        told = weight_difference(x, y)
        if told is not None:
            detail, fmt = told
            step = quantization_step(candidate, b.weights[slot])
            if step is not None and quantization_step(reference, a.weights[slot]) is None and _within(x, y, step):
                yield Difference(n, m, "weights", slot, f"quantized, {detail}", "int8")
                continue
            others = (s for s in sorted(a.weights) if s != slot and s not in a.settings and fmt is None)
            twin = next((s for s in others if _equal(constant_value(reference, a.weights[s]), y)), None)
            if twin is not None:
                detail += f"; equal to the reference's {twin}"
            yield Difference(n, m, "weights", slot, detail, fmt)


def _within(x: np.ndarray, y: np.ndarray, step: np.ndarray) -> bool:
    """Whether all values are within half a step, as rounding leaves them, if not clipped at the ends of a channel."""
    if x.shape != y.shape or x.ndim != step.ndim:
        return False
    axes = tuple(i for i, d in enumerate(step.shape) if d == 1)
    y = np.asarray(y, np.float64)
    ends = np.maximum(np.abs(y).max(axis=axes, keepdims=True), 0)
    error = np.abs(np.asarray(x, np.float64) - y)
    return bool(((error <= 0.501 * step) | (np.abs(y) >= ends)).all())


def _equal(x: np.ndarray | None, y: np.ndarray) -> bool:
    return x is not None and x.shape == y.shape and bool(np.array_equal(x, y))


def _blocks(*arrays: np.ndarray) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, flat[0].size, BLOCK):
        yield start, tuple(f[start : start + BLOCK] for f in flat)


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) if is_float(x.dtype) and x.dtype.kind != "c" else x


def weight_difference(x: np.ndarray, y: np.ndarray) -> tuple[str, str | None] | None:
    """How the weights of the candidate differ from the reference's.

    Args:
        x: The reference's.
        y: The candidate's; the shape may differ.

    Returns:
        None if all are equal, up to the rounding of what was multiplied in; else a phrase with counts, values and
        index, and the format that the candidate stores them in if rounding to it explains everything.
    """
    if x.shape != y.shape:
        if x.size == y.size:
            if x.ndim == y.ndim and x.shape == y.shape[::-1] and np.array_equal(x.T, y):
                return f"shape {_dims(x)} against {_dims(y)}: equal to the transpose", None
            if np.array_equal(x.reshape(-1), y.reshape(-1)):
                return None if _squeezed(x) == _squeezed(y) else (f"shape {_dims(x)} against {_dims(y)}", None)
        return f"shape {_dims(x)} against {_dims(y)}", None
    if x.dtype == object or y.dtype == object or x.dtype.kind in "SUc" or y.dtype.kind in "SUc":
        count = int(np.sum(np.asarray(x != y)))
        return None if not count else (f"{count:,} of {x.size:,} values differ", None)
    count, worst, where = 0, -1.0, 0
    for start, (a, b) in _blocks(x, y):
        if a.dtype == b.dtype and np.array_equal(a.view(np.uint8), b.view(np.uint8)):
            continue
        with np.errstate(all="ignore"):
            p, q = _wide(a), _wide(b)
            differs = (p != q) & ~((p != p) & (q != q))
            if not differs.any():
                continue
            count += int(differs.sum())
            size = np.where(differs, np.abs(p.astype(np.float64) - q.astype(np.float64)), -1.0)
            size = np.where(np.isnan(size), np.inf, size)
        i = int(size.argmax())
        if size[i] > worst:
            worst, where = float(size[i]), start + i
    if not count:
        return None
    noun = "weights" if x.size > 1 else "value"
    rounded = _rounded(x, y)
    if rounded:
        stored = rounded if y.dtype.name == _DTYPE[rounded].name else None
        text = f"all {x.size:,} {noun} equal to the reference's rounded to {rounded.upper()}"
        return f"{text} ({count:,} differ, greatest {worst:.3g})", stored
    if rounded_alike(x, y):
        return None
    index = tuple(int(i) for i in np.unravel_index(where, x.shape))
    a, b = x[index], y[index]
    place = f" at [{','.join(map(str, index))}]" if index else ""
    text = f"{count:,} of {x.size:,} {noun} differ, greatest {worst:.3g}{place}, {_number(a)} against {_number(b)}"
    hint = _hint(x, y)
    return (f"{text}; {hint}" if hint else text), None


def rounded_alike(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether FP32 weights differ by no more than two ways to compute them do: a normalization that two exporters
    multiplied in. What is added up on the way (a bias) may err relative to the greatest of its kind."""
    if x.shape != y.shape or not x.dtype == y.dtype == np.float32:
        return False
    greatest = 0.0 if x.ndim > 1 or x.size < 2 else float(np.abs(x).max())
    with np.errstate(all="ignore"):
        return all(
            bool((np.abs(_wide(p) - _wide(q)) <= FOLD_NOISE * np.maximum(np.abs(_wide(p)), greatest)).all())
            for _, (p, q) in _blocks(x, y)
        )


def _dims(x: np.ndarray) -> str:
    return "x".join(map(str, x.shape)) or "scalar"


def _squeezed(x: np.ndarray) -> tuple[int, ...]:
    return tuple(d for d in x.shape if d != 1)


def _number(value: Any) -> str:
    return f"{float(value):.6g}"


_DTYPE = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}


def _rounded(x: np.ndarray, y: np.ndarray) -> str | None:
    """The format to which rounding ``x`` gives ``y``; what overflows may be infinite or clamped to the largest."""
    if not is_float(x.dtype) or not is_float(y.dtype):
        return None
    for name, dtype in _DTYPE.items():
        largest = float(ml_dtypes.finfo(dtype).max)
        for _, (a, b) in _blocks(x, y):
            with np.errstate(all="ignore"):
                cast = a.astype(dtype).astype(np.float64)
                clamped = np.clip(cast, -largest, largest)
                other = b.astype(np.float64)
                same = (cast == other) | (clamped == other) | ((cast != cast) & (other != other))
                tiny = (np.abs(a) < float(ml_dtypes.finfo(dtype).smallest_subnormal)) & (
                    np.abs(other) <= float(ml_dtypes.finfo(dtype).smallest_subnormal)
                )
            if not (same | tiny).all():
                break
        else:
            return name
    return None


def _hint(x: np.ndarray, y: np.ndarray) -> str:
    """What kind of change explains all of it."""
    if x.size < 2:
        return ""
    if x.ndim == 2 and x.shape[0] == x.shape[1] and np.array_equal(x.T, y):
        return "equal to the transpose"
    if x.size <= 1 << 24:
        for axis in range(x.ndim):
            if 1 < x.shape[axis] <= 1 << 16 and _permuted(x, y, axis):
                return f"the same in another order along axis {axis}"
    if not is_float(x.dtype) or not is_float(y.dtype):
        return ""
    xx = xy = largest = 0.0
    with np.errstate(all="ignore"):
        for _, (p, q) in _blocks(x, y):
            p, q = p.astype(np.float64), q.astype(np.float64)
            xx, xy, largest = xx + float(p @ p), xy + float(p @ q), max(largest, float(np.abs(p).max()))
        factor = xy / xx if 0 < xx < np.inf else 0.0
        if factor and np.isfinite(factor):
            allowed = 4e-7 * abs(factor) * largest
            if all(np.abs(q.astype(np.float64) - factor * p).max() <= allowed for _, (p, q) in _blocks(x, y)):
                return f"all {factor:.6g} times the reference's"
    if x.size > 1024:
        step = max(1, x.size // (1 << 16))
        values, before = np.unique(_wide(y.reshape(-1)[::step])), np.unique(_wide(x.reshape(-1)[::step]))
        if 1 < len(values) <= 256 and len(before) > 4 * len(values):
            return f"only {len(values)} distinct values, {float(np.diff(values).min()):.3g} apart, as if quantized"
    return ""


def _permuted(x: np.ndarray, y: np.ndarray, axis: int) -> bool:
    others = tuple(i for i in range(x.ndim) if i != axis)
    if x.dtype != y.dtype or not np.array_equal(np.sort(x.max(axis=others)), np.sort(y.max(axis=others))):
        return False
    rows, other = (np.moveaxis(np.asarray(v), axis, 0).reshape(v.shape[axis], -1) for v in (x, y))
    return sorted(r.tobytes() for r in rows) == sorted(r.tobytes() for r in other)


def affine_difference(n: int, m: int, a: Affine, b: Affine, half: bool) -> list[Difference]:
    """How a folded product differs from what folding the reference in float64 gives, beyond rounding.

    Args:
        n, m: Positions of the products in the reference and in the candidate.
        a, b: What they compute with all that was folded in.
        half: Whether the candidate stores its weights in 16 bits.
    """
    noise = 2.0**-8 if half else FOLD_NOISE
    found = []
    channel = np.abs(a.weight).reshape(a.weight.shape[0], -1).max(axis=1).reshape(-1, *[1] * (a.weight.ndim - 1))
    parts = (
        ("weights", a.weight, b.weight, noise * np.abs(a.weight) + noise * 2.0**-6 * channel + 2.0**-100),
        ("bias", a.bias, b.bias, noise * np.maximum(a.scale, b.scale) + 2.0**-100),
    )
    for name, x, y, allowed in parts:
        error = np.abs(x - y)
        bad = ~(error <= allowed)
        if bad.any():
            index = tuple(int(i) for i in np.unravel_index(int(np.where(bad, error, -1).argmax()), x.shape))
            text = (
                f"{int(bad.sum()):,} of {x.size:,} {name} differ from the reference's after folding, greatest "
                f"{error[index]:.3g} at [{','.join(map(str, index))}], {x[index]:.6g} against {y[index]:.6g}"
            )
            found.append(Difference(n, m, "weights", name, text))
    return found


def _bodies(a: onnx.NodeProto, b: onnx.NodeProto, n: int, m: int) -> Iterator[Difference]:
    """Attributes and constants inside If, Loop and Scan, where the bodies have the same operators in the same order."""
    theirs_by_name = {i.name: i.g for i in b.attribute if i.type == onnx.AttributeProto.GRAPH}
    mine_by_name = {i.name: i.g for i in a.attribute if i.type == onnx.AttributeProto.GRAPH}
    for body in sorted(mine_by_name.keys() & theirs_by_name.keys()):
        left, right = mine_by_name[body], theirs_by_name[body]
        ops = [x.op_type for x in left.node], [x.op_type for x in right.node]
        less, more = (Counter(ops[i]) - Counter(ops[1 - i]) for i in (0, 1))
        less.pop("Identity", None)
        more.pop("Identity", None)
        if less or more:
            texts = [", ".join(sorted(c.elements())) or "nothing" for c in (less, more)]
            yield Difference(n, m, "op", body, f"in its body: {texts[0]} against {texts[1]}")
        if ops[0] != ops[1]:
            continue  # in another order: which node is which is not known
        for x, y in zip(left.node, right.node, strict=True):
            theirs = {i.name: i for i in y.attribute}
            for i in x.attribute:
                j = theirs.get(i.name)
                if j is None or i.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                    continue
                p, q = onnx.helper.get_attribute_value(i), onnx.helper.get_attribute_value(j)
                if isinstance(p, onnx.TensorProto) and isinstance(q, onnx.TensorProto):
                    told = weight_difference(onnx.numpy_helper.to_array(p), onnx.numpy_helper.to_array(q))
                    if told is not None:
                        yield Difference(n, m, "weights", x.output[0], f"in its body: {told[0]}", told[1])
                elif not same_setting(p, q):
                    detail = f"in its body: {x.op_type} {i.name} {_shown(p)} against {_shown(q)}"
                    yield Difference(n, m, "attribute", i.name, detail)
            yield from _bodies(x, y, n, m)
        mine = {t.name: t for t in left.initializer}
        for t in right.initializer:
            if t.name in mine:
                told = weight_difference(onnx.numpy_helper.to_array(mine[t.name]), onnx.numpy_helper.to_array(t))
                if told is not None:
                    yield Difference(n, m, "weights", t.name, f"in its body: {told[0]}", told[1])


BYTES = 1 << 18
"""Bytes compared at a time: what NumPy makes of them stays in the cache."""


def same_bytes(index: GraphIndex, name: str, other: GraphIndex, other_name: str) -> bool:
    """Whether two initializers have the same type, shape and bytes, told without reading them into memory.

    False where it cannot be told so.
    """
    x, y = index.initializers.get(name), other.initializers.get(other_name)
    if x is None or y is None or x.data_type != y.data_type or x.dims != y.dims:
        return False
    a, b = stored_bytes(x, index.folder), stored_bytes(y, other.folder)
    if a is None or b is None or a.size != b.size:
        return False
    return all(np.array_equal(a[i : i + BYTES], b[i : i + BYTES]) for i in range(0, a.size, BYTES))
