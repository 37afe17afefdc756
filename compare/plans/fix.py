"""The fourth question: what fixes it? A plan for one candidate, searched, run and measured.

Data in, data out, but for the plan's file. What was run is kept where the comparison keeps results (`--resume`).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...graph.cutting.propagate import propagate
from ...graph.errors import OutputError, RunnerError, UsageError
from ...graph.printable import counted
from ..budget import Limit, Meter, as_limit
from ..notices import not_written, plan_stopped, worker_died
from ..outputs.metric import criterion
from ..progress import SILENT, Progress
from ..report.plan import Cost, KeptLayer, OutputTrial, Plan, PlanPoint, Trial
from ..runs.repeatability import fingerprint
from ..runs.samples import checked
from .bench import Bench, unplanned
from .emulations import emulations, nearest
from .file import Origin, refuse_another, save
from .fixed_model import write_fixed
from .layers import Layers, layers_of, timed
from .predict import HUGE, Prediction, predict
from .running import Crew, Ran, Run, Wanted, crew
from .search import Search

if TYPE_CHECKING:
    from ...runners.contract.runner import Runner
    from ..comparison import Comparison, Rules
    from ..outputs.draws import Drawn
    from ..outputs.evidence import OutputEvidence
    from ..report.model import Culprit, Report
    from ..runs.run import RunLog
    from ..sides import Side

USUAL = Limit(runs=100)
"""The budget, if none is given."""
_OWN = frozenset(
    {"fix", "fix_budget", "fixed_model", "apply_remedy", "layers", "latency", "save_worst", "labels", "resume", "ray"}
)
"""Rules that change no verdict; of labels their values count."""


def fix(
    comparison: Comparison,
    log: RunLog,
    outputs: Sequence[OutputEvidence],
    report: Report,
    progress: Progress = SILENT,
    drawn: Drawn | None = None,
) -> Report:
    """Adds a plan to the report, and writes its file. One that cannot be written costs no plan: a notice says so.

    Args:
        comparison: What was compared; its rules name the file.
        log: How it ran.
        outputs: What the outputs showed.
        report: What it showed, culprits included.
        progress: Told what is going on.
        drawn: What was drawn for the outputs.

    Raises:
        UsageError: There is nothing that a plan could be for.
    """
    candidate = planned(comparison)
    both = log.of(candidate.name), log.of(log.reference)
    failed = any(runner.error is not None or runner.info.not_run for runner in both)
    pieces = any(runner.in_pieces for runner in log.runners)
    if failed or pieces or not report.of(candidate.name):
        return replace(report, notices=(*report.notices, plan_stopped(candidate.name, pieces)))
    with Bench(comparison, log, candidate, drawn) as bench:
        work = _Fixing(comparison, log, bench, unplanned(outputs, candidate), report, progress)
        plan = work.run()
    told = [*map(not_written, work.unwritten)]
    if work.deaths:
        told.append(worker_died("a run of the search for a plan", work.deaths))
    return replace(report, plan=plan, notices=(*report.notices, *told))


def planned(comparison: Comparison) -> Side:
    """The candidate that a plan is for.

    Raises:
        UsageError: None of them can keep single layers in FP32, or several can; or nothing decides whether it is right.
    """
    able = [side for side in comparison.candidates if side.runner.narrows]
    if not able:
        raise UsageError("--fix is for a runner that computes in a narrower format: --emulate=FORMAT or --trt=FORMAT.")
    if len(able) > 1:
        names = ", ".join(side.name for side in able)
        raise UsageError(f"--fix makes a plan for one runner, and there are {len(able)}: {names}.")
    if comparison.rules.fix is not None:
        refuse_another(comparison.rules.fix, able[0].model)
    rules, fmt = comparison.rules, able[0].runner.arithmetic
    if (fmt.is_integer or fmt.name == "e4m3") and not rules.decide:
        raise UsageError(
            f"--fix: nothing says when {able[0].name} is good enough.\n"
            "Give --rtol and --atol, --tolerance NAME:RTOL,ATOL, or --metric, with --labels where it needs them."
        )
    return able[0]


class _Fixing:
    """One plan in the making."""

    def __init__(
        self,
        comparison: Comparison,
        log: RunLog,
        bench: Bench,
        before: Trial,
        report: Report,
        progress: Progress,
    ) -> None:
        self.comparison = comparison
        self.bench = bench
        self.report = report
        self.progress = progress
        self.side = bench.candidate
        self.path = comparison.rules.fix or ""
        self.meter = Meter(as_limit(comparison.rules.fix_budget, USUAL))
        # what was timed for the first engine need not be timed again, and the same kernels are taken
        timed = self.side.runner.with_timings(log.of(self.side.name).info.timing_cache)
        # a set that is tried must not replace the engine that was saved
        unsaved = replace(timed, **dict.fromkeys(timed.capabilities.output_files))
        self.runner: Runner = unsaved.calibrated(self.side.model, comparison.workload)
        self.emulations = emulations(self.runner, self.side, comparison, log.of(self.side.name).info)
        self.prober = self.emulations[0]
        first = next(iter(checked(comparison.samples)))
        shapes = propagate(self.side.model, {name: array.shape for name, array in first.items()})
        index, fmt = self.side.model.index, self.prober.arithmetic.name
        every = self.prober.rounds_every_node
        self.layers: Layers = layers_of(index, fmt, shapes.get, every_node=every, without=self.runner.kept)
        told = log.of(self.side.name)
        times = told.latency and (told.latency["gpu"] or told.latency["host"])
        self.before = replace(before, latency=times["median"] if times else None)
        self.kernels = told.kernels
        self.cost: Cost = "arithmetic"
        self.to_be_timed: frozenset[int] | None = None
        self.origin = self._origin()
        self.unwritten: list[OutputError] = []
        self.judged: dict[frozenset[int], Trial] = {}
        self.probes: dict[frozenset[int], tuple[OutputTrial, ...]] = {}
        self.crew: Crew
        self.deaths = 0

    def run(self) -> Plan:
        """Searches, and tells what came of it."""
        if all(output.verdict == "pass" for output in self.report.of(self.side.name)):
            plan = self._plan("not needed", why=f"{self.side.name} passes as it is")
            return self._kept(self._fixed(replace(plan, keep=tuple(self.side.runner.kept), after=self.before)))
        with crew(self.bench, self._made, self.progress) as self.crew:
            self._time_fp32()
            prediction = self._predicted()
            tried = self.to_be_timed is not None and self.judged[self.to_be_timed].error is None
            cheap = self.prober is self.runner
            search = Search(self.layers, prediction, self.verify, self._ahead, cheap=cheap, fp32_known=tried)
            search.run()
            self.deaths = self.crew.deaths
        if search.hopeless:
            proof = self.judged[search.everything]
            worst = proof.worst
            reason = proof.error or (worst.reason if worst is not None else "") or ""
            why = f"with every layer in FP32 it does not pass either: {reason}"
            return self._kept(self._plan("none", why=why))
        if search.best is None:
            return self._kept(
                self._plan("unfinished", why=f"the budget of {self.meter.limit} ended before a set passed")
            )
        if search.best == search.everything:
            told = "" if search.minimal else f"; the budget of {self.meter.limit} ended before smaller sets were tried"
            why = f"{self.side.name} passes only with every layer in FP32{told}"
            return self._kept(self._plan("none" if search.minimal else "unfinished", why=why))
        return self._kept(self._fixed(self._found(search, prediction)))

    def _fixed(self, plan: Plan) -> Plan:
        """With the network that has the plan in its types, where that is asked for."""
        path = self.comparison.rules.fixed_model
        if path is None:
            return plan
        self.progress.stage(f"writing {path}")
        try:
            return replace(plan, fixed=write_fixed(self.bench, plan, self.prober, path))
        except OutputError as error:
            self.unwritten.append(error)
            return plan

    # -- running ------------------------------------------------------------------------------------------------

    def verify(self, kept: frozenset[int]) -> Trial:
        """One run on the runtime itself, judged; what was run before is remembered."""
        if kept in self.judged:
            return self.judged[kept]
        if not kept:
            return self.before
        self.meter.take()
        self.progress.stage(f"{self.side.name}: run {self.meter.runs}, {counted(len(kept), 'layer')} in FP32")
        self._run(kept)
        return self.judged[kept]

    def _time_fp32(self) -> None:
        """Where times are asked for and a run is an engine: everything in FP32, and from it what layers cost in time.

        It takes nothing of the budget in runs: the search does without it.
        """
        if self.prober is self.runner or self.comparison.rules.latency is None:
            return
        self.progress.stage(f"{self.side.name}: everything in FP32, to be timed")
        self.to_be_timed = frozenset(range(len(self.layers.all)))
        costs = timed(self.layers, self.kernels, self._run(self.to_be_timed).kernels)
        if costs is not None:
            self.layers, self.cost = costs, "time"

    def _run(self, kept: frozenset[int]) -> Ran:
        ran = self.crew.run(Wanted(kept))
        self.judged[kept] = Trial(tuple(sorted(kept)), ran.outputs, ran.seconds, ran.error, ran.latency)
        return ran

    def _ahead(self, sets: Iterable[frozenset[int]]) -> None:
        new = (Wanted(kept) for kept in sets if kept and kept not in self.judged)
        self.crew.ahead(itertools.islice(new, self.meter.left))

    def _probe(self, narrow: frozenset[int]) -> tuple[OutputTrial, ...]:
        if narrow not in self.probes:
            self.progress.stage(f"{self.side.name}: what layers cost, probe {len(self.probes) + 1}")
            ran = self.crew.run(self._probing(narrow))
            unknown = (replace(o, error=None, share=None) for o in self.before.outputs)
            self.probes[narrow] = ran.outputs if ran.error is None else tuple(unknown)
        return self.probes[narrow]

    def _probes_ahead(self, narrow: Iterable[frozenset[int]]) -> None:
        self.crew.ahead(self._probing(layers) for layers in narrow if layers not in self.probes)

    def _probing(self, narrow: frozenset[int]) -> Wanted:
        return self._emulated(self.prober, frozenset(range(len(self.layers.all))) - narrow, judged=self._faint)

    def _emulated(self, emulation: Runner, kept: frozenset[int] = frozenset(), *, judged: bool = False) -> Wanted:
        number = next(n for n, other in enumerate(self.emulations) if other is emulation)
        return Wanted(kept, number, judged)

    def _made(self, wanted: Wanted) -> Run:
        """What the bench is to run."""
        runner = self.runner if wanted.emulation is None else self.emulations[wanted.emulation]
        return Run(self._keeping(runner, wanted.kept), wanted.judged, timed=wanted.emulation is None)

    @property
    def _faint(self) -> bool:
        """Whether the outputs fail though their error is small: only the verdict's draws then show what is wrong."""
        if self.comparison.rules.decide:
            return False
        return all((o.error or 1.0) <= self.bench.small for o in self.before.outputs)

    def _keeping(self, runner: Runner, kept: Collection[int]) -> Runner:
        names = frozenset(self.layers.names(kept)) | frozenset(self.side.runner.kept)
        return runner.keeping([name for name in self.layers.index.names if name in names])

    def _predicted(self) -> Prediction:
        """What probes show; where the runtime is no emulation, also what its own layers were seen to do to outputs."""
        self.prober = self._nearest()
        culprits = (c.node for c in self._culprits())
        suspects = self.layers.holding(list(culprits))
        scale = 1.0
        if self.comparison.rules.metric is not None:  # a metric does not say how large an error may be
            whole = Trial((), self._probe(frozenset(range(len(self.layers.all)))))
            scale = (self.before.share or 2.0) / whole.share if whole.share else 1.0
        found = predict(len(self.layers.all), suspects, self._probe, scale=scale, ahead=self._probes_ahead)
        if self.prober is self.runner:
            return found
        for rank, culprit in enumerate(self._culprits()):
            known = culprit.contribution if culprit.contribution is not None or rank else 1.0
            if known is None or culprit.deployed is False:
                continue
            shares = {o.tensor: min(known, 1.0) * (HUGE if o.share is None else o.share) for o in self.before.outputs}
            for number in self.layers.holding([culprit.candidate_node or culprit.node]):
                found = found.at_least(number, shares)
        return found

    def _nearest(self) -> Runner:
        def whole(emulation: Runner) -> tuple[OutputTrial, ...]:
            ran = self.crew.run(self._emulated(emulation))
            if ran.error is not None:
                raise RunnerError(ran.error)
            return ran.outputs

        if len(self.emulations) > 1:  # one alone is not run
            self.crew.ahead(map(self._emulated, self.emulations))
        return nearest(self.emulations, self.before.outputs, whole)

    def _culprits(self) -> list[Culprit]:
        return [c for c in self.report.culprits if c.candidate == self.side.name]

    # -- what came of it ------------------------------------------------------------------------------------------

    def _found(self, search: Search, prediction: Prediction) -> Plan:
        assert search.best is not None
        kept = search.best
        why = (
            "" if search.minimal else f"the budget of {self.meter.limit} ended before every kept layer was dropped once"
        )
        plan = self._plan("found", why=why)
        index = self.layers.index
        names = self.layers.names(kept)
        computing = len({name for layer in self.layers.all for name in layer.nodes})
        low = computing - len({name for n in kept for name in self.layers.all[n].nodes})
        return replace(
            plan,
            kept=tuple(self._layer(n, kept, prediction) for n in sorted(kept)),
            keep=tuple(n for n in index.names if n in {*names, *self.side.runner.kept}),
            minimal=search.minimal,
            after=self.judged[kept],
            predicted=prediction.of(kept),
            operators_low=low / computing if computing else 0.0,
            arithmetic_low=1.0 - self.layers.arithmetic(kept),
        )

    def _layer(self, number: int, kept: frozenset[int], prediction: Prediction) -> KeptLayer:
        layer = self.layers.all[number]
        culprit = next((c for c in self._culprits() if c.node in layer.nodes), None)
        rest = kept - {number}
        return KeptLayer(
            layer.node,
            layer.op,
            layer.nodes,
            layer.inputs,
            layer.outputs,
            "fp32",
            "contribution" if culprit is None else culprit.cause.value,
            "" if culprit is None else culprit.evidence,
            prediction.alone(number),
            self.judged.get(rest) if rest else self.before,
        )

    def _plan(self, status: str, why: str = "") -> Plan:
        every = frozenset(range(len(self.layers.all)))
        judged = [k for k in self.judged if k != self.to_be_timed]
        points = {frozenset(): self.before, **self.judged}.items()
        return Plan(
            candidate=self.side.name,
            format=self.prober.arithmetic.name,
            status=status,  # type: ignore[arg-type]
            layers=len(self.layers.all),
            before=self.before,
            fp32=self.judged.get(every),
            curve=tuple(PlanPoint(len(k), self.layers.arithmetic(k), trial) for k, trial in points),
            first_pass=next((i for i, k in enumerate(judged, 1) if self.judged[k].passed and k != every), None),
            probes=len(self.probes),
            runs=len(judged),
            cost=self.cost,
            seconds=self.meter.seconds,
            why=why,
            path=self.path,
        )

    def _kept(self, plan: Plan) -> Plan:
        try:
            if self.path:
                save(self.path, self.origin, plan)
            return plan
        except OutputError as error:
            self.unwritten.append(error)
            return replace(plan, path="")

    def _origin(self) -> Origin:
        versions: dict[str, str] = {}
        for runner in self.report.runners:
            versions.update(runner.versions)
        return Origin(
            source=self.side.model.source,
            digest=self.side.model.digest,
            reference=repr(self.comparison.reference.runner),
            candidate=repr(self.side.runner),
            format=self.prober.arithmetic.name,
            data=self.comparison.samples.description,
            data_digest=self.report.data.sha256 or "",
            rules=repr(_judging(self.comparison.rules, self.report.provenance.settings)),
            versions=versions,
        )


def _judging(rules: Rules, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a verdict: the rules that are not at their defaults, and the values of labels."""
    told = {name: value for name, value in settings.items() if name not in _OWN}
    found = criterion(rules)
    if found is not None and found.labels is not None:
        told["labels"] = fingerprint(found.labels).hex()
    if callable(rules.metric):  # its own text says where it lies in memory
        told["metric"] = getattr(rules.metric, "__qualname__", type(rules.metric).__qualname__)
    return told
