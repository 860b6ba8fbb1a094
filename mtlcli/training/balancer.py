"""Task balancing in a training loop of the user's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from mtlcli.training.backward.engines import LossEngine, conflict, loss_scale
from mtlcli.training.backward.unsplit_backward import UnsplitBackward
from mtlcli.training.balancer_arguments import (
    feature_list,
    losses_by_task,
    make_weighting,
    parameter_list,
    weighted_tasks,
)
from mtlcli.weighting.base import GradientWeighting, LossWeighting, WeightedTask, Weighting

Losses = Mapping[str, Tensor | None] | Sequence[Tensor | None]


class Balancer:
    """Balances the tasks of a training loop of your own: `backward` takes the place of `loss.backward()`.

    It computes what `mtl train` computes in a step. A gradient-level method fills the `.grad` of the shared parameters
    with its combination of the tasks' gradients, and the `.grad` of every other parameter with the unweighted gradients
    of the tasks that reach it. A loss-level method differentiates its objective, so that its weights apply to all
    parameters. As with `loss.backward()`, gradients are added to an existing `.grad`; call `optimizer.zero_grad()`
    before each step. A later call may overwrite the tensor that an earlier one has put into `.grad`: clone it to keep
    it.

    The state (what a method remembers, its random generator) is in `state_dict`. Parameters that a method learns
    (`uncertainty`, `imtl_l`) are in `parameters`, for the optimizer.

    Args:
        method: Name of a weighting (`mtl list weighting`), a subclass of `Weighting`, or an instance made for the same
            tasks.
        shared: Parameters shared by the tasks, on the device where they are trained. Those that do not require a
            gradient, or that no task reaches in a step, keep their `.grad`.
        tasks: Names of the tasks, in the order of a list of losses. A mapping gives each its weight λ, which `fixed`
            and `relation` use; an entry may be a `WeightedTask`, whose likelihood `uncertainty` uses.
        last_layer: Parameters of the last shared layer, for a method that can take the gradients of that layer only
            (`gradnorm`, whose paper does so).
        scaler: Loss scaler of fp16 training. The losses are scaled before the backward passes, the method receives
            gradients without the scale, and `.grad` is left scaled, as `scaler.step(optimizer)` expects.
        seed: Seed of a method that draws random numbers.
        **options: Options of the method, and `every`, as in the `weighting` of an experiment file.

    Arguments that do not fit together are a `ValueError`, an unknown method or option is a `ConfigError`.

    Example:
        >>> balancer = mtlcli.Balancer("pcgrad", shared=trunk.parameters(), tasks=["depth", "normals"])
        >>> optimizer.zero_grad()
        >>> balancer.backward([depth_loss, normals_loss])
        >>> optimizer.step()
    """

    def __init__(
        self,
        method: str | Weighting | type[Weighting],
        *,
        shared: Iterable[nn.Parameter],
        tasks: Iterable[str | WeightedTask] | Mapping[str, float],
        last_layer: Iterable[nn.Parameter] | None = None,
        scaler: GradScaler | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        parameters = parameter_list("shared", shared)
        layer = None if last_layer is None else parameter_list("last_layer", last_layer)
        weighted = weighted_tasks(tasks)
        self.tasks = [task.name for task in weighted]
        self.weighting, every = make_weighting(method, weighted, options, seed)
        self._device, self._scaler = parameters[0].device, scaler
        self._backward = self._make_backward(parameters, layer, every)
        self.weighting.to(self._device)
        self._weights = torch.full((len(self.tasks),), math.nan, device=self._device)
        self._gramian: Tensor | None = None
        self._last: tuple[list[int], Tensor] = [], self._weights[:0]  # tasks and losses of the last step
        self._before: tuple[float, list[Tensor]] | None = None  # loss scale and state before the last step
        self._sums = torch.zeros(2, len(self.tasks), device=self._device)  # of losses and of steps, since `end_epoch`
        self._steps = 0

    def _make_backward(
        self, shared: list[nn.Parameter], layer: list[nn.Parameter] | None, every: int
    ) -> LossEngine | UnsplitBackward:
        weighting, name = self.weighting, type(self.weighting).__name__
        if every > 1 and not getattr(weighting, "reuses_weights", False):
            raise ValueError(f"{name} cannot reuse its weights in later steps; omit `every`")
        if isinstance(weighting, GradientWeighting):
            return UnsplitBackward(weighting, shared, layer, every)
        if layer is not None:
            raise ValueError(f"{name} uses the losses only; omit `last_layer`")
        assert isinstance(weighting, LossWeighting)
        return LossEngine(weighting)

    @property
    def weights(self) -> Tensor:
        """Weights of the tasks in the last `backward`, shape [T], on the device; NaN for a task that was absent."""
        return self._weights

    @property
    def conflict(self) -> Tensor | None:
        """Mean cosine of the tasks' gradients in the last `backward`, and fraction of the pairs that oppose each other.

        Shape [2], on the device, NaN with a single task; None if the gradients were not compared (by a loss-level
        method, or in a step that reused the weights).
        """
        return None if self._gramian is None else conflict(self._gramian)

    @property
    def looks_back(self) -> bool:
        """True if the method learns from the losses after the optimizer's step; see `after_step`."""
        return isinstance(self.weighting, LossWeighting) and self.weighting.looks_back

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that the method learns. Add them to the optimizer, without weight decay."""
        return self.weighting.parameters()

    def backward(
        self,
        losses: Losses | Sequence[Losses],
        features: Tensor | Iterable[Tensor] | Mapping[Any, Tensor] | None = None,
    ) -> None:
        """Accumulate the balanced gradients into `.grad`.

        A loss or a feature that cannot be used is a `ValueError` whose message names the task.

        Args:
            losses: Loss of each task, a tensor of one element: a list in the order of the tasks, or a mapping by their
                names. For a task without labels in the step the loss is None, or is left out of the mapping. A method
                on independent samples (`sdmgrad`) takes a list of three such lists or mappings, with the losses of
                three independent parts of the batch.
            features: Shared representations, through which alone the losses depend on the shared parameters: a tensor,
                or a list or mapping of tensors. With them, a gradient-level method balances the gradients of the
                features, as with `gradients: features` in an experiment file (MGDA-UB): the shared parameters are
                differentiated once instead of once per task. A loss-level method ignores them.
        """
        samples = self._samples(losses)
        self._forget_skipped_step()
        scale = loss_scale(self._scaler, self._device)
        if self._scaler is not None and scale is not None:
            self._before = self._scaler.get_scale(), [buffer.clone() for buffer in self.weighting.buffers()]
        self.weighting.start_step()
        if isinstance(self._backward, UnsplitBackward):
            cut = None if features is None else feature_list(features)
            present, vector, weights, self._gramian = self._backward(samples, cut, scale)
        else:
            present, vector = list(samples[0]), torch.stack(list(samples[0].values()))
            weights = self._backward.backward(vector, present, scale=scale)
        self._record(present, vector.detach(), weights)

    def _samples(self, losses: Any) -> list[dict[int, Tensor]]:
        """Return the losses of each sample by the index of their task, ascending."""
        count = self._backward.samples if isinstance(self._backward, UnsplitBackward) else 1
        if count == 1:
            return [losses_by_task(self.tasks, losses)]
        if isinstance(losses, Sequence) and len(losses) == count and not any(isinstance(x, Tensor) for x in losses):
            return [losses_by_task(self.tasks, sample) for sample in losses]
        raise ValueError(
            f"{type(self.weighting).__name__} needs gradients of independent samples: pass a list of three lists (or "
            f"mappings) of losses, one for each third of the batch"
        )

    @torch.no_grad()
    def _record(self, present: list[int], losses: Tensor, weights: Tensor) -> None:
        """Keep the weights and losses of a step, and let the method check the weights where that costs nothing."""
        self._last, self._steps = (present, losses), self._steps + 1
        self._weights = self._scatter(present, weights, math.nan).clone()
        if type(self.weighting).end_epoch is not Weighting.end_epoch:
            self._sums += torch.stack(
                [self._scatter(present, x, 0.0) for x in (losses.float(), torch.ones_like(losses))]
            )
        if self._device.type == "cpu":
            self._check_weights()

    def _scatter(self, present: list[int], values: Tensor, default: float) -> Tensor:
        if len(present) == len(self.tasks):
            return values
        index = torch.tensor(present).to(self._device, non_blocking=True)
        return values.new_full((len(self.tasks),), default).index_copy(0, index, values)

    def _check_weights(self) -> None:
        """Let the method check its last weights (`Weighting.check`), which waits for the device."""
        if self._steps and type(self.weighting).check is not Weighting.check:
            present, weights = self._last[0], self._weights.tolist()
            self.weighting.check(self._steps, {self.tasks[task]: weights[task] for task in present})

    def _forget_skipped_step(self) -> bool:
        """Restore the method's state if the scaler skipped the last step, and return whether it did."""
        if self._before is None or self._scaler is None:
            return False
        (scale, buffers), self._before = self._before, None
        skipped = self._scaler.get_scale() < scale
        if skipped:
            for buffer, old in zip(self.weighting.buffers(), buffers, strict=True):
                buffer.copy_(old)
        return skipped

    @torch.no_grad()
    def after_step(self, losses: Losses) -> None:
        """Pass the losses after the optimizer's step to a method that `looks_back` (`famo`); no effect on others.

        Args:
            losses: Losses of the same tasks on the same examples as in the last `backward`, computed again with the
                updated parameters. They need no graph.

        Raises:
            ValueError: The tasks are not those of the last `backward`.
        """
        if not isinstance(self.weighting, LossWeighting) or not self.looks_back or self._forget_skipped_step():
            return
        after = losses_by_task(self.tasks, losses, needs_graph=False)
        present, before = self._last
        if list(after) != present:
            expected, given = ([self.tasks[task] for task in tasks] for tasks in (present, after))
            raise ValueError(f"`after_step` needs the losses of the tasks {expected}, got those of {given}")
        self.weighting.after_step(before, torch.stack(list(after.values())), present)

    def end_epoch(self, losses: Sequence[float] | Tensor | None = None) -> None:
        """End an epoch, for methods that use its mean losses (`dwa`) or count epochs (`stch`); no effect on others.

        Args:
            losses: Mean training loss of each task over the epoch, length T, NaN for a task without labels. By default
                the mean over the calls of `backward` since the last epoch.
        """
        self._check_weights()
        self._forget_skipped_step()
        means = self._sums[0] / self._sums[1] if losses is None else torch.as_tensor(losses, device=self._device)
        self.weighting.end_epoch(means)
        self._sums.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the balancing, with references to its tensors, as in `nn.Module.state_dict`."""
        self._check_weights()
        self._forget_skipped_step()
        return {
            "tasks": list(self.tasks),
            "weighting": self.weighting.state_dict(),
            "engine": self._backward.engine.state_dict() if isinstance(self._backward, UnsplitBackward) else {},
            "sums": self._sums,
            "steps": self._steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Args:
            state: State of a balancer of the same method, options and tasks.

        Raises:
            ValueError: The state is that of other tasks.
        """
        if list(state["tasks"]) != self.tasks:
            raise ValueError(f"the state is that of the tasks {list(state['tasks'])}; the tasks here are {self.tasks}")
        self.weighting.load_state_dict(state["weighting"])
        if isinstance(self._backward, UnsplitBackward):
            self._backward.engine.load_state_dict(state["engine"])
        self._sums.copy_(state["sums"])
        self._steps, self._before = state["steps"], None
