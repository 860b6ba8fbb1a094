"""One run, from its first step to its tables."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from mtlcli import registry
from mtlcli.config import MEAN, dump_yaml
from mtlcli.data.fingerprint import DataRecord
from mtlcli.data.loader import Loader
from mtlcli.errors import InterruptedRunError, MtlError
from mtlcli.models.watch import Watch
from mtlcli.training.batch_norm import SMALLEST, check_batch_norm, has_batch_norm
from mtlcli.training.checkpoints import Checkpoints
from mtlcli.training.data_report import data_report
from mtlcli.training.device import seed_everything
from mtlcli.training.divergence import check_model, weighting_fault
from mtlcli.training.environment import device_name, environment
from mtlcli.training.evaluate import Amounts, TaskMetrics, measure, monitored_metrics, monitored_value
from mtlcli.training.failure import explained
from mtlcli.training.history import OPTIMIZER, SHARING, History
from mtlcli.training.observer import EpochReport, Observer, RunEnd, RunHeader, monitor_name
from mtlcli.training.optimization import group_names, make_optimizer
from mtlcli.training.plugins import as_file
from mtlcli.training.preflight import check_data
from mtlcli.training.problems import Problems
from mtlcli.training.rhythm import Rhythm
from mtlcli.training.run import Run
from mtlcli.training.run_folder import RunFolder
from mtlcli.training.schedule import has_derived_length, make_schedule, schedule_notes, shortfall_note
from mtlcli.training.signals import StopRequest
from mtlcli.training.state import Progress, capture, restore
from mtlcli.training.step import Step, idle_reason
from mtlcli.training.step_log import StepLog
from mtlcli.training.summary import Summary, finish, logged, write_unfinished
from mtlcli.training.threads import Threads

LOG = logging.getLogger("mtl")


class Trainer:
    """Trains a run in its folder.

    run_dir: the run folder; None makes a new one under `$MTL_RUNS` or `runs/`.
    resume: what to do where the folder already holds a run: `never` refuses it, `auto` goes on with it (or starts,
        where there is none), `must` wants one there.
    plots: whether the folder gets pictures.
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
        self.tasks = list(run.kinds)
        self.monitored, self.direction = monitored_metrics(self.experiment, run.kinds)
        self.loader = self._make_loader()
        self.accumulate = self.experiment.training.accumulate
        self.steps_per_epoch = -(-self.loader.steps // self.accumulate)
        with Problems(self.experiment).now("optimizer"):
            self.step = Step(run, make_optimizer(run))
        self.groups = group_names(run)
        self.rates = self._learning_rates()  # before a schedule changes them
        with Problems(self.experiment).now("scheduler"):
            self.schedule = make_schedule(run, self.step.optimizer, self.steps_per_epoch, self.direction)
        self.log = StepLog(run.columns, run.device, run.weighting.check, weighting_fault(run))
        self.threads = Threads(
            self.experiment.training.threads,
            judged=run.device.type == "cpu" and not self.experiment.training.deterministic,
        )
        self.rhythm = Rhythm(self.experiment.checkpoint.every)
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
        saved stays, and `summary` tells of the run in every case. MtlError too where the run has ended, with its tables
        written, and a split can't be evaluated.
        """
        self.folder.make()
        with self.folder.lock(), logged(self.folder), StopRequest(str(self.folder.last)) as stop:
            self.folder.sweep()
            self._warn_of_data()
            self._start_or_go_on()
            for line in self._header().lines():
                LOG.info("%s", line)
            self.observer.started(self.experiment.training.epochs)
            try:
                try:
                    while not self._done():
                        self._train_epoch(stop)
                        self._end_epoch(stop)
                except InterruptedRunError:
                    self._save()
                    raise
                if self.progress.steps and not self.progress.updates:
                    raise MtlError(f"the run trained nothing in {self.progress.steps} steps: {idle_reason(self.step)}")
                LOG.info("%s", self._end())
                self.summary = finish(self, stop)
            except BaseException as error:
                told = explained(error, self.experiment.training.batch_size, self.folder.log)
                self.summary = write_unfinished(self, "interrupted" if stop.requested else "failed", told)
                if told is error:
                    raise
                raise told from error
            finally:
                self.observer.stopped()
        if self.summary["status"] == "failed":
            raise MtlError(self.summary["error"])
        return self.summary

    def _header(self) -> RunHeader:
        run = self.run
        examples = {split: {a: len(part) for a, part in run.examples(split).items()} for split in run.splits()}
        return RunHeader(
            self.folder.path, device_name(run.device), torch.get_num_threads(), examples,
            run.model.count_parameters(), self.experiment.training.epochs, self.steps_per_epoch,
        )  # fmt: skip

    def _end(self) -> RunEnd:
        progress, training = self.progress, self.experiment.training
        return RunEnd(
            progress.epoch, training.epochs, training.early_stopping, progress.best_epoch,
            monitor_name(self.experiment), progress.best_value,
        )  # fmt: skip

    def rehearse(self) -> dict[str, Any]:
        """Make one step and write nothing: what a run would be like, as a JSON document."""
        training, run = self.experiment.training, self.run
        self._warn_of_data()
        run.model.train()
        self.step([next(self.loader.epoch(0))])
        return {
            "name": self.experiment.name,
            "device": str(run.device),
            "threads": torch.get_num_threads(),
            "examples": {split: {a: len(e) for a, e in run.examples(split).items()} for split in run.splits()},
            "data": data_report(run, fetch=True),
            "loading": self.loader.route,
            "epochs": training.epochs,
            "steps_per_epoch": self.steps_per_epoch,
            "parameters": run.model.count_parameters(),
            "weighting": {"name": self.experiment.weighting.name, "route": self.step.backward.route},
        }

    def change_rates(self, before: Sequence[float]) -> None:
        """Scale the optimizer's learning rates from those the run was begun with, one for each group, to this run's.

        A schedule that is a function of its steps sets them anew after that.
        """
        factors = [now / then if now != then else 1.0 for now, then in zip(self.rates, before, strict=True)]
        if any(factor != 1 for factor in factors):
            for group, factor in zip(self.step.optimizer.param_groups, factors, strict=True):
                group["lr"] *= factor

    def _train_epoch(self, stop: StopRequest) -> None:
        """The steps of the epoch in hand that are not made yet."""
        progress = self.progress
        self.run.model.train()
        self.observer.epoch_started(progress.epoch + 1, self.steps_per_epoch, progress.step)
        batches = self.loader.epoch(progress.epoch, start=progress.step * self.accumulate)
        start = time.perf_counter()
        while progress.step < self.steps_per_epoch:
            remaining = self.loader.steps - progress.step * self.accumulate
            group = [next(batches) for _ in range(min(self.accumulate, remaining))]
            done = progress.steps / (self.experiment.training.epochs * self.steps_per_epoch)
            progress.rates = self._learning_rates()
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
        """Evaluate the epoch, note its figures, save it. Nothing of the run changes before the evaluation is done."""
        progress, split = self.progress, self.experiment.evaluation.split
        watch = Watch()
        try:
            evaluation = measure(self.run, split, watch, stop.poll)
        except InterruptedRunError:
            raise
        except Exception:  # the examples can't be read: what was trained is kept
            self._save()
            raise
        metrics, self.examples[split] = evaluation.metrics, evaluation.examples
        losses = dict(zip(self.run.columns, self.log.mean_losses(), strict=True))
        weights = dict(zip(self.run.columns, self.log.mean_weights(), strict=True))
        weighted = list(losses.values())[: len(self.run.weighting.tasks)]
        self.run.weighting.end_epoch(torch.tensor(weighted, device=self.run.device))
        value = monitored_value(self.monitored, metrics)
        self._warn_of_undefined(metrics)
        progress.epoch += 1
        if progress.epoch_updates:
            self._advance_schedule(value)
            note = shortfall_note(self.experiment, progress.epoch_updates, self.steps_per_epoch)
            if note is not None and progress.epoch == 1:
                LOG.info("%s", note)
        else:
            LOG.warning("epoch %d trained nothing: %s", progress.epoch, idle_reason(self.step))
        progress.step = progress.epoch_updates = 0
        more = self.run.regularization.metrics()
        train = {name: {"loss": losses[name], "weight": weights[name], **more.get(name, {})} for name in losses}
        self.history.add(progress.epoch, progress.steps, "train", train)
        if conflict := self.log.mean_conflict():
            self.history.add(progress.epoch, progress.steps, "train", {MEAN: conflict})
        rates = dict(zip(self.groups, progress.rates, strict=True))
        self.history.add(progress.epoch, progress.steps, "train", {OPTIMIZER + g: {"lr": rates[g]} for g in rates})
        self.history.add(progress.epoch, progress.steps, split, metrics)
        watched = {SHARING + task: figures for task, figures in watch.means().items()}
        self.history.add(progress.epoch, progress.steps, split, watched)
        is_best = self._is_better(value)
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
        losses = {task: losses[task] for task in self.tasks}
        report = EpochReport(
            progress.epoch, self.experiment.training.epochs, losses, split, metrics, monitor_name(self.experiment),
            value, is_best, seconds, speed, rates,
        )  # fmt: skip
        LOG.info("%s", report)
        self.observer.epoch_ended(report)

    def _is_better(self, value: float) -> bool:
        """Whether a monitored value beats the best so far; any does where that is NaN, and NaN beats no number."""
        best = self.progress.best_value
        if math.isnan(best):
            return True
        return value > best if self.direction == "max" else value < best

    def _warn_of_data(self) -> None:
        for note in self.run.notes():
            LOG.warning("%s", note)
        for task, positive in self.run.positive.items():
            LOG.info("task %s: class %r counts as yes (option `positive` of its kind)", task, positive)

    def _warn_of_undefined(self, metrics: TaskMetrics) -> None:
        """Once a run: which monitored metrics have no value, and what is monitored then."""
        undefined = [task for task, metric in self.monitored.items() if not math.isfinite(metrics[task][metric])]
        if undefined and self.progress.epoch == 0:
            rest = (
                "the latest epoch counts as best" if len(undefined) == len(self.monitored) else "it goes by the others"
            )
            LOG.warning(
                "%s: no value to monitor (no labels in %s, or all of them the same?); %s",
                ", ".join(undefined), self.experiment.evaluation.split, rest,
            )  # fmt: skip

    def _done(self) -> bool:
        return self.progress.epoch >= self.experiment.training.epochs or self._stopped_early()

    def _stopped_early(self) -> bool:
        patience = self.experiment.training.early_stopping
        return patience is not None and self.progress.epoch - self.progress.best_epoch >= patience

    def _learning_rates(self) -> list[float]:
        return [group["lr"] for group in self.step.optimizer.param_groups]

    def _advance_schedule(self, value: float) -> None:
        """Step the schedule after an epoch. value: the monitored one."""
        if not self.schedule.after_epoch(value) and not self._plateau_warned:
            self._plateau_warned = True
            LOG.warning(
                "ReduceLROnPlateau keeps its learning rate: the monitored value is undefined in epoch %d (said once)",
                self.progress.epoch,
            )

    def _say_how_it_goes_on(self, epochs: int) -> None:
        """Log what a resumed run does that was started with another number of epochs."""
        progress, training = self.progress, self.experiment.training
        if training.epochs != epochs and has_derived_length(self.experiment) and self.experiment.scheduler:
            name = self.experiment.scheduler.name
            LOG.info("%s now ends with epoch %d, as in a run of that length from the start", name, training.epochs)
        if progress.epoch < training.epochs and self._stopped_early():
            LOG.warning(
                "the run stopped early after epoch %d, since epoch %d was the best and training.early_stopping is %d; "
                "training.epochs: %d doesn't change that. To continue, raise training.early_stopping above %d or set "
                "it to null",
                progress.epoch, progress.best_epoch, training.early_stopping, training.epochs,
                progress.epoch - progress.best_epoch,
            )  # fmt: skip

    def _start_or_go_on(self) -> None:
        """Begin the folder, or load what it holds, as `resume` says."""
        folder = self.folder
        folder.check(self.resume)
        self.data = self.run.data_records()
        if self.checkpoints.exist():
            payload = self.checkpoints.load()
            restore(self, payload)
            LOG.info("resumed at epoch %d, step %d", self.progress.epoch, self.progress.step)
            self._say_how_it_goes_on(payload["config"]["training"]["epochs"])
            self._mark_best()
        else:
            seed_everything(self.experiment.seed)  # whatever was drawn while the data was loaded
            self._save()
        for note in schedule_notes(self.schedule, self.experiment, self.progress.epoch, self.steps_per_epoch):
            LOG.warning("%s", note)
        folder.write("config.yaml", dump_yaml(as_file(self.experiment)))
        folder.write_json("environment.json", environment(self.run.device))
        folder.write("metrics.csv", self.history.to_csv())

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

    def _make_loader(self) -> Loader:
        training, run = self.experiment.training, self.run
        check_data(run)
        examples = run.examples("train")
        with Problems(self.experiment).now("training"):
            make_sampler = registry.samplers[training.sampling.name].create
            sizes = [len(found) for found in examples.values()]
            sampler = make_sampler(sizes, training.batch_size, **training.sampling.options)
            sampler.smallest = SMALLEST if has_batch_norm(run.model) else 1
            check_batch_norm(run, sampler)
            augment = {alias: dataset.augment for alias, dataset in run.datasets.items()}
            return Loader(examples, run.sources, sampler, self.experiment.seed, run.placement, augment)
