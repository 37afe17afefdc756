"""Why a layer's local error is more than rounding: causes, tried in order, each with its evidence."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.slices import backward, explode, exploded_name, slice_model
from ...graph.errors import LayerdiffError
from ...graph.formats import BF16, FP16, FP32, INT8, NumberFormat
from ...graph.operators import AFFINE_PRODUCTS, AFFINE_STEPS, PRODUCTS, RECURRENT, SILENT
from ...graph.specs import TensorSpec, is_float, specs_of
from ..lockstep.units import LayerPair, inside
from .expected_noise import Expected
from .judgement import Judgement, channel_axis, format_loss, use_of

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.pairing.differences import Difference
    from ..layers.bodies import BodyLocalizer
    from ..layers.walk import Walk

log = logging.getLogger(__name__)

Arrays = Mapping[str, np.ndarray]

SAME_ELSEWHERE = 1e-3
"""Share of the error's power that may be left once the values are sorted, for them to be the same in other places."""
FITTED = 0.02
"""Share of the error's power that may be left once a gain and an offset are taken out, for them to be the cause."""
LOST = 1e-3
"""Gain below which values are lost, not scaled."""
EVIDENCE = 16.0
"""Times a hard bound from which on breaking it speaks for a wrong operator, where the bound is not proven to hold."""
ROUNDED = 0.25
"""Relative error from which on no format of 16 bits explains it by rounding its sums."""
PILED_UP = 1e-3
"""Share of a tensor that stands at its extreme value, for it to be saturated."""


@dataclass(frozen=True)
class Diagnosis:
    """Why a layer is beyond its expected noise.

    Attributes:
        cause: One of the causes of the report.
        evidence: Values, counts, an index: one line.
        node: The node that is to blame, where that is one of the layer's: its position in the reference's graph.
        producer: The tensor to blame instead: the candidate's format cannot hold what this layer is given.
    """

    cause: str
    evidence: str
    node: int | None = None
    producer: str | None = None


