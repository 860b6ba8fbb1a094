"""Backward passes of the gradient-level weightings in a training loop of the user's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from mtlcli.training.backward.base import Parameters, TaskGraphs
from mtlcli.training.backward.engines import GradientEngine
from mtlcli.training.backward.feature_jacobians import FeatureJacobians
from mtlcli.training.backward.jacobians import Jacobians, LastLayerJacobians
from mtlcli.training.backward.loss_graphs import FeatureGraphs, LossGraphs, LossJacobians, Walk, own_parameters
from mtlcli.weighting.base import GradientWeighting, GramianWeighting, JacobianWeighting


class UnsplitBackward:
    """Balances the gradients of losses whose graph is not split between trunk and heads.

    Args:
        weighting: Weighting that combines the tasks' gradients.
        shared: Shared parameters.
        last_layer: Parameters of the last shared layer, if the gradients are taken of these only.
        every: Steps from one solution to the next.

    Attributes:
        samples: Number of independent samples of a step's losses.

    Raises:
        ValueError: The weighting cannot take the gradients of the last layer only.
    """

    def __init__(
        self,
        weighting: GradientWeighting,
        shared: Sequence[nn.Parameter],
        last_layer: Sequence[nn.Parameter] | None,
        every: int,
    ) -> None:
        if last_layer is not None and "last_layer" not in weighting.gradients:
            name = type(weighting).__name__
            raise ValueError(f"{name} cannot take the gradients of the last layer only; omit `last_layer`")
        self.weighting, self.shared, self.last_layer = weighting, shared, last_layer
        self.names = [task.name for task in weighting.tasks]
        if isinstance(weighting, JacobianWeighting):
            columns = sum(parameter.numel() for parameter in shared)
            if weighting.columns != columns:  # otherwise it keeps the state that it has
                weighting.allocate(columns)
        engine: type[GradientEngine] = GradientEngine
        if isinstance(weighting, GramianWeighting) and weighting.independent:
            from mtlcli.training.backward.independent_samples import IndependentSamplesEngine

            engine = IndependentSamplesEngine
        self.device = shared[0].device
        self._by_features = FeatureJacobians(Parameters(shared))
        self._by_parameters: Jacobians | None = None  # allocated by the first step without features
        self.engine = engine(weighting, self._by_features, self.device, every)
        self.samples = engine.samples

    def __call__(
        self, samples: Sequence[dict[int, Tensor]], features: Sequence[Tensor] | None, scale: Tensor | None
    ) -> tuple[list[int], Tensor, Tensor, Tensor | None]:
        """Accumulate the gradients of a step into `.grad`.

        Args:
            samples: For each sample, the index of each present task, ascending → its loss, 0-d.
            features: Features to balance the gradients by; None to balance those by the shared parameters.
            scale: Loss scale of fp16, 0-d; None for no scaling.

        Returns:
            present: Indices of the tasks present in the step, ascending.
            losses: Their losses, shape [t].
            weights: Their weights, shape [t].
            gramian: Inner products of their gradients, shape [t, t]; None if the step reused the weights.
        """
        counts = [sum(task in losses for losses in samples) for task in range(len(self.names))]
        present = [task for task, count in enumerate(counts) if count]
        cut = None if features is None else self._cut(features)
        self.engine.jacobians = self._parameter_jacobians() if cut is None else self._by_features
        solving = self.engine.start(present, scale)
        for sample, losses in enumerate(samples):
            tasks, tensors = list(losses), list(losses.values())
            graph: TaskGraphs
            if cut is None:
                # passes of their own, where a weighted sum of the losses is differentiated by the shared parameters
                own_passes = not solving or self.last_layer is not None or sample == 2
                own = own_parameters(self._names(tasks), tensors, self.shared) if own_passes else []
                self.engine.jacobians.parameters = Parameters(_trainable(self.shared) if own else self.shared, own)
                graph = LossGraphs(tasks, tensors)
            else:
                graph = FeatureGraphs(tasks, tensors, names=self._names(tasks), features=cut, shared=self.shared)
            self.engine.add(graph, self.engine.tensor([1.0 / counts[task] for task in tasks]), sample)
        return present, *self.engine.finish()

    def _names(self, tasks: Iterable[int]) -> list[str]:
        return [self.names[task] for task in tasks]

    def _parameter_jacobians(self) -> Jacobians:
        if self._by_parameters is None and self.last_layer is not None:
            self._by_parameters = LastLayerJacobians(
                Parameters(self.shared), self.last_layer, len(self.names), self.device
            )
        if self._by_parameters is None:
            self._by_parameters = LossJacobians(self.names, self.shared, self.device, max(1, self.samples - 1))
        return self._by_parameters

    def _cut(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the features that require a gradient, and register the tasks' own parameters below them."""
        name = type(self.weighting).__name__
        if self.last_layer is not None:
            raise ValueError("`features` and `last_layer` exclude each other; leave one of them out")
        if "features" not in self.weighting.gradients:
            raise ValueError(f"{name} cannot balance tasks by their features; call `backward` without `features`")
        leaves, identities = Walk.of(features).leaves, {id(parameter) for parameter in self.shared}
        own, shared = [leaf for leaf in leaves if id(leaf) not in identities], _trainable(self.shared)
        if shared and len(own) == len(leaves):
            raise ValueError("`features` depend on no shared parameter: no graph leads from them to `shared`")
        self._by_features.parameters = Parameters(shared, own)
        return [feature for feature in features if feature.requires_grad]


def _trainable(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]
