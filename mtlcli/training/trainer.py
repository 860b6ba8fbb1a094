"""One run, from its first step to its tables."""

from __future__ import annotations

import logging
import time
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch

from mtlcli.config import MEAN, dump_yaml
from mtlcli.data.fingerprint import DataRecord
from mtlcli.errors import InterruptedRunError, MtlError
from mtlcli.models.sharing.base import SharingStats
from mtlcli.training.assembly.data_checks import open_data
from mtlcli.training.assembly.optimizers import group_names, learning_rates, make_optimizer
from mtlcli.training.assembly.schedules import idle_note, make_schedule, new_length_note, shortfall_note
from mtlcli.training.checkpoint.experiment import as_file
from mtlcli.training.checkpoint.rotation import Checkpoints, CheckpointSchedule
from mtlcli.training.device import Threads, seed_everything
from mtlcli.training.environment import environment
from mtlcli.training.evaluate import Amounts, Evaluation, TaskMetrics, measure
from mtlcli.training.failures import check_model, explained, weighting_fault
from mtlcli.training.history import OPTIMIZER, SHARING, History
from mtlcli.training.monitor import Monitor
from mtlcli.training.observer import EpochReport, Observer, RunEnd, run_header
from mtlcli.training.problems import Problems
from mtlcli.training.rehearsal import rehearse
from mtlcli.training.report import Summary, finish, logged, write_unfinished
from mtlcli.training.run import Run
from mtlcli.training.run_folder import RunFolder
from mtlcli.training.signals import StopRequest
from mtlcli.training.state import Progress, capture, restore, stopped_early, stopped_note
from mtlcli.training.step import Step, idle_reason
from mtlcli.training.step_log import StepLog

LOG = logging.getLogger("mtl")


