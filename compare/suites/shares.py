"""Suites of which every machine runs a share of the checks, put together again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...graph.errors import UsageError
from ..report.files import write
from ..share import in_order
from .summary import SCHEMA


def merge_suites(contents: Mapping[str, Any], output: str, *, quiet: bool) -> int:
    """Writes the report on all checks, which is that of one run but for its times.

    Args:
        contents: What ``compare --suite --shard --json`` wrote, by file.
        output: Where to write.
        quiet: Print the verdict alone.

    Returns:
        The exit status of the whole suite.

    Raises:
        UsageError: One is no share, belongs to another suite, is there twice, or is missing.
    """
    first = next(iter(contents))
    shares: dict[str, int] = {}
    for name, content in contents.items():
        if not isinstance(content, Mapping) or content.get("schema") != SCHEMA:
            raise UsageError(f"{name}: not the report of a suite, as others of these are.")
        shard = content.get("shard")
        if not isinstance(shard, Mapping):
            raise UsageError(f"{name}: not a share of a suite: it was made without --shard.")
        mine = contents[first]["shard"]
        if any(shard.get(key) != mine.get(key) for key in ("count", "names", "sha256")):
            raise UsageError(f"{name}: not a share of the suite that {first} is of: other checks or shares.")
        shares[name] = int(shard["index"])
    count, names = int(contents[first]["shard"]["count"]), contents[first]["shard"]["names"]
    parts = [iter(contents[name]["checks"]) for name in in_order(shares, count)]
    checks = [next(parts[number % count]) for number in range(len(names))]
    good = all(check["as_expected"] for check in checks)
    failed = any(check["verdict"] == "error" for check in checks)
    whole = {"schema": SCHEMA, "as_expected": good and not failed, "total": len(names), "checks": checks}
    write(json.dumps(whole, indent=1, allow_nan=False, ensure_ascii=False) + "\n", output, "-o")
    as_expected = sum(bool(check["as_expected"]) for check in checks)
    if quiet:
        print("pass" if whole["as_expected"] else "fail")
    else:
        print(f"{as_expected} of {len(names)} checks as expected")
    return 3 if failed else 0 if good else 1
