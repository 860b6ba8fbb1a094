"""Study of how related the tasks of an experiment are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError, suggest
from mtlcli.registry import kinds
from mtlcli.studies.folder import StudyFolder
from mtlcli.studies.relate.experiments import Budget, make_joint
from mtlcli.studies.relate.groups import suggest_groups
from mtlcli.studies.relate.measures import MEASURES, Measure
from mtlcli.studies.relate.relation import Relation, draw_heatmap, name_matrix, to_csv
from mtlcli.studies.relate.study_runs import StudyRuns
from mtlcli.studies.study_callback import StudyCallback
from mtlcli.text import join_names
from mtlcli.training.assembly.build import check_experiment

LOG = logging.getLogger("mtl")
LABELS_COMPARED = ("performance", "data")  # measures that compare a label of each example
Document = dict[str, Any]


def relate(
    experiment: Experiment,
    measures: Sequence[str] | None = None,
    out: str | Path | None = None,
    *,
    budget: Budget | None = None,
    callback: StudyCallback | None = None,
) -> Document:
    """Measure how related the tasks of an experiment are, and suggest groups of them.

    Writes the study folder described in `docs/relations.md`. Runs that it holds are reused: an interrupted study
    resumes, and one with more seeds or other measures trains only the additional runs. A ConfigError is raised if the
    experiment can't be trained or has one task, a measure can't be computed, or the folder holds runs of a different
    experiment. After a signal, an InterruptedRunError is raised, and finished work is kept.

    Args:
        experiment: the experiment, with at least two tasks.
        measures: names of the measures, in the order of the result; by default all, without `semantic` if a task has no
            description.
        out: the study folder; by default `NAME/relate` under `$MTL_RUNS` or `runs/`.
        budget: the size of the study.
        callback: called as the study progresses.

    Returns:
        The content of `relate.json`.
    """
    budget, callback = budget or Budget(), callback or StudyCallback()
    selected = _select_measures(experiment, measures)
    joint = make_joint(experiment, budget.epochs)
    check_experiment(joint)
    folder = StudyFolder.locate(out, experiment.name, "relate")
    with folder.lock():
        descriptions = {task: entry.description for task, entry in experiment.tasks.items()}
        runs = StudyRuns(joint, descriptions, folder, budget, callback)
        selected = _leave_out_maps(selected, measures, runs, experiment)
        callback.on_study_start(_count_runs(selected, runs))
        try:
            return _compute_measures(selected, runs, experiment)
        finally:
            callback.on_study_end()


def _select_measures(experiment: Experiment, measures: Sequence[str] | None) -> list[Measure]:
    """Return the requested measures, each once; ConfigError if one does not exist or can't be computed."""
    if len(experiment.tasks) < 2:
        raise ConfigError(experiment.problem("tasks", "there must be at least two tasks to relate"))
    for name in measures or ():
        if name not in MEASURES:
            raise ConfigError(f"no measure {name!r}.{suggest(name, MEASURES)} Choose from: {', '.join(MEASURES)}")
    skipped = set[str]()
    if experiment.stems and len(experiment.datasets) > 1:
        message = "`performance` passes the inputs of every dataset through the trunk of every baseline, which is "
        message += "impossible if datasets have stems of their own"
        if "performance" in (measures or ()):
            raise ConfigError(experiment.problem("stems", f"{message}. Choose other measures with --measure"))
        if measures is None:
            LOG.warning("%s. It is skipped", message)
            skipped.add("performance")
    words = [task for task, entry in experiment.tasks.items() if _labels_words(entry.kind.name)]
    if words:
        compared = [name for name in LABELS_COMPARED if measures is None or name in measures]
        skipped.update(_skip_compared(compared, _describe_labels(words, "word"), measures, experiment))
    undescribed = [task for task, entry in experiment.tasks.items() if not entry.description.strip()]
    message = f"`semantic` needs a `description:` of every task; missing for: {', '.join(undescribed)}"
    if measures is None and undescribed:
        LOG.warning("%s. It is skipped", message)
        skipped.add("semantic")
    if undescribed and "semantic" in (measures or ()):
        raise ConfigError(experiment.problem("tasks", message))
    return [MEASURES[name] for name in dict.fromkeys(measures or MEASURES) if name not in skipped]


