"""From a model to an `onnxruntime.InferenceSession`: the package, its options, weights wherever they lie."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...graph.errors import BuildError, MissingPackage, ProviderUnavailable, RunnerError
from ...graph.interrupts import uninterrupted
from .config import LEVELS, ON_CUDA, PROVIDERS, OnnxrtConfig
from .messages import one_line, too_new
from .ortvalues import Loaded

if TYPE_CHECKING:
    import onnx

    from ...graph.model import Model

_SILENT = 4
"""ORT's "fatal": its errors arrive as exceptions, and need not be printed a second time."""
_COLLIDES = "Attempt to replace the existing tensor"
"""What ONNX Runtime says where a fusion gives a constant a name that the graph has."""
_FOLDER = "session.model_external_initializers_file_folder_path"
"""The session option that says where the external weights of a model in memory are."""
# The distributions that install the import package `onnxruntime`; two of them overwrite each other's files.
_DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
)
# Where providers that are not in layerdiff[gpu] come from.
_PACKAGES = {
    "openvino": "onnxruntime-openvino",
    "dml": "onnxruntime-directml",
    "rocm": "onnxruntime-rocm",
    "migraphx": "onnxruntime-migraphx",
    "coreml": "onnxruntime",
}
_SYSTEMS = {"dml": "Windows", "rocm": "Linux with an AMD GPU", "migraphx": "Linux with an AMD GPU", "coreml": "macOS"}
_REMEDIES = {
    "cuda": "Check the GPU, its driver and the CUDA libraries, or: pip install 'layerdiff[gpu]'",
    **dict.fromkeys(_PACKAGES, "Check the device, its driver and the provider's options."),
}


def import_onnxruntime(runner: OnnxrtConfig) -> Any:
    """The package.

    Raises:
        MissingPackage: No distribution of it is installed.
        RunnerError: One is, but it does not load, or several have overwritten each other.
    """
    extra = "cpu" if runner.provider == "cpu" else "gpu"
    try:
        with uninterrupted():
            import onnxruntime
    except ImportError as error:
        if installed():
            raise RunnerError(
                f"{runner.name}: onnxruntime is installed, but does not load: {one_line(error)}"
            ) from error
        raise MissingPackage("onnxruntime" if extra == "cpu" else "onnxruntime-gpu", extra) from error
    if not hasattr(onnxruntime, "InferenceSession"):  # what two distributions on top of each other can leave behind
        raise RunnerError(
            f"{runner.name}: the onnxruntime package is broken ({', '.join(installed()) or 'no distribution'}). "
            f"Uninstall every one of them, then: pip install 'layerdiff[{extra}]'"
        )
    onnxruntime.set_default_logger_severity(_SILENT)
    return onnxruntime


@functools.cache
def installed() -> list[str]:
    """The installed distributions that hold the import package ``onnxruntime``, with their versions."""
    from importlib import metadata

    found = []
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return found


def build(
    runner: OnnxrtConfig,
    ort: Any,
    model: Model,
    inner: tuple[str, ...],
    *,
    probe: bool = False,
) -> Loaded:
    """An ORT session on ``model`` with the tensors ``inner`` as outputs besides its own.

    Args:
        runner: The configuration.
        ort: The package.
        model: What to load.
        inner: Names of inner tensors.
        probe: Refuse the model if any node would fall back to the CPU.
    """
    wanted = PROVIDERS[runner.provider]
    available = ort.get_available_providers()
    if wanted not in available:
        raise ProviderUnavailable(_unavailable(runner, ort, available))
    if runner.provider in ON_CUDA and hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()  # CUDA libraries that pip installed; it prints what it does not find

    def options(folder: Any) -> Any:
        made = _options(runner, ort, folder)
        if probe:
            made.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return made

    try:
        try:
            # A file that holds its weights would be read and copied; as bytes without them, they are mapped.
            if model.path is not None and not inner and not any(_external(model.proto.graph)):
                session = _session(runner, ort, os.fspath(model.path), options(None))
            else:
                session = _session(runner, ort, _with_outputs(model, inner), options(model.folder))
        except Exception as first:
            session = _otherwise(runner, ort, model, inner, options, first)
    except RunnerError:
        raise
    except Exception as error:
        raise _refused(runner, model, error) from error
    if wanted not in session.get_providers():
        raise ProviderUnavailable(
            f"{runner.name}: ONNX Runtime could not start {wanted} and would have used {session.get_providers()[0]}. "
            f"{_REMEDIES.get(runner.provider, _REMEDIES['cuda'])}"
        )
    if hasattr(session, "_model_bytes"):
        session._model_bytes = None  # kept for a fallback that is switched off
    return Loaded(ort, session, inner, arena=not runner.low_memory)


