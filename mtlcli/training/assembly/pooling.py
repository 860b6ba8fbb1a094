"""Pooling between the form of the trunk's output and the form that each task predicts."""

from __future__ import annotations

from collections.abc import Mapping

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.models.representations import POOLS, Pooling
from mtlcli.models.trunks.base import Trunk
from mtlcli.specs import Pool
from mtlcli.tasks.base import TaskKind

FORMS = {"vector": "a vector [B, F]", "sequence": "a sequence [B, L, F]", "map": "a map [B, F, h, w]"}


def make_pooling(experiment: Experiment, trunk: Trunk, kinds: Mapping[str, TaskKind]) -> Pooling | None:
    """Choose the pooling of each task.

    Args:
        experiment: The experiment.
        trunk: A trunk of the sharing.
        kinds: task → its kind.

    Returns:
        The pooling; None if the trunk's output is a vector.

    Raises:
        ConfigError: If a kind needs a form that the trunk doesn't return, or a head sets a pooling that doesn't apply.
    """
    problems, form, name = Problems(experiment), trunk.representation, experiment.trunk.name
    pools: dict[str, Pool] = {}
    for task, kind in kinds.items():
        pool = experiment.tasks[task].head.pool
        with problems.at(f"tasks.{task}.kind"):
            if kind.predicts not in ("vector", form):
                raise ValueError(
                    f"kind {experiment.tasks[task].kind.name!r} predicts {FORMS[kind.predicts]}, but the output of "
                    f"trunk {name!r} is {FORMS[form]}{_hint(name, kind.predicts)}"
                )
        with problems.at(f"tasks.{task}.head.pool"):
            if pool is not None and kind.predicts != "vector":
                raise ValueError(f"{pool!r} does not apply: the task predicts {FORMS[kind.predicts]}, without pooling")
            if pool is not None and pool not in POOLS[form]:
                choices = ", ".join(POOLS[form])
                hint = f"Choose from: {choices}" if choices else "Remove `pool`"
                raise ValueError(f"{pool!r} does not apply: the output of trunk {name!r} is {FORMS[form]}. {hint}")
        if kind.predicts == "vector":
            pools[task] = pool or trunk.pool
    problems.check()
    return None if form == "vector" else Pooling(trunk.mask, pools)


def _hint(trunk: str, needed: str) -> str:
    """Return a sentence on the trunks that return maps, if the kind needs a map."""
    if needed != "map":
        return ""
    if "output" in registry.trunks[trunk].options:
        return ". Set `output: map` in `trunk`"
    return ". Use `trunk: unet`, or `torchvision`, `timm` or `cnn` with `output: map`"