class Examiner:
    """Finds causes.

    Args:
        walk: The walk that asks.
        formats: The candidate's arithmetic and the reference's.
        differences: Static differences of matched nodes, by position in the reference's graph.
        matched: Tensors of the reference -> tensors of the candidate, inner ones included.
        refine: Whether a layer may be taken apart into its nodes: not where they run as one kernel.
        bodies: Enters If, Loop and Scan.
    """

    def __init__(
        self,
        walk: Walk,
        formats: tuple[NumberFormat, NumberFormat],
        differences: Mapping[int, Sequence[Difference]],
        matched: Mapping[str, str],
        refine: bool,
        bodies: BodyLocalizer | None = None,
    ) -> None:
        self.walk = walk
        self.format, self.reference_format = formats
        self.differences = differences
        self.matched = matched
        self.refine = refine
        self.bodies = bodies
        self._entry = 0

    # -- the order of causes ------------------------------------------------------------------------------------

    def examine(
        self, unit: LayerPair, verdict: Judgement, values: Arrays, made: Arrays, expected: Expected, entry: int = 0
    ) -> Diagnosis:
        """The cause for one layer on one sample.

        Args:
            unit: The layer.
            verdict: Its judgement.
            values: The reference's tensors: the layer's inputs and outputs.
            made: The candidate's outputs from the same inputs, by the candidate's names.
            expected: What rounding is expected to do to them.
            entry: Which entry of the batch the arrays are the only one of.
        """
        self._entry = entry
        blamed = self._unholdable_input(unit, values)
        if blamed is not None:
            return blamed
        entered = None if self.bodies is None else self.bodies.enter(unit, values, made)
        if entered is not None and entered.culprits:
            return Diagnosis(entered.culprits[0].cause, entered.culprits[0].evidence)
        if entered is not None and entered.cause is not None:
            return Diagnosis(entered.cause, entered.evidence)
        if self.refine and len(unit.reference.nodes) > 1:
            refined = self._refine(unit, verdict, values)
            if refined is not None:
                return refined
        found = self._causes(unit, verdict, values, made, expected)
        if entered is not None and entered.remark:
            return replace(found, evidence=f"{found.evidence}; {entered.remark}")
        return found

    def look_inside(self, unit: LayerPair, values: Arrays, made: Arrays | None) -> None:
        """Enters a layer that is not beyond its noise, where every layer is to be seen: once."""
        every = self.walk.comparison.rules.layers == "all"
        if every and made is not None and self.bodies is not None and unit.number not in self.bodies.found:
            self.bodies.enter(unit, values, made)

    def _causes(
        self, unit: LayerPair, verdict: Judgement, values: Arrays, made: Arrays, expected: Expected
    ) -> Diagnosis:
        name = verdict.tensor or unit.reference.outputs[0]
        y, c = values[name], made[unit.candidate.outputs[unit.reference.outputs.index(name)]]
        static = self._static(unit)
        if y.shape != c.shape:
            shapes = f"the reference gives {_dims(y.shape)}, the candidate {_dims(c.shape)}"
            if static is not None:
                return Diagnosis(static.cause, f"{static.evidence}; {shapes}", static.node)
            return Diagnosis("wrong-op", shapes)
        in_graph = static is not None and static.cause != "wrong-op"
        # another operator, unless it is one whose absence is a matter of scale
        replaced = (
            static is not None and not in_graph and not self._scales(unit.main if static.node is None else static.node)
        )
        quantizer = static is not None and static.cause == "quantization"
        tests = (
            lambda: self._broken(unit, values, y, c, verdict),
            lambda: self._clipped(unit, y, c) if quantizer else None,
            lambda: static if in_graph else None,
            lambda: self._underflow(unit, values, y, c),
            lambda: self._saturation(y, c),
            lambda: self._layout(y, c),
            lambda: None if replaced else self._fit(y, c),
            lambda: None if static else self._impossible(unit, verdict, values, y, c, expected),
            lambda: self._accumulator(unit, verdict),
            lambda: static,
            lambda: self._quantization(unit, verdict) if self.walk.noise.quantized(unit) else None,
            lambda: self._operators(unit, y, c),
            lambda: self._quantization(unit, verdict),
        )
        for test in tests:
            found = test()
            if found is not None:
                return self._arbitrated(unit, found, values, y, c) if found is not static else found
        return self._arbitrated(unit, Diagnosis("unknown", self._plain(verdict, y, c)), values, y, c)

    def _scales(self, position: int) -> bool:
        """Whether a node multiplies by or adds constants, so that its absence is a matter of scale."""
        node = self.index.nodes[position]
        constant = any(self.index.weight(name) is not None for name in node.input if name)
        products = AFFINE_PRODUCTS - {"ConvTranspose"}
        return node.op_type in products or (constant and node.op_type in AFFINE_STEPS)

    # -- the candidate's range ----------------------------------------------------------------------------------

    def _unholdable_input(self, unit: LayerPair, values: Arrays) -> Diagnosis | None:
        """Blames the producer of an input that the candidate's format cannot hold."""
        if self.format.is_integer or self.format.u <= FP32.u:
            return None
        for name in unit.reference.inputs:
            loss = format_loss(values[name], self.format)
            if loss is not None:
                evidence = f"{_quoted(name)}: {_range_evidence(values[name], self.format, loss, self._entry)}"
                return Diagnosis(loss, evidence, producer=name)
        return None

    def _broken(
        self, unit: LayerPair, values: Arrays, y: np.ndarray, c: np.ndarray, verdict: Judgement
    ) -> Diagnosis | None:
        """Values that are finite on one side only: overflow where the reference shows what the format cannot hold."""
        if verdict.reason != "finite":
            return None
        fmt = self._narrow(unit)
        if fmt is not None:
            for name in unit.reference.outputs:
                if format_loss(values[name], fmt) == "overflow":
                    evidence = _range_evidence(values[name], fmt, "overflow", self._entry)
                    return Diagnosis("overflow", evidence, self._overflowing(unit, fmt, values))
            weights = self._weights_loss(unit, fmt, "overflow")
            if weights is not None:
                return weights
            for name, array in self._inner(unit, values).items():
                if format_loss(array, fmt) == "overflow":
                    node = self.index.names[self.index.producer[name]]
                    return Diagnosis(
                        "overflow", f"inside, at {node}: {_range_evidence(array, fmt, 'overflow', self._entry)}"
                    )
        one_side = np.isfinite(y) != np.isfinite(c)
        if not one_side.any():
            one_side = np.isnan(y) != np.isnan(c)
        at, a, b = _first(one_side, y, c, self._entry)
        count = int(np.count_nonzero(one_side))
        return Diagnosis(
            "nan", f"{count:,} of {y.size:,} values are finite on one side only, first at {at}: {a} against {b}"
        )

    def _overflowing(self, unit: LayerPair, fmt: NumberFormat, values: Arrays) -> int | None:
        """The node of a layer that was the first to overflow, where what its main one gives fits the format."""
        inner = self._inner(unit, values)
        first = [n for n in self.index.nodes[unit.main].output if n in inner]
        if not first or any(format_loss(inner[n], fmt) == "overflow" for n in first):
            return None
        whole = {**inner, **{n: values[n] for n in unit.reference.outputs}}
        found = [self.index.producer[n] for n, array in whole.items() if format_loss(array, fmt) == "overflow"]
        return min((p for p in found if p in unit.reference.nodes), default=None)

    def _underflow(self, unit: LayerPair, values: Arrays, y: np.ndarray, c: np.ndarray) -> Diagnosis | None:
        """Values among the format's subnormals or below them: in the output, in the weights, inside."""
        fmt = self._narrow(unit)
        if fmt is None:
            return None
        if format_loss(y, fmt) == "underflow":
            return Diagnosis("underflow", _range_evidence(y, fmt, "underflow"))
        for loss in ("overflow", "underflow"):  # weights that are too large are clamped: nothing becomes infinite
            weights = self._weights_loss(unit, fmt, loss)
            if weights is not None:
                return weights
        lost = (y != 0) & (c == 0) & (np.abs(y.astype(np.float64)) < fmt.smallest_normal)
        if lost.any():
            power = float(np.sum(np.square(y[lost], dtype=np.float64)))
            if power > 0.1 * float(np.sum(np.square((c - y).astype(np.float64)))):
                at, a, _ = _first(lost, y, c, self._entry)
                count = int(np.count_nonzero(lost))
                return Diagnosis("underflow", f"{count:,} of {y.size:,} values became zero, first at {at}: {a}")
        for name, array in self._inner(unit, values).items():
            if format_loss(array, fmt) == "underflow":
                node = self.index.names[self.index.producer[name]]
                return Diagnosis("underflow", f"inside, at {node}: {_range_evidence(array, fmt, 'underflow')}")
        return None

    def _narrow(self, unit: LayerPair) -> NumberFormat | None:
        """The narrow format in play in this layer: the candidate's arithmetic, or a cast in its own graph. None where
        the reference has types as narrow itself: what it holds, its format can hold."""
        found = self._narrowest(unit)
        return found if found is not None and found.u > self.walk.noise.formats(unit)[0].u else None

    def _narrowest(self, unit: LayerPair) -> NumberFormat | None:
        if not self.format.is_integer and self.format.u > FP32.u:
            return self.format
        index = self.walk.candidate.model.index
        for position in unit.candidate.nodes:
            for name in (*index.nodes[position].input, *index.nodes[position].output):
                spec = index.specs.get(name)
                if spec is not None and spec.dtype.name in ("float16", "bfloat16"):
                    return FP16 if spec.dtype.name == "float16" else BF16
        return None

    def _weights_loss(self, unit: LayerPair, fmt: NumberFormat, which: str) -> Diagnosis | None:
        for position in unit.reference.nodes:
            for name in self.index.reads[position]:
                if name not in self.index.initializers:
                    continue
                weight = self.index.weight(name)
                if weight is None or weight.ndim < 1 or weight.size < 16:
                    continue
                loss = format_loss(weight, fmt)
                if loss == which:
                    return Diagnosis(loss, f"weights {_quoted(name)}: {_range_evidence(weight, fmt, loss)}", position)
        return None

    def _inner(self, unit: LayerPair, values: Arrays) -> dict[str, np.ndarray]:
        """The floating tensors inside a layer, as the reference computes them."""
        names = [
            n
            for p in unit.reference.nodes
            for n in self.index.nodes[p].output
            if n
            and n not in unit.reference.outputs
            and (s := self.index.specs.get(n)) is not None
            and is_float(s.dtype)
        ]
        return self._run_reference(unit, names, values) if names else {}

    def _run_reference(self, unit: LayerPair, names: Sequence[str], values: Arrays) -> dict[str, np.ndarray]:
        model = self.walk.reference.model
        part = backward(model.index, [*names, *unit.reference.outputs], set(unit.reference.inputs))
        feed = {n: values[n] for n in part.inputs if n in values}
        if len(feed) < len(part.inputs):
            return {}
        try:
            with self.walk.noise.runner.session(slice_model(model, part, specs_of(feed))) as session:
                made = session.infer(feed)
        except LayerdiffError as error:
            log.debug("cannot look inside: %s", error)
            return {}
        return {n: made[n] for n in names}

    # -- what the two graphs say --------------------------------------------------------------------------------

    def _static(self, unit: LayerPair) -> Diagnosis | None:
        found = [(p, d) for p in unit.reference.nodes for d in self.differences.get(p, ())]
        if self.walk.noise.quantized(unit):  # within half a step, which the expected noise has
            found = [(p, d) for p, d in found if d.expected_by_format != "int8"]
        if not found:
            return None
        # the node of the last difference is the one that nothing else in the layer can excuse
        position, difference = max(found, key=lambda item: _weight_of(item[1]))
        node = self.index.nodes[position]
        cause = {"attribute": "attribute", "weights": "weights", "op": "wrong-op"}[difference.kind]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            cause = "quantization"
        elif difference.of_one_value and node.op_type in ("Mul", "Div"):
            cause = "scale"
        others = "; ".join(d.detail for _, d in found if d is not difference)
        return Diagnosis(cause, difference.detail + (f"; {others}" if others else ""), position)

    def _signatures(self, unit: LayerPair) -> tuple[list[str], list[str]]:
        """The operators that a layer is made of, in both graphs."""
        mine = _signature(self.index, unit.reference.nodes)
        return mine, _signature(self.walk.candidate.model.index, unit.candidate.nodes)

    def _operators(self, unit: LayerPair, y: np.ndarray, c: np.ndarray) -> Diagnosis | None:
        mine, theirs = self._signatures(unit)
        if mine == theirs:
            return None
        lacks = [op for op in mine if op not in theirs]
        extra = [op for op in theirs if op not in mine]
        what = " and ".join(
            text
            for text in (
                f"without {', '.join(lacks)}" if lacks else "",
                f"with {', '.join(extra)} instead" if extra and lacks else f"with {', '.join(extra)}" if extra else "",
            )
            if text
        )
        return Diagnosis(
            "wrong-op", f"the candidate computes it {what or 'with other operators'}; {_greatest(y, c, self._entry)}"
        )

    # -- what the values say ------------------------------------------------------------------------------------

    def _clipped(self, unit: LayerPair, y: np.ndarray, c: np.ndarray) -> Diagnosis | None:
        """A quantizer whose range is too small: what stands at its ends explains most of what is off."""
        if y.dtype.kind in "iu":
            mine = _dequantized(self.index, unit.reference.nodes, y)
            theirs = _dequantized(self.walk.candidate.model.index, unit.candidate.nodes, c)
            if mine is None or theirs is None:
                return None
            y, c = mine, theirs
        return self._saturation(y, c)

    def _saturation(self, y: np.ndarray, c: np.ndarray) -> Diagnosis | None:
        if not c.size:
            return None
        wide, narrow = y.astype(np.float64), c.astype(np.float64)
        for end, beyond in ((narrow.max(), wide > narrow.max()), (narrow.min(), wide < narrow.min())):
            piled = (narrow == end) & beyond
            count = int(np.count_nonzero(piled))
            error = narrow - wide
            if end == 0 or count < 2 or count < PILED_UP * c.size:
                continue
            if float(np.sum(error[piled] ** 2)) > 0.5 * float(np.sum(error**2)):
                at, a, b = _first(piled, y, c, self._entry)
                return Diagnosis(
                    "saturation", f"{count:,} of {c.size:,} values stop at {b}, first at {at}: {a} in the reference"
                )
        return None

    def _layout(self, y: np.ndarray, c: np.ndarray) -> Diagnosis | None:
        if y.size < 2:
            return None
        error = float(np.sum(np.square(c.astype(np.float64) - y)))
        left = float(np.sum(np.square(np.sort(c, axis=None).astype(np.float64) - np.sort(y, axis=None))))
        if not error or left > SAME_ELSEWHERE * error:
            axis = self._permuted(y, c)
            return (
                None
                if axis is None
                else Diagnosis("layout", f"the channels of axis {axis[0]} stand in another order: {axis[1]}")
            )
        at, a, b = _first(c != y, y, c, self._entry)
        return Diagnosis("layout", f"the same values in other places, first at {at}: {a} against {b}")

    def _permuted(self, y: np.ndarray, c: np.ndarray) -> tuple[int, str] | None:
        """Channels in another order: the same norms, each channel nearly equal to another one."""
        axis = channel_axis(y.shape)
        if axis is None:
            return None
        n = y.shape[axis]
        a = np.moveaxis(y, axis, 0).reshape(n, -1).astype(np.float64)
        b = np.moveaxis(c, axis, 0).reshape(n, -1).astype(np.float64)
        if n > 4096 or a.shape[1] < 4:
            return None
        distance = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
        order = distance.argmin(axis=0)
        if len(set(order.tolist())) < n or np.array_equal(order, np.arange(n)):
            return None
        left = float(np.sum((b - a[order]) ** 2))
        if left > SAME_ELSEWHERE * float(np.sum((b - a) ** 2)):
            return None
        moved = np.flatnonzero(order != np.arange(n))
        return axis, f"{len(moved)} of {n} moved, e.g. {order[moved[0]]} to {moved[0]}"

    def _fit(self, y: np.ndarray, c: np.ndarray) -> Diagnosis | None:
        a, b = y.astype(np.float64).reshape(-1), c.astype(np.float64).reshape(-1)
        error = float(np.sum((b - a) ** 2))
        if a.size < 8 or not error:
            return None
        centred = a - a.mean()
        power = float(centred @ centred)
        if power:
            gain = float(centred @ (b - b.mean())) / power
            offset = float(b.mean() - gain * a.mean())
            if abs(gain) > LOST and float(np.sum((b - gain * a - offset) ** 2)) < FITTED * error:
                return Diagnosis(
                    "scale", f"candidate = {gain:.6g} x reference{f' {offset:+.3g}' if abs(offset) > 1e-6 else ''}"
                )
        axis = channel_axis(y.shape)
        if axis is None:
            return None
        n = y.shape[axis]
        a2 = np.moveaxis(y, axis, 0).reshape(n, -1).astype(np.float64)
        b2 = np.moveaxis(c, axis, 0).reshape(n, -1).astype(np.float64)
        if a2.shape[1] < 8:
            return None
        mean_a, mean_b = a2.mean(1, keepdims=True), b2.mean(1, keepdims=True)
        spread = ((a2 - mean_a) ** 2).sum(1)
        gains = np.divide(((a2 - mean_a) * (b2 - mean_b)).sum(1), spread, out=np.ones(n), where=spread > 0)
        offsets = mean_b[:, 0] - gains * mean_a[:, 0]
        if float(np.sum((b2 - gains[:, None] * a2 - offsets[:, None]) ** 2)) > FITTED * error:
            return None
        return Diagnosis(
            "scale",
            f"each channel is scaled and shifted: gains {gains.min():.4g} to {gains.max():.4g}, "
            f"offsets {offsets.min():.3g} to {offsets.max():.3g}",
        )

    def _impossible(
        self, unit: LayerPair, verdict: Judgement, values: Arrays, y: np.ndarray, c: np.ndarray, expected: Expected
    ) -> Diagnosis | None:
        """A hard bound that is broken: no rounding does that, unless sums are narrower than they are said to be."""
        precision = expected.precision
        limit = 1.0 if precision is None or precision.proven else EVIDENCE
        if precision is None or verdict.bound_use is None or verdict.bound_use <= limit:
            return None
        narrow = self._narrower(unit, verdict)
        if narrow is not None:
            looser = expected.bound(verdict.tensor, c, adding=narrow)
            if looser is None or use_of(c.astype(np.float64) - y, looser) <= 1:
                return None
        mine, theirs = self._signatures(unit)
        if mine != theirs:  # the graphs say what is computed instead
            return None
        step = self.walk.noise.result_step(unit, values[verdict.tensor]) * math.sqrt(12)
        bound = expected.bound(verdict.tensor, c, step=step)
        if bound is None:
            return None
        with np.errstate(all="ignore"):
            error = np.abs(c.astype(np.float64) - y.astype(np.float64))
            use = np.where(np.isfinite(error), error / bound, 0.0)
        at = np.unravel_index(int(use.argmax()), use.shape)
        caution = "" if precision.proven else " (Winograd's convolution and tensor cores need not keep within it)"
        return Diagnosis(
            "wrong-op",
            f"no rounding does this: {y[at]:.6g} in the reference, {c[at]:.6g} in the candidate at "
            f"{_place(at, self._entry)}, a difference of {error[at]:.3g} where rounding explains {bound[at]:.3g} at "
            f"most{caution}; {_count(int(np.count_nonzero(use > 1)), use.size)} are beyond that",
        )

    def _accumulator(self, unit: LayerPair, verdict: Judgement) -> Diagnosis | None:
        fmt = self._narrower(unit, verdict)
        if fmt is None or verdict.rms_z is None:
            return None
        return Diagnosis(
            "narrow-accumulator",
            f"error as of sums with unit roundoff {verdict.rms_z * FP32.u * math.sqrt(2):.1e} ({fmt}: {fmt.u:.1e}), "
            f"{verdict.rms_z:,.0f} times what FP32 sums explain",
        )

    def _narrower(self, unit: LayerPair, verdict: Judgement) -> NumberFormat | None:
        """The format in which an FP32 product seems to add; None if its error is not of that size."""
        index = self.index
        if self.format != FP32 or verdict.rms_z is None or not verdict.relative < ROUNDED:
            return None
        if self.walk.noise.of(unit, weights=False).coarse or not any(
            index.nodes[p].op_type in PRODUCTS | RECURRENT for p in unit.reference.nodes
        ):
            return None
        implied = verdict.rms_z * FP32.u * math.sqrt(2)
        if self._truncates(unit):
            return None
        cast = self._narrow(unit)
        return next((f for f in ((FP16, BF16) if cast is None else (cast,)) if f.u / 16 < implied < 4 * f.u), None)

    def _truncates(self, unit: LayerPair) -> bool:
        """Whether the candidate makes integers of floats there, and the reference does not."""

        def casts(index: GraphIndex, nodes: Sequence[int]) -> bool:
            kinds = (s.dtype.kind for p in nodes if index.nodes[p].op_type == "Cast" and (s := _made(index, p)))
            return any(kind in "iu" for kind in kinds)

        return casts(self.walk.candidate.model.index, unit.candidate.nodes) and not casts(
            self.index, unit.reference.nodes
        )

    def _quantization(self, unit: LayerPair, verdict: Judgement) -> Diagnosis | None:
        if self.walk.noise.quantized(unit):
            fmt = INT8
        elif self.format == INT8 or (not self.format.is_integer and self.format.u >= 2.0**-4):
            fmt = self.format
        else:
            return None
        z = "" if verdict.rms_z is None else f", {verdict.rms_z:.1f} times what its step explains"
        return Diagnosis("quantization", f"relative error {verdict.relative:.2g} in {fmt}{z}")

    def _plain(self, verdict: Judgement, y: np.ndarray, c: np.ndarray) -> str:
        if verdict.reason == "gain":
            return f"all channels are larger by {verdict.gain:.3%}, {verdict.gain_sigma:.0f} standard errors"
        z = "" if verdict.rms_z is None else f"{verdict.rms_z:,.3g} times the expected noise; "
        return z + _greatest(y, c, self._entry)

    # -- inside a layer -----------------------------------------------------------------------------------------

    def _refine(self, unit: LayerPair, verdict: Judgement, values: Arrays) -> Diagnosis | None:
        """Takes a layer apart into its nodes, runs each on the reference's values, and examines the guiltiest."""
        walk = self.walk
        parts = inside(self.index, walk.candidate.model.index, unit, self.matched, walk.layout)
        if len(parts) < 2:
            return None
        inner = self._run_reference(unit, [n for p in parts for n in p.reference.outputs if n not in values], values)
        known_values = {**inner, **values}
        parts = [p for p in parts if all(n in known_values for n in (*p.reference.inputs, *p.reference.outputs))]
        back = {self.matched.get(n, n): n for n in known_values} | {v: k for k, v in walk.layout.tensors.items()}
        feed = {n: known_values.get(back.get(n, n)) for p in parts for n in p.candidate.inputs}
        if not parts or any(v is None for v in feed.values()):
            return None
        arrays = {n: v for n, v in feed.items() if v is not None}
        try:
            model = explode(walk.candidate.model, [(p.number, p.candidate) for p in parts], specs_of(arrays))
            with walk.candidate.runner.session(model) as session:
                flat = session.infer(arrays)
        except LayerdiffError as error:
            log.debug("cannot take %s apart: %s", unit.reference.outputs, error)
            return None
        expected = walk.noise.probe(parts, known_values)
        guilty: list[tuple[LayerPair, Judgement, dict[str, np.ndarray]]] = []
        for p in parts:
            made = {n: flat[exploded_name(n, p.number)] for n in p.candidate.outputs}
            name, other = p.reference.outputs[0], p.candidate.outputs[0]
            mine = expected.get(p.number, Expected())
            result = walk.noise.judge(p, name, other, known_values, made, mine, verdict.sample)
            if result.beyond:
                guilty.append((p, result, made))
        if not guilty:
            return None
        # what differs in the graphs is the best evidence; then the greatest excess, the earlier node between equals
        chosen, result, made = max(guilty, key=lambda g: (self._static(g[0]) is not None, g[1].excess))
        found = self._causes(chosen, result, known_values, made, expected.get(chosen.number, Expected()))
        return Diagnosis(found.cause, found.evidence, found.node if found.node is not None else chosen.main)

    def _arbitrated(self, unit: LayerPair, found: Diagnosis, values: Arrays, y: np.ndarray, c: np.ndarray) -> Diagnosis:
        """Between two FP32 runtimes of the same graph: float64 says which of them is off."""
        walk = self.walk
        same = walk.candidate.model.same_network(walk.reference.model)
        if not same or self.format.u > FP32.u or self.reference_format.u > FP32.u or self.format.is_integer:
            return found
        if y.shape != c.shape or not is_float(y.dtype) or y.size > 1 << 24:
            return found
        from ...runners.reference_evaluator.runner import ReferenceEvaluatorRunner

        feed = {n: values[n] for n in unit.reference.inputs}
        name = unit.reference.outputs[0]
        try:
            model = slice_model(walk.reference.model, unit.reference, specs_of(feed))
            with ReferenceEvaluatorRunner(dtype="float64").session(model) as session:
                truth = session.infer(feed)[name].astype(np.float64)
        except Exception as error:  # the arbiter is an extra: without it the finding stands as it is
            log.debug("no float64 value for %s: %s", name, error)
            return found
        if truth.shape != y.shape:
            return found
        ours, theirs = (math.sqrt(float(np.sum((x.astype(np.float64) - truth) ** 2))) for x in (y, c))
        norm = math.sqrt(float(np.sum(truth**2))) or 1.0
        off = "the candidate" if theirs > ours else "the reference"
        text = (
            f"{found.evidence}; float64 says {off} is off "
            f"(relative error {ours / norm:.1e} in the reference, {theirs / norm:.1e} in the candidate)"
        )
        return Diagnosis(found.cause, text, found.node, found.producer)

    @property
    def index(self) -> GraphIndex:
        """The reference's graph."""
        return self.walk.reference.model.index


