"""A stand-in for the ``tensorrt`` module, made from the bindings of real versions (``data/tensorrt_api.json``).

It knows no name that the real version does not have, refuses wrong numbers and names of arguments, and setting unknown
attributes. What it computes, it computes with ONNX Runtime, in a `FakeCuda` whose device memory is host memory. So a
test that passes here says that the runner calls what exists, in a sensible order; not that TensorRT does what we think.
"""

from __future__ import annotations

import ctypes
import enum
import json
import pickle
import re
import types
from pathlib import Path

import numpy as np
import onnx

API = json.loads((Path(__file__).parent / "data" / "tensorrt_api.json").read_text())
VERSIONS = tuple(API)

DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "BOOL": "bool", "INT8": "int8"}
ONNX_TYPES = {1: "FLOAT", 10: "HALF", 6: "INT32", 7: "INT64", 9: "BOOL", 3: "INT8", 2: "UINT8", 16: "BF16", 17: "FP8"}


class FakeCuda:
    """CUDA's runtime with host memory in place of the device's; knows what was not given back."""

    def __init__(self):
        self.device, self.host, self.streams, self.events = {}, {}, set(), {}
        self.mallocs = 0
        self._clock = 0.0
        self._next = 1

    def _allocate(self, table, size):
        buffer = ctypes.create_string_buffer(max(size, 1))
        table[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def malloc(self, size):
        self.mallocs += 1
        return self._allocate(self.device, size)

    def free(self, address):
        del self.device[address]

    def malloc_host(self, size):
        return self._allocate(self.host, size)

    def free_host(self, address):
        del self.host[address]

    def copy(self, to, source, size, kind, stream):
        ctypes.memmove(to, source, size)

    def stream(self):
        self._next += 1
        self.streams.add(self._next)
        return self._next

    def synchronize(self, stream):
        assert stream == 0 or stream in self.streams

    def destroy_stream(self, stream):
        self.streams.remove(stream)

    def event(self):
        self._next += 1
        self.events[self._next] = None
        return self._next

    def record(self, event, stream):
        self._clock += 1.0
        self.events[event] = self._clock

    def elapsed(self, start, end):
        return self.events[end] - self.events[start]

    def destroy_event(self, event):
        del self.events[event]

    @property
    def held(self):
        """Allocations, streams and events that are alive."""
        return len(self.device) + len(self.host) + len(self.streams) + len(self.events)


def make(version):
    """The stand-in module of one version, a key of `VERSIONS`."""
    api = API[version]
    trt = types.ModuleType("tensorrt")
    trt.__version__ = api["version"]
    trt.calls = []
    for name, members in api["enums"].items():
        setattr(trt, name, enum.IntEnum(name, members, start=0))
    for name, members in api["classes"].items():
        setattr(trt, name, _class(trt, name, members))
    severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0)
    for item in severity:
        setattr(trt.ILogger, item.name, item)
    for name in api["functions"]:
        setattr(trt, name, lambda *a: True)
    return trt


def _class(trt, class_name, members):
    methods = {k: s for k, s in members.items() if s}
    properties = {k for k, s in members.items() if not s}
    behaviour = globals().get(f"_{class_name}", type("Nothing", (), {}))

    def init(self, *args):
        object.__setattr__(self, "_values", {})
        object.__setattr__(self, "_trt", trt)
        if hasattr(behaviour, "init"):
            behaviour.init(self, *args)

    def get(self, key):
        if key.startswith("_"):
            raise AttributeError(key)
        if key not in members:
            raise AttributeError(f"TensorRT {trt.__version__} has no {class_name}.{key}")
        return self._values.get(key)

    def put(self, key, value):
        # Subclasses written in Python (calibrators, loggers) may hold what they like.
        if type(self).__module__ != __name__ or key.startswith("_"):
            object.__setattr__(self, key, value)
            return
        if key not in properties:
            raise AttributeError(f"TensorRT {trt.__version__} has no settable {class_name}.{key}")
        trt.calls.append((class_name, key, value))
        self._values[key] = value

    body = {"__init__": init, "__getattr__": get, "__setattr__": put, "__module__": __name__}
    for name, signature in methods.items():
        function = getattr(behaviour, name, None)
        if function is not None:
            body[name] = _checked(trt, class_name, name, signature, function)
    for name in ("__bytes__",):
        if hasattr(behaviour, name):
            body[name] = getattr(behaviour, name)
    return type(class_name, (), body)


