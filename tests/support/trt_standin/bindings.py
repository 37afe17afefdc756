"""Modules that have the names, signatures and enums of a real version."""

from __future__ import annotations

import enum
import json
import re
import types
from pathlib import Path

from . import building, engines, networks, objects

API = json.loads((Path(__file__).parents[1] / "data" / "tensorrt_api.json").read_text())
BEHAVIOUR = {**vars(building), **vars(networks), **vars(engines), **vars(objects)}


def make(version):
    """The stand-in module of one version, a key of `VERSIONS`."""
    api = API[version]
    trt = types.ModuleType("tensorrt_rtx" if version.startswith("rtx") else "tensorrt")
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
    behaviour = BEHAVIOUR.get(class_name, type("Nothing", (), {}))

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
