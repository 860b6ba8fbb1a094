"""Backward pass of gradient-level weightings, with the autograd graph split between trunk and heads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from mtlcli.data.loader import Batch
from mtlcli.models.dependent_tasks import predict_from_features
from mtlcli.models.sharing.base import SharingRecord
from mtlcli.specs import TrunkPass
from mtlcli.training.backward.base import Backward, Parameters, StepResult, TaskGraphs
from mtlcli.training.backward.engines import GradientEngine, conflict, loss_scale
from mtlcli.training.backward.feature_jacobians import FeatureJacobians
from mtlcli.training.backward.jacobians import Jacobians, LastLayerJacobians, ParameterJacobians
from mtlcli.training.run import Run
from mtlcli.weighting.base import GradientWeighting, JacobianWeighting

Predict = Callable[[str, Tensor], Tensor]
Represent = Callable[[Mapping[str, Tensor], Sequence[str], SharingRecord | None], dict[str, Tensor]]


@dataclass
class SplitForward(TaskGraphs):
    """Representations and losses of a batch, with no graph between the two.

    A regularizer that counts as a task has no head: its representation, its leaf and its loss are the same number.

    Attributes:
        representations: Each task's representation, with the trunk's graph; tasks may share one.
        leaves: Detached copies of the representations, one per task, from which the graphs of the heads start. After
            `tasks_backward` their `.grad` is the task's gradient of its representation.
    """

    representations: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)

    def tasks_backward(self, factors: Tensor) -> None:
        """See `TaskGraphs.tasks_backward`. Accumulates into the `.grad` of the heads."""
        torch.autograd.backward(self.losses, list(factors.unbind()))

    def outputs(self) -> list[tuple[Tensor, dict[int, Tensor | None]]]:
        """See `TaskGraphs.outputs`."""
        groups: dict[int, tuple[Tensor, dict[int, Tensor | None]]] = {}
        for task, representation, leaf in zip(self.tasks, self.representations, self.leaves, strict=True):
            if representation.requires_grad:  # not so where the trunk is frozen
                groups.setdefault(id(representation), (representation, {}))[1][task] = leaf.grad
        return list(groups.values())

    def append(self, representation: Tensor) -> Tensor:
        """Add a representation, and return the leaf from which the task's own graph starts."""
        leaf = representation.detach().requires_grad_()
        self.representations.append(representation)
        self.leaves.append(leaf)
        return leaf


def split_forward(run: Run, represent: Represent, predict: Predict, batch: Batch, separate: bool) -> SplitForward:
    """Pass a batch through the trunk and through the heads of the tasks with labels in it.

    Args:
        run: Run whose model, losses and regularizers are computed.
        represent: The model's `representations` or `joint_outputs`, or its compiled form.
        predict: (task, output of `represent`) → prediction.
        batch: Batch on the run's device.
        separate: Whether each dataset passes through the trunk separately, and so has a graph of its own.

    Returns:
        Representations and losses, of the regularizers too.
    """
    names = [task for task in run.kinds if batch.counts.get(task, 0)]
    graph = SplitForward([index for index, task in enumerate(run.kinds) if task in names])
    regularization = run.regularization
    passes: list[TrunkPass] | None = [] if regularization.sees_examples else None
    aliases = {run.sources[task][0]: None for task in names}
    groups = [[task for task in names if run.sources[task][0] == alias] for alias in aliases] if separate else [names]
    with run.autocast():
        representations: dict[str, Tensor] = {}
        for group in groups:
            representations |= represent(batch.inputs, group, SharingRecord(passes))
        for task in names:
            leaf = graph.append(representations[task])
            graph.losses.append(run.loss(task, predict(task, leaf), batch, normalized=True))
    if regularization.terms:
        terms = regularization.losses(passes or [], run.autocast())
        graph.terms = terms[regularization.tasks :]
        for index, term in enumerate(terms[: regularization.tasks], len(run.kinds)):
            graph.tasks.append(index)
            graph.losses.append(graph.append(term))
    return graph