def _checked(trt, class_name, name, signature, function):
    low, high, names = _arity(signature)

    def method(self, *args, **kwargs):
        if high is not None and not low <= len(args) + len(kwargs) <= high:
            raise TypeError(f"{class_name}.{name}: {len(args) + len(kwargs)} arguments; it is {signature}")
        unknown = [k for k in kwargs if names is not None and k not in names]
        if unknown:
            raise TypeError(f"{class_name}.{name}: no argument {unknown[0]!r}; it is {signature}")
        trt.calls.append((class_name, name, args))
        return function(self, *args, **kwargs)

    return method


def _arity(signature):
    """Least and greatest number of arguments after self, and their names; None where the binding does not tell."""
    inside = re.search(r"\((.*)\)(?: ->|$)", signature).group(1)
    if "*args" in inside:
        return 0, None, None
    depth, parts, current = 0, [], ""
    for char in inside:
        depth += char in "[(<"
        depth -= char in "])>"
        if char == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += char
    parts = [p.strip() for p in [*parts, current] if p.strip()][1:]
    required = [p for p in parts if "=" not in p]
    return len(required), len(parts), [p.split(":")[0] for p in parts]


def _pair(trt, name):
    """A fresh object of a stand-in class."""
    return getattr(trt, name)()


# --- behaviour --------------------------------------------------------------------------------------------------------


class _Builder:
    def init(self, logger):
        self._logger = logger

    def create_network(self, flags=0):
        network = _pair(self._trt, "INetworkDefinition")
        network._flags = int(flags)
        return network

    def create_builder_config(self):
        config = _pair(self._trt, "IBuilderConfig")
        config._flags = {self._trt.BuilderFlag.TF32}
        config._profiles, config._cache, config._sources = [], None, None
        return config

    def create_optimization_profile(self):
        profile = _pair(self._trt, "IOptimizationProfile")
        profile._shapes, profile._inputs = {}, {}
        return profile

    def build_serialized_network(self, network, config):
        trt, log = self._trt, self._logger
        flags = {f.name for f in config._flags}
        typed = "STRONGLY_TYPED" in trt.NetworkDefinitionCreationFlag.__members__ and (
            network._flags >> int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) & 1
        )
        if typed and flags & {"FP16", "BF16", "INT8", "FP8", "OBEY_PRECISION_CONSTRAINTS"}:
            log.log(trt.ILogger.ERROR, "3: precision flags are not allowed in a strongly typed network")
            return None
        for node in network._proto.graph.node:
            if node.op_type == "Hardmax":
                text = f"Could not find any implementation for node {node.name}.)"
                log.log(trt.ILogger.ERROR, f"10: [optimizer.cpp::computeCosts::3869] Error Code 10: Error ({text}")
                return None
        if getattr(config, "_pool", (None, None))[1] == 1:
            names = [layer.name for layer in network._layers]
            last = next((n for n in names if n.endswith("[LoopOutput]")), None)
            if last is not None:  # what 8.6.0 said of an LSTM without workspace
                first = next(layer.name for layer in network._layers if layer.type == trt.LayerType.CONSTANT)
                text = f"Could not find any implementation for node {{ForeignNode[{first}...{last}]}}."
                log.log(trt.ILogger.ERROR, "1: [myelin::tryCompile] Error Code 1: Myelin (Myelin error from graph)")
                log.log(trt.ILogger.ERROR, f"10: [optimizer.cpp::computeCosts::3869] Error Code 10: ({text})")
                return None
        dynamic = [t for t in network._inputs if -1 in t.shape]
        if (dynamic and not all(t.name in p._shapes for p in config._profiles for t in dynamic)) or (
            dynamic and not config._profiles
        ):
            log.log(trt.ILogger.ERROR, "4: Network has dynamic inputs, but no optimization profile has been defined.")
            return None
        if (clash := _sizes_of_one_name(network, config._profiles)) is not None:  # what 8.6.0 said of Paddle's '?'
            text = f"{clash}: Input dimensions with this name are inconsistent."
            log.log(
                trt.ILogger.ERROR, f"4: [graphShapeAnalyzer.cpp::analyzeShapes] Error Code 4: Internal Error ({text})"
            )
            return None
        calibrator = config._values.get("int8_calibrator")
        if "INT8" in flags and calibrator is not None and not _calibrate(calibrator, network):
            log.log(trt.ILogger.ERROR, "2: Calibration failure occurred with no scaling factors detected.")
            return None
        monitor = config._values.get("progress_monitor")
        if monitor is not None:
            monitor.phase_start("Building", None, 4)
            for step in range(4):
                assert monitor.step_complete("Building", step) is True
            monitor.phase_finish("Building")
        if config._cache is not None:
            config._cache._data += b"."
        data = {
            "onnx": network._proto.SerializeToString(),
            "folder": network._folder,
            "outputs": [t.name for t in network._outputs],
            "types": {t.name: t.dtype.name for t in (*network._inputs, *network._outputs)},
            "profiles": [p._shapes for p in config._profiles] or [{}],
            "shapes": {t.name: tuple(t.shape) for t in network._inputs},
            "debug": getattr(network, "_debug", False),
            "formats": {} if typed else _formats(trt, network, flags),
        }
        return _host(trt, pickle.dumps(data))


