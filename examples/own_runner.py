"""A runtime of one's own beside ONNX Runtime: onnx's evaluator, with a fault that the report finds.

Run it from anywhere: python examples/own_runner.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from layerdiff import Comparator, OnnxrtRunner, Runner, option

DIGITS = Path(__file__).parent / "digits"


@dataclass(frozen=True)
class Mine(Runner):
    """The evaluator of onnx, which may compute a wrong mean."""

    wrong: bool = option(False, "", "average pooling counts one pixel too few")

    def open(self, model):
        """A function from the inputs of a model, or of a piece of one, to its outputs."""
        proto = model.copied()
        if self.wrong:
            for node in proto.graph.node:
                if node.op_type == "GlobalAveragePool":
                    node.op_type, node.name = "GlobalMaxPool", f"{node.name}/wrong"
        from onnx.reference import ReferenceEvaluator

        network, names = ReferenceEvaluator(proto), [spec.name for spec in model.outputs]
        return lambda feed: dict(zip(names, network.run(names, dict(feed)), strict=True))


def compared(wrong: bool):
    """The digits on ONNX Runtime and on this runner, layer by layer."""
    images = np.load(DIGITS / "heldout.npz")["image"][:16]
    runners = [OnnxrtRunner(), Mine(wrong=wrong)]
    model = onnx.load(DIGITS / "digits.onnx")
    return Comparator(model, runners, data_loader=[{"image": images}], layers="guilty").compare()


if __name__ == "__main__":
    print(compared(wrong=False))
    print()
    print(compared(wrong=True))