def _dequantized(index: GraphIndex, nodes: Sequence[int], values: np.ndarray) -> np.ndarray | None:
    """What the integers that the last QuantizeLinear of some nodes makes stand for; None where its scale is not one."""
    position = next((p for p in reversed(nodes) if index.nodes[p].op_type == "QuantizeLinear"), None)
    if position is None:
        return None
    inputs = index.nodes[position].input
    scale = index.constant(inputs[1])
    zero = index.constant(inputs[2]) if len(inputs) > 2 and inputs[2] else np.zeros(1)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return None
    return (values.astype(np.float64) - float(zero.reshape(-1)[0])) * float(scale.reshape(-1)[0])


def _made(index: GraphIndex, position: int) -> TensorSpec | None:
    return index.specs.get(index.nodes[position].output[0])


def _weight_of(difference: Difference) -> int:
    return {"op": 2, "attribute": 1, "weights": 1}.get(difference.kind, 0)


def _signature(index: GraphIndex, nodes: Sequence[int]) -> list[str]:
    return sorted({index.nodes[p].op_type for p in nodes} - (SILENT - {"Flatten", "Transpose"}))


def _range_evidence(values: np.ndarray, fmt: NumberFormat, loss: str, entry: int = 0) -> str:
    flat = np.abs(values.astype(np.float64))
    flat = np.where(np.isfinite(flat), flat, 0.0)
    if loss == "overflow":
        count = int(np.count_nonzero(flat > fmt.max))
        at = np.unravel_index(int(flat.argmax()), flat.shape)
        return (
            f"{count:,} of {flat.size:,} values are above {fmt}'s greatest, {fmt.max:g}: "
            f"{flat.max():.6g} at {_place(at, entry)}"
        )
    small = (flat > 0) & (flat < fmt.smallest_normal)
    zero = (flat > 0) & (flat < fmt.smallest_subnormal / 2)
    return (
        f"{int(np.count_nonzero(small)):,} of {flat.size:,} values are below {fmt}'s smallest normal, "
        f"{fmt.smallest_normal:.2g}, {int(np.count_nonzero(zero)):,} of them become zero; "
        f"the greatest is {flat.max():.2g}"
    )


