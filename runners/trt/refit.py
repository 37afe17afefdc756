"""Other weights for an engine that is built: that of layers which compute the same as others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.cutting.slices import original_name
from ...graph.errors import BuildError
from .log import log_of, reason
from .pins import pinned

if TYPE_CHECKING:
    from ...graph.model import Model
    from .config import TrtConfig
    from .made import Made
    from .plan import Plan
    from .versions import Library


def refit(model: Model, made: Made, before: Model, config: TrtConfig, plan: Plan, library: Library) -> Made:
    """An engine with the weights of another model.

    Args:
        model: The model; it differs from ``before`` in the values of its weights and in the names of its nodes alone.
        made: The engine, which was built refittable.
        before: The model that it was built for.
        config: The configuration that it was built with.
        plan: What that means for this version.
        library: The installed TensorRT.

    Raises:
        BuildError: The models differ in something else, or in a weight that TensorRT has made something else of.
    """
    pins = pinned(config, plan)
    if [pins.get(name) for name in _nodes(model)] != [pins.get(name) for name in _nodes(before)]:
        raise BuildError(f"{model.source}: its nodes are held to other formats than those of the engine.")
    trt, log = library.trt, log_of(library.trt)
    log.begin()
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(made.built.engine)
    if engine is None:
        raise BuildError(f"{library} cannot load an engine to refit it: {reason(list(log.errors))}.")
    refitter = trt.Refitter(engine, log)
    # it holds no copies of the values, which must outlive it
    values = _replaced(model, before, set(refitter.get_all_weights()))
    for name, value in values.items():
        _set(refitter, name, value, trt)
    if not refitter.refit_cuda_engine():
        raise BuildError(f"{library} cannot refit an engine: {reason(list(log.errors))}.")
    built = replace(made.built, engine=bytes(engine.serialize()), notes=())
    return replace(made, built=built, info=replace(made.info, notes=()))


def _nodes(model: Model) -> Iterable[str]:
    return (original_name(node.name) for node in model.proto.graph.node)


def _replaced(model: Model, before: Model, names: set[str]) -> dict[str, np.ndarray]:
    """The values to set, by the names of the weights that TensorRT can replace."""
    index, old = model.index, before.index
    constants = [node.output[0] for node in index.nodes if node.op_type == "Constant"]
    weights = {name: index.weight(name) for name in (*index.initializers, *constants)}
    made = names - weights.keys()
    if made:  # of weights that are not refittable themselves: a BatchNormalization's, for one
        raise BuildError(f"{model.source}: TensorRT has made {len(made)} weights of its own.")
    for name, value in weights.items():
        if name not in names and not _equal(value, old.weight(name)):
            raise BuildError(f"{model.source}: TensorRT cannot replace the weight {name!r}.")
    return {name: np.ascontiguousarray(value) for name, value in weights.items() if name in names and value is not None}


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return False
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _set(refitter: Any, name: str, value: np.ndarray, trt: Any) -> None:
    try:
        done = refitter.set_named_weights(name, trt.Weights(value))
    except TypeError as error:  # of a type that NumPy does not have
        raise BuildError(f"TensorRT takes no weight of type {value.dtype}: {error}") from None
    if not done:
        raise BuildError(f"TensorRT does not take the value of the weight {name!r}.")
