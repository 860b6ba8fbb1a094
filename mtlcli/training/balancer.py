"""Task balancing in a training loop of the user's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from mtlcli.training.backward.engines import GradientEngine, LossEngine, loss_scale
from mtlcli.training.backward.jacobians import FeatureJacobians, Jacobians, LastLayerJacobians
from mtlcli.training.backward.loss_graphs import FeatureGraphs, LossGraphs, LossJacobians, Walk, own_parameters
from mtlcli.training.backward.task_graphs import Parameters, TaskGraphs
from mtlcli.training.balancer_arguments import (
    feature_list,
    losses_by_task,
    make_weighting,
    parameter_list,
    weighted_tasks,
)
from mtlcli.weighting.base import (
    GradientWeighting,
    GramianWeighting,
    JacobianWeighting,
    LossWeighting,
    WeightedTask,
    Weighting,
)

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
        method: Name of a weighting (`mtl list weightings`), a subclass of `Weighting`, or an instance made for the same
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

    Raises:
        ConfigError: No weighting has this name, or it does not accept the options.
        ValueError: The arguments do not fit together.

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
        self._shared = parameter_list("shared", shared)
        self._layer = None if last_layer is None else parameter_list("last_layer", last_layer)
        self._device = self._shared[0].device
        weighted = weighted_tasks(tasks)
        self.tasks = [task.name for task in weighted]
        self.weighting, every = make_weighting(method, weighted, options, seed)
        self._scaler = scaler
        if self._layer is not None and "last_layer" not in getattr(self.weighting, "gradients", ()):
            raise ValueError(f"{self._method} cannot take the gradients of the last layer only; omit `last_layer`")
        self._engine = self._make_engine(every)
        self.weighting.to(self._device)
        self._jacobians: Jacobians | None = None  # made by the first step that takes gradients by the parameters
        self._weights = torch.full((len(self.tasks),), math.nan, device=self._device)
        self._last: tuple[list[int], Tensor] = [], self._weights[:0]  # tasks and losses of the last step
        self._before: tuple[float, list[Tensor]] | None = None  # loss scale and state before the last step
        self._sums = torch.zeros(2, len(self.tasks), device=self._device)  # of losses and of steps, since `end_epoch`
        self._steps = 0

    def _make_engine(self, every: int) -> LossEngine | GradientEngine:
        weighting = self.weighting
        if every > 1 and not getattr(weighting, "reuses_weights", False):
            raise ValueError(f"{self._method} cannot reuse its weights in later steps; omit `every`")
        if isinstance(weighting, LossWeighting):
            return LossEngine(weighting)
        assert isinstance(weighting, GradientWeighting)
        if isinstance(weighting, JacobianWeighting):
            weighting.allocate(sum(parameter.numel() for parameter in self._shared))
        self._features = FeatureJacobians(Parameters(self._shared))
        engine: type[GradientEngine] = GradientEngine
        if self._independent:
            from mtlcli.training.backward.independent_samples import IndependentSamplesEngine

            engine = IndependentSamplesEngine
        return engine(weighting, self._features, self._device, every)

    @property
    def _method(self) -> str:
        return type(self.weighting).__name__

    @property
    def _independent(self) -> bool:
        return isinstance(self.weighting, GramianWeighting) and self.weighting.independent

    @property
    def weights(self) -> Tensor:
        """Weights of the tasks in the last `backward`, shape [T], on the device; NaN for a task that was absent."""
        return self._weights

    @property
    def looks_back(self) -> bool:
        """Whether the method learns from the losses after the optimizer's step; see `after_step`."""
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

        Args:
            losses: Loss of each task, a tensor of one element: a list in the order of the tasks, or a mapping by their
                names. For a task without labels in the step the loss is None, or is left out of the mapping. A method
                on independent samples (`sdmgrad`) takes a list of three such lists or mappings, with the losses of
                three independent parts of the batch.
            features: Shared representations, through which alone the losses depend on the shared parameters: a tensor,
                or a list or mapping of tensors. With them, a gradient-level method balances the gradients of the
                features, as with `gradients: features` in an experiment file (MGDA-UB): the shared parameters are
                differentiated once instead of once per task. A loss-level method ignores them.

        Raises:
            ValueError: A loss or a feature cannot be used; the message names the task.
        """
        samples = self._samples(losses)
        self._forget_skipped_step()
        if self._scaler is not None and self._scaler.is_enabled():
            scale = loss_scale(self._scaler, self._device)
            self._before = self._scaler.get_scale(), [buffer.clone() for buffer in self.weighting.buffers()]
        else:
            scale = None
        self.weighting.start_step()
        if isinstance(self._engine, LossEngine):
            present = list(samples[0])
            vector = torch.stack(list(samples[0].values()))
            weights = self._engine.backward(vector, present, scale=scale)
        else:
            present, vector, weights = self._balance(self._engine, samples, features, scale)
        self._record(present, vector.detach(), weights)

    def _balance(
        self,
        engine: GradientEngine,
        samples: list[dict[int, Tensor]],
        features: Any,
        scale: Tensor | None,
    ) -> tuple[list[int], Tensor, Tensor]:
        counts = [sum(task in losses for losses in samples) for task in range(len(self.tasks))]
        present = [task for task, count in enumerate(counts) if count]
        cut = None if features is None else self._cut(features)
        engine.jacobians = self._parameter_jacobians() if features is None else self._features
        solving = engine.start(present, scale)
        for sample, losses in enumerate(samples):
            if cut is None:
                own_passes = not solving or self._layer is not None or sample == 2
                graph = self._loss_graphs(engine.jacobians, losses, own_passes)
            else:
                graph = FeatureGraphs(
                    list(losses), list(losses.values()), names=self._names(losses), features=cut, shared=self._shared
                )
            engine.add(graph, engine.tensor([1.0 / counts[task] for task in losses]), sample)
        vector, weights, _ = engine.finish()
        return present, vector, weights

    def _loss_graphs(self, jacobians: Jacobians, losses: dict[int, Tensor], own_passes: bool) -> TaskGraphs:
        """Return the graphs of the losses.

        Args:
            jacobians: Jacobians that the graphs are for.
            losses: Index of each present task → its loss.
            own_passes: Whether the tasks' own parameters need passes of their own, because the shared parameters are
                differentiated by a weighted sum of the losses.
        """
        tensors = list(losses.values())
        own = own_parameters(self._names(losses), tensors, self._shared) if own_passes else []
        jacobians.parameters = Parameters(_trainable(self._shared) if own else self._shared, own)
        return LossGraphs(list(losses), tensors)

    def _parameter_jacobians(self) -> Jacobians:
        if self._jacobians is None:
            if self._layer is not None:
                self._jacobians = LastLayerJacobians(
                    Parameters(self._shared), self._layer, len(self.tasks), self._device
                )
            else:
                self._jacobians = LossJacobians(
                    self.tasks, self._shared, self._device, samples=2 if self._independent else 1
                )
        return self._jacobians

    def _cut(self, features: Tensor | Iterable[Tensor] | Mapping[Any, Tensor]) -> list[Tensor]:
        """Return the features that require a gradient, and note the tasks' own parameters behind them."""
        if "features" not in getattr(self.weighting, "gradients", ()) or self._layer is not None:
            reason = "with `last_layer`" if self._layer is not None else "by their features"
            raise ValueError(f"{self._method} cannot balance tasks {reason}; call `backward` without `features`")
        tensors = feature_list(features)
        leaves = Walk.of(tensors).leaves
        identities = {id(parameter) for parameter in self._shared}
        own = [leaf for leaf in leaves if id(leaf) not in identities]
        shared = _trainable(self._shared)
        if shared and len(own) == len(leaves):
            raise ValueError("`features` depend on no shared parameter: no graph leads from them to `shared`")
        self._features.parameters = Parameters(shared, own)
        return [tensor for tensor in tensors if tensor.requires_grad]

    def _names(self, tasks: Iterable[int]) -> list[str]:
        return [self.tasks[task] for task in tasks]

    def _samples(self, losses: Any) -> list[dict[int, Tensor]]:
        """Return the losses of each sample by the index of their task, ascending."""
        if not self._independent:
            return [losses_by_task(self.tasks, losses)]
        if isinstance(losses, Sequence) and len(losses) == 3 and not any(isinstance(x, Tensor) for x in losses):
            return [losses_by_task(self.tasks, sample) for sample in losses]
        raise ValueError(
            f"{self._method} needs gradients of independent samples: pass a list of three lists (or mappings) of "
            f"losses, one for each third of the batch"
        )

    @torch.no_grad()
    def _record(self, present: list[int], losses: Tensor, weights: Tensor) -> None:
        """Keep the weights and losses of a step, and let the method check the weights where that costs nothing."""
        self._last, self._steps = (present, losses), self._steps + 1
        self._weights = self._scatter(present, weights, math.nan)
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
            raise ValueError(
                f"`after_step` needs the losses of the tasks {self._names(present)}, got those of {self._names(after)}"
            )
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
            "engine": {} if isinstance(self._engine, LossEngine) else self._engine.state_dict(),
            "sums": self._sums,
            "steps": self._steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, for a balancer of the same method and tasks.

        Raises:
            ValueError: The state is that of other tasks.
        """
        if list(state["tasks"]) != self.tasks:
            raise ValueError(f"the state is that of the tasks {list(state['tasks'])}; the tasks here are {self.tasks}")
        self.weighting.load_state_dict(state["weighting"])
        if not isinstance(self._engine, LossEngine):
            self._engine.load_state_dict(state["engine"])
        self._sums.copy_(state["sums"])
        self._steps, self._before = state["steps"], None


def _trainable(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]