def _otherwise(
    runner: OnnxrtConfig,
    ort: Any,
    model: Model,
    inner: tuple[str, ...],
    options: Callable[[Any], Any],
    first: Exception,
) -> Any:
    """A session on a model that could not be loaded as it is; raises ``first`` where there is no other way."""
    try:
        if model.path is None and _COLLIDES in str(first):
            renamed = _with_constants_renamed(model)
            return _session(runner, ort, _with_outputs(renamed, inner), options(model.folder))
        if model.folder is not None and any(_external(model.proto.graph)):
            return _with_weights_elsewhere(runner, ort, model, inner, options)
    except Exception:
        raise first from None
    raise first


def _refused(runner: OnnxrtConfig, model: Model, error: Exception) -> BuildError:
    """Why ONNX Runtime takes no model, and what to do about it."""
    text, more = one_line(error), ""
    if (found := too_new(error)) is not None:
        domain, opset, known = found
        text = f"it is written in opset {opset} of {domain}, and this ONNX Runtime knows none above {known}."
        more = f" Export it in opset {known} or lower, or install a newer onnxruntime."
    elif "is not a registered function/op" in text and not runner.custom_ops:
        text, more = f"{text.rstrip('.')}.", " If a library has that operator: --ort-custom-ops LIB."
    elif runner.exact_int8:
        more = " It may do so without --ort-exact-int8, which not every operator has."
    return BuildError(f"{runner.name}: {model.source}: {text}{more}")


def _unavailable(runner: OnnxrtConfig, ort: Any, available: Sequence[str]) -> str:
    packages = installed()
    names = ", ".join(p.removesuffix("ExecutionProvider") for p in available)
    has = f"{runner.name}: {' and '.join(packages) or 'onnxruntime ' + ort.__version__} offers {names}."
    if len(packages) > 1:
        return f"{has} They overwrite each other: uninstall both, then: pip install 'layerdiff[gpu]'"
    package = _PACKAGES.get(runner.provider)
    if package is None:
        return f"{has} Install the GPU build instead: pip uninstall onnxruntime && pip install 'layerdiff[gpu]'"
    where = f" ({_SYSTEMS[runner.provider]})" if runner.provider in _SYSTEMS else ""
    if package == "onnxruntime":
        return f"{has} {PROVIDERS[runner.provider]} is in the package onnxruntime{where}."
    return f"{has} Install the build that has it{where}: pip uninstall onnxruntime && pip install {package}"


def _options(runner: OnnxrtConfig, ort: Any, folder: Any) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    level = LEVELS[runner.optimization]
    if not hasattr(ort.GraphOptimizationLevel, level):
        raise RunnerError(f"{runner.name}: onnxruntime {ort.__version__} has no optimization {runner.optimization!r}.")
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    if runner.threads:
        options.intra_op_num_threads = runner.threads
    # Sessions take turns here: the threads of one must not spin while another runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if runner.exact_int8:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if runner.float_products:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if runner.low_memory:
        options.enable_cpu_mem_arena = False
    if runner.low_memory or runner.sleeps:
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
            raise RunnerError(f"{runner.name}: --ort-custom-ops {library}: {one_line(error)}") from error
    return options


def _session(runner: OnnxrtConfig, ort: Any, source: Any, options: Any) -> Any:
    providers = [*runner.providers, PROVIDERS["cpu"]]
    fewer = {"disabled_optimizers": list(runner.disabled_optimizers)} if runner.disabled_optimizers else {}
    return ort.InferenceSession(source, options, providers=providers, enable_fallback=0, **fewer)


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


def _with_constants_renamed(model: Model) -> Model:
    """The same graph with other names for its constants: in a part of a file that ONNX Runtime has optimized, a fusion
    may be due that names a constant as one before it did."""
    import onnx

    from ...graph.cutting.slices import renamed
    from ...graph.writer import Names

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    names, kept = Names.of(graph), {info.name for info in (*graph.input, *graph.output)}
    other = {t.name: names.fresh(f"{t.name}__constant") for t in graph.initializer if t.name not in kept}
    for tensor in graph.initializer:
        tensor.name = other.get(tensor.name, tensor.name)
    nodes = [renamed(node, other, node.name) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model.derive(proto)


def _external(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The initializers that are stored outside, those of subgraphs included."""
    from ...graph.nodes import subgraphs

    yield from (tensor for tensor in graph.initializer if tensor.external_data)
    for node in graph.node:
        for body in subgraphs(node):
            yield from _external(body)


def _with_weights_elsewhere(
    runner: OnnxrtConfig, ort: Any, model: Model, inner: tuple[str, ...], options: Callable[[Any], Any]
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
