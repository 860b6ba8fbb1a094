"""A study of how related an experiment's tasks are, from its runs to its files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError, nearest
from mtlcli.studies.folder import StudyFolder
from mtlcli.studies.relate.experiments import Budget, canonical
from mtlcli.studies.relate.groups import suggest
from mtlcli.studies.relate.measures import MEASURES, Measure
from mtlcli.studies.relate.relation import Relation, draw_heatmap, named, to_csv
from mtlcli.studies.relate.study_runs import StudyRuns
from mtlcli.studies.study_observer import StudyObserver
from mtlcli.training.assembly.check import check_experiment

LOG = logging.getLogger("mtl")
Document = dict[str, Any]


def relate(
    experiment: Experiment,
    measures: Sequence[str] | None = None,
    out: str | Path | None = None,
    *,
    budget: Budget | None = None,
    observer: StudyObserver | None = None,
) -> Document:
    """Measure how related the tasks are, and write a folder of it: see `docs/relations.md`.

    measures: by name, in this order; None: all, but `semantic` where tasks have no description.
    out: the folder; None: `relate/` of the experiment's, under `$MTL_RUNS` or `runs/`. Runs that it holds are used
    again: a study that was stopped goes on, and one of more seeds or measures trains what is new.
    Returns what `relate.json` holds. ConfigError where the experiment can't be trained, has one task, or the folder
    holds another experiment's runs; InterruptedRunError after a signal, with all kept that was done.
    """
    budget, observer = budget or Budget(), observer or StudyObserver()
    chosen = _chosen(experiment, measures)
    joint = canonical(experiment, budget.epochs)
    check_experiment(joint)
    folder = StudyFolder.named(out, experiment.name, "relate")
    with folder.taken():
        descriptions = {task: entry.description for task, entry in experiment.tasks.items()}
        runs = StudyRuns(joint, descriptions, folder, budget, observer)
        observer.started(_amount(chosen, runs))
        try:
            return _measured(chosen, runs, experiment)
        finally:
            observer.stopped()


def _chosen(experiment: Experiment, measures: Sequence[str] | None) -> list[Measure]:
    """The measures asked for, each once. ConfigError for one there isn't, or that can't be."""
    if len(experiment.tasks) < 2:
        raise ConfigError(experiment.problem("tasks", "there must be at least two tasks to relate"))
    for name in measures or ():
        if name not in MEASURES:
            raise ConfigError(f"no measure {name!r}.{nearest(name, MEASURES)} Choose from: {', '.join(MEASURES)}")
    silent = [task for task, entry in experiment.tasks.items() if not entry.description.strip()]
    told = f"`semantic` compares the tasks' `description:`, and there is none for: {', '.join(silent)}"
    if measures is None and silent:
        LOG.warning("%s; it is left out", told)
        return [measure for measure in MEASURES.values() if measure.name != "semantic"]
    if silent and "semantic" in (measures or ()):
        raise ConfigError(experiment.problem("tasks", told))
    return [MEASURES[name] for name in dict.fromkeys(measures or MEASURES)]


def _amount(measures: Sequence[Measure], runs: StudyRuns) -> int:
    """How many runs the measures need."""
    trained = {measure.trains for measure in measures}
    baselines = len(runs.tasks) * runs.budget.seeds if "baselines" in trained else 0
    return baselines + ("joint run" in trained)


def _measured(measures: Sequence[Measure], runs: StudyRuns, experiment: Experiment) -> Document:
    tasks, folder, budget = list(experiment.tasks), runs.folder, runs.budget
    relations: dict[str, Relation] = {}
    groups: dict[str, Any] = {}
    # first what needs no training: what is wrong with it, such as an encoder that isn't there, is known at once then
    for measure in sorted(measures, key=lambda one: one.trains is not None):
        relation = measure.compute(runs)
        groups[measure.name] = suggest(relation, measure.cut, budget.networks).plain(relation.tasks, tasks)
        relations[measure.name] = relation.ordered(tasks)
        _write(folder.of(measure.name), measure, relations[measure.name])
        if pairs := relations[measure.name].undefined():
            LOG.warning("%s: no value for %s; they are 0 in relation.csv", measure.name, ", ".join(pairs))
        runs.observer.measured(measure.name)
    relations = {measure.name: relations[measure.name] for measure in measures}
    groups = {measure.name: groups[measure.name] for measure in measures}
    first = measures[0]
    for file in ("relation.csv", "heatmap.png"):
        folder.copy(folder.of(first.name).path / file)
    folder.write_json("groups.json", groups)
    document = {
        "name": experiment.name,
        "tasks": tasks,
        "out": str(folder.path),
        "budget": {"seeds": budget.seeds, "epochs": runs.joint.training.epochs, "networks": budget.networks},
        "measures": {
            name: {"relation": named(tasks, relation.defined), "numbers": relation.numbers, "groups": groups[name]}
            for name, relation in relations.items()
        },
    }
    folder.write_json("relate.json", document)
    return document


def _write(folder: StudyFolder, measure: Measure, relation: Relation) -> None:
    """The folder of one measure."""
    folder.write("relation.csv", to_csv(relation.tasks, relation.defined))
    draw_heatmap(relation, f"{measure.name}: {measure.title}", measure.lowest, folder.path / "heatmap.png")
    folder.write_json("numbers.json", relation.numbers)
    if relation.raw is not None:
        folder.write(f"{measure.name}.csv", to_csv(relation.tasks, relation.raw))