class Trainer:
    """Trains a run in its folder.

    run_dir: the run folder; None makes a new one under `$MTL_RUNS` or `runs/`.
    resume: what to do where the folder already holds a run: `never` refuses it, `auto` resumes it (or starts one where
        there is none), `must` requires one.
    plots: whether plots are written to the folder.
    """

    def __init__(
        self,
        run: Run,
        run_dir: str | Path | None = None,
        *,
        resume: Literal["never", "auto", "must"] = "never",
        observer: Observer | None = None,
        plots: bool = True,
    ) -> None:
        self.run = run
        self.plots = plots
        self.run_dir = None if run_dir is None else RunFolder.named(run_dir, resume)
        self.resume = resume
        self.observer = observer or Observer()
        self.experiment = run.experiment
        self.monitor = Monitor(self.experiment, run.kinds)
        self.loader = open_data(run)
        self.accumulate = self.experiment.training.accumulate
        self.steps_per_epoch = -(-self.loader.steps // self.accumulate)
        with Problems(self.experiment).now("optimizer"):
            self.step = Step(run, make_optimizer(run))
        self.groups = group_names(run)
        self.rates = learning_rates(self.step.optimizer)  # before a schedule changes them
        with Problems(self.experiment).now("scheduler"):
            self.schedule = make_schedule(run, self.step.optimizer, self.steps_per_epoch, self.monitor.direction)
        self.log = StepLog(run.columns, run.device, run.weighting.check, weighting_fault(run))
        self.threads = Threads(
            self.experiment.training.threads,
            judged=run.device.type == "cpu" and not self.experiment.training.deterministic,
        )
        self.rhythm = CheckpointSchedule(self.experiment.checkpoint.every)
        self.progress = Progress()
        self.history = History()
        self.data: dict[str, DataRecord] = {}  # by alias, as it was when the training began
        self.examples: dict[str, Amounts] = {}  # split → task → labelled examples, of what has been evaluated
        self.summary: Summary | None = None
        self._plateau_warned = False

    @cached_property
    def folder(self) -> RunFolder:
        """The run folder; a new one is made when it is first asked for."""
        return self.run_dir or RunFolder.new(self.experiment.name, self.experiment.seed)

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """Those of the run folder."""
        return Checkpoints(self.folder.last.parent, self.experiment.checkpoint.keep)

    def fit(self) -> Summary:
        """Train to the end, then evaluate the best epoch's model and write the tables.

        Raises ConfigError where the folder is taken or holds another run, InterruptedRunError after a signal (with a
        checkpoint saved), DivergedError where a number isn't finite, MtlError where torch or a file fails. What was
        saved stays, and `summary` describes the run in each of these cases. MtlError too where the run has ended, with
        its tables written, and a split can't be evaluated.
        """
        self.folder.make()
        with self.folder.lock(), logged(self.folder), StopRequest(str(self.folder.last)) as stop:
            self.folder.sweep()
            self._log_data_notes()
            self._start_or_resume()
            for line in run_header(self.run, self.folder.path, self.steps_per_epoch).lines():
                LOG.info("%s", line)
            self.observer.started(self.experiment.training.epochs)
            try:
                self._train(stop)
                LOG.info("%s", self._end())
                self.summary = finish(self, stop)
            except BaseException as error:
                reported = explained(error, self.experiment.training.batch_size, self.folder.log)
                self.summary = write_unfinished(self, "interrupted" if stop.requested else "failed", reported)
                if reported is error:
                    raise
                raise reported from error
            finally:
                self.observer.stopped()
        if self.summary["status"] == "failed":
            raise MtlError(self.summary["error"])
        return self.summary

    def rehearse(self) -> dict[str, Any]:
        """Make one step and write nothing: what a run would be like, as a JSON document."""
        self._log_data_notes()
        return rehearse(self.run, self.loader, self.step, self.steps_per_epoch)

    def _train(self, stop: StopRequest) -> None:
        """Train the epochs that remain. MtlError where the run has changed no parameter."""
        progress, epochs = self.progress, self.experiment.training.epochs
        try:
            while progress.epoch < epochs and not stopped_early(self.experiment, progress):
                self._train_epoch(stop)
                self._end_epoch(stop)
        except InterruptedRunError:
            self._save()
            raise
        if progress.steps and not progress.updates:
            raise MtlError(f"the run trained nothing in {progress.steps} steps: {idle_reason(self.step)}")

    def _train_epoch(self, stop: StopRequest) -> None:
        """Make the steps of the current epoch that have not been made yet."""
        progress = self.progress
        self.run.model.train()
        self.observer.epoch_started(progress.epoch + 1, self.steps_per_epoch, progress.step)
        batches = self.loader.epoch(progress.epoch, start=progress.step * self.accumulate)
        start = time.perf_counter()
        while progress.step < self.steps_per_epoch:
            remaining = self.loader.steps - progress.step * self.accumulate
            group = [next(batches) for _ in range(min(self.accumulate, remaining))]
            done = progress.steps / (self.experiment.training.epochs * self.steps_per_epoch)
            progress.rates = learning_rates(self.step.optimizer)
            if (made := self.step(group, done, progress.steps + 1)) is not None:
                self.log.record(progress.steps + 1, *made)
                if made[0].updated:
                    progress.updates += 1
                    progress.epoch_updates += 1
                    self.schedule.after_step()
            examples = sum(len(x) for batch in group for x in batch.inputs.values())
            progress.step += 1
            progress.steps += 1
            progress.examples += examples
            self.observer.step(examples, self.log.latest)
            progress.seconds += time.perf_counter() - start
            stop.poll()
            if self.rhythm.due(progress.step):
                self._save()
            start = time.perf_counter()
        self.log.flush()
        progress.seconds += time.perf_counter() - start

    def _end_epoch(self, stop: StopRequest) -> None:
        """Evaluate the epoch, record and save it. Nothing of the run changes before the evaluation is done."""
        progress, watch = self.progress, SharingStats()
        evaluation = self._evaluate(watch, stop)
        metrics, train = evaluation.metrics, self.log.means()
        self.examples[self.monitor.split] = evaluation.examples
        weighted = [train[column]["loss"] for column in self.run.columns[: len(self.run.weighting.tasks)]]
        self.run.weighting.end_epoch(torch.tensor(weighted, device=self.run.device))
        value = self.monitor.value(metrics)
        if progress.epoch == 0 and (note := self.monitor.undefined_note(metrics)) is not None:
            LOG.warning("%s", note)
        progress.epoch += 1
        self._advance_schedule(value)
        progress.step = progress.epoch_updates = 0
        self._record(train, metrics, watch)
        is_best = self.monitor.is_better(value, progress.best_value)
        if is_best:
            progress.best_epoch, progress.best_value = progress.epoch, value
        progress.seconds_per_epoch.append(progress.seconds)
        progress.seconds = 0.0
        self.log.clear()
        self.threads.judge(progress.epoch + 1)  # before the state is saved, which holds their number
        self._save()
        self.folder.write("metrics.csv", self.history.to_csv())
        seconds = progress.seconds_per_epoch[-1]
        speed = progress.examples / max(sum(progress.seconds_per_epoch), 1e-9)
        report = EpochReport(
            progress.epoch, self.experiment.training.epochs, {task: train[task]["loss"] for task in self.run.kinds},
            self.monitor.split, metrics, self.monitor.name, value, is_best, seconds, speed, self._latest_rates(),
        )  # fmt: skip
        LOG.info("%s", report)
        self.observer.epoch_ended(report)

    def _evaluate(self, watch: SharingStats, stop: StopRequest) -> Evaluation:
        """Evaluate the monitored split. Where that fails, the checkpoint keeps what was trained."""
        try:
            return measure(self.run, self.monitor.split, watch, stop.poll)
        except InterruptedRunError:
            raise
        except Exception:
            self._save()
            raise

    def _advance_schedule(self, value: float) -> None:
        """Step the schedule after an epoch, and log what it can't do. value: the monitored one."""
        progress = self.progress
        if not progress.epoch_updates:
            LOG.warning("epoch %d trained nothing: %s", progress.epoch, idle_reason(self.step))
            return
        if not self.schedule.after_epoch(value) and not self._plateau_warned:
            self._plateau_warned = True
            LOG.warning(
                "ReduceLROnPlateau keeps its learning rate: the monitored value is undefined in epoch %d (said once)",
                progress.epoch,
            )
        note = shortfall_note(self.experiment, progress.epoch_updates, self.steps_per_epoch)
        if note is not None and progress.epoch == 1:
            LOG.info("%s", note)

    def _record(self, train: TaskMetrics, metrics: TaskMetrics, watch: SharingStats) -> None:
        """Add an epoch to the history. train: column of the run → its mean loss and weight."""
        add = partial(self.history.add, self.progress.epoch, self.progress.steps)
        more = self.run.regularization.metrics()
        add("train", {column: {**values, **more.get(column, {})} for column, values in train.items()})
        if conflict := self.log.mean_conflict():
            add("train", {MEAN: conflict})
        add("train", {OPTIMIZER + group: {"lr": rate} for group, rate in self._latest_rates().items()})
        add(self.monitor.split, metrics)
        add(self.monitor.split, {SHARING + task: values for task, values in watch.means().items()})

    def _latest_rates(self) -> dict[str, float]:
        """Learning rate of each of the optimizer's groups in the latest step."""
        return dict(zip(self.groups, self.progress.rates, strict=True))

    def _end(self) -> RunEnd:
        progress, training = self.progress, self.experiment.training
        return RunEnd(
            progress.epoch, training.epochs, training.early_stopping, progress.best_epoch, self.monitor.name,
            progress.best_value,
        )  # fmt: skip

    def _start_or_resume(self) -> None:
        """Begin the folder, or load what it holds, as `resume` says."""
        folder = self.folder
        folder.check(self.resume)
        self.data = self.run.data_records()
        if self.checkpoints.exist():
            payload = self.checkpoints.load()
            restore(self, payload)
            LOG.info("resumed at epoch %d, step %d", self.progress.epoch, self.progress.step)
            epochs = payload["config"]["training"]["epochs"]
            if (note := new_length_note(self.experiment, epochs, self.progress.epoch)) is not None:
                LOG.info("%s", note)
            if (note := stopped_note(self.experiment, self.progress)) is not None:
                LOG.warning("%s", note)
            self._mark_best()
        else:
            seed_everything(self.experiment.seed)  # whatever was drawn while the data was loaded
            self._save()
        note = idle_note(self.schedule, self.experiment, self.progress.epoch, self.steps_per_epoch)
        if note is not None:
            LOG.warning("%s", note)
        folder.write("config.yaml", dump_yaml(as_file(self.experiment)))
        folder.write_json("environment.json", environment(self.run.device))
        folder.write("metrics.csv", self.history.to_csv())

    def _log_data_notes(self) -> None:
        for note in self.run.notes():
            LOG.warning("%s", note)
        for task, positive in self.run.positive.items():
            LOG.info("task %s: class %r counts as yes (option `positive` of its kind)", task, positive)

    def _save(self) -> None:
        """Save the run as it is, if all its numbers are finite."""
        self.log.flush()
        check_model(self.progress.steps, self.run.model.state_dict())
        self.checkpoints.save(capture(self))
        self._mark_best()

    def _mark_best(self) -> None:
        """Where the last checkpoint is of the best epoch's end, it is the best one."""
        if self.progress.step == 0 and self.progress.epoch == self.progress.best_epoch > 0:
            self.checkpoints.mark_best()
