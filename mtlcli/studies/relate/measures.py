"""Measures of relations, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mtlcli.studies.relate.data_similarity import data_relation
from mtlcli.studies.relate.gradient_measures import affinity_relation, gradient_relation
from mtlcli.studies.relate.linear_probe import probe_skills
from mtlcli.studies.relate.performance import performance_relation
from mtlcli.studies.relate.relation import Relation
from mtlcli.studies.relate.semantic import semantic_relation
from mtlcli.studies.relate.study_runs import StudyRuns, baseline_seeds


@dataclass(frozen=True)
class Measure:
    """A measure of how related the tasks are.

    Attributes:
        name: its name in commands and files.
        title: its definition in a few words, for tables and heatmaps.
        compute: computes the relation from the runs of the study, which it trains as far as it needs them.
        threshold: mean similarity down to which clusters are merged.
        lower_bound: smallest value of the measure.
        trains: the runs that it needs; None if it needs none.
    """

    name: str
    title: str
    compute: Callable[[StudyRuns], Relation]
    threshold: float
    lower_bound: float
    trains: Literal["baselines", "joint run"] | None = None


def _performance(runs: StudyRuns) -> Relation:
    seeds = baseline_seeds(runs.joint, runs.budget)
    return performance_relation(runs.tasks, seeds, probe_skills(runs.joint_run, runs.opened, runs.baselines, seeds))


def _gradient(runs: StudyRuns) -> Relation:
    return gradient_relation(runs.tasks, runs.probed_steps)


def _affinity(runs: StudyRuns) -> Relation:
    return affinity_relation(runs.tasks, runs.probed_steps)


def _data(runs: StudyRuns) -> Relation:
    return data_relation(runs.joint_run, runs.opened)


def _semantic(runs: StudyRuns) -> Relation:
    return semantic_relation(runs.tasks, [runs.descriptions[task] for task in runs.tasks], runs.budget.encoder)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("performance", "correlation of baseline performance", _performance, 0.5, -1, "baselines"),
        Measure("gradient", "mean cosine of the task gradients", _gradient, 0.1, -1, "joint run"),
        Measure("affinity", "effect of a step for one task on another", _affinity, 0.1, -1, "joint run"),
        Measure("data", "similarity of labels or inputs", _data, 0.5, 0),
        Measure("semantic", "cosine of the descriptions", _semantic, 0.2, 0),
    )
}
