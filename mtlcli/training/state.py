"""State of a run that is training, and its checkpoint form, from which a resumed run computes the same bits."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.config.changed_keys import check_same
from mtlcli.config.locations import Problems
from mtlcli.data.fingerprint import DataRecord
from mtlcli.data.loader import Loader
from mtlcli.errors import ConfigError
from mtlcli.training.assembly.base_reference import make_reference
from mtlcli.training.assembly.data_checks import open_data
from mtlcli.training.assembly.optimizers import group_names, learning_rates, make_optimizer, scale_rates
from mtlcli.training.assembly.schedules import Schedule, make_schedule
from mtlcli.training.checkpoint.base_files import BaseReference
from mtlcli.training.checkpoint.base_values import fill_in_base, leave_out_base
from mtlcli.training.checkpoint.file import plain, rng_state, set_rng_state
from mtlcli.training.data_changes import check_specs, check_unchanged
from mtlcli.training.device import Threads
from mtlcli.training.evaluate import Amounts
from mtlcli.training.failures import weighting_fault
from mtlcli.training.history import History
from mtlcli.training.messages import EpochReport, RunHeader
from mtlcli.training.run import Run, plugins_of
from mtlcli.training.run_folder import device_name
from mtlcli.training.step import Step
from mtlcli.training.step_log import StepLog, chance_losses
from mtlcli.training.task_stops import TaskStops, make_stops

LOG = logging.getLogger("mtl")

# key paths (patterns) that a resumed run may change: length, learning rate, machine, and the location of the data
FREE = ("training.epochs", "optimizer.lr", "optimizer.groups.*.lr", "scheduler.T_max",
        "scheduler.total_iters", "scheduler.total_steps", "datasets.*.root", "datasets.*.path",
        "datasets.*.test_path", "datasets.*.val_path",
        "training.device", "training.threads", "training.loading", "training.workers", "training.early_stopping",
        "checkpoint.every", "checkpoint.keep")  # fmt: skip

BASE_OPTIONS = ("trunk.model", "trunk.pretrained", "trunk.init_from")  # of a base whose values are compared

MakeStep = Callable[[Run, Optimizer, int], Step]
"""Makes the step of a run from its optimizer and the number of steps in all epochs."""


@dataclass
class Progress:
    """Counters of a run.

    Attributes:
        epoch: number of finished epochs.
        step: number of steps in the current epoch.
        steps: number of steps in all epochs.
        examples: number of examples in all steps.
        best_epoch: the epoch with the best monitored value; 0 before the first epoch ends.
        best_value: the best monitored value.
        seconds: training time of the current epoch.
        seconds_per_epoch: training time of each finished epoch.
        updates: number of steps that changed the parameters: not those without a label, or that fp16's scaling skipped.
        epoch_updates: number of such steps in the current epoch.
        rates: learning rate of each parameter group of the optimizer in the latest step.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    examples: int = 0
    best_epoch: int = 0
    best_value: float = math.nan
    seconds: float = 0.0
    seconds_per_epoch: list[float] = field(default_factory=list)
    updates: int = 0
    epoch_updates: int = 0
    rates: list[float] = field(default_factory=list)

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> Progress:
        """Return the progress of a checkpoint; checkpoints of older versions don't count updates."""
        return cls(**{"updates": saved["steps"], "epoch_updates": saved["step"], **saved})


