"""A comparison that is run here, or shared out on a cluster.

A task is given the comparison and a share of its samples, and gives a report back. The reports on shares are put
together as `merging` does, so that nothing depends on who ran what. Where all samples are needed in one place, they run
here, and what is shared out are the walks of several candidates (`layers.localize`) and the runs of a search for a plan
(`plans.running`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..graph.errors import UsageError
from . import notices
from .cluster import Held, Task, cluster, gpus_of
from .merging import merged
from .progress import SILENT, Progress
from .report.inputs import known
from .share import refuse_what_needs_all
from .stages import compare as compare_here
from .stages import needs_all

if TYPE_CHECKING:
    from ..dataloaders.base import Samples
    from .comparison import Comparison
    from .report.model import Report


def compare(
    comparison: Comparison, progress: Progress = SILENT, ran_on: Callable[[Samples], None] = lambda samples: None
) -> Report:
    """Runs a comparison: here, or in shares on the cluster that its rules name; see `stages.compare`. Where layers are
    looked at or a plan is searched, it runs here, but for walks through the layers and the runs of the search.

    Raises:
        UsageError: See `stages.compare`; the rules ask for something that needs all samples in one place.
        RunnerError: Workers died again and again.
    """
    rules = comparison.rules
    if rules.ray is None:
        return compare_here(comparison, progress, ran_on)
    never = (("--latency", rules.latency), ("--shard", rules.shard), ("--resume", rules.resume))
    if rules.fix is not None or (rules.layers is not None and len(comparison.candidates) > 1):
        _refuse_beside_one_process(never)
        with cluster(rules.ray):
            return compare_here(comparison, progress, ran_on)
    refuse_what_needs_all("--ray", (*needs_all(rules), *never))
    comparison = replace(comparison, rules=replace(rules, ray=None))
    gpus = gpus_of(side.runner for side in comparison.sides.all)
    with cluster(rules.ray) as connected:
        count = min(len(comparison.samples), connected.slots(gpus)) or 1
        progress.stage(f"running {count} shares of the samples on a cluster")
        held = connected.put(comparison)
        tasks = [Task(_share, (held, (index, count)), gpus) for index in range(1, count + 1)]
        done = list(connected.run(tasks, functools.partial(_advance, progress, count)))
    shares = {f"share {index} of {count}": found.result for index, found in enumerate(done, 1)}
    report = merged(comparison, shares, progress)
    told = [notices.worker_died(name, found.deaths) for name, found in zip(shares, done, strict=True) if found.deaths]
    return replace(report, notices=(*report.notices, *told))


def _refuse_beside_one_process(asked: Iterable[tuple[str, object]]) -> None:
    """Refuses options that say what only one process can: see `refuse_what_needs_all`."""
    for flag, value in asked:
        if value is not None:
            raise UsageError(
                f"--ray shares out walks through layers and the runs of --fix, and {flag} is for one process."
            )


def _advance(progress: Progress, count: int, done: int) -> None:
    progress.advance(done, count)


def _share(held: Held, shard: tuple[int, int]) -> Report:
    """The report on a share of the samples. Runs in a worker."""
    comparison: Comparison = held.value()
    return settled(compare_here(replace(comparison, rules=replace(comparison.rules, shard=shard))))


def settled(report: Report) -> Report:
    """The report without the models and the samples, of which it keeps the digests."""

    def of(info: Any) -> Any:
        return None if info is None else replace(info, digest=functools.partial(known, info.sha256))

    return replace(report, model=of(report.model), candidate_model=of(report.candidate_model), data=of(report.data))
