"""A session of ONNX Runtime: what it computes, and where its nodes were placed."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...graph.errors import BuildError, ProviderUnavailable, RunnerError
from ...graph.formats import TF32
from ..contract.device import DeviceArray
from ..contract.session import Session, SessionInfo
from . import loading
from .config import ON_CUDA, PROVIDERS, OnnxrtConfig
from .loading import build, import_onnxruntime
from .optimizers import OPTIMIZERS
from .ortvalues import Loaded

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from ...graph.model import Model
    from ...graph.specs import TensorSpec
    from ..contract.workload import Feed


class OnnxrtSession(Session):
    """A session of ONNX Runtime, and a second one from the first time that an undeclared inner tensor is fetched.

    Arrays that it returns share ONNX Runtime's memory and are not copied; they live as long as someone holds them.
    """

    def __init__(
        self, runner: OnnxrtConfig, model: Model, fetch: Sequence[str] = (), progress: Callable[[str], None] = print
    ) -> None:
        self._runner = runner
        self._model = model
        self._ort = import_onnxruntime(runner)
        self.inputs: tuple[TensorSpec, ...] = model.inputs
        self.outputs: tuple[TensorSpec, ...] = model.outputs
        self._specs = {spec.name: spec for spec in self.inputs}
        self.device = "cuda:0" if runner.provider in ON_CUDA else ""
        self._open = True
        progress("loading into ONNX Runtime")
        # Initializers and inputs need no runtime to be fetched, and ORT refuses some of them as outputs.
        self._known = {*self._specs, *model.index.initializers} if fetch else set(self._specs)
        outputs = [spec.name for spec in self.outputs]
        self._session = build(runner, self._ort, model, self._inner(fetch, outputs))
        self._observed: Loaded | None = None
        self.info = describe(runner, self._ort, self._session, model)

    def _inner(self, fetch: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
        """Tensors that have to be made outputs before they can be fetched."""
        index = self._model.index if fetch else None
        inner = tuple(dict.fromkeys(n for n in fetch if n not in outputs and n not in self._known))
        for name in inner:
            assert index is not None
            if name not in index.producer:
                near = difflib.get_close_matches(name, [*index.producer, *index.inputs], 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise RunnerError(f"{self._runner.name}: {self._model.source} has no tensor {name!r}.{hint}")
        return inner

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Runs once; see `Session.infer`."""
        if not self._open:
            raise RunnerError(f"{self._runner.name}: the session on {self._model.source} is closed.")
        self._check(feed)
        if fetch is None:
            return self._session.run([spec.name for spec in self.outputs], feed, self._runner.name)
        wanted = list(dict.fromkeys(fetch))
        run_here = [name for name in wanted if name not in self._specs]
        session = self._session
        if any(name not in session.outputs for name in run_here):
            self._known |= set(self._model.index.initializers)
            run_here = [name for name in run_here if name not in self._known or name in session.outputs]
            inner = self._inner(run_here, list(session.outputs))
            if inner:
                session = self._observing(inner)
        result = session.run(run_here, feed, self._runner.name) if run_here else {}
        for name in wanted:
            if name not in result:
                result[name] = self._given(name, feed)
        return {name: result[name] for name in wanted}

    def infer_on_device(
        self, feed: Mapping[str, np.ndarray | DeviceArray], fetch: Sequence[str] | None = None
    ) -> dict[str, np.ndarray | DeviceArray]:
        """Runs once; see `Session.infer_on_device`. The arrays are the caller's, like those of `infer`."""
        import numpy as np

        names = [spec.name for spec in self.outputs] if fetch is None else list(dict.fromkeys(fetch))
        loaded = self._session if self._open and self.device else None
        if loaded is None or not loaded.binds(names):
            return dict(self.infer({name: np.asarray(array) for name, array in feed.items()}, fetch))
        self._check(feed)
        return loaded.run_bound(names, feed, self.device, self._runner.name)

    def _observing(self, inner: tuple[str, ...]) -> Loaded:
        """A session in which the tensors ``inner`` are outputs as well, besides those that it was asked for before."""
        if self._observed is None or any(name not in self._observed.outputs for name in inner):
            before = () if self._observed is None else self._observed.inner
            declared = self._session.inner
            self._observed = None  # free it first: two of them need not fit in memory
            names = tuple(dict.fromkeys((*declared, *before, *inner)))
            self._observed = build(self._runner, self._ort, self._model, names)
        return self._observed

    def _given(self, name: str, feed: Feed) -> np.ndarray:
        import numpy as np

        value = feed[name] if name in feed else self._model.index.weight(name)
        return np.array(value)

    def _check(self, feed: Mapping[str, np.ndarray | DeviceArray]) -> None:
        if feed.keys() != self._specs.keys():
            missing = [name for name in self._specs if name not in feed]
            extra = [name for name in feed if name not in self._specs]
            if missing:
                raise RunnerError(f"{self._runner.name}: no value for input {', '.join(map(repr, missing))}.")
            raise RunnerError(
                f"{self._runner.name}: {', '.join(map(repr, extra))}: no such input; "
                f"{self._model.source} has {', '.join(map(repr, self._specs)) or 'none'}."
            )
        for name, array in feed.items():
            expected = self._specs[name].dtype
            if array.dtype != expected and not (expected.kind == "O" and array.dtype.kind in "SUT"):
                raise RunnerError(f"{self._runner.name}: input {name!r} is {expected}, the value given {array.dtype}.")

    def close(self) -> None:
        """Frees both sessions."""
        self._open = False
        self._observed = None
        if hasattr(self, "_session"):
            del self._session


