"""ONNX Runtime: on the CPU, on CUDA, or through its TensorRT provider, and never silently on another one."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import io
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...graph.errors import BuildError, MissingPackage, ProviderUnavailable, RunnerError, UsageError
from ...graph.formats import FP32, TF32, NumberFormat
from ...graph.interrupts import uninterrupted
from ..contract.device import DeviceArray
from ..contract.options import option
from ..contract.runner import Runner
from ..contract.session import Session, SessionInfo
from ..contract.workload import Feed, Workload

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from ...graph.model import Model
    from ...graph.specs import TensorSpec

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
_SILENT = 4
"""ORT's "fatal": its errors arrive as exceptions, and need not be printed a second time."""

_FOLDER = "session.model_external_initializers_file_folder_path"
"""The session option that says where the external weights of a model in memory are."""

# The distributions that install the import package `onnxruntime`; two of them overwrite each other's files.
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")


@dataclass(frozen=True)
class OnnxrtRunner(Runner):
    """ONNX Runtime.

    Attributes:
        provider: ``cpu``, ``cuda`` or ``tensorrt``. One that is asked for and cannot be used is an error.
        optimization: Graph optimization level: ``disable``, ``basic``, ``extended``, ``layout`` (where this version of
            ONNX Runtime has it) or ``all``, which is what a deployed session uses.
        tf32: Lets CUDA multiply FP32 in TF32. ONNX Runtime's own default is on; here it is off.
        custom_ops: Shared libraries of custom operators.
        threads: Threads of one operator; 0 leaves the choice to ONNX Runtime (one a physical core).
        lean: Give memory back at once, and let idle threads sleep: for sessions that run once or twice.
    """

    flag: ClassVar[str] = "onnxrt"
    opens_ahead: ClassVar[bool] = True
    left_out: ClassVar[tuple[str, ...]] = ()
    """Graph optimizations that are never applied, by ONNX Runtime's names."""
    value_field: ClassVar[str] = "provider"
    values: ClassVar[tuple[str, ...]] = tuple(_PROVIDERS)

    provider: str = "cpu"
    optimization: str = option(
        "all", "--ort-optimization", "graph optimization level of ONNX Runtime (default: all)", choices=tuple(_LEVELS)
    )
    tf32: bool = option(False, "--ort-tf32", "let ONNX Runtime's CUDA provider multiply FP32 in TF32")
    custom_ops: tuple[str, ...] = option(
        (), "--ort-custom-ops", "library of custom operators for ONNX Runtime; may be repeated", metavar="LIB"
    )
    threads: int = option(
        0, "--ort-threads", "threads of ONNX Runtime (default: its own choice)", metavar="N", type=int
    )

    lean: bool = False

    def __post_init__(self) -> None:
        if self.provider not in _PROVIDERS:
            raise UsageError(f"--onnxrt={self.provider}: not one of {', '.join(_PROVIDERS)}.")
        if self.optimization not in _LEVELS:
            raise UsageError(f"--ort-optimization {self.optimization}: not one of {', '.join(_LEVELS)}.")
        if self.threads < 0:
            raise UsageError(f"--ort-threads {self.threads}: must be 0 (ONNX Runtime's choice) or more.")
        libraries = (self.custom_ops,) if isinstance(self.custom_ops, (str, os.PathLike)) else self.custom_ops
        object.__setattr__(self, "custom_ops", tuple(os.fspath(library) for library in libraries))

    @property
    def name(self) -> str:
        """``onnxrt`` on the CPU, else ``onnxrt:PROVIDER``."""
        return "onnxrt" if self.provider == "cpu" else f"onnxrt:{self.provider}"

    def for_pieces(self) -> OnnxrtRunner:
        """Without an arena, which keeps what a piece needed, and without threads that spin while others work.

        Nodes are fused as usual, but tensors keep their layout: where every layer is observed, each would be converted
        to the blocked layout and back, which takes longer than the layer.
        """
        plain = "extended" if self.optimization in ("all", "layout") and self.provider == "cpu" else self.optimization
        return dataclasses.replace(self, lean=True, optimization=plain)

    @property
    def trust(self) -> int:
        """10 on the CPU, 30 elsewhere."""
        return 10 if self.provider == "cpu" else 30

    @property
    def repeatable(self) -> bool:
        """On the CPU: its kernels give each element to one thread, whichever that is."""
        return self.provider == "cpu" and not self.custom_ops

    @property
    def arithmetic(self) -> NumberFormat:
        """FP32; TF32 where a GPU may round to it.

        The TensorRT provider has no switch for TF32: it is on unless the environment says ``NVIDIA_TF32_OVERRIDE=0``.
        """
        if self.provider == "tensorrt":
            return FP32 if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0" else TF32
        return TF32 if self.tf32 and self.provider == "cuda" else FP32

    @property
    def adds_exactly(self) -> bool:
        """On the CPU."""
        return self.provider == "cpu"

    def open(
        self,
        model: Model,
        *,
        fetch: Sequence[str] = (),
        workload: Workload | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> OnnxrtSession:
        """A session on ``model``.

        Without ``fetch`` it is the program that would be deployed. Each tensor in ``fetch`` becomes an output of the
        graph that ONNX Runtime optimizes, and what is an output cannot be fused away.
        """
        return OnnxrtSession(self, model, fetch, progress or (lambda stage: None))


class OnnxrtSession(Session):
    """A session of ONNX Runtime, and a second one from the first time that an undeclared inner tensor is fetched.

    Arrays that it returns share ONNX Runtime's memory and are not copied; they live as long as someone holds them.
    """

    def __init__(
        self, runner: OnnxrtRunner, model: Model, fetch: Sequence[str] = (), progress: Callable[[str], None] = print
    ) -> None:
        self._runner = runner
        self._model = model
        self._ort = _import_onnxruntime(runner)
        self.inputs: tuple[TensorSpec, ...] = model.inputs
        self.outputs: tuple[TensorSpec, ...] = model.outputs
        self._specs = {spec.name: spec for spec in self.inputs}
        self.device = "" if runner.provider == "cpu" else "cuda:0"
        self._open = True
        progress("loading into ONNX Runtime")
        # Initializers and inputs need no runtime to be fetched, and ORT refuses some of them as outputs.
        self._known = {*self._specs, *model.index.initializers} if fetch else set(self._specs)
        outputs = [spec.name for spec in self.outputs]
        self._session = _build(runner, self._ort, model, self._inner(fetch, outputs))
        self._observed: _Loaded | None = None
        self.info = _describe(runner, self._ort, self._session, model)

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

    def _observing(self, inner: tuple[str, ...]) -> _Loaded:
        """A session in which the tensors ``inner`` are outputs as well, besides those that it was asked for before."""
        if self._observed is None or any(name not in self._observed.outputs for name in inner):
            before = () if self._observed is None else self._observed.inner
            declared = self._session.inner
            self._observed = None  # free it first: two of them need not fit in memory
            names = tuple(dict.fromkeys((*declared, *before, *inner)))
            self._observed = _build(self._runner, self._ort, self._model, names)
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


class _Loaded:
    """An `onnxruntime.InferenceSession` and what is needed to move arrays in and out of it."""

    def __init__(self, ort: Any, session: Any, inner: tuple[str, ...]) -> None:
        self._ort = ort
        self.session = session
        self.inner = inner
        self.outputs: dict[str, str] = {o.name: o.type for o in session.get_outputs()}
        types = {i.name: i.type for i in session.get_inputs()}
        # Types that NumPy lacks travel as OrtValues: name -> ONNX element type.
        self._foreign_in = {name: _FOREIGN[t] for name, t in types.items() if t in _FOREIGN}
        self._inputs = tuple(types)
        self._bindable = all(t in _NATIVE for t in types.values())

    def run(self, names: list[str], feed: Feed, who: str) -> dict[str, np.ndarray]:
        import numpy as np

        for name in names:
            if not self.outputs[name].startswith("tensor("):
                raise RunnerError(f"{who}: {name!r} is a {self.outputs[name]}; only tensors are compared.")
        values: dict[str, Any] = {name: feed[name] for name in self._inputs}
        foreign = bool(self._foreign_in) or any(self.outputs[name] in _FOREIGN for name in names)
        try:
            if foreign:
                return self._run_foreign(names, values, who)
            results = self.session.run(names, values)
        except RunnerError:
            raise
        except Exception as error:
            raise RunnerError(f"{who}: {_one_line(error)}") from error
        return {name: np.asarray(value) for name, value in zip(names, results, strict=True)}

    def binds(self, names: Sequence[str]) -> bool:
        """Whether every input, and each of these outputs, can be bound to memory by address."""
        return self._bindable and all(self.outputs.get(name) in _NATIVE for name in names)

    def run_bound(
        self, names: list[str], feed: Mapping[str, np.ndarray | DeviceArray], device: str, who: str
    ) -> dict[str, np.ndarray | DeviceArray]:
        """Runs with outputs left on ``device``, in memory that lives as long as someone holds the arrays.

        Args:
            names: Outputs; `binds` must hold of them.
            feed: Arrays in host memory or on ``device``.
            device: ``cuda:0``.
            who: What messages call the runner.
        """
        import numpy as np

        kind, _, number = device.partition(":")
        binding = self.session.io_binding()
        alive = []  # what is bound by address
        try:
            for name in self._inputs:
                value = feed[name]
                if isinstance(value, DeviceArray) and value.device == device:
                    shape = list(value.shape)
                    binding.bind_input(name, kind, int(number), value.dtype.type, shape, value.address)
                else:
                    alive.append(np.require(value, requirements="C"))
                    binding.bind_cpu_input(name, alive[-1])
            for name in names:
                binding.bind_output(name, kind, int(number))
            self.session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        except RunnerError:
            raise
        except Exception as error:
            raise RunnerError(f"{who}: {_one_line(error)}") from error
        results: dict[str, np.ndarray | DeviceArray] = {}
        for name, value in zip(names, binding.get_outputs(), strict=True):
            if value.device_name() == "cpu" and kind != "cpu":
                results[name] = value.numpy()
                continue
            dtype = np.dtype(_NATIVE[self.outputs[name]])
            results[name] = DeviceArray(value.data_ptr(), tuple(value.shape()), dtype, device, value.numpy, value)
        return results

    def _run_foreign(self, names: list[str], values: dict[str, Any], who: str) -> dict[str, np.ndarray]:
        """Runs with types that NumPy lacks: bound by address, since that is the one way to get at such results."""
        import numpy as np

        text = [name for name, array in values.items() if array.dtype.kind in "OSUT"]
        if text:  # strings cannot be bound: feed everything else as OrtValues
            lost = [name for name in names if self.outputs[name] in _FOREIGN]
            lost += [name for name, elem_type in self._foreign_in.items() if elem_type in _BITS]
            if lost:
                raise RunnerError(
                    f"{who}: ONNX Runtime's Python package cannot carry {lost[0]!r} while {text[0]!r} is a string."
                )
            held = {name: self._ort_value(values[name], elem_type) for name, elem_type in self._foreign_in.items()}
            results = self.session.run(names, {**values, **{name: value for name, (value, _) in held.items()}})
            return {name: np.asarray(value) for name, value in zip(names, results, strict=True)}
        binding = self.session.io_binding()
        alive = []  # what is bound by address
        for name, array in values.items():
            elem_type = self._foreign_in.get(name)
            if elem_type is None:
                dense = np.require(array, requirements="C")
                alive.append(dense)
                binding.bind_cpu_input(name, dense)
            elif elem_type in _BITS:
                packed = _pack(array, _BITS[elem_type])
                alive.append(packed)
                binding.bind_input(name, "cpu", 0, elem_type, list(array.shape), packed.ctypes.data)
            else:
                value, dense = self._ort_value(array, elem_type)
                alive.append(dense)
                binding.bind_ortvalue_input(name, value)
        for name in names:
            binding.bind_output(name)
        self.session.run_with_iobinding(binding)
        return {name: _array(value) for name, value in zip(names, binding.get_outputs(), strict=True)}

    def _ort_value(self, array: np.ndarray, elem_type: int) -> tuple[Any, np.ndarray]:
        import numpy as np

        if not hasattr(self._ort.OrtValue, "ortvalue_from_numpy_with_onnx_type"):
            raise RunnerError(
                f"onnxruntime {self._ort.__version__} cannot be given {array.dtype} from Python; install a newer one."
            )
        dense = np.require(array, requirements="C")
        return self._ort.OrtValue.ortvalue_from_numpy_with_onnx_type(dense, elem_type), dense


# The types of tensors that can be bound by address, and read again, as NumPy knows them.
_NATIVE = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({name})": name for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")},
}

