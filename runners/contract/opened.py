"""What `Runner.open` returned, as a session that keeps the contract.

Whoever writes a runner may return a session or a plain function ``feed -> outputs``, may leave out what a session need
not have, and may get it wrong. `opened` makes one thing of all that: a session with inputs and outputs, which gives
what it was asked for, or says in one line what the runner did instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ...graph.errors import RunnerError, WrongResult, first_line
from ...graph.foreign import contained
from .device import DeviceArray
from .latency import Latency
from .session import Session, SessionInfo

if TYPE_CHECKING:
    import numpy as np

    from ...graph.model import Model
    from ...graph.specs import TensorSpec
    from .workload import Feed

Function: TypeAlias = "Callable[[Feed], Mapping[str, Any]]"
"""A runtime in its plainest form: arrays by input name -> arrays by output name."""

Reopen: TypeAlias = "Callable[[Model], Session]"
"""Opens a session of the same runner on a changed copy of the model."""


def accepted(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the keyword arguments that a function takes."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(offered)
    return {name: value for name, value in offered.items() if name in parameters}


def opened(who: str, result: object, model: Model, reopen: Reopen | None, inner: bool) -> Session:
    """A session that keeps the contract.

    Args:
        who: What messages call the runner.
        result: What its ``open`` returned.
        model: What it was opened on.
        reopen: Opens another session, which is how a runtime that gives outputs alone gives inner tensors; None: it
            opens nothing but the whole model.
        inner: Whether ``infer`` gives inner tensors.

    Raises:
        WrongResult: ``open`` returned neither a session nor a function.
    """
    if isinstance(result, Session):
        takes_fetch = "fetch" in accepted(result.infer, {"fetch": None})
        return _Opened(who, result, model, reopen, inner and takes_fetch)
    if callable(result):
        return _Opened(who, _FunctionSession(result), model, reopen, False)
    raise WrongResult(f"{who}: open returned {_kind(result)}, neither a session nor a function feed -> outputs.")


class _FunctionSession(Session):
    """A function as a session."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        result: dict[str, np.ndarray] = self._function(feed)
        return result


