"""Joint run of a study: all tasks on one trunk, with measurements of the task gradients along the way."""

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
from mtlcli.studies.relate.experiments import make_single_task
from mtlcli.studies.relate.relation import Matrix
from mtlcli.studies.runs import CurrentData, InterruptedStudyError, completed_summary
from mtlcli.studies.study_callback import StudyCallback
from mtlcli.training.assembly.build import build
from mtlcli.training.backward.base import StepResult
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from mtlcli.training.trainer import Trainer
from mtlcli.weighting.solvers.gramian import compute_gramian, exact_dtype

MAX_PROBED_STEPS = 80


@dataclass(frozen=True)
class ProbedSteps:
    """Measurements at K steps of the joint run, for T tasks; NaN for a task without labels in the batch.

    Attributes:
        losses: L_j(θ), [K, T].
        gramians: g_i · g_j of the task gradients with respect to the shared parameters θ, [K, T, T].
        losses_after: L_j(θ − η g_i), the loss of task j after a step along the gradient of task i, [K, T, T].
    """

    losses: Matrix
    gramians: Matrix
    losses_after: Matrix


def probe_joint_run(joint: Experiment, folder: StudyFolder, callback: StudyCallback, data: CurrentData) -> ProbedSteps:
    """Train the joint run, unless the study folder has it completed, and return its measurements.

    Args:
        joint: the experiment of the joint run.
        folder: the study folder.
        callback: called when the run has completed.
        data: the current data, which must be that of a reused run.

    Returns:
        The measured steps.

    Raises:
        ConfigError: If the trunk is frozen, or the folder holds a different run.
        InterruptedStudyError: After a signal.
        MtlError: If the run fails.
    """
    if joint.trunk.frozen:
        message = "a frozen trunk has no gradients to compare: omit `gradient` and `affinity`, or unfreeze it"
        raise ConfigError(joint.problem("trunk.frozen", message))
    summary = completed_summary(folder.path / "joint", joint, data)
    reused = summary is not None
    try:
        summary = summary or _make_trainer(joint, folder).fit()
    except InterruptedRunError as error:
        raise InterruptedStudyError(error.exit_code) from error
    except ConfigError:
        raise
    except MtlError as error:
        raise MtlError(f"joint run: {error}") from error
    callback.on_run_end("joint run", summary, reused)
    measurements = ProbingStep.measurements_in(load_checkpoint(folder.path / "joint" / "checkpoints" / "last.pt"))
    stacked, tasks = torch.stack(measurements).double().numpy(), len(joint.tasks)
    return ProbedSteps(stacked[:, 0], stacked[:, 1 : 1 + tasks], stacked[:, 1 + tasks :])


def _make_trainer(joint: Experiment, folder: StudyFolder) -> Trainer:
    run = build(joint)
    _initialize_heads(run)
    return Trainer(run, folder.path / "joint", resume="auto", plots=False, make_step=_make_step)


