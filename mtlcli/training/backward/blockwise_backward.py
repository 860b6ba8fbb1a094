"""Backward pass of Gramian-level weightings by blocks of parameters, for models with many parameters."""

from __future__ import annotations

import logging
from typing import ClassVar

from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from mtlcli.training.backward.blockwise import BlockwiseJacobians
from mtlcli.training.backward.engines import GradientEngine, check_finite
from mtlcli.training.backward.gradient_backward import GradientBackward, jacobian_bytes, trunk_parameters
from mtlcli.training.backward.jacobians import Jacobians
from mtlcli.training.run import Run
from mtlcli.weighting.base import GramianWeighting

LOG = logging.getLogger("mtl")


class BlockwiseEngine(GradientEngine):
    """Engine for methods that need the Gramian only, with its blocks of parameters. See `GradientEngine`."""

    def _solve(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.weighting, GramianWeighting) and isinstance(self.jacobians, BlockwiseJacobians)
        products = self.jacobians.gramian()
        if self.scale is not None:
            products = products / self.scale / self.scale
        gramian, finite = check_finite(products)
        weights = self.weighting.weights(gramian, losses.to(self.exact), self.present)
        self._remember(weights, finite)
        self.jacobians.descend(self._by_task(weights))
        return weights, gramian


class BlockwiseBackward(GradientBackward):
    """Computes the Gramian by blocks of parameters, then the update in a last pass. See `BlockwiseJacobians`."""

    engine_class: ClassVar[type[GradientEngine]] = BlockwiseEngine

    def __init__(self, run: Run, scaler: GradScaler) -> None:
        super().__init__(run, scaler)
        if run.experiment.weighting.gradients == "parameters":
            LOG.info(
                "weighting: the gradients of the tasks would need %.1f GB, so that they are computed by blocks of "
                "parameters (`gradients: jacobian` keeps them)",
                jacobian_bytes(run) / 1e9,
            )
        assert isinstance(self.jacobians, BlockwiseJacobians)
        self.represent = self.jacobians.cut(self.represent)

    def _jacobians(self, gradients: str) -> Jacobians:
        parameters, trunks = trunk_parameters(self.run, self.joint), self.run.model.sharing.trunks().values()
        return BlockwiseJacobians(parameters, trunks, len(self.run.weighting.tasks), self.run.device)
