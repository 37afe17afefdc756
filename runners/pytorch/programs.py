"""What ``--torch`` names, as a program that can be run: an exported program, TorchScript, or a module of Python."""

from __future__ import annotations

import functools
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...graph.errors import BuildError, RunnerError, UsageError, first_line
from ...graph.foreign import contained
from ...graph.imports import named_object
from .library import no_exporter, quiet

if TYPE_CHECKING:
    from .matching import Value

FORM = "FILE.pt2, FILE.pt or package.module:function"
_CHECKS = ("aten._assert", "aten.sym_constrain")
"""What the nodes call that compute nothing, and fail where an input is not as it was when the program was exported."""

_UNSET = ("aten.empty", "aten.new_empty")
"""What the nodes call that makes a tensor to be written into: nothing says what it holds until then."""


class Program(Protocol):
    """Something that computes outputs from inputs."""

    @property
    def inputs(self) -> Sequence[str]:
        """The names of its inputs, in order."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know of it."""

    def run(self, inputs: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """The tensors that it returns, in order, under the names that it gives them, if any."""

    @property
    def format(self) -> str:
        """The floating type that most of its parameters have; empty where it has none."""

    def graph(self, inputs: Mapping[str, Any]) -> ExportedGraph | None:
        """The graph of the program, of which inner values can be fetched; None where there is none."""

    def onnx(self, inputs: Mapping[str, Any]) -> Any:
        """The program as PyTorch exports it to ONNX, an ``onnx.ModelProto``; None where it exports none."""


class ExportedGraph:
    """A graph of ``torch.export``, interpreted node by node.

    It may write into its values, through views of them also (``y[:, 0] = 1`` is a ``copy_`` that nothing reads): `call`
    computes what the program returns as the program does. `run` follows only what is read, which is right where
    nothing is written into, as in the graph that `decomposed` gives.

    Its inputs have the names of the function's arguments, and every other value that of its node. (PyTorch names the
    node of an argument otherwise where Python has the name: that of ``input`` is ``input_1``.)

    Args:
        torch: The module.
        exported: The ``torch.export.ExportedProgram``.
    """

    def __init__(self, torch: Any, exported: Any) -> None:
        self._torch = torch
        self._module = exported.module()
        self._restored = restoring(torch, self._module)
        nodes = list(self._module.graph.nodes)
        self.inputs = tuple(str(node.target) for node in nodes if node.op == "placeholder")
        self._names = {node: str(node.target if node.op == "placeholder" else node.name) for node in nodes}
        self._nodes = {name: node for node, name in self._names.items()}
        returned = next(node.args[0] for node in nodes if node.op == "output")
        self.outputs = tuple(self._names[node] for node in _leaves(returned) if isinstance(node, torch.fx.Node))

    def values(self) -> Iterator[Value]:
        """What its nodes compute."""
        from .matching import Value

        for node in self._nodes.values():
            if node.op != "call_function":
                continue
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            users = tuple("" if user.op == "output" else self._names[user] for user in node.users)
            whole = self._names[node.args[0]] if getattr(node.target, "__name__", "") == "getitem" else ""
            yield Value(self._names[node], stack[-1][0] if stack else "", users, whole)

    def holds(self, known: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether its values, under other names, have these shapes.

        Args:
            known: Names of nodes by those other names.
            shapes: Shapes by those other names.
        """
        values = {name: self._nodes[known[name]].meta.get("val") for name in shapes if name in known}
        return all(
            v is not None and shapes[name] in (tuple(v.shape), (*v.shape, 2)[: v.ndim + v.is_complex()])
            for name, v in values.items()
        )

    def is_complex(self, name: str) -> bool:
        """Whether a node gives complex numbers."""
        value = self._nodes[name].meta.get("val")
        return value is not None and bool(value.is_complex())

    def call(self, inputs: Mapping[str, Any]) -> list[Any]:
        """The tensors that it returns, in order, as they are when all of it has run.

        Args:
            inputs: Its inputs.
        """
        torch = self._torch

        class Calling(torch.fx.Interpreter):  # type: ignore[misc, name-defined]
            def run_node(self, node: Any) -> Any:
                """Computes all but what only checks the inputs, which a GPU or another batch may fail."""
                unread = node.op == "placeholder" and not node.users
                checks = node.op == "call_module" or str(node.target).startswith(_CHECKS)
                return None if unread or checks else super().run_node(node)

        with self._restored():
            env = {self._nodes[name]: tensor for name, tensor in inputs.items()}
            made = Calling(self._module).run(initial_env=env, enable_io_processing=False)
            return [tensor.clone() for tensor in _leaves(made) if isinstance(tensor, torch.Tensor)]

    def run(self, given: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
        """Values by the names of nodes.

        Args:
            given: Inputs, and inner values that take the place of what would compute them.
            wanted: Names of nodes.
        """
        env = {self._nodes[name]: tensor for name, tensor in given.items()}
        needed = self._needed(wanted, env)
        kept, names = {name: given[name] for name in wanted if name in given}, self._names

        class Fetching(self._torch.fx.Interpreter):  # type: ignore[misc, name-defined]
            def run_node(self, node: Any) -> Any:
                """Computes what is needed, and keeps what is wanted: of what is not set yet, zeros, as the file has."""
                if node not in needed:
                    return None
                result = super().run_node(node)
                if str(node.target).startswith(_UNSET):
                    result.zero_()
                if names[node] in wanted:
                    kept[names[node]] = result.clone()
                return result

        with self._restored():
            Fetching(self._module).run(initial_env=env, enable_io_processing=False)
        return kept

    def _needed(self, wanted: Sequence[str], given: Mapping[Any, Any]) -> set[Any]:
        found: set[Any] = set()
        todo = [self._nodes[name] for name in wanted]
        while todo:
            node = todo.pop()
            if node not in found and node not in given:
                found.add(node)
                todo += node.all_input_nodes
        return found


class ExportedProgram:
    """A ``.pt2``, which `torch.export.save` wrote."""

    notes: Sequence[str] = ()

    def __init__(self, torch: Any, path: str, device: str) -> None:
        try:
            with quiet():
                exported = torch.export.load(path)
        except Exception as error:
            raise UsageError(f"{path}: not an exported program (torch.export.save): {_reason(error)}.") from error
        self._exported, self._device = exported, device
        self._export = OnnxExport(torch, exported)
        self._whole = ExportedGraph(torch, on_device(torch, exported, device))
        self.inputs = self._whole.inputs

    def run(self, inputs: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """See `Program.run`."""
        return [("", tensor) for tensor in self._whole.call(inputs)]

    @property
    def format(self) -> str:
        """See `Program.format`."""
        return most_common(self._exported.state_dict.values())

    def graph(self, inputs: Mapping[str, Any]) -> ExportedGraph:
        """See `Program.graph`."""
        return self._export.graph(self._device)

    def onnx(self, inputs: Mapping[str, Any]) -> Any:
        """See `Program.onnx`."""
        return self._export.onnx


class EagerProgram:
    """A module of Python: what a function of the user's gives."""

    def __init__(self, torch: Any, text: str, device: str) -> None:
        module = named_object("--torch", text, FORM)
        if not isinstance(module, torch.nn.Module):
            if not callable(module):
                raise UsageError(f"--torch {text}: {type(module).__name__} is no function that gives an nn.Module.")
            try:
                with contained():
                    module = module()
            except Exception as error:
                raise BuildError(f"--torch {text}: {type(error).__name__}: {first_line(error)}.") from error
        if not isinstance(module, torch.nn.Module):
            raise UsageError(f"--torch {text}: it gave {type(module).__name__}, not an nn.Module.")
        self._torch, self._module, self._device = torch, module.to(device), device
        self._exports: dict[object, OnnxExport] = {}
        self.notes, self._restored = evaluated(self._module), restoring(torch, self._module)
        self.inputs = tuple(
            name
            for name, parameter in inspect.signature(module.forward).parameters.items()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        )

    def run(self, inputs: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """See `Program.run`."""
        with contained(), self._restored():
            return _copied(self._module(**inputs))

    @property
    def format(self) -> str:
        """See `Program.format`."""
        return most_common(self._module.parameters())

    def graph(self, inputs: Mapping[str, Any]) -> ExportedGraph | None:
        """See `Program.graph`."""
        return self._export(inputs).graph(self._device)

    def onnx(self, inputs: Mapping[str, Any]) -> Any:
        """See `Program.onnx`."""
        return self._export(inputs).onnx

    def _export(self, inputs: Mapping[str, Any]) -> OnnxExport:
        """The module exported for inputs of these shapes, once."""
        shapes = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in inputs.items())
        if shapes not in self._exports:
            self._exports[shapes] = OnnxExport(self._torch, self._exported(inputs))
        return self._exports[shapes]

    def _exported(self, inputs: Mapping[str, Any]) -> Any:
        try:
            with quiet(), contained():
                return self._torch.export.export(self._module, (), dict(inputs))
        except RuntimeError as error:
            if type(error).__name__ != "GuardOnDataDependentSymNode":
                raise
            raise RunnerError(_decides(str(error))) from error


class ScriptProgram:
    """TorchScript, which `torch.jit.save` wrote: it shows no inner values."""

    def __init__(self, torch: Any, path: str, device: str) -> None:
        try:
            with quiet():
                self._module = torch.jit.load(path, map_location=device)
        except Exception as error:
            raise UsageError(
                f"{path}: not TorchScript (torch.jit.save): {_reason(error)}.\n"
                "A checkpoint holds weights alone: name a function that builds the module, --torch=module:function."
            ) from error
        self.notes, self._restored = evaluated(self._module), restoring(torch, self._module)
        self.inputs = tuple(argument.name for argument in self._module.forward.schema.arguments[1:])

    def run(self, inputs: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """See `Program.run`."""
        with self._restored():
            return _copied(self._module(**inputs))

    @property
    def format(self) -> str:
        """See `Program.format`."""
        return most_common(self._module.parameters())

    def graph(self, inputs: Mapping[str, Any]) -> None:
        """See `Program.graph`."""

    def onnx(self, inputs: Mapping[str, Any]) -> None:
        """See `Program.onnx`."""


def kind_of(text: str) -> type[ExportedProgram | EagerProgram | ScriptProgram]:
    """What ``--torch`` names, by the text alone."""
    if text.endswith(".pt2"):
        return ExportedProgram
    return EagerProgram if ":" in text and not Path(text).exists() else ScriptProgram


def load_program(torch: Any, text: str, device: str) -> Program:
    """The program that ``--torch`` names.

    Raises:
        UsageError: There is no such file, or it is no program; or no such function, or it gives something else.
        BuildError: The function fails.
    """
    kind = kind_of(text)
    if kind is EagerProgram:
        return _loaded(torch, text, device, named_object("--torch", text, FORM))
    if not Path(text).is_file():
        raise UsageError(f"--torch {text}: no such file; expected {FORM}.")
    status = Path(text).stat()
    return _loaded(torch, text, device, (status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=1)
def _loaded(torch: Any, text: str, device: str, held: Any) -> Program:
    """The program, loaded and exported once for all that asks for it in turn.

    Args:
        torch, text, device: See `load_program`.
        held: The function that was named, or what tells a file from one that was written since.
    """
    return kind_of(text)(torch, text, device)


def on_device(torch: Any, exported: Any, device: str) -> Any:
    """An exported program whose weights lie on a device."""
    if device == "cpu":
        return exported
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(exported, device)


class OnnxExport:
    """What PyTorch's ONNX exporter makes of an exported program: its graph and its file, of one export.

    Args:
        torch: The module.
        exported: The ``torch.export.ExportedProgram``.
    """

    def __init__(self, torch: Any, exported: Any) -> None:
        self._torch, self._exported = torch, exported

    @functools.cached_property
    def _made(self) -> Any:
        """The ``torch.onnx.ONNXProgram``; None where the exporter refuses the program."""
        try:
            with quiet():
                return self._torch.onnx.export(self._exported, dynamo=True, optimize=False, verbose=False)
        except ModuleNotFoundError as error:
            raise no_exporter() from error
        except Exception:
            return None

    def graph(self, device: str) -> ExportedGraph:
        """The graph with the names that the ONNX exporter gives: it takes some operators apart, and counts anew.

        Where the exporter refuses the program, no operator is taken apart, and what then has another name is not
        matched. Either way an operator that writes into a value becomes one that gives the new value: the graph may be
        run in part, from values that are given, and each value is what it was when it was computed.

        Raises:
            MissingPackage: The exporter's package is not installed.
        """
        exported = self._exported.run_decompositions({}) if self._made is None else self._made.exported_program
        return ExportedGraph(self._torch, on_device(self._torch, exported, device))

    @functools.cached_property
    def onnx(self) -> Any:
        """The file, an ``onnx.ModelProto``; None where the exporter refuses the program."""
        try:
            with quiet():
                self._made.optimize()
                return self._made.model_proto
        except Exception:
            return None


def _decides(text: str) -> str:
    """That a program chooses by values what it computes, from what PyTorch says of it."""
    places = re.findall(r'File "(.+)", line (\d+), in .+\n +(.+)', text)
    where = " ({2!r} in line {1} of {0})".format(*places[-1]) if places else ""
    return (
        f"the program decides by values what it computes{where}, and a graph that is exported of it holds one of the "
        "two ways: torch.cond or torch.where keep both"
    )


def _reason(error: Exception) -> str:
    """The first sentence of what PyTorch says of a file: the others guess at how it came to be damaged."""
    return first_line(error).partition(". ")[0]


def most_common(tensors: Iterable[Any]) -> str:
    """The floating type that most elements of some tensors have; empty where there are none."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.is_floating_point():
            counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return counts.most_common(1)[0][0] if counts else ""


def evaluated(module: Any) -> tuple[str, ...]:
    """Puts a module in evaluation mode, in which exporters take it, and says so where that was not its mode."""
    was = bool(module.training)
    module.eval()
    return ("The module was in training mode and was put in evaluation mode.",) if was else ()


def restoring(torch: Any, module: Any) -> Callable[[], AbstractContextManager[None]]:
    """What puts a module's state back behind a run: a program may count, or keep what it was given, in its buffers.

    Each sample then finds them as they were loaded, which is how an ONNX file holds them.
    """
    kept = [
        (owner, name, held, held.clone())
        for owner in module.modules()
        for name, held in (*owner.named_buffers(recurse=False), *vars(owner).items())
        if isinstance(held, torch.Tensor) and not held.is_inference()  # into such a one nothing can write
    ]

    @contextmanager
    def restored() -> Iterator[None]:
        versions = [held._version for _, _, held, _ in kept]
        try:
            yield
        finally:
            for (owner, name, held, copy), version in zip(kept, versions, strict=True):
                if held._version != version:
                    held.copy_(copy)
                if getattr(owner, name, None) is not held:
                    setattr(owner, name, held)

    return restored


def _copied(value: Any) -> list[tuple[str, Any]]:
    """What a program returned, its tensors as they are now; other objects (a cache) are kept as they are."""
    return [(name, leaf.clone() if hasattr(leaf, "clone") else leaf) for name, leaf in _named(value)]


def _leaves(value: Any) -> Iterator[Any]:
    """What a nest of lists, tuples and dicts holds, in order."""
    return (leaf for _, leaf in _named(value))


def _named(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """What a program returned, under the keys of a dict where it is one; without what is None."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _named(item, str(key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _named(item)
    elif value is not None:
        yield name, value