def trunk_parameters(run: Run, joint: Collection[str] = ()) -> Parameters:
    """Return the trainable parameters of a run that its trunk's graph reaches.

    A regularizer that counts as a task may reach any parameter: then `own` includes the heads and the regularizers'
    own parameters.

    Args:
        run: The run.
        joint: Tasks whose heads are in the shared part of the graph.

    Returns:
        The parameters.
    """
    shared = [p for p in run.model.shared_parameters() if p.requires_grad]
    heads = [head for task, head in run.model.heads.items() if task not in joint]
    behind = [] if run.regularization.tasks else [p for head in heads for p in head.parameters()]
    excluded = {id(p) for p in [*shared, *behind]}
    both = [*run.model.parameters(), *(run.regularization.parameters() if run.regularization.tasks else ())]
    return Parameters(shared, [p for p in both if p.requires_grad and id(p) not in excluded])


def is_blockwise(run: Run) -> bool:
    """Return whether the gradients are those by blocks of parameters, of a method that needs the Gramian only.

    With `gradients: parameters` they are if a Jacobian of float32 numbers would need more than `MOST_JACOBIAN_BYTES`
    and no batches are accumulated, whose graphs the blocks would keep. The choice depends on the experiment alone.

    Args:
        run: Run with a gradient-level weighting.

    Returns:
        Whether they are computed by blocks.
    """
    weighting = run.weighting
    assert isinstance(weighting, GradientWeighting)
    if "blockwise" not in weighting.gradients:
        return False
    gradients = run.experiment.weighting.gradients or weighting.gradients[0]
    if gradients != "parameters" or run.experiment.training.accumulate > 1:
        return gradients == "blockwise"
    return jacobian_bytes(run) > MOST_JACOBIAN_BYTES


def jacobian_bytes(run: Run) -> int:
    """Return the memory of the Jacobian of the tasks by the shared parameters in float32, 4 T P bytes."""
    return 4 * len(run.weighting.tasks) * sum(p.numel() for p in run.model.shared_parameters() if p.requires_grad)


BY_PARAMETERS = ("parameters", "jacobian", "blockwise")  # values of `gradients:` that differ in memory only
MOST_JACOBIAN_BYTES = 2**30  # of the Jacobian, above which `gradients: parameters` computes the Gramian by blocks


@dataclass(frozen=True)
class Piece:
    """A batch, or a part of it, that passes through the model at once.

    Attributes:
        batch: The examples.
        sample: Index of the sample it belongs to.
        fraction: Fraction of the whole batch's examples in it.
        portion: Factor of its losses, less than 1 where several pieces have the same examples.
    """

    batch: Batch
    sample: int = 0
    fraction: float = 1.0
    portion: float = 1.0


