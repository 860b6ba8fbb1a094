"""Relation matrix of `weighting: {name: relation, from: MEASURE}`, which is measured before the run."""

from __future__ import annotations

from pathlib import Path

from mtlcli.config import Experiment
from mtlcli.studies.relate.experiments import Budget
from mtlcli.studies.relate.relate_study import relate
from mtlcli.studies.study_callback import StudyCallback
from mtlcli.training.assembly.regularization import terms_of
from mtlcli.weighting.relation_matrix import with_relations


def with_relation(
    experiment: Experiment,
    out: str | Path | None = None,
    *,
    budget: Budget | None = None,
    callback: StudyCallback | None = None,
) -> Experiment:
    """Measure the relation that the weighting requires, and insert its values into the experiment.

    Args:
        experiment: the experiment.
        out: the study folder, as in `relate`; its runs are reused.
        budget: the size of the study.
        callback: called as the study progresses.

    Returns:
        The experiment with the values of the matrix; unchanged if its weighting requires no measure.
    """
    measure = _required_measure(experiment)
    if measure is None:
        return experiment
    document = relate(experiment, [measure], out, budget=budget, callback=callback)
    return with_relations(experiment, document["measures"][measure]["relation"])


def with_placeholder_relation(experiment: Experiment) -> Experiment:
    """Insert unrelated tasks for a relation that is not measured yet, so that the experiment can be validated.

    Args:
        experiment: the experiment.

    Returns:
        The experiment with an identity matrix; unchanged if its weighting requires no measure.
    """
    if _required_measure(experiment) is None:
        return experiment
    names = [*experiment.tasks, *(term.name for term in terms_of(experiment) if term.as_task)]
    return with_relations(experiment, {task: {other: float(task == other) for other in names} for task in names})


def _required_measure(experiment: Experiment) -> str | None:
    """Return the measure in `from`, or None; also None if `matrix` is given, since validation refuses both."""
    weighting = experiment.weighting
    if weighting.name != "relation" or weighting.options["matrix"] is not None:
        return None
    measure: str | None = weighting.options["from"]
    return measure