@dataclass
class TrainerState:
    """Everything that changes while a run trains.

    Attributes:
        run: the run: its model, weighting, regularizers, datasets and device.
        loader: batches of the training split.
        step: the function that makes an optimizer step; it has the optimizer.
        schedule: schedule of the learning rates.
        log: losses and weights of the current epoch.
        threads: number of threads of a CPU.
        groups: names of the optimizer's parameter groups.
        start_rates: learning rate of each of them before the schedule changes it.
        progress: counters.
        history: every metric of every epoch, the rows of metrics.csv.
        data: alias → record of the dataset as it was when the run began.
        examples: split → task → number of labelled examples, of each split that was evaluated.
        header: facts about the run, such as its folder; None before `Trainer.fit`. Not part of a checkpoint.
        report: results of the latest epoch; None before the first one ends. Not part of a checkpoint.
        stops: early stopping of single tasks; None if no task has the option `stop`.
        reference: the weights that checkpoints leave out; None with `checkpoint.base: include`.
    """

    run: Run
    loader: Loader
    step: Step
    schedule: Schedule
    log: StepLog
    threads: Threads
    groups: list[str]
    start_rates: list[float]
    progress: Progress = field(default_factory=Progress)
    history: History = field(default_factory=History)
    data: dict[str, DataRecord] = field(default_factory=dict)
    examples: dict[str, Amounts] = field(default_factory=dict)
    header: RunHeader | None = None
    report: EpochReport | None = None
    stops: TaskStops | None = None
    reference: BaseReference | None = None

    @property
    def experiment(self) -> Experiment:
        """The experiment of the run."""
        return self.run.experiment

    @property
    def steps_per_epoch(self) -> int:
        """The number of optimizer steps in an epoch."""
        return -(-self.loader.steps // self.experiment.training.accumulate)

    def learning_rates(self) -> dict[str, float]:
        """Return parameter group of the optimizer → learning rate in the latest step; empty before the first step."""
        return dict(zip(self.groups, self.progress.rates, strict=False))

    def stopped_early(self) -> bool:
        """Return whether all tasks have stopped, or the monitored value hasn't improved for `early_stopping` epochs."""
        patience = self.experiment.training.early_stopping
        waited = self.progress.epoch - self.progress.best_epoch
        return self.all_stopped() or (patience is not None and waited >= patience)

    def all_stopped(self) -> bool:
        """Return whether all tasks have stopped."""
        return self.stops is not None and self.stops.stopped.keys() == self.run.kinds.keys()

    def ended_by(self) -> str:
        """Return the option that determined the number of epochs."""
        if self.all_stopped():
            return "tasks.*.stop"
        return "training.early_stopping" if self.stopped_early() else "training.epochs"

    def state_dict(self) -> dict[str, Any]:
        """Return the payload of a checkpoint: plain tensors, numbers, strings, lists and dicts."""
        run = self.run
        weights = dict(run.model.state_dict())
        payload = {
            "config": run.experiment.resolved(),
            "specs": {alias: spec.to_dict() for alias, spec in run.specs.items()},
            "data": {alias: record.to_dict() for alias, record in self.data.items()},
            "plugins": plugins_of(run.experiment),
            "made_with": _made_with(run),
            "model": plain(weights) if self.reference is None else weights,
            "weighting": plain(dict(run.weighting.state_dict())),
            "regularizers": plain(dict(run.regularization.state_dict())),
            "step": plain(self.step.state_dict()),
            "schedule": plain(self.schedule.state_dict()),
            "rates": self.start_rates,
            "progress": asdict(self.progress),
            "log": self.log.state_dict(),
            "history": json.dumps(self.history.rows),  # read a hundred times faster than the rows in a pickle
            "examples": self.examples,
            "spaces": {task: [run.kinds[task].target.mean, run.kinds[task].target.std] for task in run.spaces},
            "class_weights": {task: weights.tolist() for task, weights in run.class_weights.items()},
            **({} if self.stops is None else {"stops": self.stops.state_dict()}),
            **({} if run.base is None else {"base": run.base.to_dict()}),
            "rng": rng_state(),
        }
        return payload if self.reference is None else leave_out_base(payload, self.reference)

    def load_state_dict(self, payload: Mapping[str, Any], source: str = "the checkpoint") -> None:
        """Continue from a checkpoint. Log what has changed since then, of the keys that may change.

        Args:
            payload: what `state_dict` returned.
            source: the path of the checkpoint, for messages.

        Raises:
            ConfigError: if the checkpoint is of another experiment or of other data, or its state does not fit.
        """
        free = FREE if "reference" not in payload else (*FREE, *BASE_OPTIONS)
        for change in check_same(_resolved(payload["config"], source), self.experiment.resolved(), free, source):
            LOG.warning("changed since the checkpoint: %s", change)
        check_unchanged(self.run, self.data, payload, source)
        check_specs(self.run.specs, payload["specs"], source)
        made_with = payload.get("made_with", {})
        self.threads.keep(made_with.get("threads"))
        for name, value in _made_with(self.run).items():
            if (before := made_with.get(name)) != value:
                LOG.warning(
                    "saved with %s %s, and this is %s: the last bits of the numbers may differ", name, before, value
                )
        try:
            weights = payload["model"]
            if "reference" in payload:
                weights = fill_in_base(payload, self.run.model.state_dict(), source)
            self.run.model.load_state_dict(weights)
            self.run.weighting.load_state_dict(payload["weighting"])
            self.run.regularization.load_state_dict(payload["regularizers"])
            self.step.load_state_dict(payload["step"])
            scale_rates(self.step.optimizer, payload["rates"], self.start_rates)
            self.schedule.load_state_dict(payload["schedule"])
            self.progress = Progress.load(payload["progress"])
            self.progress.rates = self.progress.rates or learning_rates(self.step.optimizer)
            self.log.load_state_dict(payload["log"])
            self.history = History([tuple(row) for row in json.loads(payload["history"])])
            self.examples = {split: dict(amounts) for split, amounts in payload.get("examples", {}).items()}
            if self.stops is not None:
                self.stops.load_state_dict(payload["stops"])
                self.step.frozen = self.stops.frozen(self.run.model)
            set_rng_state(payload["rng"])
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"{source} can't be resumed by this run: {reason}") from error


