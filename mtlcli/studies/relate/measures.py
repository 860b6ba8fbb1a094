"""The measures there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mtlcli.studies.relate.data_similarity import data_relation
from mtlcli.studies.relate.gradient_measures import affinity_relation, gradient_relation
from mtlcli.studies.relate.linear_probe import probed_skills
from mtlcli.studies.relate.performance import performance_relation
from mtlcli.studies.relate.relation import Relation
from mtlcli.studies.relate.semantic import semantic_relation
from mtlcli.studies.relate.study_runs import StudyRuns, seeds


@dataclass(frozen=True)
class Measure:
    """A measure of how related the tasks are.

    compute: what is asked of the study's runs → the relation. title: what its numbers are, in a few words.
    cut: the similarity at which its clusters are cut. lowest: the least it can be. trains: what it needs, if anything.
    """

    name: str
    title: str
    compute: Callable[[StudyRuns], Relation]
    cut: float
    lowest: float
    trains: Literal["baselines", "joint run"] | None = None


def _performance(runs: StudyRuns) -> Relation:
    chosen = seeds(runs.joint, runs.budget)
    return performance_relation(runs.tasks, chosen, probed_skills(runs.plan, runs.opened, runs.baselines, chosen))


def _semantic(runs: StudyRuns) -> Relation:
    return semantic_relation(runs.tasks, [runs.descriptions[task] for task in runs.tasks], runs.budget.encoder)


def _gradient(runs: StudyRuns) -> Relation:
    return gradient_relation(runs.tasks, runs.points)


def _affinity(runs: StudyRuns) -> Relation:
    return affinity_relation(runs.tasks, runs.points)


def _data(runs: StudyRuns) -> Relation:
    return data_relation(runs.plan, runs.opened)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("performance", "correlation of the baselines' skills", _performance, 0.5, -1, "baselines"),
        Measure("gradient", "mean cosine of the tasks' gradients", _gradient, 0.1, -1, "joint run"),
        Measure("affinity", "what a step for one does for the other", _affinity, 0.1, -1, "joint run"),
        Measure("data", "similarity of labels, or of inputs", _data, 0.5, 0),
        Measure("semantic", "cosine of the descriptions", _semantic, 0.2, 0),
    )
}
