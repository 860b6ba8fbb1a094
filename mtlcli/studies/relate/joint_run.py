"""The joint run of a study: all tasks through one trunk, their gradients looked at along the way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.modules.dropout import _DropoutNd

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError, InterruptedRunError, MtlError
from mtlcli.studies.current_data import CurrentData
from mtlcli.studies.folder import StudyFolder
from mtlcli.studies.observer import StudyObserver
from mtlcli.studies.relate.experiments import single_task
from mtlcli.studies.relate.probing_step import ProbingStep
from mtlcli.studies.relate.relation import Matrix
from mtlcli.studies.runs import finished, interrupted
from mtlcli.training.build import build
from mtlcli.training.checkpoint import load_checkpoint
from mtlcli.training.run import Run
from mtlcli.training.trainer import Trainer

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
    points = load_checkpoint(folder.path / "joint" / "checkpoints" / "last.pt")["step"]["points"]
    seen, tasks = torch.stack(points).double().numpy(), len(joint.tasks)
    return Points(seen[:, 0], seen[:, 1 : 1 + tasks], seen[:, 1 + tasks :])


def _trainer(joint: Experiment, folder: StudyFolder) -> Trainer:
    run = build(joint)
    _start_alike(run)
    trainer = Trainer(run, folder.path / "joint", resume="auto", plots=False)
    steps = trainer.steps_per_epoch * joint.training.epochs
    trainer.step = ProbingStep(run, trainer.step.optimizer, every=-(-steps // POINTS))
    return trainer


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
