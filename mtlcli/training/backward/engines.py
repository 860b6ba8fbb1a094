"""Engines that turn the task losses of a step into balanced gradients, for `mtl train` and for `Balancer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from mtlcli.training.backward.base import TaskGraphs, weighted_backward
from mtlcli.training.backward.jacobians import Jacobians
from mtlcli.weighting.base import GradientWeighting, GramianWeighting, JacobianWeighting, LossWeighting
from mtlcli.weighting.solvers.gramian import compute_gramian, exact_dtype, normalize_gramian


class LossEngine:
    """Backward pass of the loss-level weightings: the objective is differentiated once.

    Args:
        weighting: Weighting that turns the losses into the objective.
    """

    def __init__(self, weighting: LossWeighting) -> None:
        self.weighting = weighting

    def backward(
        self,
        losses: Tensor,
        present: list[int],
        share: float = 1.0,
        penalties: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Accumulate the gradient of the objective into the `.grad` of all parameters that it reaches.

        Args:
            losses: Losses of the present tasks, shape [t].
            present: Indices of these tasks, ascending.
            share: Fraction of the step that the losses belong to.
            penalties: Terms to add to the objective, shape [r].
            scale: Loss scale of fp16, 0-d; None for no scaling.

        Returns:
            The weight of each loss, shape [t].
        """
        objective, weights = self.weighting.objective(losses, present, share)
        if penalties is not None and len(penalties):
            objective = objective + penalties.sum()
        if objective.requires_grad:
            (objective if scale is None else objective * scale).backward()  # type: ignore[no-untyped-call]
        return weights


