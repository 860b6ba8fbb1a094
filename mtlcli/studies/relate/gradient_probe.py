"""The joint run of a study: all tasks through one trunk, their gradients looked at along the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from mtlcli.config import Experiment
from mtlcli.data.loader import Batch
from mtlcli.errors import ConfigError, InterruptedRunError, MtlError
from mtlcli.studies.folder import StudyFolder
from mtlcli.studies.relate.experiments import single_task
from mtlcli.studies.relate.relation import Matrix
from mtlcli.studies.runs import CurrentData, finished, interrupted
from mtlcli.studies.study_observer import StudyObserver
from mtlcli.training.assembly.build import build
from mtlcli.training.backward.base import StepResult
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from mtlcli.training.trainer import Trainer
from mtlcli.weighting.solvers.gramian import compute_gramian, exact_dtype

POINTS = 80  # at which the gradients are looked at, at most


@dataclass(frozen=True)
class Points:
    """What was seen along the joint run, at K steps, of T tasks; NaN where a task had no labels.

    losses: [K, T]. gramians: [K, T, T], g_i · g_j. after: [K, T, T], task j's loss after a step along g_i.
    """

    losses: Matrix
    gramians: Matrix
    after: Matrix


def joint_points(joint: Experiment, folder: StudyFolder, observer: StudyObserver, data: CurrentData) -> Points:
    """What was seen along the joint run, which is trained if it isn't there yet, or was left unfinished.

    joint: the experiment in canonical form. ConfigError where the folder holds another one, or the trunk is frozen.
    """
    if joint.trunk.frozen:
        message = "a frozen trunk has no gradients to compare: leave `gradient` and `affinity` out, or unfreeze it"
        raise ConfigError(joint.problem("trunk.frozen", message))
    summary = finished(folder.path / "joint", joint, data)
    reused = summary is not None
    try:
        summary = summary or _trainer(joint, folder).fit()
    except InterruptedRunError as error:
        raise interrupted(error.exit_code) from error
    except ConfigError:
        raise
    except MtlError as error:
        raise MtlError(f"joint run: {error}") from error
    observer.run_done("joint run", summary, reused)
    points = ProbingStep.points_in(load_checkpoint(folder.path / "joint" / "checkpoints" / "last.pt"))
    seen, tasks = torch.stack(points).double().numpy(), len(joint.tasks)
    return Points(seen[:, 0], seen[:, 1 : 1 + tasks], seen[:, 1 + tasks :])


def _trainer(joint: Experiment, folder: StudyFolder) -> Trainer:
    run = build(joint)
    _start_alike(run)
    return Trainer(run, folder.path / "joint", resume="auto", plots=False, make_step=_probing_step)


def _probing_step(run: Run, optimizer: Optimizer, steps: int) -> ProbingStep:
    return ProbingStep(run, optimizer, every=-(-steps // POINTS))


def _start_alike(run: Run) -> None:
    """Give every head the weights it starts with in its task's baseline, and no dropout.

    So copies of a task have heads that are the same throughout, and a task's place has no part in them.
    """
    for task, head in run.model.heads.items():
        alone = build(single_task(run.experiment, task, run.experiment.seed))
        head.load_state_dict(alone.model.heads[task].state_dict())
        for module in head.modules():
            if isinstance(module, _DropoutNd):
                module.p = 0.0


class ProbingStep(Step):
    """Looks before every `every`-th step, on that step's (first) batch, and then makes the step as it would have been.

    points: what was seen, [2T + 1, T] each: see `point`. They are part of the state, so that a resumed run has them.
    """

    def __init__(self, run: Run, optimizer: Optimizer, every: int) -> None:
        super().__init__(run, optimizer)
        self.every = every
        self.made = 0
        self.points: list[Tensor] = []

    def __call__(
        self, batches: Sequence[Batch], progress: float = 0.0, number: int = 1
    ) -> tuple[StepResult, list[int]] | None:
        """See `Step`."""
        if self.made % self.every == 0:
            self.points.append(point(self.run, batches[0], self.optimizer.param_groups[0]["lr"]))
        self.made += 1
        return super().__call__(batches, progress, number)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "points": [seen.cpu() for seen in self.points], "made": self.made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.points, self.made = list(state["points"]), state["made"]

    @staticmethod
    def points_in(checkpoint: Mapping[str, Any]) -> list[Tensor]:
        """Return the `points` that a checkpoint of a run with this step holds."""
        points: list[Tensor] = checkpoint["step"]["points"]
        return points


def point(run: Run, batch: Batch, lr: float) -> Tensor:
    """[2T + 1, T], NaN for the tasks without labels in the batch; on the device, and nothing waits for it:

    row 0: the losses L_j(θ). Rows 1 … T: g_i · g_j, of the gradients by the shared parameters θ. Rows T + 1 … 2T:
    L_j(θ − lr · g_i).

    In fp32 whatever the run's precision, and without dropout, so that a loss before and after is the same function;
    batch norm goes by the batch, as in training, and keeps its statistics as they were.
    """
    shared: list[Tensor] = [p for p in run.model.shared_parameters() if p.requires_grad]
    names = list(run.kinds)
    present = [index for index, task in enumerate(names) if batch.counts.get(task, 0)]
    seen = torch.full((2 * len(names) + 1, len(names)), torch.nan, dtype=exact_dtype(run.device), device=run.device)
    buffers = list(run.model.buffers())
    kept = [buffer.clone() for buffer in buffers]
    _without_dropout(run.model)
    losses = _losses(run, batch)
    gradients = [_gradient(losses[index], shared) for index in present]
    gramian = _gramian(gradients)
    start = [p.detach().clone() for p in shared]
    for row, index in enumerate(present):
        seen[0, index] = losses[index].detach()
        with torch.no_grad():
            torch._foreach_add_(shared, gradients[row], alpha=-lr)
            after = _losses(run, batch)
            torch._foreach_copy_(shared, start)
        for column, other in enumerate(present):
            seen[1 + index, other] = gramian[row, column]
            seen[1 + len(names) + index, other] = after[other]
    torch._foreach_copy_(buffers, kept)
    run.model.train()
    return seen


def _without_dropout(model: nn.Module) -> None:
    model.eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()


def _losses(run: Run, batch: Batch) -> dict[int, Tensor]:
    """Index of each task with labels in the batch → its mean loss."""
    present = {index: task for index, task in enumerate(run.kinds) if batch.counts.get(task, 0)}
    predictions = run.model(batch.inputs, list(present.values()))
    return {index: run.kinds[task].loss(predictions[task], batch.targets[task]) for index, task in present.items()}


def _gradient(loss: Tensor, shared: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(shared, found, strict=True)]


def _gramian(gradients: list[list[Tensor]]) -> Tensor:
    """[t, t], summed parameter by parameter: no second copy of all gradients is made."""
    parts = [compute_gramian(torch.stack([row.flatten() for row in rows])) for rows in zip(*gradients, strict=True)]
    return torch.stack(parts).sum(0)
