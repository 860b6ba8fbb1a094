"""Hard parameter sharing with adapters that depend on the task."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from torch import Tensor, nn

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

    def encode(
        self, inputs: Mapping[str, Tensor], alias_of: Mapping[str, str], record: SharingRecord
    ) -> dict[str, Tensor]:
        common = {alias: self._pass_common_stages(x) for alias, x in inputs.items()}
        representations: dict[str, Tensor] = {}
        for task, alias in alias_of.items():
            self.route.task = task
            representations[task] = self._pass_other_stages(common[alias])
        return representations

    def _pass_common_stages(self, x: Tensor) -> Tensor:
        if self.common_stages:
            x = self.trunk.encoder(x)
            for stage in islice(self.trunk.stages().values(), self.common_stages):
                x = stage(x)
        return x

    def _pass_other_stages(self, x: Tensor) -> Tensor:
        if not self.common_stages:
            representation: Tensor = self.trunk(x)
            return representation
        for stage in islice(self.trunk.stages().values(), self.common_stages, None):
            x = stage(x)
        return x

    def own_modules(self, task: str) -> list[nn.Module]:
        own = [adapter.tasks[task] for adapter in self.of_layers.values() if len(adapter.tasks)]
        return [*super().own_modules(task), *own]
