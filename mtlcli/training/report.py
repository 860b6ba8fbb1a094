"""Final files of a run: tables, summary.json and plots; and the results of each epoch."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from mtlcli.config import MEAN
from mtlcli.data.loader import evaluation_batches
from mtlcli.data.samplers.base import epoch_amounts
from mtlcli.errors import InterruptedRunError, MtlError
from mtlcli.models.sharing.base import SharingRecord, SharingStats
from mtlcli.specs import TrunkPass
from mtlcli.training.assembly.model_size import compress
from mtlcli.training.assembly.regularization import PREFIX, fit_ranks
from mtlcli.training.checkpoint.base_values import fill_in_base
from mtlcli.training.checkpoint.file import load_checkpoint, plain, save_checkpoint
from mtlcli.training.class_plots import ClassResults
from mtlcli.training.data_report import count_unseen
from mtlcli.training.device import peak_memory
from mtlcli.training.evaluate import Monitor, TaskMetrics, measure
from mtlcli.training.failures import StopRequest, explain_error
from mtlcli.training.history import OPTIMIZER, SHARING, is_task, plot_figures, plot_history, table_csv, table_md
from mtlcli.training.last_epochs import average_last_epochs, last_epochs_md
from mtlcli.training.messages import EpochReport, RunEnd
from mtlcli.training.run import Run
from mtlcli.training.run_folder import RunFolder
from mtlcli.training.run_summary import Summary
from mtlcli.training.state import TrainerState
from mtlcli.training.text_report import describe_texts

LOG = logging.getLogger("mtl")


def finish(state: TrainerState, folder: RunFolder, stop: StopRequest, plots: bool = True) -> Summary:
    """Evaluate the model of the best epoch on the evaluated split and on `test`, and write the final files.

    Of a split that can't be evaluated, the tables have the best epoch's values, if any; the status is then `failed`.

    Args:
        state: the state of the run, whose last epoch is trained. The model is changed to that of the best epoch.
        folder: the run folder.
        stop: asked before each batch.
        plots: whether to write plots.

    Returns:
        The content of summary.json. After an InterruptedRunError of a signal, a resumed run repeats this step.
    """
    run = state.run
    best = load_checkpoint(folder.best)
    weights = best["model"] if state.reference is None else fill_in_base(best, run.model.state_dict(), "best.pt")
    fit_ranks(run.model, weights)
    run.model.load_state_dict(weights)
    run.regularization.load_state_dict(best.get("regularizers", {}))
    split = run.experiment.evaluation.split
    splits = list(dict.fromkeys([split, *(["test"] if "test" in run.splits() else [])]))
    results = ClassResults(run.kinds) if plots else None
    metrics, failures = _measure(state, splits, stop, results)
    if run.regularization.terms and "compression" not in best and (report := compress(run)):
        before = metrics
        results = ClassResults(run.kinds) if plots else None
        metrics, _ = _measure(state, list(before), stop, results)
        best["model"] = plain(dict(run.model.state_dict()))
        best["compression"] = {**report, "metrics": {"before": before, "after": metrics}}
        save_checkpoint(folder.best, best)
    elif split in failures and split in state.examples:
        metrics = {split: _best_so_far(state)[split], **metrics}
    folder.write("table.csv", table_csv(metrics, state.examples))
    stopped = None if state.stops is None else state.stops.stopped
    folder.write("table.md", table := table_md(metrics, state.examples, run.positive, stopped))
    if results is not None:
        plot_history(state.history, split, folder.plots)
        if splits[-1] not in failures:
            results.write(folder.plots, splits[-1])
        if split not in failures:
            with torch.inference_mode(), run.autocast():
                plot_figures(run.regularization.draw(_passes(run)), folder.plots)
    error = _unevaluated(folder, failures) if failures else None
    status = "completed" if error is None else "failed"
    summary = summarize(state, folder, status, metrics, error, compression=best.get("compression"))
    tables = any(spec.columns or spec.text for spec in run.specs.values())
    gaps = {name: count_unseen(run, name) if tables else {} for name in metrics if name not in failures}
    summary |= {kind: {name: gap.get(kind, {}) for name, gap in gaps.items()} for kind in ("unknown", "missing")}
    if run.experiment.evaluation.last is not None:
        summary["last"] = average_last_epochs(state, run.experiment.evaluation.last)
        folder.write("table.md", table + last_epochs_md(summary))
    folder.write_json("summary.json", summary)
    return summary


def _measure(
    state: TrainerState, splits: list[str], stop: StopRequest, results: ClassResults | None
) -> tuple[dict[str, TaskMetrics], dict[str, str]]:
    """Return the metrics of each split, and the reason for each that can't be evaluated.

    `results` collects the predicted classes of the last split.
    """
    metrics: dict[str, TaskMetrics] = {}
    failures: dict[str, str] = {}
    for split in splits:
        try:
            receive = results.receive if results is not None and split == splits[-1] else None
            evaluation = measure(state.run, split, poll=stop.poll, receive=receive)
        except InterruptedRunError:
            raise
        except Exception as error:
            LOG.debug("the split %r can't be evaluated: %s", split, error, exc_info=True)
            failures[split] = str(explain_error(error, state.experiment.training.batch_size))
        else:
            metrics[split], state.examples[split] = evaluation.metrics, evaluation.examples
    return metrics, failures


def _unevaluated(folder: RunFolder, failures: dict[str, str]) -> MtlError:
    lines = [f"{split}: {line}" for split, reason in failures.items() for line in reason.splitlines()]
    remedy = (
        f"The model is trained; {folder.path} has it and the tables of what could be evaluated. Once the data "
        f"can be read, the same command with --run-dir {folder.path} --resume must evaluates the rest"
    )
    return MtlError("\n".join(["the run has ended, but not every split can be evaluated:", *lines, remedy]))


def _passes(run: Run) -> list[TrunkPass]:
    """Pass a few evaluated examples of each dataset through the trunk, if a regularizer plots them."""
    passes: list[TrunkPass] = []
    if run.regularization.sees_examples:
        run.model.eval()
        for alias, examples in run.examples(run.experiment.evaluation.split).items():
            batch = next(evaluation_batches({alias: examples}, {}, run.placement, 8))
            with torch.inference_mode(), run.autocast():
                run.model(batch.inputs, None, SharingRecord(passes))
    return passes


def summarize(
    state: TrainerState,
    folder: RunFolder,
    status: str,
    metrics: dict[str, TaskMetrics],
    error: BaseException | None = None,
    compression: dict[str, Any] | None = None,
) -> Summary:
    """Return the content of `summary.json`.

    For a run that ended, `finish` adds `unknown` and `missing`: see `data_report.count_unseen`.

    Args:
        state: the state of the run.
        folder: the run folder.
        status: `completed`, `failed` or `interrupted`.
        metrics: split → task → metric → value; for a run that didn't end, of its best epoch so far.
        error: what ended the run.
        compression: how the model was compressed, with its metrics before and after.

    Returns:
        The document, as plain data.
    """
    run, progress, experiment = state.run, state.progress, state.experiment
    seconds = sum(progress.seconds_per_epoch) + progress.seconds
    monitor = experiment.evaluation.monitor
    best = {
        "epoch": progress.best_epoch,
        "monitor": f"{experiment.evaluation.split}.{monitor.task}.{monitor.metric}",
        "value": progress.best_value,
    }
    return Summary({
        "name": experiment.name,
        "seed": experiment.seed,
        "status": status,
        "error": None if error is None else str(error) or type(error).__name__,
        "run_dir": str(folder.path),
        "checkpoint": str(folder.best) if progress.best_epoch else None,
        "epochs": progress.epoch,
        "ended_by": state.ended_by() if status == "completed" else None,
        "stopped": {} if state.stops is None else state.stops.describe(),
        "steps": progress.steps,
        "metrics": metrics,
        "examples": {split: state.examples[split] for split in metrics if split in state.examples},
        "primary": {task: kind.primary for task, kind in run.kinds.items()},
        "positive": run.positive,
        "data": {alias: record.short() for alias, record in state.data.items()},
        **({} if run.tokenizer is None else {"texts": describe_texts(run)}),
        "best": best if progress.best_epoch else None,
        "examples_per_epoch": epoch_amounts(state.loader.sampler, run.sizes()["train"]),
        "seconds_per_epoch": progress.seconds_per_epoch,
        "samples_per_second": progress.examples / seconds if seconds else None,
        "peak_memory_bytes": peak_memory(run.device),
        "learning_rates": state.learning_rates(),
        "parameters": run.model.count_parameters(),
        "device": str(run.device),
        "threads": torch.get_num_threads(),
        "weighting": {"name": experiment.weighting.name, **state.step.backward.describe()},
        "loading": state.loader.route,
        "regularizers": _regularizers(state),
        "compression": compression,
    })  # fmt: skip


def _regularizers(state: TrainerState) -> dict[str, dict[str, Any]]:
    """Return each regularizer's strength, its number of parameters, and its metrics in the last epoch."""
    described: dict[str, dict[str, Any]] = {}
    for term, regularizer in state.run.regularization.regularizers():
        last = {row[4]: row[5] for row in state.history.rows if row[3] == term.name}
        parameters = sum(p.numel() for p in regularizer.parameters())
        described[term.name.removeprefix(PREFIX)] = {"strength": term.strength, "parameters": parameters, **last}
    return described