def new_state(run: Run, direction: str, make_step: MakeStep | None = None) -> TrainerState:
    """Make the state of a run before its first step.

    Args:
        run: the run.
        direction: whether more (`max`) or less (`min`) of the monitored value is better.
        make_step: makes the step from the run, its optimizer and the number of steps in all epochs; None: `Step`.

    Returns:
        The state. Data that can't be read, and an optimizer or scheduler that can't be created, raise ConfigError.
    """
    training = run.experiment.training
    loader = open_data(run)
    steps = -(-loader.steps // training.accumulate)
    with Problems(run.experiment).now("optimizer"):
        optimizer = make_optimizer(run)
        step = Step(run, optimizer) if make_step is None else make_step(run, optimizer, steps * training.epochs)
    groups, rates = group_names(run), learning_rates(optimizer)
    with Problems(run.experiment).now("scheduler"):
        schedule = make_schedule(run, optimizer, steps, direction)
    log = StepLog(run.columns, run.device, run.weighting.check, weighting_fault(run), chance_losses(run))
    judged = run.device.type == "cpu" and not training.deterministic
    state = TrainerState(run, loader, step, schedule, log, Threads(training.threads, judged=judged), groups, rates)
    if any(task.stop is not None for task in run.experiment.tasks.values()):
        state.stops = make_stops(run.experiment, run.kinds)
    if run.experiment.checkpoint.base == "reference":
        state.reference = make_reference(run)
    return state


def _resolved(config: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return the experiment of a checkpoint, with the defaults of options that its version did not have."""
    try:
        return experiment_from_dict(dict(config), source=source).resolved()
    except ConfigError:  # of a version with options that no longer exist: compared as it is
        return config


def _made_with(run: Run) -> dict[str, Any]:
    """Return what the bits of a run depend on, apart from its experiment."""
    return {"torch": str(torch.__version__), "device": device_name(run.device), "threads": torch.get_num_threads()}


def early_stop_warning(state: TrainerState) -> str | None:
    """Return a warning if a resumed run has stopped early, and stays so although it has epochs left; else None."""
    progress, training = state.progress, state.experiment.training
    if progress.epoch >= training.epochs or not state.stopped_early():
        return None
    if state.all_stopped():
        return (
            f"the run ended after epoch {progress.epoch}, since all tasks had stopped (`stop` of the tasks); "
            f"training.epochs: {training.epochs} doesn't change that"
        )
    return (
        f"the run stopped early after epoch {progress.epoch}, since epoch {progress.best_epoch} was the best and "
        f"training.early_stopping is {training.early_stopping}; training.epochs: {training.epochs} doesn't change "
        f"that. To continue, raise training.early_stopping above {progress.epoch - progress.best_epoch} or set it to "
        f"null"
    )