def _formats(trt, network, flags):
    """Which number format each node runs in: the narrowest allowed, or the one that it was given."""
    best = next((f for f in ("INT8", "FP8", "FP16", "BF16") if f in flags), "FP32")
    names = {trt.DataType.FLOAT: "FP32", trt.DataType.HALF: "FP16"}
    return {layer.name: names.get(layer._values.get("precision"), best) for layer in network._layers}


def _host(trt, data):
    memory = _pair(trt, "IHostMemory")
    memory._data = data
    return memory


class _IHostMemory:
    def __bytes__(self):
        return self._data


def _calibrate(calibrator, network):
    if calibrator.read_calibration_cache() is not None:
        return True
    names, batches = [t.name for t in network._inputs], 0
    while True:
        addresses = calibrator.get_batch(names)
        if not addresses:
            break
        assert len(addresses) == len(names)
        batches += 1
    if batches:
        calibrator.write_calibration_cache(b"TRT-scales")
    return batches > 0


class _INetworkDefinition:
    def get_input(self, index):
        return self._inputs[index]

    def get_output(self, index):
        return self._outputs[index]

    def get_layer(self, index):
        return self._layers[index]

    def mark_output(self, tensor):
        self._outputs.append(tensor)

    def mark_unfused_tensors_as_debug_tensors(self):
        self._debug = True
        return True


class _ILayer:
    def get_output(self, index):
        return self._outputs[index]

    def set_output_type(self, index, dtype):
        pass


class _OnnxParser:
    def init(self, network, logger):
        self._network, self._errors = network, []
        self._values["num_errors"] = 0

    def parse(self, model, path=None):
        return _parse(self, onnx.ModelProto.FromString(bytes(model)), str(Path(path).parent) if path else "")

    def parse_from_file(self, model):
        return _parse(self, onnx.load(model, load_external_data=False), str(Path(model).parent))

    def get_error(self, index):
        return self._errors[index]