def write_unfinished(state: TrainerState, folder: RunFolder, status: str, error: BaseException) -> Summary:
    """Write and return the summary of a run that was interrupted or failed. The traceback goes to the log file.

    Args:
        state: the state of the run.
        folder: the run folder; nothing is written if that isn't possible any more.
        status: `interrupted` or `failed`.
        error: what ended the run.

    Returns:
        The content of summary.json, with the metrics of the best epoch so far.
    """
    LOG.debug("%s: %s", status, error, exc_info=status == "failed")
    summary = summarize(state, folder, status, _best_so_far(state), error)
    with suppress(MtlError):  # a full disk may be what ended the run
        folder.write("metrics.csv", state.history.to_csv())
        folder.write_json("summary.json", summary)
    return summary


def _best_so_far(state: TrainerState) -> dict[str, TaskMetrics]:
    """Return split → task → metric → value of the best epoch, from the history."""
    metrics: dict[str, TaskMetrics] = {}
    for epoch, _, split, task, metric, value in state.history.rows:
        if epoch == state.progress.best_epoch and is_task(task):
            metrics.setdefault(split, {}).setdefault(task, {})[metric] = value
    return metrics


def record_epoch(
    state: TrainerState, split: str, train: TaskMetrics, metrics: TaskMetrics, stats: SharingStats
) -> None:
    """Add an epoch to the history.

    Args:
        state: the state of the run; its counters are those of the end of the epoch.
        split: the split that was evaluated.
        train: column of the run → its mean loss and weight in training.
        metrics: task → metric → value on `split`.
        stats: what the sharing did in the evaluation.
    """
    add = partial(state.history.add, state.progress.epoch, state.progress.steps)
    more = state.run.regularization.metrics()
    add("train", {column: {**values, **more.get(column, {})} for column, values in train.items()})
    if conflict := state.log.mean_conflict():
        add("train", {MEAN: conflict})
    add("train", {OPTIMIZER + group: {"lr": rate} for group, rate in state.learning_rates().items()})
    add(split, metrics)
    add(split, {SHARING + task: values for task, values in stats.means().items()})


