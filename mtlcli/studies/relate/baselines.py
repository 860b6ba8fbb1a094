"""The single-task baselines of a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError, InterruptedRunError, MtlError
from mtlcli.studies.current_data import CurrentData
from mtlcli.studies.folder import StudyFolder
from mtlcli.studies.observer import StudyObserver
from mtlcli.studies.processes import Processes
from mtlcli.studies.relate.budget import Budget
from mtlcli.studies.relate.experiments import single_task
from mtlcli.studies.runs import finished, interrupted, summary_of
from mtlcli.training.build import build
from mtlcli.training.trainer import Trainer


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