class _Opened(Session):
    """See `opened`."""

    def __init__(self, who: str, session: Session, model: Model, reopen: Reopen | None, inner: bool) -> None:
        self._who, self._session, self._model, self._reopen, self._inner = who, session, model, reopen, inner
        self._returned = f"{who} returned" if isinstance(session, _FunctionSession) else f"{who}: infer returned"
        self.inputs: tuple[TensorSpec, ...] = getattr(session, "inputs", model.inputs)
        self.outputs: tuple[TensorSpec, ...] = getattr(session, "outputs", model.outputs)
        self.device = session.device
        # Whoever keeps the contract gives arrays away; others may hand out a buffer and write into it once more.
        ours = type(session).__module__.startswith(__package__.removesuffix("runners.contract"))
        self._copies = isinstance(session, _FunctionSession) or not ours
        self._observer: Session | None = None
        self._observed: tuple[str, ...] = ()

    @property
    def info(self) -> SessionInfo:  # type: ignore[override]
        """What it turned out to be, up to now."""
        return self._session.info

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Session.infer`.

        Raises:
            RunnerError: The runner failed or returned something else; or inner tensors were asked for, and neither this
                session nor another of the runner gives them.
        """
        own = [spec.name for spec in self.outputs]
        if fetch is None:
            return self._kept(self._infer(feed), own)
        names = list(dict.fromkeys(fetch))
        if self._inner:
            result = self._infer(feed, names)
            if not isinstance(result, Mapping) or all(name in result or name in own for name in names):
                return self._kept(result, names)
            self._inner = False  # it takes no notice of fetch
        computed = [name for name in names if name in own or name in self._model.index.producer]
        if set(computed) <= set(own):
            found = self._kept(self._infer(feed), own) if computed else {}
        else:  # all in one run: a model may draw random values
            found = self._observing([name for name in computed if name not in own]).infer(feed, computed)
        return {name: found[name] if name in found else self._given(name, feed) for name in names}

    def infer_on_device(
        self, feed: Mapping[str, np.ndarray | DeviceArray], fetch: Sequence[str] | None = None
    ) -> dict[str, np.ndarray | DeviceArray]:
        """See `Session.infer_on_device`."""
        if fetch is not None:
            return super().infer_on_device(feed, fetch)
        with contained():
            result = self._session.infer_on_device(feed)
        kept: dict[str, Any] = self._kept(result, [spec.name for spec in self.outputs])
        return kept

    def _infer(self, *given: Any) -> Any:
        """What the runner's own method returns."""
        feed, *fetch = given
        with contained():
            return self._session.infer(self._own(feed), *fetch)

    def latency(self, feed: Feed, runs: int) -> Latency:
        """See `Session.latency`."""
        with contained():
            return self._session.latency(self._own(feed), runs)

    def _own(self, feed: Feed) -> Feed:
        """The inputs, as copies for other people's code: what it writes into them is not what the others are fed."""
        import numpy as np

        return {name: np.array(value) for name, value in feed.items()} if self._copies else feed

    def close(self) -> None:
        """See `Session.close`."""
        if self._observer is not None:
            self._observer.close()
            self._observer = None
        with contained():
            self._session.close()

    def _observing(self, names: Sequence[str]) -> Session:
        """A session with all these tensors among its outputs, besides those that it was asked for before."""
        if self._reopen is None:
            raise RunnerError(f"{self._who} gives outputs alone, and was asked for {names[0]!r}.")
        if self._observer is None or not set(names) <= set(self._observed):
            self._observed = tuple(dict.fromkeys((*self._observed, *names)))
            if self._observer is not None:
                self._observer.close()
            self._observer = self._reopen(with_outputs(self._model, self._observed))
        return self._observer

    def _given(self, name: str, feed: Feed) -> np.ndarray:
        """An input, or a weight, which no runtime has to be asked for."""
        import numpy as np

        value = feed[name] if name in feed else self._model.index.weight(name)
        if value is None:
            raise RunnerError(f"{self._who}: {self._model.source} has no tensor {name!r}.")
        return np.array(value)

    def _kept(self, result: Any, names: Sequence[str]) -> dict[str, Any]:
        """What was asked for, of what the runner returned.

        Raises:
            WrongResult: It returned something else.
        """
        if not isinstance(result, Mapping):
            raise WrongResult(f"{self._returned} {_kind(result)}, not a dict of arrays by output name.")
        missing = [name for name in names if name not in result]
        if missing:
            raise WrongResult(f"{self._returned} no {_listed(missing)}; it gave {_listed(result)}.")
        own = [spec.name for spec in self.outputs]
        expected = {*own, *names}
        strange = [name for name in result if name not in expected]
        if strange:
            raise WrongResult(f"{self._returned} {_listed(strange)}; the outputs are {_listed(own)}.")
        return {name: self._array(name, result[name]) for name in names}

    def _array(self, name: str, value: Any) -> np.ndarray | DeviceArray:
        import numpy as np

        from ...graph.specs import has_onnx_type, is_text

        if isinstance(value, DeviceArray):
            return value
        if type(value) is np.ndarray and value.dtype.isnative and not self._copies:
            return value
        plain = isinstance(value, (list, tuple, bool, int, float))
        if not plain and not hasattr(value, "__array__"):
            raise WrongResult(f"{self._who}: output {name!r} is {_kind(value)}, not an array.")
        try:
            with contained():
                array = np.array(value) if self._copies else np.asarray(value)
                if not array.dtype.isnative:
                    array = array.astype(array.dtype.newbyteorder("="))
        except Exception as error:  # a tensor on a device, or one that gradients hang on
            why = first_line(error)
            raise WrongResult(f"{self._who}: output {name!r} ({_kind(value)}) is not readable: {why}") from error
        if not has_onnx_type(array.dtype):
            raise WrongResult(f"{self._who}: output {name!r} is {array.dtype}, which no ONNX tensor is.")
        if array.dtype.kind == "O" and not all(is_text(item) for item in array.reshape(-1)):
            raise WrongResult(f"{self._who}: output {name!r} holds objects that are no strings.")
        return self._as_declared(name, array) if plain else array

    def _as_declared(self, name: str, array: np.ndarray) -> np.ndarray:
        """Numbers of Python, which have no width, in the type that the model declares, if that holds them."""
        import numpy as np

        from ...graph.specs import is_float

        declared = next((spec.dtype for spec in self.outputs if spec.name == name), None)
        if declared is None or array.dtype.kind not in "fiu":
            return array
        if is_float(declared):
            return array.astype(declared)
        made = array.astype(declared) if declared.kind in "iu" and array.dtype.kind in "iu" else array
        return made if np.array_equal(made, array) else array


def with_outputs(model: Model, names: Iterable[str]) -> Model:
    """A changed copy of a model with more outputs, typed where their types are known."""
    import onnx

    from ...graph.cutting.extract import value_info

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    specs = model.index.specs
    proto.graph.output.extend(
        value_info(specs[name]) if name in specs else onnx.ValueInfoProto(name=name) for name in names
    )
    return model.derive(proto)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _kind(value: object) -> str:
    """``None``, ``a list``, ``an int``: what a value is, in a sentence."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