def _first(mask: np.ndarray, y: np.ndarray, c: np.ndarray, entry: int) -> tuple[str, str, str]:
    flat = int(np.argmax(mask))
    at = np.unravel_index(flat, mask.shape)
    return _place(at, entry), f"{y[at]:.6g}", f"{c[at]:.6g}"


def _place(at: Sequence[int | np.integer], entry: int) -> str:
    """An index as text; where one entry of a batch is looked at, that of the whole tensor."""
    return f"[{', '.join(str(int(i) + (entry if not axis else 0)) for axis, i in enumerate(at))}]"


def _greatest(y: np.ndarray, c: np.ndarray, entry: int) -> str:
    if y.shape != c.shape or not y.size:
        return f"{_dims(y.shape)} against {_dims(c.shape)}"
    with np.errstate(all="ignore"):
        difference = np.abs(c.astype(np.float64) - y.astype(np.float64))
    difference = np.where(np.isnan(difference), np.inf, difference)
    at = np.unravel_index(int(difference.argmax()), difference.shape)
    values = f"{y[at]:.6g} in the reference, {c[at]:.6g} in the candidate"
    return f"greatest difference {difference[at]:.3g} at {_place(at, entry)}: {values}"


def _dims(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _count(some: int, of: int) -> str:
    return f"{some:,} of {of:,} values"


def _quoted(name: str) -> str:
    return f"'{name}'"
