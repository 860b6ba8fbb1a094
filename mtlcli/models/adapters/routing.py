"""Hard parameter sharing with adapters that depend on the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mtlcli.models.adapters.attachment import attach
from mtlcli.models.adapters.base import Adapters, adapters_in
from mtlcli.models.sharing.base import SharingRecord
from mtlcli.models.sharing.hard import HardSharing
from mtlcli.models.stage_shapes import trace_stages


class RoutedSharing(HardSharing):
    """Hard parameter sharing with one trunk, in which each task uses its own adapters.

    Tasks on the same dataset share the pass up to the first stage with an adapter that depends on the task; from there
    each task passes separately. Each task therefore has its own representation, and a gradient of it by the shared
    parameters costs one backward pass over its own examples.

    Args:
        make_trunk: creates a trunk; called once.
        make_head: creates the head of a task: (task, features) → module.
        inputs: task → alias of its dataset.
    """

    common_features = False
    one_trunk = False

    def attach(self, adapters: Adapters) -> None:
        """Add adapters to the trunk.

        Args:
            adapters: the adapters, which depend on the task.
        """
        stages = trace_stages(self.trunk)
        attach(adapters, self.trunk)
        self.route = adapters.route
        self.of_layers = adapters_in(self.trunk)
        differing = {name for name, adapter in self.of_layers.items() if len(adapter.tasks)}
        self.common_stages = next(at for at, stage in enumerate(stages.values()) if differing & stage.modules)
        self._route_recomputation()

    def _route_recomputation(self) -> None:
        """Let layers that are computed again in the backward pass use the adapters of the pass that they belong to."""
        again = partial(checkpoint, use_reentrant=False, context_fn=self.route.contexts)
        for module in self.trunk.modules():  # of the library transformers
            if getattr(module, "gradient_checkpointing", False):
                module._gradient_checkpointing_func = again  # type: ignore[assignment]

    def encode(
        self, inputs: Mapping[str, Tensor], alias_of: Mapping[str, str], record: SharingRecord
    ) -> dict[str, Tensor]:
        representations: dict[str, Tensor] = {}
        for alias, x in inputs.items():
            complete = self._pass_common_stages(x)
            for task in (task for task, of_dataset in alias_of.items() if of_dataset == alias):
                self.route.task = task
                representations[task] = complete()
        return {task: representations[task] for task in alias_of}

    def _pass_common_stages(self, x: Tensor) -> Callable[[], Tensor]:
        """Pass examples through the stages without adapters that differ; return the pass through the others."""
        if not self.common_stages:
            return lambda: self.trunk(x)
        stages = list(self.trunk.stages().values())  # of one pass: a trunk may keep what later stages need
        x = self.trunk.encoder(x)
        for stage in stages[: self.common_stages]:
            x = stage(x)

        def complete() -> Tensor:
            y = x
            for stage in stages[self.common_stages :]:
                y = stage(y)
            return y

        return complete

    def own_modules(self, task: str) -> list[nn.Module]:
        own = [adapter.tasks[task] for adapter in self.of_layers.values() if len(adapter.tasks)]
        return [*super().own_modules(task), *own]