def _tensor(trt, name, elem_type, shape):
    tensor = _pair(trt, "ITensor")
    kind = ONNX_TYPES[elem_type]
    if kind == "INT64" and kind not in trt.DataType.__members__:
        kind = "INT32"
    tensor._values.update(name=name, dtype=trt.DataType[kind], shape=shape, is_shape_tensor=False)
    return tensor


def _shape(info):
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in info.type.tensor_type.shape.dim)


def _sizes_of_one_name(network, profiles):
    """A name of dimensions of inputs that a profile gives two ranges."""
    for profile in profiles:
        found = {}
        for info in network._proto.graph.input:
            for axis, dim in enumerate(info.type.tensor_type.shape.dim):
                if dim.dim_param and info.name in profile._shapes:
                    sizes = tuple(shape[axis] for shape in profile._shapes[info.name])
                    if found.setdefault(dim.dim_param, sizes) != sizes:
                        return dim.dim_param
    return None


def _parse(parser, proto, folder):
    trt, network = parser._trt, parser._network
    for position, node in enumerate(proto.graph.node):
        assert node.name, "TensorRT would invent a name for this node"
        if node.op_type == "NonMaxSuppression":
            error = _pair(trt, "ParserError")
            error._position, error._operator = position, node.op_type
            parser._errors.append(error)
            parser._values["num_errors"] = 1
            return False
    typed = onnx.shape_inference.infer_shapes(proto)
    infos = {i.name: i for i in (*typed.graph.value_info, *typed.graph.output, *typed.graph.input)}
    weights = {t.name for t in proto.graph.initializer}
    network._proto, network._folder = proto, folder
    network._inputs = [
        _tensor(trt, i.name, i.type.tensor_type.elem_type, _shape(i))
        for i in proto.graph.input
        if i.name not in weights
    ]
    inputs, outputs = {t.name: t for t in network._inputs}, {o.name for o in proto.graph.output}
    for node in proto.graph.node:
        if node.op_type in ("Identity", "Dropout") and node.input[0] in inputs and node.output[0] in outputs:
            inputs[node.input[0]].name = f"__{node.output[0]}"  # an input cannot be an output: the parser renames it
    renamed = {n.input[0] for n in proto.graph.node if n.op_type == "Dropout" and n.output[0] in outputs}  # one tensor
    network._outputs = [
        _tensor(trt, o.name, o.type.tensor_type.elem_type, _shape(infos[o.name]))
        for o in proto.graph.output
        if o.name not in renamed
    ]
    network._layers = []
    kinds = trt.LayerType
    for node in proto.graph.node:
        if node.op_type == "LSTM":
            network._layers.extend(_recurrence(trt, len(network._layers), [n for n in node.input if n in weights]))
        layer = _pair(trt, "ILayer")
        layer._outputs = [
            _tensor(trt, n, infos[n].type.tensor_type.elem_type, _shape(infos[n])) for n in node.output if n in infos
        ]
        kind = {"Constant": kinds.CONSTANT, "Shape": kinds.SHAPE, "Conv": kinds.CONVOLUTION}.get(
            node.op_type, kinds.ACTIVATION
        )
        layer._values.update(
            name=node.name, type=kind, num_outputs=len(layer._outputs), metadata=f"[ONNX Layer: {node.name}]"
        )
        network._layers.append(layer)
    network._values.update(
        num_inputs=len(network._inputs), num_outputs=len(network._outputs), num_layers=len(network._layers)
    )
    return True


def _recurrence(trt, number, weights):
    """The layers that the parser puts before the named one: constants by their weights' names, and nameless ones."""
    named = [(name, trt.LayerType.CONSTANT, "") for name in weights]
    kinds = ("RECURRENCE", "MATRIX_MULTIPLY", "ACTIVATION", "LOOP_OUTPUT")
    nameless = [("", trt.LayerType[kind], kind.title().replace("_", "")) for kind in kinds]
    for at, (name, kind, text) in enumerate(named + nameless, number):
        layer = _pair(trt, "ILayer")
        name = name or f"(Unnamed Layer* {at}) [{text}]"
        layer._outputs = [_tensor(trt, f"{name}_output", 1, (1,))]
        layer._values.update(name=name, type=kind, num_outputs=1, metadata="")
        yield layer


