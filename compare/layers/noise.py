"""The expected noise of layers: which roundings are in play in each, and what they do to its output."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...graph.errors import LayerdiffError
from ...graph.formats import BY_DTYPE, FP32, FP64
from ...graph.index import GraphIndex
from ...graph.probe import PRODUCTS, Roundings, known, probe, roundings, terms
from ...graph.slices import exploded_name
from ...graph.specs import TensorSpec, is_float
from .judge import SLICE, plain_noise
from .units import Unit

if TYPE_CHECKING:
    from ...runners.base import Runner
    from ..parties import Party

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

EXCERPT = 1 << 18
"""Elements of a tensor from which on one entry of the batch is judged instead of all."""
DRAWS = 12
"""Probes of a layer of which a few elements seem to be off. With so many degrees of freedom a healthy channel is beyond
`SLICE_LIMIT` once in a million."""
HEAVY = 16.0
"""RMS over median from which on a tensor's norm speaks for a few large elements only (an attention mask of -1e4)."""

# fmt: off
# Operators that treat the entries of a batch (axis 0) each on its own, whatever their attributes.
_BATCHWISE = frozenset({
    "Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "Relu", "LeakyRelu", "PRelu", "Clip",
    "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Selu", "Softplus", "Add", "Sub", "Mul", "Div", "MaxPool",
    "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Erf", "Exp", "Sqrt", "Identity", "Gelu",
})
# fmt: on


