"""The rules of the house: who may import whom, how large a thing may be, and where operators are named.

Imports inside functions and those for types alone count too. Every rule finds what breaks it; ``EXCEPTIONS`` lists what
is known to, and only shrinks. ``python tests/test_arrows.py`` prints what every rule finds.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx.defs
import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("graph", "runners", "dataloaders", "compare")
LINES, FUNCTION, PARAMETERS = 500, 60, 8

# From the top to the bottom: a room imports what stands below it, nothing above, and nobody on its own line.
ORDERS = {
    "the top floors": "compare > runners dataloaders > graph",
    "compare": """compare.suites > compare.cli > compare.reduce > compare.report compare.comparator
        > compare.distributed > compare.stages compare.merging compare.loading
        > compare.plans > compare.assemble > compare.collect
        > compare.layers > compare.causes > compare.lockstep > compare.outputs > compare.runs > compare.statistics
        > compare.interfaces > compare.comparison > compare.notices compare.sides compare.shape_sets compare.budget
        compare.share compare.progress compare.cluster compare.overview > compare.report.model
        > compare.report.plan compare.report.shard compare.report.logits compare.report.plain compare.report.files
        > compare.report.formats compare.report.history compare.report.inputs
        compare.report.out_of_range compare.journal""",
    "runners": """runners.schedules > runners > runners.emulate > runners.onnxrt runners.trt runners.tf
        runners.reference_evaluator runners.recorded runners.pytorch runners.tflite
        > runners.contract""",
    "graph": """graph.load > graph.sources > graph.rounding graph.pairing graph.implied_inputs > graph.quantized
        graph.implied_demands graph.implied_shapes graph.axes
        > graph.cutting graph.interface graph.blocked > graph.model
        > graph.engine
        > graph.digest graph.recordings
        > graph.index graph.writer > graph.weights graph.inference graph.evaluation > graph.contrib_ops graph.options
        graph.trees graph.decoders
        > graph.schemas > graph.nodes graph.operators graph.specs graph.formats graph.imports graph.torch_traces
        graph.polygraphy_json graph.tflite_file > graph.numpy_files > graph.npy_strings graph.whole_file
        > graph.errors graph.interrupts graph.foreign graph.printable graph.leases""",
}
# Files that are about operators: one rule or one runtime's kernels each.
OPERATOR_FILES = (
    "graph/operators.py",
    "graph/contrib_ops.py",
    "graph/implied_demands.py",
    "graph/pairing/epilogues.py",
    "graph/pairing/settings.py",
    "graph/quantized/float_form.py",
    "graph/quantized/layouts.py",
    "graph/rounding/bound_rules.py",
    "graph/rounding/constants_in_range.py",
    "graph/rounding/rescale.py",
    "graph/rounding/squares.py",
    "graph/rounding/term_count.py",
    "graph/sources/unfolded.py",
    "graph/trees.py",
    "graph/sources/layouts.py",
    "graph/sources/tensorflow_names.py",
    "graph/sources/tflite_names.py",
    "runners/reference_evaluator/kernels.py",
    "runners/reference_evaluator/recurrent.py",
    "runners/trt/in_fp32.py",
)
OPERATORS = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
MUTATING = ("append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "clear", "remove", "discard")


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    lines: int
    body: list[ast.stmt]
    nodes: list[ast.AST]

    @property
    def folder(self) -> str:
        return str(self.path.parent.relative_to(ROOT))


@cache
def modules() -> dict[str, Module]:
    """Every module of the product, tests and benchmarks by its name below the root."""
    found = {}
    for path in sorted(p for top in (*PRODUCT, "tests", "benchmarks") for p in (ROOT / top).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name, text = ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path.read_text("utf-8")
        tree = ast.parse(text)
        found[name] = Module(name, path, len(text.splitlines()), tree.body, list(ast.walk(tree)))
    return found


def product() -> Iterator[Module]:
    return (module for name, module in modules().items() if name.startswith(PRODUCT))


@cache
def imports(name: str) -> list[tuple[str, str]]:
    """(module, name taken from it or "") for every import of a module of ours."""
    module = modules()[name]
    package = name.split(".") if module.path.name == "__init__.py" else name.split(".")[:-1]
    found = []
    for node in module.nodes:
        if isinstance(node, ast.Import):
            found += [(resolved(alias.name, package), "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
            target = base if node.level else resolved(node.module or "", package)
            inner = [(f"{target}.{alias.name}", alias.name) for alias in node.names]
            found += [(whole, "") if whole in modules() else (target, taken) for whole, taken in inner]
    return [(target, taken) for target, taken in found if target in modules()]


def resolved(dotted: str, package: list[str]) -> str:
    """The name below the root: tests say ``layerdiff.graph`` and ``support``; a script may name its neighbour."""
    tries = [dotted.removeprefix("layerdiff."), f"tests.{dotted}"]
    if package[0] not in PRODUCT:
        tries.append(".".join([*package, dotted]))
    return next((t for t in tries if t in packages()), "")


@cache
def packages() -> set[str]:
    """Every module, and every folder that holds one, whether or not it has an ``__init__``."""
    parts = [name.split(".") for name in modules()]
    return {".".join(p[: n + 1]) for p in parts for n in range(len(p))}


def levels(order: str) -> dict[str, int]:
    return {room: level for level, line in enumerate(order.split(">")) for room in line.split()}


def room(name: str, rooms: Iterable[str]) -> str | None:
    return max((r for r in rooms if name == r or name.startswith(f"{r}.")), key=len, default=None)


# ---- rules: each yields its violations as words that survive an edit nearby ------------------------------------------


def arrows() -> Iterator[str]:
    for order in map(levels, ORDERS.values()):
        for module in product():
            for target, _ in imports(module.name):
                one, other = room(module.name, order), room(target, order)
                if one and other and one != other and order[one] >= order[other]:
                    yield f"{one} > {other}"


def rooms() -> Iterator[str]:
    placed = {r for order in ORDERS.values() for r in levels(order)} - {"compare", "graph"}
    for module in product():
        if "." in module.name and not module.name.startswith("dataloaders") and not room(module.name, placed):
            yield f"{module.name} has no place in ORDERS"


def circles() -> Iterator[str]:
    below = {name: {target for target, _ in imports(name)} - {name} for name in modules()}
    for middle in below:  # Warshall: what can be reached
        for targets in below.values():
            if middle in targets:
                targets |= below[middle]
    for name in below:
        circle = sorted(other for other in below[name] if name in below[other])
        if circle and circle[0] == name:
            shared = os.path.commonprefix([f"{other}." for other in circle]).rpartition(".")[0]
            yield f"{shared}: {' '.join(other[len(shared) + 1 :] for other in circle)}"


def strangers() -> Iterator[str]:
    """A test of a benchmark uses that benchmark, nobody else does; nobody imports a test, or a neighbour by chance."""
    for name, module in modules().items():
        top = name.split(".")[0]
        for target, _ in imports(name):
            other, last = target.split(".")[0], target.split(".")[-1]
            foreign = other == "benchmarks" and top != "benchmarks" and not name.startswith("tests.benchmarks")
            if foreign or last.startswith("test_") or (other == "tests" and top != "tests"):
                yield f"{name} > {target}"
        for node in module.nodes if top == "benchmarks" else ():
            beside = f"{name.rpartition('.')[0]}.{getattr(node, 'module', '')}"
            if isinstance(node, ast.ImportFrom) and not node.level and beside in modules():
                yield f"{name} > {node.module}, by the working directory"


def privates() -> Iterator[str]:
    """A name with an underscore that the module did not define itself."""
    for name, module in modules().items():
        yield from (f"{name}: {taken}" for _, taken in imports(name) if private(taken))
        taken, own = set(), set()
        for node in module.nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Attribute) and private(node.attr):
                (own if ast.unparse(node.value) in ("self", "cls") else taken).add(node.attr)
        if ".trt_standin." not in name:  # its objects hide under such names what real ones do not show
            yield from (f"{name}: {attribute}" for attribute in taken - own)


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in ("_replace", "_asdict", "_fields", "_")


def asked_of_runners() -> Iterator[str]:
    for module in product():
        for node in module.nodes:
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hasattr", "getattr"):
                words = ast.unparse(node)
                if re.match(r"\w+\([\w.]*runner, '", words):
                    yield f"{module.name}: {words}"


def state() -> Iterator[str]:
    """What is made when a module is imported, and changed when a function runs."""
    assigned = [n for m in product() for n in m.body if isinstance(n, ast.Assign | ast.AnnAssign)]
    targets = {ast.unparse(t) for n in assigned for t in (n.targets if isinstance(n, ast.Assign) else [n.target])}
    for module in product():
        for node in module.nodes:
            changed = ""
            if isinstance(node, ast.Global):
                yield from node.names
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATING:
                changed = ast.unparse(node.func.value)
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                changed = ast.unparse(node.value)
            name = changed.split(".")[-1]
            if name.isupper() and name in targets:
                yield name


def long_files() -> Iterator[str]:
    return (str(m.path.relative_to(ROOT)) for m in modules().values() if m.lines > LINES)


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for module in modules().values():
        owners = [n for n in module.nodes if isinstance(n, ast.ClassDef | ast.FunctionDef)]
        owner = {f: n.name for n in owners for f in n.body}
        for f in module.nodes:
            if isinstance(f, ast.FunctionDef):
                yield f"{module.folder}: {f'{owner[f]}.' if f in owner else ''}{f.name}", f


def long_functions() -> Iterator[str]:
    return (name for name, f in functions() if (f.end_lineno or 0) - f.lineno + 1 > FUNCTION)


def many_parameters() -> Iterator[str]:
    for name, f in functions():
        names = [a.arg for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)]
        if len(names) - (names[:1] in (["self"], ["cls"])) > PARAMETERS:
            yield name


def operator_tables() -> Iterator[str]:
    """Three operators or more in one set, list, tuple, or as the keys of one dictionary."""
    for module in product():
        for node in module.nodes:
            items = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
            named = {i.value for i in items if isinstance(i, ast.Constant) and i.value in OPERATORS}
            if len(named) > 2 and str(module.path.relative_to(ROOT)) not in OPERATOR_FILES:
                yield f"{module.folder}: {' '.join(sorted(named)[:3])}"


RULES = {
    rule.__name__: rule
    for rule in (
        arrows, rooms, circles, strangers, privates, asked_of_runners, state, long_files, long_functions,
        many_parameters, operator_tables,
    )
}  # fmt: skip
EXCEPTIONS: dict[str, str] = {
    "privates": """
        compare.cli.arguments: _option_string_actions
        compare.cli.runner_arguments: _option_string_actions
        runners.onnxrt.loading: _model_bytes
        runners.pytorch.programs: _version
        tests.compare.statistics.test_device: _Reader
        tests.compare.statistics.test_device: _Torch
        tests.runners.test_emulate: _Magnitudes
        tests.runners.trt.test_engines: _marked
        tests.runners.trt.test_trt_gpu: _context
    """,
    "state": """
        LIBRARIES
    """,
    "long_files": """
        tests/compare/cli/test_command.py
        tests/compare/layers/test_bodies.py
        tests/compare/layers/test_localize.py
        tests/compare/test_comparator.py
        tests/graph/rounding/test_emulation.py
        tests/runners/onnxrt/test_onnxrt.py
        tests/runners/trt/test_engines.py
        tests/runners/trt/test_trt.py
        tests/runners/trt/test_trt_gpu.py
    """,
    "many_parameters": """
        benchmarks/kit: Builder.conv
    """,
    "operator_tables": """
        graph/pairing: AveragePool Conv MaxPool
        graph/rounding: Conv Gemm MatMul
        graph/rounding: Pow ReduceMean Sub
        graph: Abs Add Div
        runners/reference_evaluator: AffineGrid CausalConvWithState DynamicQuantizeLinear
    """,
}


@pytest.mark.parametrize("rule", RULES)
def test_what_breaks_a_rule_is_known_and_nothing_else_is_listed(rule):
    known, found = set(filter(None, map(str.strip, EXCEPTIONS.get(rule, "").splitlines()))), set(RULES[rule]())
    assert not found - known, f"{rule}, what is new: {sorted(found - known)}"
    assert not known - found, f"{rule}, what no longer is and leaves the list: {sorted(known - found)}"


if __name__ == "__main__":
    for name, rule in RULES.items():
        found = sorted(rule())
        print(f"{name}: {len(found)}", *found, sep="\n        ")