class _ParserError:
    def node(self):
        return self._position

    def desc(self):
        return f"No importer registered for op: {self._operator}."


class _IBuilderConfig:
    def set_flag(self, flag):
        self._flags.add(flag)

    def clear_flag(self, flag):
        self._flags.discard(flag)

    def set_memory_pool_limit(self, pool, pool_size):
        self._pool = (pool, pool_size)

    def set_tactic_sources(self, tactic_sources):
        self._sources = tactic_sources
        return True

    def add_optimization_profile(self, profile):
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_calibration_profile(self, profile):
        return True

    def create_timing_cache(self, serialized_timing_cache):
        cache = _pair(self._trt, "ITimingCache")
        cache._data = bytes(serialized_timing_cache)
        return cache

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache._data.startswith(b"other"):
            return False
        self._cache = cache
        return True

    def get_timing_cache(self):
        return self._cache


class _ITimingCache:
    def serialize(self):
        return _host(self._trt, self._data)


class _IOptimizationProfile:
    def set_shape(self, input, min, opt, max):
        self._shapes[input] = (tuple(min), tuple(opt), tuple(max))

    def set_shape_input(self, input, min, opt, max):
        self._inputs[input] = (min, opt, max)


class _Runtime:
    def init(self, logger):
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine):
        try:
            data = pickle.loads(serialized_engine)
        except Exception:
            self._logger.log(
                self._trt.ILogger.ERROR, "1: [stdArchiveReader.cpp::StdArchiveReader::32] Error Code 1: bad"
            )
            return None
        engine = _pair(self._trt, "ICudaEngine")
        engine._data = data
        engine._proto = onnx.ModelProto.FromString(data["onnx"])
        weights = {t.name for t in engine._proto.graph.initializer}
        engine._inputs = [i.name for i in engine._proto.graph.input if i.name not in weights]
        engine._names = [*engine._inputs, *data["outputs"]]
        engine._values.update(num_io_tensors=len(engine._names), num_optimization_profiles=len(data["profiles"]))
        return engine


class _ICudaEngine:
    def get_tensor_name(self, index):
        return self._names[index]

    def get_tensor_dtype(self, name):
        return self._trt.DataType[self._data["types"][name]]

    def get_tensor_mode(self, name):
        modes = self._trt.TensorIOMode
        return modes.INPUT if name in self._inputs else modes.OUTPUT

    def get_tensor_location(self, name):
        return self._trt.TensorLocation.DEVICE

    def get_tensor_shape(self, name):
        return self._data["shapes"].get(name, ())

    def get_tensor_profile_shape(self, name, profile_index):
        assert 0 <= profile_index < len(self._data["profiles"])
        return list(self._data["profiles"][profile_index][name])

    def create_execution_context(self):
        context = _pair(self._trt, "IExecutionContext")
        context._engine, context._shapes, context._addresses, context._listener = self, {}, {}, None
        context._profile, context._inputs = 0, self._inputs
        context._values["active_optimization_profile"] = 0
        return context

    def create_engine_inspector(self):
        inspector = _pair(self._trt, "EngineInspector")
        inspector._engine = self
        return inspector


