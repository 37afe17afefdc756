"""All cases: every kind at several places of every network, those left out that change nothing."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from layerdiff.graph.cutting.fusion import fused_groups
from layerdiff.graph.index import GraphIndex

from benchmarks.kit.networks import NETWORKS, network
from benchmarks.kit.runtime import observe

from . import rewrites
from .case import REACHED, REAL, SAMPLES, SEED, Case, distance, values
from .edit import Edit
from .plants import KINDS, Kind, Plant


def kernel_of(proto: onnx.ModelProto, names: set[str]) -> frozenset[str]:
    """The nodes that run as one kernel with one of ``names``."""
    index = GraphIndex(proto)
    result = set(names)
    for group in fused_groups(index):
        members = {index.nodes[i].name for i in group.nodes}
        if members & names:
            result |= members
    return frozenset(result)


def plant(name: str, kind: Kind, node: str, number: int) -> Case | None:
    """Plants a fault at a node and measures it; None where it cannot be planted or changes nothing.

    Raises:
        Unreal: It can be planted and changes nothing that can be told from noise.
    """
    net = network(name)
    rng = np.random.default_rng([number, *hashlib.sha256(f"{name} {kind.name} {node}".encode()).digest()[:8]])
    edit = Edit(net.proto)
    fault = kind.plant(edit, edit.node(node), rng, values(name))
    if fault is None:
        return None
    where = fault.node or node
    common = {"id": f"{name}/{kind.name}/{number}", "network": name, "kind": kind.name, "node": where}
    common |= {"causes": fault.causes, "what": fault.what}
    if kind.emulated:
        return _emulated(net.proto, edit.proto, kind, fault, where, common)
    onnx.checker.check_model(edit.proto, full_check=True)
    output = next(n.output[0] for n in net.proto.graph.node if n.name == node)
    tensors = (output, fault.candidate_tensor or output)
    outputs = [o.name for o in net.proto.graph.output]
    feeds = net.samples(SEED, SAMPLES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = observe(net.proto, feeds, [tensors[0], *outputs])
        candidate = observe(edit.proto, feeds, [tensors[1], *outputs])
        local = max(distance(r[tensors[0]], c[tensors[1]]) for r, c in zip(reference, candidate, strict=True))
        final = max(distance(r[o], c[o]) for r, c in zip(reference, candidate, strict=True) for o in outputs)
    if local < REAL:
        raise Unreal(f"{node}: local error {local:.1e}")
    if final < REACHED:
        raise Unreal(f"{node}: error at the outputs {final:.1e}")
    nodes = kernel_of(net.proto, {where, *fault.nodes})
    return Case(
        **common, reference=net.proto, candidate=edit.proto, nodes=nodes, tensors=tensors, local=local, final=final
    )


class Unreal(Exception):
    """A planted fault that changes nothing."""


def _emulated(
    original: onnx.ModelProto, changed: onnx.ModelProto, kind: Kind, fault: Plant, where: str, common: dict
) -> Case | None:
    onnx.checker.check_model(changed, full_check=True)
    feeds = network(common["network"]).samples(SEED, SAMPLES)
    tensor = next(n.output[0] for n in changed.graph.node if n.name == where)
    outputs = [o.name for o in original.graph.output]
    seen = observe(changed, feeds, [tensor, *outputs])
    value = np.abs(np.concatenate([s[tensor].ravel() for s in seen]).astype(np.float64))
    # FP32 must be unharmed: that is what makes it a fault of the narrow format.
    unharmed = max(
        distance(a[o], b[o]) for a, b in zip(observe(original, feeds, outputs), seen, strict=True) for o in outputs
    )
    if unharmed > 1e-3:
        raise Unreal(f"{where}: FP32 is harmed too, {unharmed:.1e}")
    if kind.name == "overflow_fp16":
        share = float((value >= 65520).mean())
    elif kind.name == "underflow_fp16":
        share = float(((value > 0) & (value < 2.0**-25)).mean())
    else:
        share = 1.0
    if not share:
        raise Unreal(f"{where}: no element is out of range")
    nodes = kernel_of(changed, {where, *fault.nodes})
    return Case(
        **common,
        reference=changed,
        candidate=None,
        emulate=kind.emulated,
        nodes=nodes,
        tensors=(tensor, tensor),
        local=share,
    )


@dataclass
class Dropped:
    """Places at which a fault was planted and changed nothing, by kind."""

    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, why: str) -> None:
        """Counts one."""
        self.places.setdefault(kind, []).append(why)


def dressed(case: Case) -> Case | None:
    """The same case with the candidate renamed and reordered throughout, as another exporter would have it."""
    assert case.candidate is not None
    seed = int.from_bytes(hashlib.sha256(case.id.encode()).digest()[:8], "big")
    candidate = rewrites.renamed(Edit(case.candidate), np.random.default_rng(seed)).proto
    what = f"{case.kind}: {case.what}; candidate renamed and reordered"
    name = f"{case.network}/{DRESSED}/{case.kind}.{case.id.rsplit('/', 1)[1]}"
    return replace(case, id=name, kind=DRESSED, candidate=candidate, what=what, tensors=(case.tensors[0], ""))


DRESSED = "renamed_candidate"
"""Kind of the cases that `dressed` makes of others."""
DRESSED_KINDS = (
    "stale_weights", "norm_epsilon", "residual_missing", "weights_int8_per_tensor", "bias_dropped", "concat_order",
    "body_stale_weights", "body_activation_replaced",
)  # fmt: skip


def noisy(case: Case) -> Case | None:
    """The same case with the whole candidate in emulated FP16: a fault under noise. None if the noise could hide it."""
    assert case.local is not None
    if case.local < NOISY_REAL:
        return None
    what = f"{case.kind}: {case.what}; candidate in FP16"
    name = f"{case.network}/{NOISY}/{case.kind}.{case.id.rsplit('/', 1)[1]}"
    return replace(case, id=name, kind=NOISY, emulate="fp16", what=what)


NOISY = "fp16_candidate"
"""Kind of the cases that `noisy` makes of others."""
NOISY_REAL = 0.02
"""Least relative L2 error of a fault under the noise of FP16, which is about 5e-4 for one layer."""
NOISY_KINDS = (
    "channels_permuted", "few_weights", "norm_affine_exchanged", "activation_slope", "attention_scale_missing",
    "softmax_axis", "residual_missing", "pooling_replaced", "pool_counts_padding", "stale_weights",
    "body_activation_replaced", "body_bias_dropped",
)  # fmt: skip


def folded(case: Case) -> Case | None:
    """The same case with BatchNormalization folded into the convolutions of the candidate. None if it has none."""
    assert case.candidate is not None
    edit = rewrites.folded(Edit(case.candidate), np.random.default_rng(0))
    if edit is None:
        return None
    causes = case.causes
    if case.kind.startswith("norm_") and case.kind.endswith(("epsilon", "exchanged")):
        causes = causes | {"weights", "scale"}  # what was a normalization is a weight now, and its fault a gain
    what = f"{case.kind}: {case.what}; BatchNormalization folded in the candidate"
    name = f"{case.network}/{FOLDED}/{case.kind}.{case.id.rsplit('/', 1)[1]}"
    return replace(
        case, id=name, kind=FOLDED, candidate=edit.proto, causes=causes, what=what, tensors=(case.tensors[0], "")
    )


FOLDED = "folded_candidate"
"""Kind of the cases that `folded` makes of others."""
FOLDED_KINDS = (
    "stale_weights", "few_weights", "norm_epsilon", "norm_affine_exchanged", "weights_int8_per_tensor",
    "residual_missing", "scale_drift",
)  # fmt: skip


def elsewhere(case: Case) -> Case | None:
    """The same case with the candidate run without graph optimizations: other kernels, other sums, FP32 noise."""
    what = f"{case.kind}: {case.what}; candidate without graph optimizations"
    name = f"{case.network}/{ELSEWHERE}/{case.kind}.{case.id.rsplit('/', 1)[1]}"
    return replace(case, id=name, kind=ELSEWHERE, runner={"optimization": "disable"}, what=what)


ELSEWHERE = "other_kernels"
"""Kind of the cases that `elsewhere` makes of others."""
ELSEWHERE_KINDS = (
    "weights_fp16", "scale_drift", "norm_epsilon", "gelu_tanh", "attention_scale_off", "fp16_accumulation",
    "activation_replaced", "qdq_scale", "body_scale",
)  # fmt: skip


def typed(case: Case) -> Case | None:
    """The same case with both models typed FP16. None if they cannot be, or the noise could hide the fault."""
    assert case.candidate is not None
    assert case.local is not None
    reference, candidate = (rewrites.typed_proto(proto) for proto in (case.reference, case.candidate))
    if case.local < NOISY_REAL or reference is None or candidate is None:
        return None
    what = f"{case.kind}: {case.what}; both typed FP16"
    name = f"{case.network}/{TYPED}/{case.kind}.{case.id.rsplit('/', 1)[1]}"
    return replace(case, id=name, kind=TYPED, reference=reference, candidate=candidate, what=what)


TYPED = "typed_pair"
"""Kind of the cases that `typed` makes of others."""
TYPED_KINDS = (*NOISY_KINDS, "weights_int8_per_tensor", "concat_order", "norm_epsilon")
DERIVED: dict[str, tuple[tuple[str, ...], Callable[[Case], Case | None]]] = {
    DRESSED: (DRESSED_KINDS, dressed),
    FOLDED: (FOLDED_KINDS, folded),
    ELSEWHERE: (ELSEWHERE_KINDS, elsewhere),
    NOISY: (NOISY_KINDS, noisy),
    TYPED: (TYPED_KINDS, typed),
}
"""Kinds that are made of other kinds' cases, the first of each in every network."""


def generate(
    kinds: list[str] | None = None, networks: list[str] | None = None, dropped: Dropped | None = None
) -> Iterator[Case]:
    """Every case with a fault, network by network, kind by kind."""
    for name in networks or list(NETWORKS):
        net = network(name)
        for derived, (sources, derive) in DERIVED.items():
            if kinds is None or derived in kinds:
                chosen = (next(generate([k], [name]), None) for k in sources)
                yield from (made for case in chosen if case is not None and (made := derive(case)) is not None)
        for kind in (KINDS[k] for k in kinds or list(KINDS) if k not in DERIVED):
            nodes = [n.name for n in net.proto.graph.node if n.op_type in kind.ops]
            seed = int.from_bytes(hashlib.sha256(f"{name} {kind.name}".encode()).digest()[:8], "big")
            order = np.random.default_rng(seed).permutation(len(nodes))
            number = 0
            for i in order:
                if number == kind.places:
                    break
                try:
                    case = plant(name, kind, nodes[i], number)
                except Unreal as why:
                    if dropped is not None:
                        dropped.add(kind.name, f"{name}: {why}")
                    continue
                if case is not None:
                    number += 1
                    yield case