class GradientEngine:
    """Backward passes of the gradient-level weightings: the update combines the tasks' gradients.

    A step calls `start`, then `add` for each of its graphs, then `finish`. Nothing waits for the device.

    Args:
        weighting: Weighting that combines the tasks' gradients.
        jacobians: Jacobians that its level and the choice of `gradients` need.
        device: Device of the model.
        every: Steps from one solution to the next. The steps between reuse its weights, at the cost of one backward
            pass.
    """

    samples: ClassVar[int] = 1  # independent samples of a step's examples, each in graphs of its own

    def __init__(
        self, weighting: GradientWeighting, jacobians: Jacobians, device: torch.device, every: int = 1
    ) -> None:
        self.weighting, self.jacobians, self.device, self.every = weighting, jacobians, device, every
        self.exact = exact_dtype(device)
        count = len(weighting.tasks)
        self.due = [0] * count  # steps of each task until the next solution that it requires
        self.weights = torch.ones(count, dtype=self.exact, device=device)

    def start(self, present: list[int], scale: Tensor | None = None) -> bool:
        """Start a step.

        Args:
            present: Indices of the tasks present in the step, ascending.
            scale: Loss scale of fp16, 0-d; None for no scaling. The gradients are accumulated scaled.

        Returns:
            Whether the step solves for new weights.
        """
        self.present, self.scale = present, scale
        self.solving = any(self.due[task] == 0 for task in present)
        for task in present:
            self.due[task] = (self.every if self.solving else self.due[task]) - 1
        if self.solving:
            self.jacobians.start(present)
        self.losses = torch.zeros(len(self.due), device=self.device)
        return self.solving

    def add(self, graph: TaskGraphs, factors: Tensor, sample: int = 0) -> None:
        """Differentiate one graph of the step.

        Args:
            graph: Graph of a batch, or of a part of it.
            factors: Factor of each of its losses in the step, shape [t]; over the step a task's factors sum to 1.
            sample: Index of the sample that the graph belongs to.
        """
        graph.tasks_backward(factors if self.scale is None else factors * self.scale)
        tasks = self.tensor(graph.tasks)
        self.losses.index_add_(0, tasks, torch.stack(graph.losses).detach().float() * factors)
        if self.solving:
            self._collect(graph, tasks, factors, sample)
        else:
            weighted_backward([graph], dict(enumerate(self.weights.unbind())), self.jacobians.parameters)

    def _collect(self, graph: TaskGraphs, tasks: Tensor, factors: Tensor, sample: int) -> None:
        self.jacobians.add(graph, sample)

    def finish(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Accumulate the gradient of the shared parameters.

        Returns:
            losses: The present tasks' losses, shape [t].
            weights: Their weights, shape [t].
            gramian: Inner products of their gradients, shape [t, t]; None if the step reused the weights.
        """
        losses = self.weighting.select(self.losses, self.present)
        if not self.solving:
            return losses, self.weighting.select(self.weights, self.present), None
        return losses, *self._solve(losses)

    def _solve(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        (jacobian,) = self._jacobian()
        gramian, finite = check_finite(compute_gramian(jacobian))
        if isinstance(self.weighting, JacobianWeighting):
            # reading the value costs nothing on a CPU, and saves two passes over J
            unmasked = self.device.type == "cpu" and bool(finite)
            if not unmasked:
                jacobian.masked_fill_(~finite, 0.0)
            update, weights = self.weighting.update(jacobian, gramian, losses.to(self.exact), self.present)
            if not unmasked:
                update = update.masked_fill(~finite, float("inf"))
        else:
            assert isinstance(self.weighting, GramianWeighting)
            weights = self.weighting.weights(gramian, losses.to(self.exact), self.present)
            update = self.jacobians.combine(jacobian, weights)
        self._remember(weights, finite)
        self.jacobians.descend(self._by_task(weights), update if self.scale is None else update.mul_(self.scale))
        return weights, gramian

    def _jacobian(self) -> Tensor:
        """Return J without the loss scale, shape [samples, t, P]."""
        jacobian = self.jacobians.matrix()
        return jacobian if self.scale is None else jacobian.div_(self.scale)

    def _remember(self, weights: Tensor, finite: Tensor) -> None:
        """Keep the weights for the steps until the next solution, unless the gradients are not finite."""
        weights = torch.where(finite, weights, self.weighting.select(self.weights, self.present))
        if len(self.present) == len(self.weights):
            self.weights.copy_(weights)
        else:
            self.weights.index_copy_(0, self.tensor(self.present), weights)

    def _by_task(self, weights: Tensor) -> dict[int, Tensor]:
        return dict(zip(self.present, weights.unbind(), strict=True))

    def tensor(self, values: Sequence[int] | Sequence[float]) -> Tensor:
        """Return the values as a tensor on the device, without waiting for it."""
        return torch.tensor(values).to(self.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state between two steps, for an exact resume."""
        return {"due": self.due, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.due = list(state["due"])
        self.weights.copy_(state["weights"])


def loss_scale(scaler: GradScaler | None, device: torch.device) -> Tensor | None:
    """Return the current loss scale as a tensor on the device, 0-d; None without a scaler, or with a disabled one."""
    if scaler is None or not scaler.is_enabled():
        return None
    return scaler.scale(torch.ones((), device=device))


def check_finite(products: Tensor) -> tuple[Tensor, Tensor]:
    """Return the products, all zero if one is not finite, and whether all are finite, 0-d.

    A method receives finite numbers only. The gradients that are not finite reach the parameters, where the loss
    scaler or the check of the step detects them.
    """
    finite = products.isfinite().all()
    return products.masked_fill(~finite, 0.0), finite


def conflict(gramian: Tensor) -> Tensor:
    """Return the mean cosine of the pairs of tasks, and the fraction of the pairs with a negative one.

    Args:
        gramian: Inner products of the tasks' gradients, shape [t, t]. A task with a zero gradient is in no pair.

    Returns:
        Both numbers, shape [2], NaN without any pair.
    """
    cosines, lengths, _ = normalize_gramian(torch, gramian)
    nonzero = (lengths > 0).to(gramian.dtype)
    pairs = torch.outer(nonzero, nonzero).triu_(diagonal=1)
    cosines = cosines * pairs
    return torch.stack([cosines.sum(), (cosines < 0).sum().to(cosines)]) / pairs.sum()
