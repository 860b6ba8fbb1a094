"""What the measures of a study are made from: each part is made when it is first asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError, InterruptedRunError, MtlError
from mtlcli.studies.folder import StudyFolder
from mtlcli.studies.pool import Processes
from mtlcli.studies.relate.experiments import Budget, single_task
from mtlcli.studies.relate.gradient_probe import Points, joint_points
from mtlcli.studies.runs import CurrentData, finished, interrupted, summary_of
from mtlcli.studies.study_observer import StudyObserver
from mtlcli.training.assembly.assemble import assemble
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.data_checks import Datasets, open_datasets
from mtlcli.training.run import Run
from mtlcli.training.trainer import Trainer


@dataclass
class StudyRuns:
    """joint: the experiment in canonical form. descriptions: by task."""

    joint: Experiment
    descriptions: dict[str, str]
    folder: StudyFolder
    budget: Budget
    observer: StudyObserver

    @property
    def tasks(self) -> list[str]:
        return list(self.joint.tasks)

    @cached_property
    def opened(self) -> Datasets:
        return open_datasets(self.joint)

    @cached_property
    def plan(self) -> Run:
        """The parts of the joint run, without weights: what tasks and datasets are like."""
        return assemble(self.joint, torch.device("meta"), self.opened)

    @cached_property
    def data(self) -> CurrentData:
        return CurrentData()

    @cached_property
    def baselines(self) -> list[Baseline]:
        return trained_baselines(self.joint, self.folder, self.budget, self.observer, self.data)

    @cached_property
    def points(self) -> Points:
        return joint_points(self.joint, self.folder, self.observer, self.data)


@dataclass(frozen=True)
class Baseline:
    """A task trained alone, with one seed, in its run folder."""

    task: str
    seed: int
    experiment: Experiment
    folder: Path

    def __str__(self) -> str:
        return f"baseline {self.task}, seed {self.seed}"


def trained_baselines(
    joint: Experiment, folder: StudyFolder, budget: Budget, observer: StudyObserver, data: CurrentData
) -> list[Baseline]:
    """Every task's baselines, task by task, those that aren't there yet trained.

    joint: the experiment in canonical form. Seeds are the experiment's own and those after it. ConfigError where the
    folder holds another study's; what training raises, with the baseline's name.
    """
    baselines = [
        Baseline(task, seed, single_task(joint, task, seed), folder.path / "baselines" / f"{task}-{seed}")
        for task in joint.tasks
        for seed in seeds(joint, budget)
    ]
    left: list[Baseline] = []
    for one in baselines:
        if (summary := finished(one.folder, one.experiment, data)) is None:
            left.append(one)
        else:
            observer.run_done(str(one), summary, reused=True)
    if budget.jobs > 1 and len(left) > 1:
        _train_at_once(left, budget, observer)
    else:
        for one in left:
            _train(one, observer)
    return baselines


def seeds(joint: Experiment, budget: Budget) -> list[int]:
    return [(joint.seed + number) % 2**32 for number in range(budget.seeds)]


def _train_at_once(baselines: list[Baseline], budget: Budget, observer: StudyObserver) -> None:
    """Each in a process of its own. One that fails stops the others, with what they have done saved."""
    with Processes[Baseline](budget.jobs) as processes:
        for one, problem in processes.train(baselines):
            if problem is not None:
                raise MtlError("\n".join(f"{one}: {line}" for line in problem.splitlines()))
            observer.run_done(str(one), summary_of(one.folder), reused=False)


def _train(baseline: Baseline, observer: StudyObserver) -> None:
    try:
        summary = Trainer(build(baseline.experiment), baseline.folder, resume="auto", plots=False).fit()
    except InterruptedRunError as error:
        raise interrupted(error.exit_code) from error
    except ConfigError:
        raise
    except MtlError as error:
        raise MtlError(f"{baseline}: {error}") from error
    observer.run_done(str(baseline), summary, reused=False)
