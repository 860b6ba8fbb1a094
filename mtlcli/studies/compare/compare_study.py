"""A comparison, from its plan to its files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from mtlcli.config import Experiment
from mtlcli.cores import usable_cores
from mtlcli.studies.compare.document import Document, document
from mtlcli.studies.compare.execution import Outcome, Runs, StudyRun, Train
from mtlcli.studies.compare.exports import to_csv, to_markdown
from mtlcli.studies.compare.identity import identity
from mtlcli.studies.compare.measured import measure
from mtlcli.studies.compare.plan import Load, Method, Plan, make_plan
from mtlcli.studies.compare.published import beside, read_published
from mtlcli.studies.compare.results import Results
from mtlcli.studies.compare.study_plots import draw
from mtlcli.studies.compare.tuning import choose
from mtlcli.studies.folder import StudyFolder
from mtlcli.studies.pool import Processes
from mtlcli.studies.relate.experiments import canonical
from mtlcli.studies.relate.for_weighting import with_relation
from mtlcli.studies.study_observer import StudyObserver
from mtlcli.training.assembly.build import self_contained
from mtlcli.training.device import choose_device

LOG = logging.getLogger("mtl")


def compare(
    load: Load,
    vary: Sequence[str] = (),
    *,
    seeds: int = 3,
    tune: Sequence[str] = (),
    tune_seeds: int = 1,
    jobs: int | None = None,
    out: str | Path | None = None,
    published: str | Path | None = None,
    reference: str | None = None,
    command: str | None = None,
    observer: StudyObserver | None = None,
    train: Train | None = None,
) -> Document:
    """Compare methods over seeds, against single-task baselines, and write a folder of it: see `docs/comparison.md`.

    load: overrides (`KEY=VALUE`) → the experiment with them. vary: `KEY=VALUE,VALUE,…`; the methods are all
    combinations. tune: the same, for what is chosen by `val` for each method and each baseline, with the first
    `tune_seeds` seeds. seeds: the experiment's own, and those after it. jobs: runs at the same time; None: one a core,
    or one alone on an accelerator. out: the folder; None: `compare/` of the experiment's, under `$MTL_RUNS` or `runs/`.
    published: a file of published figures. reference: label of the method that the others are tested against, in
    addition to the single-task baselines; None: the first with uniform weighting, or else the first. command: the
    command line, for the document. train: how runs are trained; None: each in a process of its own.

    Runs that the folder holds are used again. The document lists the runs that fail; they raise no error.
    Returns what `comparison.json` holds. ConfigError, before anything is trained, where an experiment can't work;
    InterruptedRunError after a signal, with all kept that was done.
    """
    observer = observer or StudyObserver()
    plan = make_plan(load, vary, tune, seeds, tune_seeds, reference)
    figures = read_published(published, plan) if published is not None else []
    folder = StudyFolder.named(out, plan.experiment.name, "compare")
    with folder.taken():
        plan = _settled(plan, folder, observer)
        observer.started(_amount(plan))
        try:
            with _Trainer(plan, jobs) if train is None else nullcontext(train) as trainer:
                results = _results(plan, Runs(folder.path / "runs", trainer, observer))
        finally:
            observer.stopped()
        found = {**document(results, str(folder.path), command), "published": beside(results, figures)}
        for warning in found["warnings"]:
            LOG.warning("%s", warning)
        folder.write("comparison.csv", to_csv(found))
        folder.write("comparison.md", to_markdown(found))
        folder.write_json("comparison.json", found)
        draw(found, folder.path)
    return found


def _results(plan: Plan, runs: Runs) -> Results:
    choices = choose(plan, runs)
    for choice in choices:
        if choice.at_edge:
            LOG.warning("%s: the best %s tried is at the edge of the grid: try values beyond it",
                        choice.method, ", ".join(choice.at_edge))  # fmt: skip
    asked = {
        choice.method: [runs.run(choice.method, choice.candidate, seed) for seed in plan.seeds]
        for choice in choices
        if choice.candidate is not None
    }
    found = iter(runs.get([run for group in asked.values() for run in group]))
    outcomes: dict[Method, list[Outcome]] = {method: [next(found) for _ in group] for method, group in asked.items()}
    for choice in choices:
        if choice.candidate is None:  # every candidate has failed, and there is nothing to train with the seeds
            lost = [runs.run(choice.method, choice.method.candidates[0], seed) for seed in plan.seeds]
            outcomes[choice.method] = [Outcome(run, error=choice.error) for run in lost]
    return Results(plan, {choice.method: choice for choice in choices}, outcomes)


def _settled(plan: Plan, folder: StudyFolder, observer: StudyObserver) -> Plan:
    """The plan with the numbers of relation matrices in the place of files, and of what is measured first."""

    def settle(method: Method) -> Method:
        return replace(
            method, candidates=tuple(replace(one, experiment=numbers(one.experiment)) for one in method.candidates)
        )

    def numbers(experiment: Experiment) -> Experiment:
        # a folder for each experiment that can be measured: candidates may differ in what the measure depends on
        measured = folder.path / "relate" / identity(canonical(experiment, experiment.training.epochs))
        return self_contained(with_relation(experiment, measured, observer=observer))

    methods = [settle(one) for one in plan.methods]
    return replace(plan, methods=methods, reference=methods[plan.methods.index(plan.reference)])


def _amount(plan: Plan) -> int:
    """How many runs there are, those with which is tuned among them."""
    amount = 0
    for method in [*plan.methods, *plan.baselines]:
        several = len(method.candidates)
        amount += len(plan.seeds) + ((several - 1) * plan.tune_seeds if several > 1 else 0)
    return amount


class _Trainer:
    """Trains a study's runs in processes, which are there while it is entered."""

    def __init__(self, plan: Plan, jobs: int | None) -> None:
        on_cpu = choose_device(plan.experiment).type == "cpu"
        jobs = jobs or min(usable_cores() if on_cpu else 1, _amount(plan))
        self.processes = Processes[StudyRun](jobs, after=measure)

    def __enter__(self) -> Train:
        self.processes.__enter__()
        return self._train

    def __exit__(self, *raised: object) -> None:
        self.processes.__exit__(*raised)  # type: ignore[arg-type]

    def _train(self, runs: Sequence[StudyRun]) -> Iterator[tuple[StudyRun, str | None]]:
        return self.processes.train(runs)
