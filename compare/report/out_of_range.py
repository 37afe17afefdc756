"""What a runtime that carries FP32 past tensors typed FP16 computes otherwise than the types say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OutOfRange:
    """FP16 by the graph's types, and other outputs with the range of FP16 than with that of FP32.

    Attributes:
        runner: Name of the runner that carried FP32 past the tensors that the graph types FP16.
        sample: Number of the sample.
        node: Name of the node at which the range matters first; empty where it is inside a body.
        overflow: Whether a value is above the greatest of FP16; else values became zero.
        value: That value: the greatest magnitude of those that are lost.
        heals: Names of the nodes that make or read what FP16 cannot hold, first that one: with the range of FP32
            between them, no output depends on it any more, as was measured on all samples. Empty where that is not so.
        unknown: Why it could not be found out whether the range matters; empty where it was.
    """

    runner: str
    sample: int = 0
    node: str = ""
    overflow: bool = True
    value: float = 0.0
    heals: tuple[str, ...] = ()
    unknown: str = ""