class Noise:
    """What rounding is expected to do.

    Args:
        reference, candidate: Who is compared.
        rounding: The roundings of a layer of which nothing special is known.
    """

    def __init__(self, reference: Party, candidate: Party, rounding: Roundings) -> None:
        self.reference = reference
        self.candidate = candidate
        self.rounding = rounding
        self.index: GraphIndex = reference.model.index
        self._sums: dict[int, float] = {}
        self._runner: Runner | None = None

    @property
    def runner(self) -> Runner:
        """What runs pieces of the reference's graph: its own runner where that can, else ONNX Runtime."""
        if self._runner is None:
            self._runner = self.reference.runner
            if not self._runner.opens_pieces:
                from ...runners.onnxrt import OnnxrtRunner

                self._runner = OnnxrtRunner()
        return self._runner

    def known(self, unit: Unit) -> bool:
        """Whether the expected noise of a layer can be told."""
        return known(self.index, unit.reference)

    def of(self, unit: Unit) -> Roundings:
        """The roundings in a layer: more where the candidate's graph itself holds narrow types at its borders."""
        if self.rounding.operand or self.rounding.steps:
            return self.rounding
        specs = self.candidate.model.index.specs
        for name in (*unit.candidate.inputs, *unit.candidate.outputs):
            spec = specs.get(name)
            fmt = BY_DTYPE.get(spec.dtype.name) if spec is not None else None
            if fmt is not None and fmt.u > FP32.u:
                return roundings(self.reference.runner.arithmetic, fmt)
        mine = self.index.specs
        if all((spec := mine.get(n)) is not None and spec.dtype == np.float64 for n in unit.reference.outputs):
            return _in_fp64(self.rounding)
        return self.rounding

    def plain(self, unit: Unit, values: Mapping[str, np.ndarray]) -> float:
        """The relative L2 error that needs no closer look; 0 where the norm speaks for a few large elements only."""
        if any(_heavy(values[n]) for n in unit.reference.outputs if is_float(values[n].dtype)):
            return 0.0
        return plain_noise(self.of(unit), self._terms(unit, values))

    def _terms(self, unit: Unit, values: Mapping[str, np.ndarray]) -> float:
        def shape(name: str) -> tuple[int, ...] | None:
            if name in values:
                return values[name].shape
            weight = self.index.initializers.get(name)
            return tuple(weight.dims) if weight is not None else None

        if unit.number not in self._sums:
            self._sums[unit.number] = max(terms(self.index.nodes[p], shape) for p in unit.reference.nodes)
        return self._sums[unit.number]

    def result_step(self, unit: Unit, values: np.ndarray) -> float:
        """Standard deviation of roundings of a layer's result that no relative term covers."""
        step = 0.0
        if self.rounding.steps and is_float(values.dtype) and values.size:
            step = step_deviation(values)
        return math.hypot(step, self._bias_step(unit))

    def _bias_step(self, unit: Unit) -> float:
        """Between quantized operands a runtime may round the bias to their product's step, and compute in integers."""
        largest = 0.0
        for position in unit.reference.nodes:
            node = self.index.nodes[position]
            if node.op_type in PRODUCTS and len(node.input) > 1:
                scales = [self._scale(name) for name in node.input[:2]]
                if all(scales):
                    largest = max(largest, scales[0] * scales[1])
        return largest / math.sqrt(12)

    def _scale(self, name: str) -> float:
        """The scale of a tensor that a DequantizeLinear makes; 0 for others."""
        position = self.index.producer.get(name)
        if position is None or self.index.nodes[position].op_type != "DequantizeLinear":
            return 0.0
        scale = self.index.constant(self.index.nodes[position].input[1])
        return 0.0 if scale is None else float(np.abs(scale).max(initial=0.0))

    # -- measuring ----------------------------------------------------------------------------------------------

    def entry(self, unit: Unit, values: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> int | None:
        """The entry of the batch that is worth judging in place of the whole tensor: where the error is greatest.

        None where the tensor is small, or the layer may mix the entries of a batch.
        """
        name, other = unit.reference.outputs[0], unit.candidate.outputs[0]
        y, c = values[name], made[other]
        if len(unit.reference.outputs) > 1 or y.ndim < 2 or y.size < EXCERPT or y.shape != c.shape:
            return None
        batch = y.shape[0]
        if batch < 2 or any(self.index.nodes[p].op_type not in _BATCHWISE for p in unit.reference.nodes):
            return None
        for tensor in (values[n] for n in unit.reference.inputs):
            if tensor.ndim < 2 or tensor.shape[0] != batch:
                return None
        if not is_float(y.dtype) or y.size // batch < SLICE:
            return None
        with np.errstate(all="ignore"):
            error = np.array([float(np.abs(a - b).max()) for a, b in zip(c, y, strict=True)])
        return int(np.nan_to_num(error, nan=np.inf).argmax())

    def settled(self, unit: Unit, values: Mapping[str, np.ndarray]) -> Arrays:
        """The noise of one layer from `DRAWS` probes: the root of their mean square, element by element.

        Rounding a weight moves a whole channel one way. For the RMS over a tensor one draw of that is enough; for a
        single channel among thousands it is not, since some draws move it hardly at all.
        """
        sums: dict[str, np.ndarray] = {}
        for draw in range(DRAWS):
            for name, noise in self.probe([unit], values, seed=2 + draw).get(unit.number, {}).items():
                squared = np.square(noise, dtype=np.float64)
                sums[name] = sums[name] + squared if name in sums else squared
        return {name: np.sqrt(total / DRAWS) for name, total in sums.items()}

    def probe(self, units: Sequence[Unit], values: Mapping[str, np.ndarray], seed: int = 1) -> dict[int, Arrays]:
        """The noise of layers, as enlarged by the gain of their roundings: by layer and output tensor."""
        kinds: list[tuple[Roundings, list[Unit]]] = []
        for unit in units:
            rounding = self.of(unit)
            for same, members in kinds:
                if same == rounding:
                    members.append(unit)
                    break
            else:
                kinds.append((rounding, [unit]))
        result: dict[int, Arrays] = {}
        for rounding, members in kinds:
            result.update(self._probe(members, values, self._with_steps(rounding, members, values), seed))
        return result

    def _probe(
        self, units: list[Unit], values: Mapping[str, np.ndarray], rounding: Roundings, seed: int
    ) -> dict[int, Arrays]:
        parts = [(u.number, u.reference) for u in units]
        feed = {n: values[n] for u in units for n in u.reference.inputs}
        try:
            model = probe(self.reference.model, parts, specs_of(feed, fixed=True), rounding, seed=seed)
            with self.runner.open(model) as session:
                flat = session.infer(feed)
        except LayerdiffError as error:
            if len(units) > 1:
                result: dict[int, Arrays] = {}
                for unit in units:
                    result.update(self._probe([unit], values, rounding, seed))
                return result
            log.debug("no expected noise for %s: %s", units[0].reference.outputs, error)
            return {}
        with np.errstate(invalid="ignore"):  # infinity - infinity, of masks
            return {
                u.number: {
                    n: np.subtract(flat[exploded_name(n, u.number)], values[n])
                    for n in u.reference.outputs
                    if is_float(values[n].dtype) and flat[exploded_name(n, u.number)].shape == values[n].shape
                }
                for u in units
            }

    def _with_steps(self, rounding: Roundings, units: list[Unit], values: Mapping[str, np.ndarray]) -> Roundings:
        if not rounding.steps:
            return rounding
        steps = dict(rounding.steps)
        for unit in units:
            for name in unit.reference.inputs:
                if is_float(values[name].dtype) and values[name].size:
                    steps[name] = step_deviation(values[name])
            for name in (n for p in unit.reference.nodes for n in self.index.reads[p] if n in self.index.initializers):
                weight = self.index.weight(name)
                if weight is not None and is_float(weight.dtype) and weight.ndim > 1:
                    steps[name] = step_deviation(weight)
        return replace(rounding, steps=steps)


def _in_fp64(rounding: Roundings) -> Roundings:
    """The roundings of two FP32 runtimes where the graph itself computes in FP64."""
    finer = FP64.u / FP32.u
    return replace(
        rounding,
        accumulator=rounding.accumulator * finer,
        inner=rounding.inner * finer,
        result=rounding.result * finer,
        floor=0.0,
    )


def _heavy(values: np.ndarray) -> bool:
    """Whether a tensor's norm comes from few of its elements, judged by 4,096 of them."""
    flat = np.abs(values.reshape(-1)[:: max(1, values.size // 4096)].astype(np.float64))
    flat = flat[np.isfinite(flat) & (flat > 0)]
    return flat.size > 0 and math.sqrt(float(flat @ flat) / flat.size) > HEAVY * float(np.median(flat))


def specs_of(feed: Mapping[str, np.ndarray], fixed: bool = False) -> dict[str, TensorSpec]:
    """Types of arrays; their shapes are left open unless ``fixed``."""
    return {n: TensorSpec(n, a.dtype, a.shape if fixed else (None,) * a.ndim) for n, a in feed.items()}


def step_deviation(values: np.ndarray) -> float:
    """Standard deviation of rounding to 255 symmetric steps over the range of some values: step / sqrt(12)."""
    finite = values[np.isfinite(values)] if values.size else values
    return float(np.abs(finite).max(initial=0.0)) / 127 / math.sqrt(12)