# ONNX element types that ONNX Runtime knows and NumPy does not, by ORT's name for them. The numbers are those of
# onnx.TensorProto.DataType, written out so that listing a command's options does not import onnx.
_FOREIGN = {
    "tensor(bfloat16)": 16,
    "tensor(float8e4m3fn)": 17,
    "tensor(float8e4m3fnuz)": 18,
    "tensor(float8e5m2)": 19,
    "tensor(float8e5m2fnuz)": 20,
    "tensor(uint4)": 21,
    "tensor(int4)": 22,
    "tensor(float4e2m1)": 23,
    "tensor(float8e8m0)": 24,
    "tensor(uint2)": 25,
    "tensor(int2)": 26,
}
_BITS = {21: 4, 22: 4, 23: 4, 25: 2, 26: 2}
"""Element types of which several share a byte, the first in the lowest bits: type -> bits of one element."""


def _pack(array: np.ndarray, bits: int) -> np.ndarray:
    """Elements that ml_dtypes keeps one to a byte, as ONNX packs them."""
    import numpy as np

    raw = array.reshape(-1).view(np.uint8) & np.uint8((1 << bits) - 1)
    per_byte = 8 // bits
    padded = np.zeros((-(-raw.size // per_byte), per_byte), np.uint8)
    padded.reshape(-1)[: raw.size] = raw
    shifts = (np.arange(per_byte) * bits).astype(np.uint8)
    return np.bitwise_or.reduce(padded << shifts, axis=1, dtype=np.uint8) if raw.size else np.zeros(1, np.uint8)


def _unpack(packed: np.ndarray, bits: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The reverse of `_pack`."""
    import numpy as np

    shifts = (np.arange(8 // bits) * bits).astype(np.uint8)
    raw = ((packed[:, None] >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1)[: int(np.prod(shape))]
    if dtype.name.startswith("int"):
        raw = (raw.astype(np.int8) ^ np.int8(1 << (bits - 1))) - np.int8(1 << (bits - 1))  # extend the sign
        return raw.astype(dtype).reshape(shape)
    return (raw.view(dtype) if "float" in dtype.name else raw.astype(dtype)).reshape(shape)


def _array(value: Any) -> np.ndarray:
    """An OrtValue on the CPU as an array."""
    import ctypes

    import numpy as np

    elem_type = _FOREIGN.get(value.data_type())
    if elem_type is None:
        return np.asarray(value.numpy())
    from ...graph.specs import dtype_from_onnx

    dtype, shape, size = dtype_from_onnx(elem_type), tuple(value.shape()), value.tensor_size_in_bytes()
    if not size:
        return np.empty(shape, dtype)
    raw = np.frombuffer((ctypes.c_uint8 * size).from_address(value.data_ptr()), np.uint8).copy()
    return _unpack(raw, _BITS[elem_type], dtype, shape) if elem_type in _BITS else raw.view(dtype).reshape(shape)


def _import_onnxruntime(runner: OnnxrtRunner) -> Any:
    extra = "cpu" if runner.provider == "cpu" else "gpu"
    try:
        with uninterrupted():
            import onnxruntime
    except ImportError as error:
        if _installed():
            raise RunnerError(
                f"{runner.name}: onnxruntime is installed, but does not load: {_one_line(error)}"
            ) from error
        raise MissingPackage("onnxruntime" if extra == "cpu" else "onnxruntime-gpu", extra) from error
    if not hasattr(onnxruntime, "InferenceSession"):  # what two distributions on top of each other can leave behind
        raise RunnerError(
            f"{runner.name}: the onnxruntime package is broken ({', '.join(_installed()) or 'no distribution'}). "
            f"Uninstall every one of them, then: pip install 'layerdiff[{extra}]'"
        )
    onnxruntime.set_default_logger_severity(_SILENT)
    return onnxruntime


@functools.cache
def _installed() -> list[str]:
    """The installed distributions that hold the import package ``onnxruntime``, with their versions."""
    from importlib import metadata

    found = []
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return found


def _build(
    runner: OnnxrtRunner,
    ort: Any,
    model: Model,
    inner: tuple[str, ...],
    *,
    probe: bool = False,
    optimized: str | None = None,
) -> _Loaded:
    """An ORT session on ``model`` with the tensors ``inner`` as outputs besides its own.

    Args:
        runner: The configuration.
        ort: The package.
        model: What to load.
        inner: Names of inner tensors.
        probe: Refuse the model if any node would fall back to the CPU.
        optimized: Where to write the optimized graph.
    """
    wanted = _PROVIDERS[runner.provider]
    available = ort.get_available_providers()
    if wanted not in available:
        raise ProviderUnavailable(_unavailable(runner, ort, available))
    if runner.provider != "cpu" and hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()  # CUDA libraries that pip installed; it prints what it does not find

    def options(folder: Any) -> Any:
        made = _options(runner, ort, folder)
        if probe:
            made.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if optimized is not None:
            made.optimized_model_filepath = optimized
        return made

    try:
        try:
            # A file that holds its weights would be read and copied; as bytes without them, they are mapped.
            if model.path is not None and not inner and not any(_external(model.proto.graph)):
                session = _session(runner, ort, os.fspath(model.path), options(None))
            else:
                session = _session(runner, ort, _with_outputs(model, inner), options(model.folder))
        except Exception as first:
            if model.folder is None or not any(_external(model.proto.graph)):
                raise
            try:
                session = _with_weights_elsewhere(runner, ort, model, inner, options)
            except Exception:
                raise first from None
    except RunnerError:
        raise
    except Exception as error:
        raise BuildError(f"{runner.name}: {model.source}: {_one_line(error)}") from error
    if wanted not in session.get_providers():
        raise ProviderUnavailable(
            f"{runner.name}: ONNX Runtime could not start {wanted} and would have used {session.get_providers()[0]}. "
            f"Check the GPU, its driver and the CUDA libraries, or: pip install 'layerdiff[gpu]'"
        )
    if hasattr(session, "_model_bytes"):
        session._model_bytes = None  # kept for a fallback that is switched off
    return _Loaded(ort, session, inner)


def _unavailable(runner: OnnxrtRunner, ort: Any, available: Sequence[str]) -> str:
    packages = _installed()
    names = ", ".join(p.removesuffix("ExecutionProvider") for p in available)
    has = f"{runner.name}: {' and '.join(packages) or 'onnxruntime ' + ort.__version__} offers {names}."
    if len(packages) > 1:
        return f"{has} They overwrite each other: uninstall both, then: pip install 'layerdiff[gpu]'"
    return f"{has} Install the GPU build instead: pip uninstall onnxruntime && pip install 'layerdiff[gpu]'"


def _options(runner: OnnxrtRunner, ort: Any, folder: Any) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    level = _LEVELS[runner.optimization]
    if not hasattr(ort.GraphOptimizationLevel, level):
        raise RunnerError(f"{runner.name}: onnxruntime {ort.__version__} has no optimization {runner.optimization!r}.")
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    if runner.threads:
        options.intra_op_num_threads = runner.threads
    # Sessions take turns here: the threads of one must not spin while another runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if runner.lean:
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if runner.provider != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if folder is not None:
        options.add_session_config_entry(_FOLDER, os.fspath(folder) or os.curdir)
    for library in runner.custom_ops:
        if not os.path.isfile(library):
            raise RunnerError(f"{runner.name}: --ort-custom-ops {library}: no such file.")
        try:
            options.register_custom_ops_library(library)
        except Exception as error:
            raise RunnerError(f"{runner.name}: --ort-custom-ops {library}: {_one_line(error)}") from error
    return options


def _session(runner: OnnxrtRunner, ort: Any, source: Any, options: Any) -> Any:
    cuda = ("CUDAExecutionProvider", {"use_tf32": "1" if runner.tf32 else "0"})
    chosen: dict[str, list[Any]] = {"cpu": [], "cuda": [cuda], "tensorrt": ["TensorrtExecutionProvider", cuda]}
    providers = [*chosen[runner.provider], "CPUExecutionProvider"]
    left_out = {"disabled_optimizers": list(runner.left_out)} if runner.left_out else {}
    return ort.InferenceSession(source, options, providers=providers, enable_fallback=0, **left_out)


def _with_outputs(model: Model, inner: Sequence[str], root: str | None = None) -> bytes:
    """The model as bytes, with more outputs. ONNX Runtime infers their types.

    Args:
        model: The model.
        inner: Names of inner tensors.
        root: Writes the places of external weights relative to this folder, with links followed.
    """
    if not inner and root is None:
        return model.serialized()
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    for tensor in _external(proto.graph) if root is not None else ():
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = os.path.relpath(os.path.realpath(os.path.join(model.folder or "", entry.value)), root)
    return model.derive(proto).serialized()


def _external(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The initializers that are stored outside, those of subgraphs included."""
    from ...graph.index import subgraphs

    yield from (tensor for tensor in graph.initializer if tensor.external_data)
    for node in graph.node:
        for body in subgraphs(node):
            yield from _external(body)


def _with_weights_elsewhere(
    runner: OnnxrtRunner, ort: Any, model: Model, inner: tuple[str, ...], options: Callable[[Any], Any]
) -> Any:
    """A session on a model whose weights are outside its folder, as links into the cache of a model hub are.

    ONNX Runtime maps weights that lie under the folder it is told of: here, the root of the file system. Versions that
    cannot be told do not mind if a file refers to weights elsewhere: theirs is written for the moment of loading.
    Weights handed over as arrays would be copied into memory.
    """
    root = os.path.splitdrive(os.path.realpath(model.folder or os.curdir))[0] + os.sep
    with contextlib.suppress(Exception):  # whatever is wrong with the model itself is wrong below as well
        return _session(runner, ort, _with_outputs(model, inner, root), options(root))
    with tempfile.TemporaryDirectory(prefix="layerdiff-ort-") as folder:
        folder = os.path.realpath(folder)
        path = os.path.join(folder, "model.onnx")
        with open(path, "wb") as file:
            file.write(_with_outputs(model, inner, folder))
        return _session(runner, ort, path, options(None))


def _describe(runner: OnnxrtRunner, ort: Any, loaded: _Loaded, model: Model) -> SessionInfo:
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
    if runner.custom_ops:
        settings["custom_ops"] = list(runner.custom_ops)
    packages = _installed()
    if len(packages) > 1:
        notes.append(
            f"{' and '.join(packages)} are installed on top of each other; which one runs depends on the order of "
            f"installation. Keep one."
        )
    if runner.provider != "cpu":
        settings["tf32"] = runner.arithmetic is TF32
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
                    raise ProviderUnavailable(f"{text} Nothing would run on {_PROVIDERS[runner.provider]}.")
                notes.append(text)
    return SessionInfo(settings, {"onnxruntime": ort.__version__}, tuple(notes))


def _placement(session: Any) -> dict[str, Counter[str]] | None:
    """Provider -> operator -> number of nodes, after optimization; None where this version cannot tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    placed: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        placed.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return placed


def _probe(runner: OnnxrtRunner, ort: Any, model: Model) -> list[str]:
    """Versions that do not report placement do refuse, when told to, a model of which a node falls back."""
    try:
        _build(runner, ort, model, (), probe=True)
    except BuildError:
        return [f"{runner.name}: some nodes run on the CPU; onnxruntime {ort.__version__} does not say how many."]
    return []


_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_PLACE = re.compile(r"\S*/onnxruntime/\S+:\d+ .*?\) ")
_IN_NODE = re.compile(
    r'In Node, \("(?P<name>[^"]*)", (?P<op>\w+), "(?P<domain>[^"]*)", -?\d+\) : .*? -> .*?,?\) , Error '
)
_WHILE = re.compile(
    r"Non-zero status code returned while running (?P<op>\w+) node\. Name:'(?P<name>[^']*)' Status Message: "
)


def _one_line(error: BaseException) -> str:
    """ONNX Runtime's message without its codes and source lines; nodes are named as ``Op 'name'``."""
    text = " ".join(str(error).split())
    text = _CODE.sub("", text)
    text = _IN_NODE.sub(lambda m: f"{m['domain'] + '.' if m['domain'] else ''}{m['op']} {m['name']!r}: ", text)
    text = _WHILE.sub(lambda m: f"{m['op']} {m['name']!r}: ", text)
    text = _PLACE.sub("", text)
    return text if len(text) <= 400 else text[:397] + "..."
