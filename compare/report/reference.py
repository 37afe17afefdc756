"""The reference of the JSON report, as Markdown that is made of its schema.

``python -m layerdiff.compare.report.reference`` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .model import SCHEMA
from .schema import schema

HEAD = f"""\
# The JSON report

<!-- Written by `python -m layerdiff.compare.report.reference`. Do not edit. -->

What `--json` writes, of the contract `{SCHEMA}`: every key with its type, as the
[schema](report.schema.json) has it. What the keys mean: [report.md](report.md#json). A key in *italics* may be missing;
numbers that are not finite are `null`.
"""


def text() -> str:
    """The page."""
    return "\n".join([HEAD, *_object("report", schema())])


def _object(name: str, node: Mapping[str, Any]) -> Iterator[str]:
    """An object's keys as a table, then the objects in it."""
    yield f"## {name}\n\n| key | type | |\n|---|---|---|"
    required, inner = set(node.get("required", ())), []
    for key, value in node.get("properties", {}).items():
        found = _inner(value)
        if found is not None:
            inner.append((f"{name}.{key}" if name != "report" else key, found))
        shown = f"`{key}`" if key in required else f"*`{key}`*"
        yield f"| {shown} | {_type(value)} | {value.get('description', '')} |"
    yield ""
    for path, found in inner:
        yield from _object(path, found)


def _inner(node: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The object with keys of its own that a value is, holds or may be."""
    if node.get("properties"):
        return node
    for part in (node.get("items"), *node.get("anyOf", ()), node.get("additionalProperties")):
        found = _inner(part) if isinstance(part, Mapping) else None
        if found is not None:
            return found
    return None


def _type(node: Mapping[str, Any]) -> str:
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(_type(part) for part in node["anyOf"]))
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{word}`" for word in node["enum"])
    kind = node.get("type", "any")
    if kind == "array":
        return f"list of {_type(node.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


if __name__ == "__main__":
    print(text(), end="")
