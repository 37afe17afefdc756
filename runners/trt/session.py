"""An engine, ready to run: device memory that is allocated once per shape, one stream, everything given back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.errors import ModelError, RunnerError
from ..contract.device import DeviceArray, Lease
from ..contract.latency import KernelTime, Latency
from ..contract.session import Session, SessionInfo
from . import cuda as cuda_module
from .callbacks import make_allocator, make_listener, make_profiler
from .cuda import ON_DEVICE, TO_DEVICE, TO_HOST, Memory
from .dtypes import convert, dtype_of, spec_of
from .inspector import inspect, kernel_times
from .log import log_of, reason, why_unloadable
from .profiles import fits, narrowest, profiles_of, range_text, shape_text
from .summary import as_engine
from .timing import timed

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..contract.workload import Feed
    from .inspector import EngineLayer
    from .versions import Library

logger = logging.getLogger(__name__)

PROFILED = 20
"""Most runs in which single layers are timed."""


@dataclass(frozen=True)
class EngineFile:
    """A file that an engine comes from.

    Attributes:
        name: What messages call it.
        made_on: The other GPU that it was built on, as the end of a sentence; empty if it was this one.
    """

    name: str
    made_on: str = ""


class TrtSession(Session):
    """An engine with an execution context of its own, on the first GPU.

    Attributes:
        layers_parsed: Layers of the network the engine was built from; None for a loaded engine.
    """

    device = "cuda:0"

    def __init__(
        self,
        library: Library,
        engine: bytes,
        model: Model,
        *,
        info: SessionInfo,
        observe: Callable[[Sequence[str], SessionInfo], Session] | None = None,
        debug_tensors: bool = False,
        file: EngineFile | None = None,
    ) -> None:
        """Deserializes ``engine``.

        Args:
            library: The installed TensorRT.
            engine: What `build` or a file gave.
            model: The network it belongs to; inputs and outputs must agree by name.
            info: For the report.
            observe: Opens a second session whose engine also outputs the named tensors, by the facts of this one.
            debug_tensors: Whether unfused tensors were marked for the debug listener.
            file: Where it comes from, if from a file: it may then have outputs that the model does not have.

        Raises:
            RunnerError: The engine is of another TensorRT version or GPU, or there is no memory for it.
            ModelError: Its inputs are not the model's.
        """
        self.info = info
        self._library, self._model, self._observe = library, model, observe
        self._observers: dict[tuple[str, ...], Session] = {}
        self._debug = debug_tensors
        self._cuda = cuda_module.runtime()
        self._memory = Memory(self._cuda)
        self._lease = Lease()
        self._stream = 0
        self._layers: tuple[EngineLayer, ...] | None = None
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        trt, log = library.trt, log_of(library.trt)
        log.begin()
        try:
            self._runtime = trt.Runtime(log)
            self._engine = self._runtime.deserialize_cuda_engine(engine)
            if self._engine is None:
                name, made = (file.name, file.made_on) if file is not None else ("this engine", "")
                raise RunnerError(f"{library} cannot load {name}: {why_unloadable(list(log.errors))}{made}.")
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise RunnerError(f"{library} cannot run this engine: {reason(list(log.errors))}.")
            self._stream = self._cuda.stream()
            self._describe(model, file is not None)
            self.info = as_engine(info, self.layers())
        except BaseException:
            self.close()
            raise

    def _describe(self, model: Model, loaded: bool) -> None:
        trt, engine = self._library.trt, self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._io = {n: dtype_of(engine.get_tensor_dtype(n)) for n in names}
        mode = {n: engine.get_tensor_mode(n) for n in names}
        self._in = [n for n in names if mode[n] == trt.TensorIOMode.INPUT]
        self._out = [n for n in names if mode[n] == trt.TensorIOMode.OUTPUT]
        host = trt.TensorLocation.HOST
        self._on_host = {n for n in names if engine.get_tensor_location(n) == host}
        specs = {s.name: s for s in (*model.inputs, *model.outputs)}
        unknown = [n for n in self._in if n not in specs]
        if unknown:
            raise ModelError(f"The engine takes {unknown[0]!r}, which is no input of {model.source}.")
        if loaded:
            specs.update({n: spec_of(engine, n) for n in self._out if n not in specs})
        inner = [n for n in self._out if n not in specs]
        self._spec = {**{n: model.index.specs[n] for n in inner if n in model.index.specs}, **specs}
        self.inputs = tuple(s for s in model.inputs if s.name in self._io)
        lost = [s.name for s in model.outputs if s.name not in self._out]
        self._same = _handed_on(model, lost, self._out) if lost and not model.opaque else {}
        self.outputs = tuple(s for s in model.outputs if s.name in self._out or s.name in self._same)
        if loaded:
            declared = {s.name for s in model.outputs}
            self.outputs += tuple(specs[n] for n in self._out if n not in declared)
        self._profiles = profiles_of(engine, self._in)
        self._profile = 0
        self._set_shapes: dict[str, tuple[int, ...]] = {}
        self._host_values: dict[str, np.ndarray] = {}
        self._allocators: dict[str, Any] = {}

    # --- running ------------------------------------------------------------------------------------------------------

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Runs the engine once; see `Session.infer`. INT64 narrows to INT32 and back where TensorRT has none."""
        wanted = [s.name for s in self.outputs] if fetch is None else list(fetch)
        foreign = [n for n in wanted if n not in self._out and n not in self._same]
        if foreign:
            return self._observed(feed, wanted, foreign)
        self._run(feed)
        raw = {name: self._download(self._same.get(name, name)) for name in wanted}
        self._cuda.synchronize(self._stream)
        return {name: self._typed(name, array) for name, array in raw.items()}

    def infer_on_device(
        self, feed: Mapping[str, np.ndarray | DeviceArray], fetch: Sequence[str] | None = None
    ) -> dict[str, np.ndarray | DeviceArray]:
        """Runs the engine once; see `Session.infer_on_device`. The arrays are the engine's own, in its own memory."""
        wanted = [s.name for s in self.outputs] if fetch is None else list(fetch)
        if any(n not in self._out for n in wanted):  # what has another name there among them
            return dict(self.infer({n: np.asarray(a) for n, a in feed.items()}, fetch))
        self._run(feed)
        self._cuda.synchronize(self._stream)
        return {name: self._left(name) for name in wanted}

    def _run(self, feed: Mapping[str, np.ndarray | DeviceArray]) -> None:
        arrays = self._arrays(feed)
        self._bind(arrays)
        for name, array in arrays.items():
            if isinstance(array, DeviceArray):
                self._cuda.copy(self._address[name], array.address, array.nbytes, ON_DEVICE, self._stream)
            elif name not in self._on_host:
                self._cuda.copy(self._address[name], array.ctypes.data, array.nbytes, TO_DEVICE, self._stream)
        self._execute()

    def _arrays(self, feed: Mapping[str, np.ndarray | DeviceArray]) -> dict[str, np.ndarray | DeviceArray]:
        """What is fed, in the engine's types. Inputs of a piece that are not fed keep what they were fed before."""
        arrays = {n: self._fed(n, feed[n]) for n in self._in if n in feed}
        missing = [n for n in self._in if n not in arrays]
        same = all(self._set_shapes.get(n) == a.shape and n not in self._on_host for n, a in arrays.items())
        if missing and not (same and self._set_shapes and self._model.derived):
            raise RunnerError(f"TensorRT needs input {missing[0]!r}, which was not fed.")
        return arrays

    def _fed(self, name: str, value: np.ndarray | DeviceArray) -> np.ndarray | DeviceArray:
        here = isinstance(value, DeviceArray) and value.device == self.device and value.dtype == self._io[name]
        return value if here and name not in self._on_host else convert(np.asarray(value), self._io[name], name)

    def _bind(self, arrays: Mapping[str, np.ndarray | DeviceArray]) -> None:
        """Sets shapes and addresses; allocates only what a new shape needs."""
        self._lease.end()
        self._lease = Lease()
        context = self._context
        log = log_of(self._library.trt)
        shapes = {**self._set_shapes, **{n: tuple(a.shape) for n, a in arrays.items()}}
        values_changed = False
        for name in self._on_host:
            if name in arrays:
                # The context keeps this address, so the array must live as long as it does.
                self._host_values[name] = np.asarray(arrays[name])
                context.set_tensor_address(name, self._host_values[name].ctypes.data)
                values_changed = True
        if shapes == self._set_shapes and not values_changed:
            return
        log.begin()
        self._set_shapes = {}
        self._switch(narrowest(self._profiles, shapes), shapes)
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise self._outside(shapes)
        context.infer_shapes()
        self._address: dict[str, int] = {}
        for name, array in arrays.items():
            if name not in self._on_host:
                self._address[name] = self._memory.block(name, array.nbytes)
                context.set_tensor_address(name, self._address[name])
        self._shape: dict[str, tuple[int, ...]] = {}
        for name in self._out:
            shape = tuple(int(d) for d in context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                self._grow(name)
                continue
            self._shape[name] = shape
            size = int(np.prod(shape, dtype=np.int64)) * self._io[name].itemsize
            if name in self._on_host:
                self._host_values[name] = np.empty(shape, self._io[name])
                context.set_tensor_address(name, self._host_values[name].ctypes.data)
            else:
                self._address[name] = self._memory.block(name, size)
                context.set_tensor_address(name, self._address[name])
        self._set_shapes = shapes

    def _grow(self, name: str) -> None:
        """Lets TensorRT ask for memory while it runs, for an output whose shape depends on the data."""
        if name not in self._allocators:
            self._allocators[name] = make_allocator(self._library.trt, self._memory)
        self._context.set_output_allocator(name, self._allocators[name])

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise RunnerError(f"TensorRT failed while running: {reason(list(log_of(self._library.trt).errors))}.")

    def _download(self, name: str) -> np.ndarray:
        if name in self._on_host:
            self._cuda.synchronize(self._stream)
            return self._host_values[name].copy()
        address, shape = self._place(name)
        array = np.empty(shape, self._io[name])
        if array.nbytes:
            self._cuda.copy(array.ctypes.data, address, array.nbytes, TO_HOST, self._stream)
        return array

    def _place(self, name: str) -> tuple[int, tuple[int, ...]]:
        """Address and shape of an output."""
        if name in self._allocators and name not in self._shape:
            self._cuda.synchronize(self._stream)
            allocator = self._allocators[name]
            return allocator.address, allocator.shape
        return self._address[name], self._shape[name]

    def _left(self, name: str) -> np.ndarray | DeviceArray:
        """An output where it is, if it is on the device and in the model's dtype."""

        def fetch() -> np.ndarray:
            array = self._download(name)
            self._cuda.synchronize(self._stream)
            return self._typed(name, array)

        spec, dtype = self._spec.get(name), self._io[name]
        if name in self._on_host or (spec is not None and spec.dtype != dtype):
            return fetch()
        return DeviceArray(*self._place(name), dtype, self.device, fetch, self, self._lease)

    def _typed(self, name: str, array: np.ndarray) -> np.ndarray:
        spec = self._spec.get(name)
        return array if spec is None or spec.dtype == array.dtype else array.astype(spec.dtype)

    def _switch(self, profile: int | None, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Chooses the optimization profile to run in."""
        if profile is None:
            raise self._outside(shapes)
        if profile == self._profile:
            return
        if not self._context.set_optimization_profile_async(profile, self._stream):
            errors = list(log_of(self._library.trt).errors)
            raise RunnerError(f"TensorRT cannot use the engine's profile {profile}: {reason(errors)}.")
        self._cuda.synchronize(self._stream)
        self._profile = profile

    def _outside(self, shapes: Mapping[str, tuple[int, ...]]) -> RunnerError:
        """That no profile takes these shapes: which inputs are outside, and what all profiles are."""
        ranges = {n: [p[n] for p in self._profiles if n in p] for n in shapes}
        odd = [n for n in shapes if not any(fits(shapes[n], r) for r in ranges[n])] or list(shapes)
        names = [n for n in shapes if n in odd or len({range_text(r) for r in ranges[n]}) > 1]
        what = ", ".join(f"{n} of shape {shape_text(shapes[n])}" for n in odd)
        if len(self._profiles) < 2:
            texts = "; ".join(f"{n}: {range_text(r)}" if names[1:] else range_text(r) for n in names for r in ranges[n])
            return RunnerError(
                f"TensorRT: {what} is outside the engine's profile ({texts}). "
                f"Widen it with --shape {odd[0]}:MIN..OPT..MAX."
            )
        texts = "; ".join(", ".join(f"{n}: {range_text(p[n])}" for n in names if n in p) for p in self._profiles)
        return RunnerError(
            f"TensorRT: {what} fits none of the engine's {len(self._profiles)} profiles ({texts}). "
            f"Name one more with --shape {odd[0]}:MIN..OPT..MAX."
        )

    # --- observing ----------------------------------------------------------------------------------------------------

    def _observed(self, feed: Feed, wanted: list[str], foreign: list[str]) -> dict[str, np.ndarray]:
        if self._observe is None:
            raise RunnerError(f"This engine does not give {foreign[0]!r}: only what it was built with can be fetched.")
        key = tuple(sorted(foreign))
        if key in self._observers:
            return self._observers[key].infer(feed, wanted)
        observer = self._observers[key] = self._observe(key, self.info)
        own = [s.name for s in self.outputs]
        found = observer.infer(feed, list(dict.fromkeys((*wanted, *own))))
        self.info = replace(self.info, notes=(*self.info.notes, _marked(key, self.infer(feed), found)))
        return {name: found[name] for name in wanted}

    def unfused(self, feed: Feed) -> dict[str, np.ndarray]:
        """Every tensor that this very engine keeps unfused, through TensorRT's debug listener (10.12 and later).

        Raises:
            RunnerError: The engine was not built for it.
        """
        if not self._debug:
            raise RunnerError(
                "Unfused tensors need TensorRT 10.12 or later and an engine built with debug_tensors=True."
            )
        arrays = self._arrays(feed)
        self._bind(arrays)
        context = self._context
        seen: dict[str, np.ndarray] = {}
        listener = make_listener(self._library.trt, self._cuda, seen)
        context.set_debug_listener(listener)
        context.unfused_tensors_debug_state = True
        try:
            self.infer(feed)
        finally:
            context.unfused_tensors_debug_state = False
        return {name: self._typed(name, array) for name, array in seen.items()}

    def layers(self) -> tuple[EngineLayer, ...]:
        """The engine's layers, as its inspector tells them: those of all profiles."""
        if self._layers is None:
            dynamic = any(min(self._engine.get_tensor_shape(n), default=0) < 0 for n in self._in)
            self._layers = inspect(self._engine, self._library.trt, self._entered if dynamic else None)
            if dynamic:  # the context is as it was made
                self._set_shapes = {}
                self._switch(0, {})
        return self._layers

    def _entered(self, profile: int) -> Any:
        """The execution context in a profile, with that profile's best shapes; None where it takes more than shapes."""
        if self._on_host.intersection(self._in) or not self._profiles:
            return None
        shapes = {name: triple[1] for name, triple in self._profiles[profile].items()}
        self._switch(profile, shapes)
        if not all(self._context.set_input_shape(name, shape) for name, shape in shapes.items()):
            return None
        return self._context

    def inspector_text(self) -> str:
        """The engine inspector's JSON, unread."""
        trt = self._library.trt
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    # --- timing -------------------------------------------------------------------------------------------------------

    def latency(self, feed: Feed, runs: int) -> Latency:
        """Times runs on the device and from outside, and each layer of the engine; see `timing.timed`."""
        layers = self.layers()  # looking at them may change the context's shapes
        arrays = {name: np.asarray(array) for name, array in self._arrays(feed).items()}
        self._bind(arrays)
        inputs = [(self._address[name], array) for name, array in arrays.items() if name not in self._on_host]
        outputs = [
            (self._address[name], int(np.prod(shape, dtype=np.int64)) * self._io[name].itemsize)
            for name, shape in self._shape.items()
            if name not in self._on_host
        ]
        found = timed(self._cuda, self._stream, inputs, outputs, self._execute, runs)
        return replace(found, kernels=self._kernel_times(layers, min(runs, PROFILED)))

    def _kernel_times(self, layers: Sequence[EngineLayer], runs: int) -> tuple[KernelTime, ...]:
        """What each layer takes. Empty where TensorRT does not tell, which costs nobody a result."""
        seen: dict[str, list[float]] = {}
        profiler = make_profiler(self._library.trt, seen)
        try:
            self._context.profiler = profiler
            try:
                for _ in range(max(runs, 1)):
                    self._execute()
                    self._cuda.synchronize(self._stream)
            finally:
                self._context.profiler = None
        except Exception as error:
            logger.debug("layers of the engine were not timed: %s", error)
        return kernel_times(layers, seen)

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Gives the context, the engine, device memory and the stream back, in that order."""
        self._lease.end()
        observers, self._observers = self._observers, {}
        for session in observers.values():
            session.close()
        self._allocators = {}
        self._context = None
        self._engine = None
        self._runtime = None
        self._memory.close()
        if self._stream:
            self._cuda.destroy_stream(self._stream)
            self._stream = 0


def _handed_on(model: Model, lost: Sequence[str], kept: Collection[str]) -> dict[str, str]:
    """Outputs that the engine has under another output's name, which is the same tensor: the parser makes none of its
    own for what Dropout or Identity hands on, and gives the one there is the later name."""
    index = model.index

    def origin(name: str) -> str:
        return index.moved_from(name, ("Dropout", "Identity"))

    origins = {origin(name): name for name in kept}
    return {name: origins[origin(name)] for name in lost if origin(name) in origins}


def _marked(names: Sequence[str], deployed: Mapping[str, np.ndarray], observed: Mapping[str, np.ndarray]) -> str:
    """How near an engine with marked tensors is to the one that is deployed, by what both give for one sample."""
    what = f"Tensor {names[0]!r} was" if len(names) == 1 else f"{len(names)} tensors, {names[0]!r} first, were"
    text = f"{what} marked to be observed, which can change the engine"
    farthest, most = "", 0.0
    for name, value in deployed.items():
        other = observed[name]
        if value.shape == other.shape and value.tobytes() == other.tobytes():
            continue
        distance, size = np.inf, 0.0
        if value.shape == other.shape:
            one, two = (a.astype(np.float64).reshape(-1) for a in (value, other))
            distance, size = float(np.linalg.norm(two - one)), float(np.linalg.norm(one))
        relative = distance / size if size else np.inf
        if not farthest or relative > most:
            farthest, most = name, relative
    if not farthest:
        return f"{text}: its outputs stayed the same bit by bit."
    return f"{text}: {farthest!r} differs from the deployed one by {most:.1e} (relative L2)."
