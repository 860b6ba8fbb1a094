"""`weighting: {name: relation, from: gradient}`: the matrix is measured before the run."""

from __future__ import annotations

from pathlib import Path

from mtlcli.config import Experiment
from mtlcli.studies.relate.experiments import Budget
from mtlcli.studies.relate.relate_study import relate
from mtlcli.studies.study_observer import StudyObserver
from mtlcli.training.assembly.build import with_relations
from mtlcli.training.assembly.regularization import terms_of


def with_relation(
    experiment: Experiment,
    out: str | Path | None = None,
    *,
    budget: Budget | None = None,
    observer: StudyObserver | None = None,
) -> Experiment:
    """The experiment with the numbers of the matrix that its weighting's `from` asks for; any other as it is.

    out, budget, observer: as of `relate`, whose folder is used again: what was measured before isn't trained anew.
    """
    measure = _asked(experiment)
    if measure is None:
        return experiment
    found = relate(experiment, [measure], out, budget=budget, observer=observer)
    return with_relations(experiment, found["measures"][measure]["relation"])


def unmeasured(experiment: Experiment) -> Experiment:
    """The same with unrelated tasks in the place of what isn't measured yet: to look at a run without a study."""
    if _asked(experiment) is None:
        return experiment
    names = [*experiment.tasks, *(term.name for term in terms_of(experiment) if term.as_task)]
    return with_relations(experiment, {task: {other: float(task == other) for other in names} for task in names})


def _asked(experiment: Experiment) -> str | None:
    """The measure that the weighting asks for, where it has no matrix."""
    weighting = experiment.weighting
    if weighting.name != "relation" or weighting.options["matrix"] is not None:  # both is an error of its own
        return None
    measure: str | None = weighting.options["from"]
    return measure
