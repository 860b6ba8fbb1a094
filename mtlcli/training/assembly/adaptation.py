"""Sharing of an experiment with adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.config.components import AdapterField
from mtlcli.config.locations import Problems
from mtlcli.models.adapters.attachment import attach
from mtlcli.models.adapters.base import Adapters
from mtlcli.models.adapters.lora import LoRA
from mtlcli.models.adapters.merging import merge_state
from mtlcli.models.adapters.routing import RoutedSharing
from mtlcli.models.sharing.base import MakeHead, MakeTrunk, Sharing
from mtlcli.models.trunks.base import Trunk


def make_adapted_sharing(
    experiment: Experiment, make_trunk: MakeTrunk, make_head: MakeHead, inputs: Mapping[str, str]
) -> Sharing:
    """Create the sharing of an experiment with adapters in its trunks.

    The adapters are initialized after everything else, whose initial weights are therefore those without adapters.

    Args:
        experiment: The experiment, with `adapters`.
        make_trunk: Creates a trunk.
        make_head: Creates the head of a task.
        inputs: task → alias of its dataset.

    Returns:
        The sharing.

    Raises:
        ConfigError: If the adapters fit neither the trunk nor the sharing.
    """
    problems, entry = Problems(experiment), experiment.adapters
    assert entry is not None
    with problems.now("adapters"):
        adapters: Adapters = registry.adapters.create(Adapters, entry, list(inputs))
        for key in ("frozen", "freeze"):
            if getattr(experiment.trunk, key):
                raise ValueError(
                    f"adapters keep the trunk's own weights fixed; remove `trunk.{key}`, which would also switch off "
                    "dropout"
                )
        if adapters.task_dependent and experiment.sharing.name != "hard":
            arrangement = entry.options["arrangement"]
            raise ValueError(
                f"`arrangement: {arrangement}` passes each task through one trunk with its own adapters, which needs "
                f"`sharing: hard`, not {experiment.sharing.name!r}. The arrangement `shared` works with every sharing"
            )
    if adapters.task_dependent:
        routed = RoutedSharing(make_trunk, make_head, inputs)
        with problems.now("adapters.targets"):
            routed.attach(adapters)
        return routed
    sharing: Sharing = registry.sharings.create(Sharing, experiment.sharing, make_trunk, make_head, inputs)
    with problems.now("adapters.targets"):
        for trunk in (module for module in sharing.modules() if isinstance(module, Trunk)):
            attach(adapters, trunk)
    return sharing


def merge_stored_adapters(sharing: Sharing, payload: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state dict of the model in a checkpoint, with its adapters merged into the weights.

    Args:
        sharing: A sharing with the same trunk.
        payload: Content of the checkpoint, of a run with adapters.

    Returns:
        The state dict without adapters.

    Raises:
        ValueError: If the adapters differ by task or are of another form, so that there is no one trunk.
    """
    try:
        entry: TypeAdapter[Any] = TypeAdapter(AdapterField)
        adapters = registry.adapters.create(Adapters, entry.validate_python(payload["config"]["adapters"]), ["task"])
    except ValidationError as error:
        raise ValueError("the adapters in its experiment are invalid") from error
    if not isinstance(adapters, LoRA) or adapters.arrangement != "shared":
        raise ValueError(
            "holds adapters that don't amount to one trunk for all tasks; the only adapters that do are `lora` with "
            "`arrangement: shared`"
        )
    return merge_state(sharing, payload["model"], adapters.scale)
