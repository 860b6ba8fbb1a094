"""Heads of tasks that predict maps."""

from __future__ import annotations

from torch import nn

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.models.map_head import MapHead
from mtlcli.specs import DatasetSpec
from mtlcli.tasks.base import TaskKind


def make_map_head(experiment: Experiment, task: str, features: int, kind: TaskKind, spec: DatasetSpec) -> nn.Module:
    """Create the head of a task that predicts a map.

    Args:
        experiment: The experiment.
        task: Name of the task.
        features: Number of channels of the representation.
        kind: Kind of the task.
        spec: Its dataset, whose images have the size of the targets.

    Returns:
        The head, [B, features, h, w] → [B, outputs, H, W].

    Raises:
        ValueError: If the head processes maps, and the task predicts another form.
    """
    entry = experiment.tasks[task].head
    if kind.predicts != "map":
        raise ValueError(
            f"the head {entry.name!r} processes maps, but kind {experiment.tasks[task].kind.name!r} predicts a "
            f"{kind.predicts}. Use a head such as `linear` or `mlp`"
        )
    head: nn.Module = registry.heads.create(nn.Module, entry, features, kind.outputs)
    of_maps = bool(getattr(registry.heads[entry.name].target, "of_maps", False))
    return MapHead(head, of_maps, spec.input_shape[1:])
