"""Arrays in and out of ONNX Runtime: as NumPy's, as OrtValues where NumPy lacks the type, or left on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...graph.errors import RunnerError
from ..contract.device import DeviceArray
from .messages import one_line

if TYPE_CHECKING:
    import numpy as np

    from ..contract.workload import Feed

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


SMALL = 1 << 26
"""Bytes up to which outputs are copied out of a session's arena."""


class Loaded:
    """An `onnxruntime.InferenceSession` and what is needed to move arrays in and out of it.

    Args:
        ort: The package.
        session: The session.
        inner: Tensors inside the network that it gives too.
        arena: Whether tensors are made in an arena. Who holds an output then holds all of it, which is every tensor of
            the network: small outputs are copied.
    """

    def __init__(self, ort: Any, session: Any, inner: tuple[str, ...], *, arena: bool) -> None:
        self._ort = ort
        self.session = session
        self.inner = inner
        self._arena = arena
        self.outputs: dict[str, str] = {o.name: o.type for o in session.get_outputs()}
        types = {i.name: i.type for i in session.get_inputs()}
        # Types that NumPy lacks travel as OrtValues: name -> ONNX element type.
        self._foreign_in = {name: _FOREIGN[t] for name, t in types.items() if t in _FOREIGN}
        self._inputs = tuple(types)
        self._bindable = all(t in _NATIVE for t in types.values())

    def run(self, names: list[str], feed: Feed, who: str) -> dict[str, np.ndarray]:
        """Runs with arrays in host memory.

        Args:
            names: Outputs.
            feed: One array for each input.
            who: What messages call the runner.

        Raises:
            RunnerError: ONNX Runtime failed, or an output is no tensor.
        """
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
            raise RunnerError(f"{who}: {one_line(error)}") from error
        found = [np.asarray(value) for value in results]
        if self._arena and sum(array.nbytes for array in found) <= SMALL:
            found = [array if array.flags.owndata else array.copy() for array in found]
        return dict(zip(names, found, strict=True))

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
            raise RunnerError(f"{who}: {one_line(error)}") from error
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
        extended = (raw.astype(np.int8) ^ np.int8(1 << (bits - 1))) - np.int8(1 << (bits - 1))  # the sign, to all bits
        return extended.astype(dtype).reshape(shape)
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
