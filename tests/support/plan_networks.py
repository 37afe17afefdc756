"""Networks that FP16 breaks in a place that is known, for the tests of plans."""

from __future__ import annotations

import numpy as np
import onnx

from support.models import parsed

SIZE = 16


def weights(seed: int, gain: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(0, gain / np.sqrt(SIZE), (SIZE, SIZE))).astype(np.float32)


def overflowing(blocks: int = 4) -> onnx.ModelProto:
    """Products and Relus; between the second and the third, values are beyond what FP16 holds."""
    lines, values = [], {}
    for i in range(blocks):
        lines.append(f"[fc{i}] m{i} = MatMul({'x' if not i else f't{i - 1}'}, w{i}) [act{i}] t{i} = Relu(m{i})")
        values[f"w{i}"] = weights(i, {1: 2e5, 2: 1e-5}.get(i, 2.0))
    lines.append(f"[last] y = MatMul(t{blocks - 1}, v)")
    values["v"] = weights(99)
    return parsed(f"g (float[8,{SIZE}] x) => (float[8,{SIZE}] y) {{ {' '.join(lines)} }}", **values)


def cancelling() -> onnx.ModelProto:
    """Products with a sum in the middle that FP16 rounds to whole numbers, and a difference that leaves only those."""
    lines = [
        "[fc0] m0 = MatMul(x, w0) [act0] t0 = Relu(m0)",
        "[fc1] m1 = MatMul(t0, w1) [plus] p = Add(m1, large) [minus] d = Sub(p, large)",
        *(f"[fc{i}] m{i} = MatMul({'d' if i == 2 else f't{i - 1}'}, w{i}) [act{i}] t{i} = Relu(m{i})" for i in (2, 3)),
        "[last] y = MatMul(t3, v)",
    ]
    values = {**{f"w{i}": weights(i, 2.0) for i in range(4)}, "v": weights(99), "large": np.float32(3000)}
    return parsed(f"g (float[8,{SIZE}] x) => (float[8,{SIZE}] y) {{ {' '.join(lines)} }}", **values)


def samples(count: int = 2, seed: int = 5) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.uniform(-1, 1, (8, SIZE)).astype(np.float32)} for _ in range(count)]
