"""Training of one run, from its first step to its tables."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mtlcli.config import dump_yaml
from mtlcli.data.loader import Batch
from mtlcli.errors import InterruptedRunError, MtlError
from mtlcli.models.sharing.base import SharingStats
from mtlcli.training.assembly.optimizers import learning_rates
from mtlcli.training.assembly.schedules import idle_note, new_length_note, shortfall_note
from mtlcli.training.backward.base import StepResult
from mtlcli.training.callbacks import Callback, Callbacks, checked_callbacks, make_callbacks
from mtlcli.training.checkpoint.rotation import Checkpoints, CheckpointSchedule
from mtlcli.training.device import seed_everything
from mtlcli.training.evaluate import Evaluation, Monitor, TaskMetrics, map_targets, measure
from mtlcli.training.failures import StopRequest, check_model, explain_error
from mtlcli.training.last_epochs import measure_other_splits
from mtlcli.training.messages import log_data_notes, run_header
from mtlcli.training.prediction_plots import PredictionPlots
from mtlcli.training.rehearsal import rehearse
from mtlcli.training.report import epoch_report, finish, record_epoch, run_end, write_unfinished
from mtlcli.training.run import Run, as_file
from mtlcli.training.run_folder import Resume, RunFolder, environment, log_to_folder
from mtlcli.training.run_summary import Summary
from mtlcli.training.state import MakeStep, early_stop_warning, new_state
from mtlcli.training.step import idle_reason

LOG = logging.getLogger("mtl")


class Trainer:
    """Training of a run in its folder.

    Args:
        run: the run, see `build`.
        run_dir: the run folder; None creates a new one under `$MTL_RUNS` or `runs/`.
        resume: what to do if the folder already holds a run: `never` refuses it, `auto` resumes it (or starts a
            new run if it holds none), `must` requires one.
        callbacks: called while the run trains, before those that the experiment names.
        plots: whether to write plots to the folder.
        make_step: makes the step from the run, its optimizer and the number of steps in all epochs; None: `Step`.

    Attributes:
        state: what changes while the run trains.
        summary: the content of summary.json, after the run; None before.

    ConfigError is raised if the folder does not fit `resume`, or the optimizer, the scheduler or a callback can't be
    created.
    """

    def __init__(
        self,
        run: Run,
        run_dir: str | Path | None = None,
        *,
        resume: Resume = "never",
        callbacks: Sequence[Callback] = (),
        plots: bool = True,
        make_step: MakeStep | None = None,
    ) -> None:
        own = [PredictionPlots(run.experiment.evaluation.split)] if plots and map_targets(run) else []
        self.callbacks = Callbacks([*own, *checked_callbacks(callbacks), *make_callbacks(run.experiment)])
        self.run = run
        self.plots = plots
        self.run_dir = None if run_dir is None else RunFolder.named(run_dir, resume)
        self.resume = resume
        self.experiment = run.experiment
        self.monitor = Monitor(self.experiment, run.kinds)
        self.accumulate = self.experiment.training.accumulate
        self.checkpoint_schedule = CheckpointSchedule(self.experiment.checkpoint.every)
        self.state = new_state(run, self.monitor.direction, make_step)
        self.summary: Summary | None = None
        self._plateau_warned = False

    @cached_property
    def folder(self) -> RunFolder:
        """The run folder. The first access creates a new one, if none was given."""
        return self.run_dir or RunFolder.new(self.experiment.name, self.experiment.seed)

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints in the run folder."""
        return Checkpoints(self.folder.last.parent, self.experiment.checkpoint.keep)

    def fit(self) -> Summary:
        """Train all epochs, evaluate the model of the best one, write the tables, and return the summary.

        Errors: ConfigError if the folder is taken or holds another run. InterruptedRunError after a signal, with a
        checkpoint saved. DivergedError if a loss, a gradient or a weight isn't finite. MtlError if torch, a file, a
        plugin or a callback fails, or a split can't be evaluated at the end. In the last three cases checkpoints are
        kept, and `summary` describes the run.
        """
        state, folder = self.state, self.folder
        folder.make()
        with folder.lock(), log_to_folder(folder), StopRequest(str(folder.last)) as stop:
            folder.sweep()
            log_data_notes(self.run)
            self._start_or_resume()
            state.header = run_header(self.run, folder.path, state.steps_per_epoch, state.loader.sampler)
            for line in state.header.lines():
                LOG.info("%s", line)
            if (note := self.checkpoint_schedule.note(state.steps_per_epoch)) is not None:
                LOG.warning("%s", note)
            try:
                self.callbacks.on_fit_start(state)
                self._train(stop)
                LOG.info("%s", run_end(state, self.monitor))
                self.summary = finish(state, folder, stop, self.plots)
            except BaseException as error:
                reported = explain_error(error, self.experiment.training.batch_size, folder.log)
                status = "interrupted" if stop.requested else "failed"
                self.summary = write_unfinished(state, folder, status, reported)
                if reported is error:
                    raise
                raise reported from error
            finally:
                self._end_callbacks()
        if self.summary["status"] == "failed":
            raise MtlError(self.summary["error"])
        return self.summary

    def rehearse(self) -> dict[str, Any]:
        """Make one step, write nothing, and return a description of the run as a JSON document."""
        log_data_notes(self.run)
        return rehearse(self.run, self.state.loader, self.state.step, self.state.steps_per_epoch)

    def _train(self, stop: StopRequest) -> None:
        """Train the remaining epochs. Raise MtlError if no step has changed a parameter."""
        state, progress, epochs = self.state, self.state.progress, self.experiment.training.epochs
        try:
            while progress.epoch < epochs and not state.stopped_early():
                self._train_epoch(stop)
                self._end_epoch(stop)
        except InterruptedRunError:
            self._save()
            raise
        if progress.steps and not progress.updates:
            raise MtlError(f"no parameter changed in {progress.steps} steps: {idle_reason(state.step)}")

    def _train_epoch(self, stop: StopRequest) -> None:
        """Make the remaining steps of the current epoch."""
        state, progress = self.state, self.state.progress
        total = self.experiment.training.epochs * state.steps_per_epoch
        self.run.model.train()
        self.callbacks.on_epoch_start(state)
        batches = state.loader.epoch(progress.epoch, start=progress.step * self.accumulate)
        start = time.perf_counter()
        while progress.step < state.steps_per_epoch:
            remaining = state.loader.steps - progress.step * self.accumulate
            group = [next(batches) for _ in range(min(self.accumulate, remaining))]
            progress.rates = learning_rates(state.step.optimizer)
            result = self._step(group, progress.steps / total)
            progress.step += 1
            progress.steps += 1
            progress.examples += sum(len(x) for batch in group for x in batch.inputs.values())
            self.callbacks.on_step_end(state, result)
            progress.seconds += time.perf_counter() - start
            stop.poll()
            if self.checkpoint_schedule.due(progress.step):
                self._save()
            start = time.perf_counter()
        state.log.flush()
        progress.seconds += time.perf_counter() - start

    def _step(self, batches: list[Batch], done: float) -> StepResult | None:
        """Make an optimizer step, log it and advance the schedule. done: fraction of the training before the step."""
        state, number = self.state, self.state.progress.steps + 1
        step = state.step(batches, done, number)
        if step is None:
            return None
        result, counts = step
        state.log.record(number, result, counts)
        if result.updated:
            state.progress.updates += 1
            state.progress.epoch_updates += 1
            state.schedule.after_step()
        return result

    def _end_epoch(self, stop: StopRequest) -> None:
        """Evaluate the epoch, record and save it. The evaluation comes first: if it fails, nothing has changed."""
        state, progress, stats = self.state, self.state.progress, SharingStats()
        evaluation, others = self._evaluate(stats, stop)
        metrics, train = evaluation.metrics, state.log.means()
        state.examples[self.monitor.split] = evaluation.examples
        weighted = state.log.mean_losses()[: len(self.run.weighting.tasks)]
        self.run.weighting.end_epoch(torch.tensor(weighted, device=self.run.device))
        value = self.monitor.value(metrics)
        if progress.epoch == 0 and (note := self.monitor.undefined_note(metrics)) is not None:
            LOG.warning("%s", note)
        progress.epoch += 1
        self._advance_schedule(value)
        if state.stops is not None:
            train = state.stops.end_epoch(progress.epoch, train, metrics)
            state.step.frozen = state.stops.frozen(self.run.model)
        progress.step = progress.epoch_updates = 0
        record_epoch(state, self.monitor.split, train, metrics, stats)
        for split, values in others.items():
            state.history.add(progress.epoch, progress.steps, split, values)
        is_best = self.monitor.is_better(value, progress.best_value)
        if is_best:
            progress.best_epoch, progress.best_value = progress.epoch, value
        progress.seconds_per_epoch.append(progress.seconds)
        progress.seconds = 0.0
        state.log.clear()
        state.threads.judge(progress.epoch + 1)  # before the state is saved: it has the number of threads
        self._save()
        self.folder.write("metrics.csv", state.history.to_csv())
        state.report = epoch_report(state, self.monitor, train, metrics, value, is_best)
        LOG.info("%s", state.report)
        self.callbacks.on_epoch_end(state, metrics)

    def _evaluate(self, stats: SharingStats, stop: StopRequest) -> tuple[Evaluation, dict[str, TaskMetrics]]:
        """Evaluate the monitored split and, with `evaluation.last`, others. If that fails, save the run first."""
        last, epoch = self.experiment.evaluation.last, self.state.progress.epoch + 1
        try:
            evaluation = measure(self.run, self.monitor.split, stats, stop.poll)
            return evaluation, {} if last is None else measure_other_splits(self.run, epoch, last, stop.poll)
        except InterruptedRunError:
            raise
        except Exception:
            self._save()
            raise

    def _advance_schedule(self, value: float) -> None:
        """Advance the schedule after an epoch, and log why it can't be. value: the monitored value."""
        state, progress = self.state, self.state.progress
        if not progress.epoch_updates:
            LOG.warning("no parameter changed in epoch %d: %s", progress.epoch, idle_reason(state.step))
            return
        if not state.schedule.after_epoch(value) and not self._plateau_warned:
            self._plateau_warned = True
            LOG.warning(
                "ReduceLROnPlateau keeps its learning rate: the monitored value is undefined in epoch %d (logged once)",
                progress.epoch,
            )
        note = shortfall_note(self.experiment, progress.epoch_updates, state.steps_per_epoch)
        if note is not None and progress.epoch == 1:
            LOG.info("%s", note)

    def _end_callbacks(self) -> None:
        """Call the callbacks' `on_fit_end`. An error in one of them makes a completed run a failed one."""
        summary = self.summary or Summary(status="failed")
        try:
            self.callbacks.on_fit_end(self.state, summary)
        except MtlError as error:
            reported = explain_error(error, self.experiment.training.batch_size, self.folder.log)
            LOG.debug("%s", error, exc_info=True)
            if summary["status"] == "completed":
                summary.update({"status": "failed", "error": str(reported)})
                self.folder.write_json("summary.json", summary)
            else:
                LOG.warning("%s", reported)

    def _start_or_resume(self) -> None:
        """Begin the run in its folder, or load its last checkpoint."""
        state, folder = self.state, self.folder
        folder.check(self.resume)
        state.data = self.run.data_records()
        if self.checkpoints.exist():
            payload = self.checkpoints.load()
            state.load_state_dict(payload, str(folder.last))
            LOG.info("resumed at epoch %d, step %d", state.progress.epoch, state.progress.step)
            epochs = payload["config"]["training"]["epochs"]
            if (note := new_length_note(self.experiment, epochs, state.progress.epoch)) is not None:
                LOG.info("%s", note)
            if (note := early_stop_warning(state)) is not None:
                LOG.warning("%s", note)
            self._mark_best()
        else:
            seed_everything(self.experiment.seed)  # whatever was drawn while the data was loaded
            self._save()
        note = idle_note(state.schedule, self.experiment, state.progress.epoch, state.steps_per_epoch)
        if note is not None:
            LOG.warning("%s", note)
        folder.write("config.yaml", dump_yaml(as_file(self.experiment)))
        folder.write_json("environment.json", environment(self.run.device))
        folder.write("metrics.csv", state.history.to_csv())

    def _save(self) -> None:
        """Save a checkpoint, if all numbers of the model are finite."""
        state = self.state
        state.log.flush()
        check_model(state.progress.steps, self.run.model.state_dict())
        self.checkpoints.save(state.state_dict())
        self._mark_best()

    def _mark_best(self) -> None:
        """Mark the last checkpoint as the best one, if it was saved at the end of the best epoch."""
        progress = self.state.progress
        if progress.step == 0 and progress.epoch == progress.best_epoch > 0:
            self.checkpoints.mark_best()
