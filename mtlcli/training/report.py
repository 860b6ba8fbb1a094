"""What a run leaves when it ends: the final table, the run in one document, plots."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import torch

from mtlcli.data.loader import evaluation_batches
from mtlcli.errors import InterruptedRunError, MtlError
from mtlcli.specs import TrunkPass
from mtlcli.training.assembly.regularization import PREFIX, compress, fit_ranks
from mtlcli.training.checkpoint.file import load_checkpoint, plain, save_checkpoint
from mtlcli.training.data_report import unseen
from mtlcli.training.device import peak_memory
from mtlcli.training.evaluate import TaskMetrics, measure
from mtlcli.training.failures import explained
from mtlcli.training.history import is_task, table_csv, table_md
from mtlcli.training.plots import plot_figures, plot_history
from mtlcli.training.run import Run
from mtlcli.training.run_folder import RunFolder
from mtlcli.training.signals import StopRequest

if TYPE_CHECKING:
    from mtlcli.training.trainer import Trainer

Summary = dict[str, Any]
LOG = logging.getLogger("mtl")


def finish(trainer: Trainer, stop: StopRequest) -> Summary:
    """Take the best epoch's model, evaluate it on the evaluated split and on `test`, write everything.

    A split that can't be evaluated is left out of the tables (the evaluated one has the best epoch's figures then); the
    summary has the status `failed` and says why. InterruptedRunError after a signal: the run's last checkpoint, from
    which this is done anew, stays as it is.
    """
    run, folder = trainer.run, trainer.folder
    best = load_checkpoint(folder.best)
    fit_ranks(run.model, best["model"])
    run.model.load_state_dict(best["model"])
    run.regularization.load_state_dict(best.get("regularizers", {}))
    split = run.experiment.evaluation.split
    splits = list(dict.fromkeys([split, *(["test"] if "test" in run.splits() else [])]))
    metrics, failures = _measure(trainer, splits, stop)
    if "compression" not in best and (report := compress(run.model, run.regularization, run.specs, run.size)):
        before = metrics
        metrics, _ = _measure(trainer, list(before), stop)
        best["model"] = plain(dict(run.model.state_dict()))
        best["compression"] = {**report, "metrics": {"before": before, "after": metrics}}
        save_checkpoint(folder.best, best)
    elif split in failures and split in trainer.examples:
        metrics = {split: _best_so_far(trainer)[split], **metrics}
    folder.write("table.csv", table_csv(metrics, trainer.examples))
    folder.write("table.md", table_md(metrics, trainer.examples, run.positive))
    if trainer.plots:
        plot_history(trainer.history, split, folder.plots)
        if split not in failures:
            with torch.inference_mode(), run.autocast():
                plot_figures(run.regularization.draw(_passes(run)), folder.plots)
    error = _unevaluated(trainer, failures) if failures else None
    status = "completed" if error is None else "failed"
    summary = summarize(trainer, status, metrics, error, compression=best.get("compression"))
    gaps = {one: unseen(run, one) for one in metrics if one not in failures}
    summary |= {kind: {one: found[kind] for one, found in gaps.items()} for kind in ("unknown", "missing")}
    folder.write_json("summary.json", summary)
    return summary


def _measure(trainer: Trainer, splits: list[str], stop: StopRequest) -> tuple[dict[str, TaskMetrics], dict[str, str]]:
    """The metrics of each split, and the reason of each that can't be evaluated."""
    metrics: dict[str, TaskMetrics] = {}
    failures: dict[str, str] = {}
    for split in splits:
        try:
            evaluation = measure(trainer.run, split, poll=stop.poll)
        except InterruptedRunError:
            raise
        except Exception as error:
            LOG.debug("the split %r can't be evaluated: %s", split, error, exc_info=True)
            failures[split] = str(explained(error, trainer.experiment.training.batch_size))
        else:
            metrics[split], trainer.examples[split] = evaluation.metrics, evaluation.examples
    return metrics, failures


def _unevaluated(trainer: Trainer, failures: dict[str, str]) -> MtlError:
    lines = [f"{split}: {line}" for split, reason in failures.items() for line in reason.splitlines()]
    remedy = (
        f"The model is trained; {trainer.folder.path} has it and the tables of what could be evaluated. Once the data "
        f"can be read, the same command with --run-dir {trainer.folder.path} --resume must does the rest"
    )
    return MtlError("\n".join(["the run ended, but not every split can be evaluated:", *lines, remedy]))


