"""Weights of 4 and 8 bits as ONNX Runtime packs them, unpacked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from ..nodes import attribute_int


def unpacked_blocks(
    node: onnx.NodeProto, stored: Sequence[np.ndarray | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The weights of a MatMulNBits: integers (uint8, N x K), scales and zero points (N x blocks of K).

    Args:
        node: The node.
        stored: Its inputs from the second on: packed weights, scales, zero points and order of rows; None where an
            input is missing or no constant.

    Returns:
        None where the bits are neither 4 nor 8, the rows have an order of their own, or weights are no constants.
    """
    packed, scales, zeros, order = stored
    bits, block = attribute_int(node, "bits", 4), attribute_int(node, "block_size", 32)
    rows, columns = attribute_int(node, "N", 0), attribute_int(node, "K", 0)
    if packed is None or scales is None or order is not None or bits not in (4, 8) or not rows or not columns:
        return None
    blocks = -(-columns // block)
    integers = _halves(packed.reshape(rows, -1)) if bits == 4 else packed.reshape(rows, -1)
    scales = scales.reshape(rows, blocks).astype(np.float32)
    if zeros is None:
        zeros = np.full((rows, blocks), 1 << (bits - 1), np.uint8)
    elif zeros.dtype == np.uint8:
        zeros = _halves(zeros.reshape(rows, -1)) if bits == 4 else zeros.reshape(rows, -1)
    zeros = zeros.reshape(rows, -1)[:, :blocks]
    return integers[:, :columns], scales, zeros


def _halves(packed: np.ndarray) -> np.ndarray:
    """Bytes as two integers of 4 bits each, the lower half first."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(packed.shape[0], -1)
