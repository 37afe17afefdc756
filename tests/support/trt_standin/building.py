"""The builder, its configuration, and what it refuses."""

from __future__ import annotations

import pickle

from .networks import sizes_of_one_name
from .objects import fresh, host


class Builder:
    def init(self, logger):
        self._logger = logger

    def create_network(self, flags=0):
        network = fresh(self._trt, "INetworkDefinition")
        network._flags = int(flags)
        return network

    def create_builder_config(self):
        config = fresh(self._trt, "IBuilderConfig")
        config._flags = {self._trt.BuilderFlag.TF32}
        config._profiles, config._cache, config._sources = [], None, None
        return config

    def create_optimization_profile(self):
        profile = fresh(self._trt, "IOptimizationProfile")
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
        if (clash := sizes_of_one_name(network, config._profiles)) is not None:  # what 8.6.0 said of Paddle's '?'
            text = f"{clash}: Input dimensions with this name are inconsistent."
            log.log(
                trt.ILogger.ERROR, f"4: [graphShapeAnalyzer.cpp::analyzeShapes] Error Code 4: Internal Error ({text})"
            )
            return None
        calibrator = config._values.get("int8_calibrator")
        if "INT8" in flags and calibrator is not None and not calibrate(calibrator, network):
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
            "refittable": "REFIT" in flags,
            "debug": getattr(network, "_debug", False),
            "formats": {} if typed else formats(trt, network, flags),
        }
        return host(trt, pickle.dumps(data))


def formats(trt, network, flags):
    """Which number format each node runs in: the narrowest allowed, or the one that it was given."""
    best = next((f for f in ("INT8", "FP8", "FP16", "BF16") if f in flags), "FP32")
    names = {trt.DataType.FLOAT: "FP32", trt.DataType.HALF: "FP16"}
    return {layer.name: names.get(layer._values.get("precision"), best) for layer in network._layers}


def calibrate(calibrator, network):
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


class IBuilderConfig:
    def set_compute_capability(self, compute_capability, index):
        return 0 <= index < (self._values.get("num_compute_capabilities") or 0)

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
        cache = fresh(self._trt, "ITimingCache")
        cache._data = bytes(serialized_timing_cache)
        return cache

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache._data.startswith(b"other"):
            return False
        self._cache = cache
        return True

    def get_timing_cache(self):
        return self._cache


class ITimingCache:
    def combine(self, input_cache, ignore_mismatch):
        longer = max(self._data, input_cache._data, key=len)
        self._data = longer if longer.startswith(self._data) else self._data + input_cache._data
        return True

    def serialize(self):
        return host(self._trt, self._data)


class IOptimizationProfile:
    def set_shape(self, input, min, opt, max):
        self._shapes[input] = (tuple(min), tuple(opt), tuple(max))

    def set_shape_input(self, input, min, opt, max):
        self._inputs[input] = (min, opt, max)
