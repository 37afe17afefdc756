"""One plan: searched on emulated runs, and told in numbers."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare.report.model import Report
from layerdiff.compare.report.plan import Plan

Feeds = Any


@dataclass(frozen=True)
class Planned:
    """A plan of one case.

    Attributes:
        name: The case.
        report: The comparison with its plan.
        seconds: Time of all of it, comparison and layers included.
    """

    name: str
    report: Report
    seconds: float

    @property
    def plan(self) -> Plan:
        """The plan."""
        assert self.report.plan is not None
        return self.report.plan

    @property
    def off(self) -> float | None:
        """By which factor the expected error is off the measured one; None where nothing is left to measure."""
        plan = self.plan
        if plan.predicted is None or plan.after is None or not plan.predicted.error or not plan.after.relative:
            return None
        factor = plan.predicted.error / plan.after.relative
        return max(factor, 1 / factor)


def planned(name: str, model: Any, data: Feeds, fmt: str, **rules: Any) -> Planned:
    """Searches a plan for a network in an emulated format."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "plan.json")
        runners = [OnnxrtRunner(), EmulateRunner(format=fmt)]
        report = Comparator(model, runners, data_loader=data, fix=path, **rules).compare()
    return Planned(name, report, time.perf_counter() - start)
