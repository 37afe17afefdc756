"""A PyTorch program run under the names of the ONNX file that was exported from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...graph.errors import LayerdiffError, RunnerError
from ...graph.interface import Interface, adapted
from ...graph.model import Model
from ...graph.printable import counted
from ..contract.session import Session, SessionInfo
from .library import arithmetic, cause, to_array, to_tensor
from .matching import matched

if TYPE_CHECKING:
    import numpy as np

    from ..contract.workload import Feed
    from .programs import ExportedGraph, Program


class TorchSession(Session):
    """Runs a program whole, or node by node where inner tensors are asked for.

    Args:
        torch: The module.
        program: What is run.
        model: The ONNX file, whose names its inputs and outputs get.
        device: ``cpu`` or ``cuda``.
        options: What the report shows.

    Raises:
        RunnerError: The program takes fewer inputs than the file has.
    """

    def __init__(self, torch: Any, program: Program, model: Model, device: str, options: Mapping[str, Any]) -> None:
        self._torch, self._program, self._model, self._device = torch, program, model, device
        self.inputs, self.outputs = model.inputs, model.outputs
        self._parameters, notes = parameters(program.inputs, [spec.name for spec in model.inputs])
        self._graphs: dict[object, tuple[ExportedGraph, dict[str, str]]] = {}
        self._shapes: dict[str, list[int]] = {}
        self._options = dict(options)
        self._tf32 = device == "cuda" and bool(options.get("tf32"))
        self._notes = (*program.notes, *notes)

    @property
    def info(self) -> SessionInfo:  # type: ignore[override]
        """What it turned out to be, with the shapes of what it was fed last."""
        return SessionInfo(
            options={**self._options, "shapes": dict(self._shapes)},
            versions={"torch": self._torch.__version__},
            notes=self._notes,
        )

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Runs once; see `Session.infer`. ``feed`` may hold inner tensors, which then take the place of what computes
        them.

        Raises:
            RunnerError: PyTorch failed, or has no such tensor.
        """
        own = [spec.name for spec in self.outputs]
        names = own if fetch is None else list(fetch)
        inputs = {spec.name for spec in self.inputs}
        self._shapes = {name: list(feed[name].shape) for name in inputs if name in feed}
        tensors = {name: to_tensor(self._torch, name, array, self._device) for name, array in feed.items()}
        try:
            with self._torch.no_grad(), arithmetic(self._torch, self._tf32):
                if inputs == {*feed} and {*names} <= {*own}:
                    made = self._whole(tensors)
                else:
                    made = self._inner(tensors, names)
        except LayerdiffError:
            raise
        except Exception as error:
            shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in self._shapes.items())
            raise RunnerError(f"torch: {cause(error)}, with the inputs {shapes}.") from error
        return {name: to_array(made[name]) for name in names}

    def _given(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        return {self._parameters[name]: tensors[name] for name in self._parameters if name in tensors}

    def _whole(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        returned = self._program.run(self._given(tensors))
        names = [spec.name for spec in self.outputs]
        keys = [key for key, _ in returned]
        if {*names} <= {*keys}:
            return dict(returned)
        if len(returned) != len(names):
            held = f"{len(returned)} tensor{'s'[: len(returned) != 1]}"
            raise RunnerError(f"torch: the program returns {held}, and {self._model.source} has {', '.join(names)}.")
        return {name: tensor for name, (_, tensor) in zip(names, returned, strict=True)}

    def _inner(self, tensors: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        graph, known = self._graph(tensors)
        where = {**self._parameters, **known}
        missing = [name for name in (*names, *tensors) if name not in where]
        if missing:
            raise RunnerError(f"torch: {missing[0]!r} has no counterpart in the program.")
        given = {where[n]: self._as_complex(t) if graph.is_complex(where[n]) else t for n, t in tensors.items()}
        made = graph.run(given, [where[n] for n in names])
        return {name: self._as_named(name, made[where[name]]) for name in names}

    def _as_complex(self, tensor: Any) -> Any:
        """Pairs of real numbers, as ONNX has them, as the complex numbers that they are."""
        return tensor if tensor.is_complex() else self._torch.view_as_complex(tensor.contiguous())

    def _as_named(self, name: str, tensor: Any) -> Any:
        """Complex numbers as pairs of real ones, where the ONNX tensor holds such."""
        spec = self._model.index.specs.get(name)
        pairs = tensor.is_complex() and spec is not None and spec.dtype.kind != "c"
        return self._torch.view_as_real(tensor.resolve_conj()) if pairs else tensor

    def shown(self, feed: Feed) -> list[str]:
        """Names of the tensors that it gives for inputs like these; their values do not matter."""
        tensors = {name: to_tensor(self._torch, name, array, self._device) for name, array in feed.items()}
        with self._torch.no_grad():
            return list(self._graph(tensors)[1])

    def exported(self, feed: Feed) -> Model | None:
        """The program as an ONNX model, with the file's names of inputs and outputs; None where there is none."""
        tensors = {name: to_tensor(self._torch, name, array, self._device) for name, array in feed.items()}
        with self._torch.no_grad():
            return self._own(self._given(tensors))

    def _own(self, given: Mapping[str, Any]) -> Model | None:
        proto = self._program.onnx(given)
        if proto is None:
            return None
        own = Model(proto, source=self._model.source)
        outputs = [spec.name for spec in self._model.outputs]
        if len(own.outputs) != len(outputs) or not {*self._parameters.values()} <= {s.name for s in own.inputs}:
            return None
        pairs = zip(outputs, own.outputs, strict=True)
        return adapted(own, Interface(dict(self._parameters), {name: spec.name for name, spec in pairs}))

    def _graph(self, tensors: Mapping[str, Any]) -> tuple[ExportedGraph, dict[str, str]]:
        """The graph for inputs of these shapes, and which of its values each ONNX tensor is.

        Where inner tensors stand in for all inputs, it is one that is there already, whose values have their shapes.
        """
        given = self._given(tensors)
        if self._graphs and not given:
            shaped = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            fits = [(g, known) for g, known in self._graphs.values() if g.holds(known, shaped)]
            return (fits or list(self._graphs.values()))[-1]
        shapes = tuple((name, tuple(tensor.shape)) for name, tensor in given.items())
        if shapes not in self._graphs:
            graph = self._program.graph(given)
            if graph is None:
                raise RunnerError("torch: TorchScript shows no inner tensors.")
            self._graphs[shapes] = graph, counterparts(graph, self._model, lambda: self._own(given))
        return self._graphs[shapes]

    def close(self) -> None:
        """Lets go of the program's graphs."""
        self._graphs.clear()


def parameters(own: Sequence[str], names: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Which input of a program each input of the ONNX file is: by name where all are there, else by position.

    Returns:
        ONNX name -> the program's name, and a note where it went by position.

    Raises:
        RunnerError: The program takes fewer.
    """
    if {*names} <= {*own}:
        return {name: name for name in names}, ()
    if len(own) < len(names):
        raise RunnerError(
            f"torch: the program takes {counted(len(own), 'input')} ({', '.join(own) or 'none'}), "
            f"and the ONNX file {len(names)} ({', '.join(names)})."
        )
    pairs = dict(zip(names, own, strict=False))
    told = ", ".join(f"{name} is {other}" for name, other in pairs.items())
    return pairs, (f"The names of the inputs differ, and they were matched by position: {told}.",)


def counterparts(graph: ExportedGraph, model: Model, own: Callable[[], Model | None]) -> dict[str, str]:
    """Which value of a program's graph each tensor of an ONNX file is; outputs by position.

    Args:
        graph: The graph.
        model: The file.
        own: Gives the program as it is exported today; None where it is not.
    """
    found = matched(model.index, list(graph.values()), lambda: None if (made := own()) is None else made.index)
    names = [spec.name for spec in model.outputs]
    if len(graph.outputs) == len(names):
        found.update(zip(names, graph.outputs, strict=True))
    return found
