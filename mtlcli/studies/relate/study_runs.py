"""Runs of a study of relations, which are trained when a measure first needs them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError, InterruptedRunError, MtlError
from mtlcli.studies.folder import StudyFolder
from mtlcli.studies.pool import ProcessPool
from mtlcli.studies.relate.experiments import Budget, make_single_task
from mtlcli.studies.relate.gradient_probe import ProbedSteps, probe_joint_run
from mtlcli.studies.runs import CurrentData, InterruptedStudyError, completed_summary, read_summary
from mtlcli.studies.study_callback import StudyCallback
from mtlcli.training.assembly.assemble import assemble
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.data_checks import Datasets, open_datasets
from mtlcli.training.run import Run
from mtlcli.training.trainer import Trainer


@dataclass
class StudyRuns:
    """Runs of a study of relations.

    Args:
        joint: the experiment of the joint run.
        descriptions: task → description.
        folder: the study folder.
        budget: the size of the study.
        callback: called for each run that has ended.
    """

    joint: Experiment
    descriptions: dict[str, str]
    folder: StudyFolder
    budget: Budget
    callback: StudyCallback

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, sorted."""
        return list(self.joint.tasks)

    @cached_property
    def opened(self) -> Datasets:
        """The datasets."""
        return open_datasets(self.joint)

    @cached_property
    def joint_run(self) -> Run:
        """Parts of the joint run on `meta`, without weights, which describe its tasks and datasets."""
        return assemble(self.joint, torch.device("meta"), self.opened)

    @cached_property
    def data(self) -> CurrentData:
        """The current data, with which reused runs are compared."""
        return CurrentData()

    @cached_property
    def baselines(self) -> list[Baseline]:
        """The trained baselines."""
        return train_baselines(self.joint, self.folder, self.budget, self.callback, self.data)

    @cached_property
    def probed_steps(self) -> ProbedSteps:
        """The measured steps of the trained joint run."""
        return probe_joint_run(self.joint, self.folder, self.callback, self.data)


@dataclass(frozen=True)
class Baseline:
    """Single-task run of a task with one seed. Its `str` is its name in messages."""

    task: str
    seed: int
    experiment: Experiment
    folder: Path

    def __str__(self) -> str:
        return f"baseline {self.task}, seed {self.seed}"


def train_baselines(
    joint: Experiment, folder: StudyFolder, budget: Budget, callback: StudyCallback, data: CurrentData
) -> list[Baseline]:
    """Train the baselines of every task that the study folder lacks.

    Args:
        joint: the experiment of the joint run.
        folder: the study folder.
        budget: the size of the study.
        callback: called for each run that has completed.
        data: the current data, which must be that of reused runs.

    Returns:
        All baselines, by task and seed.
    """
    baselines = [
        Baseline(task, seed, make_single_task(joint, task, seed), folder.path / "baselines" / f"{task}-{seed}")
        for task in joint.tasks
        for seed in baseline_seeds(joint, budget)
    ]
    missing: list[Baseline] = []
    for baseline in baselines:
        if (summary := completed_summary(baseline.folder, baseline.experiment, data)) is None:
            missing.append(baseline)
        else:
            callback.on_run_end(str(baseline), summary, reused=True)
    if budget.jobs > 1 and len(missing) > 1:
        _train_in_parallel(missing, budget, callback)
    else:
        for baseline in missing:
            _train(baseline, callback)
    return baselines


def baseline_seeds(joint: Experiment, budget: Budget) -> list[int]:
    """Return the seeds of the baselines: that of the experiment and the following ones."""
    return [(joint.seed + offset) % 2**32 for offset in range(budget.seeds)]


def _train_in_parallel(baselines: list[Baseline], budget: Budget, callback: StudyCallback) -> None:
    """Train each baseline in a process; if one fails, the others stop with their state saved."""
    with ProcessPool[Baseline](budget.jobs) as pool:
        for baseline, problem in pool.train(baselines):
            if problem is not None:
                raise MtlError("\n".join(f"{baseline}: {line}" for line in problem.splitlines()))
            callback.on_run_end(str(baseline), read_summary(baseline.folder), reused=False)


def _train(baseline: Baseline, callback: StudyCallback) -> None:
    try:
        summary = Trainer(build(baseline.experiment), baseline.folder, resume="auto", plots=False).fit()
    except InterruptedRunError as error:
        raise InterruptedStudyError(error.exit_code) from error
    except ConfigError:
        raise
    except MtlError as error:
        raise MtlError(f"{baseline}: {error}") from error
    callback.on_run_end(str(baseline), summary, reused=False)