def _passes(run: Run) -> list[TrunkPass]:
    """What the trunk makes of a few evaluated examples of each dataset, where a regularizer wants to see that."""
    passes: list[TrunkPass] = []
    if run.regularization.sees_examples:
        run.model.eval()
        for alias, examples in run.examples(run.experiment.evaluation.split).items():
            batch = next(evaluation_batches({alias: examples}, run.sources, run.placement, 8))
            with torch.inference_mode(), run.autocast():
                run.model(batch.inputs, None, passes)
    return passes


def summarize(
    trainer: Trainer,
    status: str,
    metrics: dict[str, TaskMetrics],
    error: BaseException | None = None,
    compression: dict[str, Any] | None = None,
) -> Summary:
    """The document of `summary.json`; of a run that ended, `unknown` and `missing` follow, see `data_report.unseen`.

    metrics: split → task → metric → value; where the run didn't end, of its best epoch so far.
    compression: what was taken out of the model, with its metrics before and after.
    """
    run, progress, experiment = trainer.run, trainer.progress, trainer.run.experiment
    seconds = sum(progress.seconds_per_epoch) + progress.seconds
    monitor = experiment.evaluation.monitor
    best = {
        "epoch": progress.best_epoch,
        "monitor": f"{experiment.evaluation.split}.{monitor.task}.{monitor.metric}",
        "value": progress.best_value,
    }
    summary: Summary = {
        "name": experiment.name,
        "seed": experiment.seed,
        "status": status,
        "error": None if error is None else str(error) or type(error).__name__,
        "run_dir": str(trainer.folder.path),
        "checkpoint": str(trainer.folder.best) if progress.best_epoch else None,
        "epochs": progress.epoch,
        "steps": progress.steps,
        "metrics": metrics,
        "examples": {split: trainer.examples[split] for split in metrics if split in trainer.examples},
        "primary": {task: kind.primary for task, kind in run.kinds.items()},
        "positive": run.positive,
        "data": {alias: record.short() for alias, record in trainer.data.items()},
        "best": best if progress.best_epoch else None,
        "seconds_per_epoch": progress.seconds_per_epoch,
        "samples_per_second": progress.examples / seconds if seconds else None,
        "peak_memory_bytes": peak_memory(run.device),
        "learning_rates": dict(zip(trainer.groups, progress.rates, strict=False)),
        "parameters": run.model.count_parameters(),
        "device": str(run.device),
        "threads": torch.get_num_threads(),
        "weighting": {"name": experiment.weighting.name, "route": trainer.step.backward.route},
        "loading": trainer.loader.route,
        "regularizers": _regularizers(trainer),
        "compression": compression,
    }
    return summary


def _regularizers(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """Each term's strength, the numbers it learns itself, and its figures in the last epoch."""
    found: dict[str, dict[str, Any]] = {}
    for term, part in trainer.run.regularization.regularizers():
        last = {row[4]: row[5] for row in trainer.history.rows if row[3] == term.name}
        parameters = sum(p.numel() for p in part.parameters())
        found[term.name.removeprefix(PREFIX)] = {"strength": term.strength, "parameters": parameters, **last}
    return found


def write_unfinished(trainer: Trainer, status: str, error: BaseException) -> Summary:
    """What there is of a run that was interrupted or failed, in its folder too, if that can still be written to.

    The traceback goes to the folder's log only.
    """
    LOG.debug("%s: %s", status, error, exc_info=status == "failed")
    summary = summarize(trainer, status, _best_so_far(trainer), error)
    with suppress(MtlError):  # a full disk is likely to be what ended the run
        trainer.folder.write("metrics.csv", trainer.history.to_csv())
        trainer.folder.write_json("summary.json", summary)
    return summary


def _best_so_far(trainer: Trainer) -> dict[str, TaskMetrics]:
    """split → task → metric → value of the best epoch, by the history."""
    metrics: dict[str, TaskMetrics] = {}
    for epoch, _, split, task, metric, value in trainer.history.rows:
        if epoch == trainer.progress.best_epoch and is_task(task):
            metrics.setdefault(split, {}).setdefault(task, {})[metric] = value
    return metrics


class _LogFile(logging.FileHandler):
    """A log that can't be written to, on a full disk, is no reason to end the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        return


class _ZonedFormatter(logging.Formatter):
    """Times as ISO 8601 with the offset from UTC (2026-11-30T17:41:05.123+05:45): the run folder is named in UTC."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 (logging's name)
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


@contextmanager
def logged(folder: RunFolder) -> Iterator[None]:
    """Write what is logged meanwhile to the folder's `log.txt` too."""
    handler = _LogFile(folder.log, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_ZonedFormatter("%(asctime)s %(levelname)s %(message)s"))
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
        handler.close()
