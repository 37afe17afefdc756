"""Ranges of activations, measured once on the whole model, by ONNX Runtime's calibrators on the CPU."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ...graph.errors import MissingPackage, UsageError
from ...graph.printable import counted

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..contract.session import Calibration
    from ..contract.workload import Feed

METHODS = {"max": "MinMaxCalibrater", "percentile": "PercentileCalibrater", "entropy": "EntropyCalibrater"}
"""The classes of `onnxruntime.quantization.calibrate`."""


def find_ranges(
    model: Model,
    method: str,
    known: Calibration | None,
    samples: Callable[[], Iterable[Feed]] | None,
    progress: Callable[[str], None],
) -> dict[str, float]:
    """Largest magnitude of every tensor that Q/DQ nodes are written for.

    Args:
        model: The whole model, or a piece of it.
        method: A key of `METHODS`.
        known: What the whole model was calibrated to, where this is a piece of it. Tensors that only pieces have (split
            constants) stay without a range.
        samples: The samples to measure on; only the statistics of one at a time are kept.
        progress: Told what is being done.

    Raises:
        UsageError: There are no samples, and nothing is known.
        MissingPackage: ONNX Runtime is not installed.
    """
    from ...graph.rounding.qdq import activations

    if known is not None and known.method == method_name(method):
        return dict(known.ranges)
    if samples is None:
        raise UsageError("INT8 and FP8 need samples to measure the ranges of tensors on.")
    names = activations(model.index)
    if not names:
        return {}
    progress(f"measuring ranges of {counted(len(names), 'tensor')} ({method})")
    return measure(model, method, names, samples())


def method_name(method: str) -> str:
    """What `Calibration.method` calls ranges of Q/DQ nodes that were found by a key of `METHODS`."""
    return f"qdq-{method}"


def measure(model: Model, method: str, names: list[str], samples: Iterable[Feed]) -> dict[str, float]:
    """Runs ``model`` on ``samples`` and returns the largest magnitude of each tensor, as ``method`` sees it.

    Raises:
        MissingPackage: ONNX Runtime is not installed.
        UsageError: The method cannot count values as large as those of a tensor.
    """
    try:
        from onnxruntime.quantization import calibrate
    except ImportError:
        raise MissingPackage("ONNX Runtime, which measures the ranges for Q/DQ nodes,", "cpu") from None
    import numpy as np
    import onnx

    class Calibrater(getattr(calibrate, METHODS[method])):  # type: ignore[misc]
        """Looks at these tensors alone: a mask of -3.4e38, say, which nobody quantizes, has no histogram."""

        def select_tensors_to_calibrate(self, model: onnx.ModelProto) -> tuple[set[str], Any]:
            found, infos = super().select_tensors_to_calibrate(model)
            return found & set(names), infos

    class One(calibrate.CalibrationDataReader):  # type: ignore[misc]
        """One sample at a time, so that no more than one sample's tensors are ever kept."""

        def __init__(self, feed: Feed) -> None:
            self._left: Iterator[Any] = iter([dict(feed)])

        def get_next(self) -> Any:
            return next(self._left, None)

    with tempfile.TemporaryDirectory(prefix="layerdiff-") as folder:
        path = os.path.join(folder, "model.onnx")
        inside = model.copied()
        large = inside.ByteSize() > 1 << 30
        onnx.save(inside, path, save_as_external_data=large)
        del inside
        with contextlib.redirect_stdout(io.StringIO()):  # the calibrators print
            augmented = os.path.join(folder, "augmented.onnx")
            calibrator = Calibrater(path, None, augmented, use_external_data_format=large, symmetric=True)
            calibrator.augment_graph()
            calibrator.create_inference_session()
            for feed in samples:
                try:
                    with np.errstate(over="ignore", invalid="ignore"):  # told below
                        calibrator.collect_data(One(feed))
                except ValueError as error:  # of NumPy's histogram
                    raise UsageError(
                        f"{method_name(method)} cannot count values as large as those of a tensor that is to be "
                        f"quantized ({error}); {method_name('max')} takes the greatest as the range."
                    ) from error
            data = calibrator.compute_data()
        result = {}
        for name in names:
            entry = data.data.get(name)
            if entry is not None:
                low, high = entry.range_value
                result[name] = float(max(np.max(np.abs(low)), np.max(np.abs(high))))
        return result