def _leave_out_maps(
    selected: list[Measure], measures: Sequence[str] | None, runs: StudyRuns, experiment: Experiment
) -> list[Measure]:
    """Return the measures that can be computed if tasks have labels for each pixel; see `_select_measures`."""
    compared = [measure.name for measure in selected if measure.name in LABELS_COMPARED]
    maps = [task for task, kind in runs.joint_run.kinds.items() if kind.target.is_map] if compared else []
    if not maps:
        return selected
    skipped = _skip_compared(compared, _describe_labels(maps, "pixel"), measures, experiment)
    return [measure for measure in selected if measure.name not in skipped]


def _skip_compared(compared: list[str], why: str, measures: Sequence[str] | None, experiment: Experiment) -> list[str]:
    """Return measures that can't be computed, which are skipped; ConfigError if they were requested."""
    if not compared:
        return []
    message = f"{' and '.join(f'`{name}`' for name in compared)} can't be computed: they compare a label of each "
    message += f"example, and {why}"
    if measures is not None:
        raise ConfigError(experiment.problem("tasks", f"{message}. Choose other measures with --measure"))
    LOG.warning("%s. They are skipped", message)
    return compared


def _describe_labels(tasks: list[str], unit: str) -> str:
    """Return a clause that says that tasks have a label for each word or pixel."""
    return f"{join_names(tasks)} {'has' if len(tasks) == 1 else 'have'} a label for each {unit}"


def _labels_words(kind: str) -> bool:
    """Return whether a kind has a label for each word."""
    return "tags" in getattr(kinds[kind].target, "accepts", ())


def _count_runs(measures: Sequence[Measure], runs: StudyRuns) -> int:
    trains = {measure.trains for measure in measures}
    baselines = len(runs.tasks) * runs.budget.seeds if "baselines" in trains else 0
    return baselines + ("joint run" in trains)


def _compute_measures(measures: Sequence[Measure], runs: StudyRuns, experiment: Experiment) -> Document:
    tasks, folder, budget = list(experiment.tasks), runs.folder, runs.budget
    relations: dict[str, Relation] = {}
    groups: dict[str, Any] = {}
    # those without training first, so that their errors, such as a missing encoder, are reported at once
    for measure in sorted(measures, key=lambda measure: measure.trains is not None):
        relation = measure.compute(runs)
        suggestion = suggest_groups(relation, measure.threshold, budget.networks)
        groups[measure.name] = suggestion.to_dict(relation.tasks, tasks)
        relations[measure.name] = relation.reorder(tasks)
        _write(folder.subfolder(measure.name), measure, relations[measure.name])
        if pairs := relations[measure.name].undefined_pairs():
            LOG.warning("%s: undefined for %s; these are 0 in relation.csv", measure.name, ", ".join(pairs))
        runs.callback.on_measure_end(measure.name)
    relations = {measure.name: relations[measure.name] for measure in measures}
    groups = {measure.name: groups[measure.name] for measure in measures}
    first = folder.subfolder(measures[0].name)
    for name in ("relation.csv", "heatmap.png"):
        folder.copy(first.path / name)
    folder.write_json("groups.json", groups)
    document = {
        "name": experiment.name,
        "tasks": tasks,
        "out": str(folder.path),
        "budget": {"seeds": budget.seeds, "epochs": runs.joint.training.epochs, "networks": budget.networks},
        "measures": {
            name: {
                "relation": name_matrix(tasks, relation.filled),
                "numbers": relation.numbers,
                "groups": groups[name],
            }
            for name, relation in relations.items()
        },
    }
    folder.write_json("relate.json", document)
    return document


def _write(folder: StudyFolder, measure: Measure, relation: Relation) -> None:
    """Write the files of one measure."""
    folder.write("relation.csv", to_csv(relation.tasks, relation.filled))
    draw_heatmap(relation, f"{measure.name}: {measure.title}", measure.lower_bound, folder.path / "heatmap.png")
    folder.write_json("numbers.json", relation.numbers)
    if relation.raw is not None:
        folder.write(f"{measure.name}.csv", to_csv(relation.tasks, relation.raw))