def describe(runner: OnnxrtConfig, ort: Any, loaded: Loaded, model: Model) -> SessionInfo:
    """What the session turned out to be.

    Raises:
        ProviderUnavailable: No node of a whole model is on the provider that was asked for.
    """
    settings: dict[str, Any] = {
        "provider": runner.provider,
        "optimization": runner.optimization,
        "threads": runner.threads or "default",
    }
    notes: list[str] = []
    if runner.disabled_optimizers:
        settings["disabled_optimizers"] = list(runner.disabled_optimizers)
        notes += (_unheard_of(name) for name in runner.disabled_optimizers if name not in OPTIMIZERS)
    if runner.tf32 and runner.provider not in ON_CUDA:
        notes.append(f"tf32 changes nothing on {runner.provider}: it is CUDA's.")
    if runner.exact_int8:
        settings["exact_int8"] = True
    if runner.custom_ops:
        settings["custom_ops"] = list(runner.custom_ops)
    packages = loading.installed()
    if len(packages) > 1:
        notes.append(
            f"{' and '.join(packages)} are installed on top of each other; which one runs depends on the order of "
            f"installation. Keep one."
        )
    if not runner.rounds_to_types and not model.derived and _computes_fp16(model):
        notes.append(
            "the CPU computes most FP16 nodes in FP32, so that a device which rounds each of them may err more "
            "(--reference-evaluator rounds every node)."
        )
    if runner.provider != "cpu":
        if runner.provider in ON_CUDA:
            settings["tf32"] = runner.arithmetic is TF32
        if runner.provider_options:
            settings["provider_options"] = runner.own_options
        placed = _placement(loaded.session)
        if placed is None:
            notes += _probe(runner, ort, model)
        else:
            total = sum(sum(nodes.values()) for nodes in placed.values())
            fallen = placed.get("CPUExecutionProvider", Counter())
            count = sum(fallen.values())
            settings |= {"nodes": total, "nodes_on_cpu": count}
            if count:
                kinds = ", ".join(f"{n} {op}" for op, n in fallen.most_common(5))
                more = f" and {len(fallen) - 5} other operators" if len(fallen) > 5 else ""
                text = f"{runner.name}: {count} of {total} nodes run on the CPU ({kinds}{more})."
                if count == total and (model.path is not None or model.tf is not None):
                    raise ProviderUnavailable(f"{text} Nothing would run on {PROVIDERS[runner.provider]}.")
                notes.append(text)
    return SessionInfo(
        settings,
        {"onnxruntime": ort.__version__},
        tuple(notes),
        quantizes_activations=_multiplies_floats_with_dequantized(model.proto.graph),
    )


def _computes_fp16(model: Model) -> bool:
    """Whether a node computes with FP16 constants, other than to make another type of them."""
    from onnx import TensorProto

    weights = {n for n, tensor in model.index.initializers.items() if tensor.data_type == TensorProto.FLOAT16}
    computing = (node for node in model.index.nodes if node.op_type != "Cast")
    return bool(weights) and any(not weights.isdisjoint(node.input) for node in computing)


def _multiplies_floats_with_dequantized(graph: onnx.GraphProto) -> bool:
    """Whether a product has dequantized weights and activations that are not dequantized."""
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    products = (node for node in graph.node if dequantized and node.op_type in ("MatMul", "Gemm"))
    return any(node.input[1] in dequantized and node.input[0] not in dequantized for node in products)


def _unheard_of(optimizer: str) -> str:
    """What is said of the name of an optimization that is not known here: ONNX Runtime passes over what it has not."""
    near = difflib.get_close_matches(optimizer, OPTIMIZERS, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    unknown = f"disabled_optimizers={optimizer}: no optimization of that name is known"
    return f"{unknown}, so that ONNX Runtime may have left out none{hint}"


def _placement(session: Any) -> dict[str, Counter[str]] | None:
    """Provider -> operator -> number of nodes, after optimization; None where this version cannot tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    placed: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        placed.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return placed


def _probe(runner: OnnxrtConfig, ort: Any, model: Model) -> list[str]:
    """Versions that do not report placement do refuse, when told to, a model of which a node falls back."""
    try:
        build(runner, ort, model, (), probe=True)
    except BuildError:
        return [f"{runner.name}: some nodes run on the CPU; onnxruntime {ort.__version__} does not say how many."]
    return []
