"""Comparison of methods with one another and with single-task baselines."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from mtlcli.config import Experiment
from mtlcli.cores import usable_cores
from mtlcli.studies.compare.document import Document, make_document
from mtlcli.studies.compare.execution import Outcome, RunStore, StudyRun, Train
from mtlcli.studies.compare.exports import to_csv, to_markdown
from mtlcli.studies.compare.identity import experiment_hash
from mtlcli.studies.compare.measured import measure
from mtlcli.studies.compare.merged_runs import add_merged_methods, complete_merges, parse_baselines
from mtlcli.studies.compare.plan import Load, Method, Plan, make_plan
from mtlcli.studies.compare.published import join_published, read_published
from mtlcli.studies.compare.results import Results
from mtlcli.studies.compare.study_plots import draw_plots
from mtlcli.studies.compare.tuning import select_candidates
from mtlcli.studies.folder import StudyFolder
from mtlcli.studies.pool import ProcessPool
from mtlcli.studies.relate.experiments import make_joint
from mtlcli.studies.relate.for_weighting import with_relation
from mtlcli.studies.study_callback import StudyCallback
from mtlcli.training.device import choose_device
from mtlcli.weighting.relation_matrix import self_contained

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
    baselines: Sequence[str] = (),
    command: str | None = None,
    callback: StudyCallback | None = None,
    train: Train | None = None,
) -> Document:
    """Compare methods over several seeds, with one another and with single-task baselines.

    Writes the study folder described in `docs/comparison.md`. Runs that it holds are reused, so that an interrupted
    study resumes. A ConfigError before training lists all problems of all experiments. A failed run raises no error;
    the result lists it. After a signal, an InterruptedRunError is raised, and finished work is kept.

    Args:
        load: loads the experiment with overrides (`KEY=VALUE`).
        vary: `KEY=VALUE,VALUE,…`; the methods are all combinations.
        seeds: number of seeds of each method and each baseline: the experiment's seed and the following ones.
        tune: `KEY=VALUE,VALUE,…`; the best combination on the evaluated split is selected for each method and each
            baseline.
        tune_seeds: number of the first seeds that are used for tuning.
        jobs: number of runs at the same time; by default one per core, or one on an accelerator.
        out: the study folder; by default `NAME/compare` under `$MTL_RUNS` or `runs/`.
        published: YAML file of published results, which are shown with those of the study.
        reference: label of the method that the others are compared with, in addition to the single-task baselines; by
            default the first with uniform weighting, else the first.
        baselines: `merge` or `merge:METHOD,METHOD`, to compare models merged of the single-task models, too.
        command: the command line, to be recorded in the result.
        callback: called as the study progresses.
        train: trains runs; by default each in its own process.

    Returns:
        The content of `comparison.json`.
    """
    callback = callback or StudyCallback()
    rules = parse_baselines(baselines)
    plan = add_merged_methods(make_plan(load, vary, tune, seeds, tune_seeds, reference), rules)
    published_tables = read_published(published, plan) if published is not None else []
    folder = StudyFolder.locate(out, plan.experiment.name, "compare")
    with folder.lock():
        plan = _measure_relations(plan, folder, callback)
        callback.on_study_start(_count_runs(plan))
        try:
            with _Trainer(plan, jobs) if train is None else nullcontext(train) as trainer:
                results = _execute(plan, RunStore(folder.path / "runs", trainer, callback), folder.path / "merged")
        finally:
            callback.on_study_end()
        document = {
            **make_document(results, str(folder.path), command),
            "published": join_published(results, published_tables),
        }
        for warning in document["warnings"]:
            LOG.warning("%s", warning)
        folder.write("comparison.csv", to_csv(document))
        folder.write("comparison.md", to_markdown(document))
        folder.write_json("comparison.json", document)
        draw_plots(document, folder.path)
    return document


def _execute(plan: Plan, store: RunStore, merged: Path) -> Results:
    """Tune, then train all methods and baselines with all seeds, and then merge the models of the baselines."""
    choices = select_candidates(plan, store)
    for choice in choices:
        if choice.at_edge:
            LOG.warning("%s: the best %s is at the edge of the grid; try values beyond it",
                        choice.method, ", ".join(choice.at_edge))  # fmt: skip
    runs = {
        choice.method: [store.make_run(choice.method, choice.candidate, seed) for seed in plan.seeds]
        for choice in choices
        if choice.candidate is not None and choice.method.merge is None
    }
    completed = iter(store.complete([run for group in runs.values() for run in group]))
    outcomes: dict[Method, list[Outcome]] = {method: [next(completed) for _ in group] for method, group in runs.items()}
    for choice in choices:
        if choice.candidate is None:  # all candidates have failed, so that no seed is trained
            failed = [store.make_run(choice.method, choice.method.candidates[0], seed) for seed in plan.seeds]
            outcomes[choice.method] = [Outcome(run, error=choice.error) for run in failed]
    if merges := [method for method in plan.methods if method.merge is not None]:
        outcomes |= complete_merges(merges, {method: outcomes[method] for method in plan.baselines}, store, merged)
    return Results(plan, {choice.method: choice for choice in choices}, outcomes)


def _measure_relations(plan: Plan, folder: StudyFolder, callback: StudyCallback) -> Plan:
    """Replace files and measures of `weighting: relation` by the values of their matrices."""

    def resolve(experiment: Experiment) -> Experiment:
        # one folder for each joint experiment, since the measure may depend on keys in which candidates differ
        joint = make_joint(experiment, experiment.training.epochs)
        measured = folder.path / "relate" / experiment_hash(joint)
        return self_contained(with_relation(experiment, measured, callback=callback))

    methods = [
        replace(
            method,
            candidates=tuple(
                replace(candidate, experiment=resolve(candidate.experiment)) for candidate in method.candidates
            ),
        )
        for method in plan.methods
    ]
    return replace(plan, methods=methods, reference=methods[plan.methods.index(plan.reference)])


def _count_runs(plan: Plan) -> int:
    """Count all runs, including those for tuning."""
    runs = 0
    for method in [*plan.methods, *plan.baselines]:
        candidates = len(method.candidates)
        runs += len(plan.seeds) + ((candidates - 1) * plan.tune_seeds if candidates > 1 else 0)
    return runs


class _Trainer:
    """Trains the runs of a study in processes, inside its context."""

    def __init__(self, plan: Plan, jobs: int | None) -> None:
        on_cpu = choose_device(plan.experiment).type == "cpu"
        jobs = jobs or min(usable_cores() if on_cpu else 1, _count_runs(plan))
        self.pool = ProcessPool[StudyRun](jobs, after=measure)

    def __enter__(self) -> Train:
        self.pool.__enter__()
        return self._train

    def __exit__(self, *raised: object) -> None:
        self.pool.__exit__(*raised)  # type: ignore[arg-type]

    def _train(self, runs: Sequence[StudyRun]) -> Iterator[tuple[StudyRun, str | None]]:
        return self.pool.train(runs)