def epoch_report(
    state: TrainerState, monitor: Monitor, train: TaskMetrics, metrics: TaskMetrics, value: float, is_best: bool
) -> EpochReport:
    """Return the results of the latest epoch.

    Args:
        state: the state of the run, at the end of the epoch.
        monitor: the monitored metrics.
        train: column of the run → its mean loss and weight in training.
        metrics: task → metric → value on the evaluated split.
        value: the monitored value.
        is_best: whether it is the best so far.

    Returns:
        The results, for the log and the callbacks.
    """
    progress = state.progress
    stopped = {} if state.stops is None else state.stops.stopped_before(progress.epoch)
    speed = progress.examples / max(sum(progress.seconds_per_epoch), 1e-9)
    return EpochReport(
        progress.epoch, state.experiment.training.epochs, {task: train[task]["loss"] for task in state.run.kinds},
        monitor.split, metrics, monitor.name, value, is_best, progress.seconds_per_epoch[-1], speed,
        state.learning_rates(), stopped,
    )  # fmt: skip


def run_end(state: TrainerState, monitor: Monitor) -> RunEnd:
    """Return the message about the end of the training."""
    progress, training = state.progress, state.experiment.training
    return RunEnd(
        progress.epoch, training.epochs, training.early_stopping, progress.best_epoch, monitor.name,
        progress.best_value, state.all_stopped(),
    )  # fmt: skip