class GradientBackward(Backward):
    """Splits the forward pass between trunk and heads, and differentiates in two stages.

    The first backward pass goes through all heads at once: every head receives its own gradient, and every task the
    gradient of its representation. From there the `Jacobians` go through the trunk, and the `GradientEngine` combines
    the tasks' gradients. In the steps between two solutions (`every`), the trunk has one backward pass with the weights
    of the last solution.
    """

    engine_class: ClassVar[type[GradientEngine]] = GradientEngine

    def __init__(self, run: Run, scaler: GradScaler) -> None:
        assert isinstance(run.weighting, GradientWeighting)
        self.run, self.scaler = run, scaler
        entry = run.experiment.weighting
        datasets = len({alias for alias, _ in run.sources.values()})
        gradients = entry.gradients or run.weighting.gradients[0]
        # Tasks on different datasets pass through graphs of their own, so that no row is computed over the examples of
        # another task; not so where batch normalization couples the datasets, which would be another function.
        self.separate = gradients in BY_PARAMETERS and datasets > 1 and not run.model.couples_examples()
        self.joint: Collection[str] = ()
        plain: Represent = run.model.representations
        self.predict: Predict = self._apply_head
        if (dependencies := run.model.sharing.dependencies) is not None:
            if gradients in ("features", "sequence"):
                self.predict = partial(predict_from_features, dependencies, run.model.heads)
            else:
                self.joint, plain = dependencies.linked, run.model.joint_outputs
        self.jacobians = self._jacobians(gradients)
        self.engine = self.engine_class(run.weighting, self.jacobians, run.device, entry.every or 1)
        self.route = self._route(datasets)
        # A compiled trunk frees its saved tensors during the backward pass, so it can't be differentiated repeatedly.
        once = run.experiment.training.compile and not self.jacobians.parameters.own
        self.represent_once = torch.compile(plain) if once else plain
        self.represent = self.represent_once if isinstance(self.jacobians, FeatureJacobians) else plain

    def describe(self) -> dict[str, Any]:
        """See `Backward.describe`."""
        return {"route": self.route, "buffer_bytes": self.jacobians.buffer_bytes}

    def _apply_head(self, task: str, x: Tensor) -> Tensor:
        prediction: Tensor = x if task in self.joint else self.run.model.heads[task](x)
        return prediction

    def _jacobians(self, gradients: str) -> Jacobians:
        run, parameters, tasks = self.run, trunk_parameters(self.run, self.joint), len(self.run.weighting.tasks)
        if gradients == "features":
            from mtlcli.training.backward.feature_checks import check_features

            check_features(run)
            return FeatureJacobians(parameters)
        if gradients == "last_layer":
            return LastLayerJacobians(parameters, run.model.last_shared_layer(), tasks, run.device)
        jacobians = ParameterJacobians(parameters, tasks, run.device, max(1, self.engine_class.samples - 1))
        if isinstance(run.weighting, JacobianWeighting):
            run.weighting.allocate(jacobians.rows.size)
            run.weighting.to(run.device)
        return jacobians

    def _route(self, datasets: int) -> str:
        """Return the name of the computation in `summary.json`."""
        route = self.jacobians.route
        if self.separate and isinstance(self.jacobians, ParameterJacobians):
            route = "separate backward" if datasets == len(self.run.kinds) else "separate repeated backward"
        if self.engine.samples > 1:
            route += " of two samples, joint backward of a third"
        return route + (f" every {self.engine.every} steps, joint backward between" if self.engine.every > 1 else "")

    def __call__(self, batches: Sequence[Batch], totals: list[float], shares: list[float]) -> StepResult:
        """See `Backward`."""
        present = [task for task, total in enumerate(totals) if total]
        solving = self.engine.start(present, loss_scale(self.scaler, self.run.device))
        penalties = torch.zeros(
            len(self.run.regularization.terms) - self.run.regularization.tasks, device=self.run.device
        )
        for batch, share in zip(batches, shares, strict=True):
            for piece in self._pieces(batch) if solving else [Piece(batch)]:
                represent, separate = (self.represent, self.separate) if solving else (self.represent_once, False)
                graph = split_forward(self.run, represent, self.predict, piece.batch, separate)
                factors = self._factors(graph.tasks, batch, piece, totals, share) * piece.portion
                if graph.terms:
                    fraction = share * piece.portion * piece.fraction
                    penalties += torch.stack(graph.terms).detach() * fraction
                    graph.terms = [self.scaler.scale(term * fraction) for term in graph.terms]
                self.engine.add(graph, factors, piece.sample)
        losses, weights, gramian = self.engine.finish()
        conflicting = None if gramian is None else conflict(gramian)
        if not len(penalties):
            return StepResult(losses, weights, conflicting)
        return StepResult(torch.cat([losses, penalties]), torch.cat([weights, torch.ones_like(penalties)]), conflicting)

    def _pieces(self, batch: Batch) -> Iterator[Piece]:
        """Yield the parts of a batch that pass through the model one after another in a step that solves."""
        yield Piece(batch)

    def _factors(self, tasks: list[int], batch: Batch, piece: Piece, totals: list[float], share: float) -> Tensor:
        """Return the fraction of each task's labels in the step that a piece of a batch has, shape [tasks].

        For a regularizer that counts as a task, it is the fraction of the step's examples.
        """
        names = self._names(tasks)
        fractions = [batch.counts[name] / totals[task] for name, task in zip(names, tasks, strict=False)]
        return self.engine.tensor([*fractions, *[share * piece.fraction] * (len(tasks) - len(names))])

    def _names(self, tasks: list[int]) -> list[str]:
        """Return the names of the tasks that are not regularizers; these come last."""
        names = list(self.run.kinds)
        return [names[task] for task in tasks if task < len(names)]

    def state_dict(self) -> dict[str, Any]:
        """See `Backward.state_dict`."""
        return self.engine.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Backward.load_state_dict`."""
        self.engine.load_state_dict(state)