class _EngineInspector:
    def get_engine_information(self, format):
        """Every layer once for each profile. Formats and kernels only where shapes are known, as the real one does; and
        nothing of the first profile of several to whoever asks through a context."""
        context, layers = self._values.get("execution_context"), []
        fixed = all(min(shape, default=0) >= 0 for shape in self._engine._data["shapes"].values())
        for profile in range(self._engine.num_optimization_profiles):
            if context is not None and not profile and self._engine.num_optimization_profiles > 1:
                continue
            suffix = f" [profile {profile}]" if profile else ""
            inside = (
                context is not None and context._profile == profile and set(context._shapes) == set(context._inputs)
            )
            for node in self._engine._proto.graph.node:
                kept = self._engine._data["formats"].get(node.name, "")
                weights = {"FP16": "Half", "FP32": "Float", "INT8": "Int8"}.get(kept, "") if len(node.input) > 1 else ""
                told = f"Row major linear {kept} format" if fixed or inside else "N/A due to dynamic shapes"
                tensor = {"Dimensions": [], "Format/Datatype": told}
                layers.append(
                    {
                        "Name": f"{node.name}{suffix}",
                        "LayerType": node.op_type,
                        "Inputs": [{"Name": f"{n}{suffix}", **tensor} for n in node.input[:1]],
                        "Outputs": [{"Name": f"{n}{suffix}", **tensor} for n in node.output],
                        "Metadata": f"[ONNX Layer: {node.name}]",
                        **({"Weights": {"Type": weights, "Count": 1}} if weights else {}),
                    }
                )
        return json.dumps({"Layers": layers})


class _IExecutionContext:
    def set_optimization_profile_async(self, profile_index, stream_handle):
        if not 0 <= profile_index < len(self._engine._data["profiles"]):
            return False
        self._profile, self._shapes = profile_index, {}  # all shapes must be given again
        self._values["active_optimization_profile"] = profile_index
        return True

    def set_input_shape(self, name, shape):
        triple = self._engine._data["profiles"][self._profile].get(name)
        if triple and not all(a <= d <= c for a, d, c in zip(triple[0], shape, triple[2], strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self):
        return []

    def get_tensor_shape(self, name):
        if name in self._shapes:
            return self._shapes[name]
        feed = {n: np.zeros(s, _numpy(self._engine, n)) for n, s in self._shapes.items()}
        return _run(self._engine, feed)[name].shape

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return True

    def set_debug_listener(self, listener):
        self._listener = listener
        return True

    def execute_async_v3(self, stream_handle):
        assert set(self._shapes) == set(self._engine._inputs), "every input needs a shape"
        feed = {}
        for name, shape in self._shapes.items():
            feed[name] = np.empty(shape, _numpy(self._engine, name))
            ctypes.memmove(feed[name].ctypes.data, self._addresses[name], feed[name].nbytes)
        for name, array in _run(self._engine, feed).items():
            ctypes.memmove(self._addresses[name], array.ctypes.data, array.nbytes)
        if self._values.get("unfused_tensors_debug_state"):
            assert self._engine._data["debug"]
            for name, array in _run(self._engine, feed, inner=True).items():
                kind = next(k for k, v in DTYPES.items() if v == array.dtype.name)
                self._listener.process_debug_tensor(
                    array.ctypes.data, self._trt.TensorLocation.HOST, self._trt.DataType[kind], array.shape, name, 0
                )
        return True


def _numpy(engine, name):
    return np.dtype(DTYPES[engine._data["types"][name]])


def _run(engine, feed, inner=False):
    import onnxruntime

    proto = onnx.ModelProto.FromString(engine._data["onnx"])
    if engine._data["folder"]:
        onnx.load_external_data_for_model(proto, engine._data["folder"])
    declared = {o.name: o for o in proto.graph.output}
    made = {n for node in proto.graph.node for n in node.output}
    wanted = sorted(made) if inner else engine._data["outputs"]
    for name in wanted:
        if name not in declared:
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
    elem = {i.name: i.type.tensor_type.elem_type for i in proto.graph.input}
    feed = {n: a.astype(onnx.helper.tensor_dtype_to_np_dtype(elem[n])) for n, a in feed.items()}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = dict(zip(wanted, session.run(wanted, feed), strict=True))
    if inner:
        return {n: np.ascontiguousarray(a) for n, a in results.items()}
    return {n: np.ascontiguousarray(a.astype(_numpy(engine, n))) for n, a in results.items()}