def _make_step(run: Run, optimizer: Optimizer, steps: int) -> ProbingStep:
    return ProbingStep(run, optimizer, every=-(-steps // MAX_PROBED_STEPS))


def _initialize_heads(run: Run) -> None:
    """Give every head the initial weights that it has in the baseline of its task, and no dropout.

    Copies of a task then have bit-identical heads throughout, and the position of a task has no effect.
    """
    for task, head in run.model.heads.items():
        baseline = build(make_single_task(run.experiment, task, run.experiment.seed))
        head.load_state_dict(baseline.model.heads[task].state_dict())
        for module in head.modules():
            if isinstance(module, _DropoutNd):
                module.p = 0.0


class ProbingStep(Step):
    """Step that measures the task gradients before every N-th step, on the first batch of that step.

    The training is the same as without the measurements. They are part of the state, so that a resumed run keeps them.

    Args:
        run: the run.
        optimizer: its optimizer.
        every: number of steps from one measurement to the next, N.
    """

    def __init__(self, run: Run, optimizer: Optimizer, every: int) -> None:
        super().__init__(run, optimizer)
        self.every = every
        self.steps = 0
        self.measurements: list[Tensor] = []

    def __call__(
        self, batches: Sequence[Batch], progress: float = 0.0, number: int = 1
    ) -> tuple[StepResult, list[float]] | None:
        """See `Step`."""
        if self.steps % self.every == 0:
            self.measurements.append(probe_gradients(self.run, batches[0], self.optimizer.param_groups[0]["lr"]))
        self.steps += 1
        return super().__call__(batches, progress, number)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the step and the measurements."""
        return {**super().state_dict(), "points": [rows.cpu() for rows in self.measurements], "made": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state of `state_dict`."""
        super().load_state_dict(state)
        self.measurements, self.steps = list(state["points"]), state["made"]

    @staticmethod
    def measurements_in(checkpoint: Mapping[str, Any]) -> list[Tensor]:
        """Return the measurements in the checkpoint of a run with this step; see `probe_gradients`."""
        measurements: list[Tensor] = checkpoint["step"]["points"]
        return measurements


def probe_gradients(run: Run, batch: Batch, lr: float) -> Tensor:
    """Measure losses, task gradients and the effect of a gradient step for each task, without changing the run.

    It is computed in fp32, whatever the precision of the run, and without dropout, so that the losses before and after
    a step are of the same function. Batch norm uses the statistics of the batch, as in training, and keeps its running
    statistics. Nothing waits for the device.

    Args:
        run: the run, with T tasks and shared parameters θ.
        batch: the batch.
        lr: learning rate of the gradient step, η.

    Returns:
        [2T + 1, T] on the device. Row 0: the losses L_j(θ). Rows 1 … T: g_i · g_j. Rows T + 1 … 2T: L_j(θ − η g_i).
        NaN for tasks without labels in the batch.
    """
    shared: list[Tensor] = [p for p in run.model.shared_parameters() if p.requires_grad]
    names = list(run.kinds)
    present = [index for index, task in enumerate(names) if batch.counts.get(task, 0)]
    rows = torch.full((2 * len(names) + 1, len(names)), torch.nan, dtype=exact_dtype(run.device), device=run.device)
    buffers = list(run.model.buffers())
    saved_buffers = [buffer.clone() for buffer in buffers]
    _disable_dropout(run.model)
    losses = _losses(run, batch)
    gradients = [_gradient(losses[index], shared) for index in present]
    gramian = _gramian(gradients)
    saved = [p.detach().clone() for p in shared]
    for row, index in enumerate(present):
        rows[0, index] = losses[index].detach()
        with torch.no_grad():
            torch._foreach_add_(shared, gradients[row], alpha=-lr)
            losses_after = _losses(run, batch)
            torch._foreach_copy_(shared, saved)
        for column, other in enumerate(present):
            rows[1 + index, other] = gramian[row, column]
            rows[1 + len(names) + index, other] = losses_after[other]
    torch._foreach_copy_(buffers, saved_buffers)
    run.model.train()
    return rows


def _disable_dropout(model: nn.Module) -> None:
    model.eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()


def _losses(run: Run, batch: Batch) -> dict[int, Tensor]:
    """Return the index of each task with labels in the batch → its mean loss."""
    present = {index: task for index, task in enumerate(run.kinds) if batch.counts.get(task, 0)}
    predictions = run.model(batch.inputs, list(present.values()))
    return {index: run.loss(task, predictions[task], batch, normalized=True) for index, task in present.items()}


def _gradient(loss: Tensor, shared: list[Tensor]) -> list[Tensor]:
    gradients = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(shared, gradients, strict=True)]


def _gramian(gradients: list[list[Tensor]]) -> Tensor:
    """Gramian [t, t], summed over the parameters, so that the gradients are not copied into one matrix."""
    gramians = [compute_gramian(torch.stack([row.flatten() for row in rows])) for rows in zip(*gradients, strict=True)]
    return torch.stack(gramians).sum(0)
