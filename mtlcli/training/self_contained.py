"""An experiment that needs no file but its data: what a run keeps is then all that it was made from."""

from __future__ import annotations

from dataclasses import replace

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError
from mtlcli.training.problems import Problems
from mtlcli.weighting.relation_matrix import Relations, read_relations


def self_contained(experiment: Experiment) -> Experiment:
    """The experiment with the numbers of its `weighting.matrix`, where that names a file.

    So the run's `config.yaml` gives the same run, and its checkpoints need nothing else, whatever becomes of the file.
    ConfigError for a file that can't be read, and where `weighting.from` isn't measured yet.
    """
    if experiment.weighting.name != "relation":
        return experiment
    matrix, measure = (experiment.weighting.options[key] for key in ("matrix", "from"))
    if matrix is None and measure is not None:
        message = (
            f"{measure!r} isn't measured yet. `mtl train` does that first; from Python, measure it "
            f"(`mtl relate --measure {measure}`) and give its relation.csv as `matrix`, in the place of `from`"
        )
        raise ConfigError(experiment.problem("weighting.from", message))
    if measure is not None or not isinstance(matrix, str):  # both is an error of the weighting's own
        return experiment
    with Problems(experiment).now("weighting.matrix"):
        relations = read_relations(matrix)
    return with_relations(experiment, relations)


def with_relations(experiment: Experiment, relations: Relations) -> Experiment:
    """The experiment with these numbers, {task: {task: number}}, for its `weighting.matrix`, and no `from`."""
    weighting = experiment.weighting
    options = {**weighting.options, "matrix": relations, "from": None}
    return experiment.model_copy(update={"weighting": replace(weighting, options=options)})
