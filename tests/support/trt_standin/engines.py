"""Engines: loaded, inspected and run."""

from __future__ import annotations

import ctypes
import json
import pickle

import numpy as np
import onnx

from .objects import DTYPES, fresh, host


class Runtime:
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
        engine = fresh(self._trt, "ICudaEngine")
        engine._data = data
        engine._proto = onnx.ModelProto.FromString(data["onnx"])
        weights = {t.name for t in engine._proto.graph.initializer}
        engine._inputs = [i.name for i in engine._proto.graph.input if i.name not in weights]
        engine._names = [*engine._inputs, *data["outputs"]]
        engine._values.update(num_io_tensors=len(engine._names), num_optimization_profiles=len(data["profiles"]))
        return engine


class ICudaEngine:
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
        context = fresh(self._trt, "IExecutionContext")
        context._engine, context._shapes, context._addresses, context._listener = self, {}, {}, None
        context._profile, context._inputs = 0, self._inputs
        context._values["active_optimization_profile"] = 0
        return context

    def create_engine_inspector(self):
        inspector = fresh(self._trt, "EngineInspector")
        inspector._engine = self
        return inspector

    def serialize(self):
        return host(self._trt, pickle.dumps({**self._data, "onnx": self._proto.SerializeToString()}))


class Weights:
    def init(self, value):
        if value.dtype.name not in DTYPES.values():
            raise TypeError(f"no weights of type {value.dtype}")
        self._array = value


class Refitter:
    """Replaces initializers; of BatchNormalization's, the real one has made others, as here."""

    def init(self, engine, logger):
        graph = engine._proto.graph
        assert engine._data["refittable"], "the engine was not built refittable"
        folded = {n for node in graph.node if node.op_type == "BatchNormalization" for n in node.input[1:]}
        made = {f"tmp_weight_{i}" for i in range(len(folded))}
        kinds = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
        self._engine, self._set = engine, {}
        self._names = made | {t.name for t in graph.initializer if t.data_type in kinds and t.name not in folded}

    def get_all_weights(self):
        return sorted(self._names)

    def set_named_weights(self, name, weights):
        old = next(t for t in self._engine._proto.graph.initializer if t.name == name)
        if tuple(old.dims) != weights._array.shape:
            return False
        self._set[name] = weights._array
        return True

    def refit_cuda_engine(self):
        for tensor in self._engine._proto.graph.initializer:
            if tensor.name in self._set:
                tensor.CopyFrom(onnx.numpy_helper.from_array(self._set[tensor.name], tensor.name))
        return set(self._set) == self._names


class EngineInspector:
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


class IExecutionContext:
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
        feed = {n: np.zeros(s, numpy(self._engine, n)) for n, s in self._shapes.items()}
        return run(self._engine, feed)[name].shape

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
            feed[name] = np.empty(shape, numpy(self._engine, name))
            ctypes.memmove(feed[name].ctypes.data, self._addresses[name], feed[name].nbytes)
        for name, array in run(self._engine, feed).items():
            ctypes.memmove(self._addresses[name], array.ctypes.data, array.nbytes)
        if self._values.get("profiler") is not None:
            profiled(self, feed)
        if self._values.get("unfused_tensors_debug_state"):
            assert self._engine._data["debug"]
            for name, array in run(self._engine, feed, inner=True).items():
                kind = next(k for k, v in DTYPES.items() if v == array.dtype.name)
                self._listener.process_debug_tensor(
                    array.ctypes.data, self._trt.TensorLocation.HOST, self._trt.DataType[kind], array.shape, name, 0
                )
        return True


DTYPE_FORMATS = {"float16": "FP16", "float32": "FP32"}


def profiled(context, feed):
    """Every layer takes a millisecond in FP16 and three in FP32."""
    engine, suffix = context._engine, f" [profile {context._profile}]" if context._profile else ""
    made = run(engine, feed, inner=True)
    for node in engine._proto.graph.node:
        kind = engine._data["formats"].get(node.name) or DTYPE_FORMATS.get(made[node.output[0]].dtype.name)
        context._values["profiler"].report_layer_time(f"{node.name}{suffix}", 1.0 if kind == "FP16" else 3.0)


def numpy(engine, name):
    return np.dtype(DTYPES[engine._data["types"][name]])


def run(engine, feed, inner=False):
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
    return {n: np.ascontiguousarray(a.astype(numpy(engine, n))) for n, a in results.items()}


def rounded(usual):
    """`run` for engines that round after every node that is not held in FP32."""

    def run(engine, feed, inner=False):
        from layerdiff import EmulateRunner
        from layerdiff.graph.load import load

        formats, wanted = engine._data["formats"], engine._data["outputs"]
        if inner or "FP16" not in formats.values():
            return usual(engine, feed, inner)
        model = load(onnx.ModelProto.FromString(engine._data["onnx"]))
        kept = tuple(name for name in model.index.names if formats.get(name) == "FP32")
        with EmulateRunner(format="fp16", every_node=True, keep=kept).open(model, fetch=wanted) as session:
            return session.infer(feed, wanted)

    return run
