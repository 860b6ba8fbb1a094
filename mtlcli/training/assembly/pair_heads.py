"""Heads of tasks on pairs of texts that are encoded one by one."""

from __future__ import annotations

from torch import nn

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.errors import ConfigError
from mtlcli.models.text_pairs import PairFeatures
from mtlcli.specs import DatasetSpec
from mtlcli.tasks.base import TaskKind


def make_pair_head(experiment: Experiment, task: str, features: int, kind: TaskKind, spec: DatasetSpec) -> nn.Module:
    """Create the head of a task that compares texts, or whose dataset has texts that are encoded one by one.

    Args:
        experiment: The experiment.
        task: Name of the task.
        features: Width of the features of a text.
        kind: Kind of the task.
        spec: Its dataset.

    Returns:
        The head [2B, features] → [2B, outputs] of a task that compares texts; [B, outputs] of others, which receive the
        features of both texts and their difference.

    Raises:
        ConfigError: If the dataset has no such pairs, or the kind can't be used with them.
        ValueError: If the task has no head, and the user chose one.
    """
    entry, name = experiment.tasks[task].head, experiment.tasks[task].kind.name
    if spec.text is None or not spec.text.separate:
        have = "texts that are encoded in one sequence" if spec.text is not None else "no texts"
        message = (
            f"{name!r} compares two texts that are encoded one by one, but dataset {experiment.tasks[task].dataset!r} "
            f"has {have}; it needs a trunk that reads text, and a dataset with two columns under `text` and, if it is "
            "set, `pairs: separate`"
        )
        raise ConfigError(experiment.problem(f"tasks.{task}.kind", message))
    if kind.predicts != "vector":
        message = f"{name!r} has a label for each word of one text, but the dataset has pairs of texts"
        raise ConfigError(experiment.problem(f"tasks.{task}.kind", message))
    if not kind.pairs:
        head: nn.Module = registry.heads.create(nn.Module, entry, 3 * features, kind.outputs)
        return nn.Sequential(PairFeatures(), head)
    if kind.outputs:
        compared: nn.Module = registry.heads.create(nn.Module, entry, features, kind.outputs)
        return compared
    if entry.name != "linear":
        raise ValueError(
            f"the task compares the features, without a head; for the head {entry.name!r}, set `dimensions` in `kind`"
        )
    return nn.Identity()
