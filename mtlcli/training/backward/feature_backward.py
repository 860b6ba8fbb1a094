"""Backward pass that balances the gradients of whole sequences or maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from mtlcli.errors import ConfigError
from mtlcli.models.sharing.base import SharingRecord
from mtlcli.training.backward.feature_checks import check_features
from mtlcli.training.backward.feature_jacobians import FeatureJacobians
from mtlcli.training.backward.gradient_backward import GradientBackward, trunk_parameters
from mtlcli.training.backward.jacobians import Jacobians
from mtlcli.training.run import Run


class SequenceJacobians(FeatureJacobians):
    """Jacobian by the output of the trunk before it is pooled. See `FeatureJacobians`."""

    route = "sequence backward"


class SequenceBackward(GradientBackward):
    """Splits the graph between the trunk and the pooling, where tasks with different poolings have the same features.

    Args:
        run: Run with a trunk whose output is a sequence or a map.
        scaler: Loss scaler of fp16.

    Raises:
        ConfigError: The tasks have no common sequence.
    """

    def __init__(self, run: Run, scaler: GradScaler) -> None:
        super().__init__(run, scaler)
        self.masks: dict[str, Tensor | None] = {}
        represent = self._represent_all
        self.represent_all = torch.compile(represent) if run.experiment.training.compile else represent
        self.represent, self.predict = self._represent_positions, self._predict

    def _jacobians(self, gradients: str) -> Jacobians:
        experiment, trunk = self.run.experiment, next(iter(self.run.model.sharing.trunks().values()))
        message = None
        if trunk.representation == "vector":
            message = f"the output of trunk {experiment.trunk.name!r} is a vector for each example; use `features`"
        elif any(kind.pairs for kind in self.run.kinds.values()):
            message = "tasks on pairs of texts have no common sequence; use `features`"
        elif self.run.model.sharing.answers is not None:
            message = "tasks that generate texts have no common sequence; use `parameters`"
        if message is not None:
            raise ConfigError(experiment.problem("weighting.gradients", message))
        check_features(self.run, pooled=False)
        return SequenceJacobians(trunk_parameters(self.run))

    def _represent_all(
        self, inputs: Mapping[str, Tensor], tasks: Sequence[str], record: SharingRecord | None
    ) -> dict[str, Tensor]:
        return self.run.model.representations(inputs, tasks, record, pooled=False)

    def _represent_positions(
        self, inputs: Mapping[str, Tensor], tasks: Sequence[str], record: SharingRecord | None
    ) -> dict[str, Tensor]:
        model, aliases = self.run.model, {self.run.sources[task][0] for task in tasks}
        assert model.sharing.pooling is not None
        self.masks = model.sharing.pooling.masks({alias: model.prepare(alias, inputs[alias]) for alias in aliases})
        return self.represent_all(inputs, tasks, record)

    def _predict(self, task: str, x: Tensor) -> Tensor:
        """Return the prediction from an output of the trunk; from a pooled one in the steps between solutions."""
        sharing = self.run.model.sharing
        pooling, mask = sharing.pooling, self.masks.get(self.run.sources[task][0])
        assert pooling is not None
        if sharing.dependencies is None:
            prediction: Tensor = sharing.heads[task](pooling.pool(task, x, mask))
            return prediction
        received = {name: pooling.pool(name, x, mask) for name in sharing.dependencies.closure([task])}
        return sharing.dependencies.predict(sharing.heads, received)[task]
