"""What a run leaves when it ends: the final table, the run in one document, plots."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from mtlcli.training.checkpoint import load_checkpoint
from mtlcli.training.device import peak_memory
from mtlcli.training.evaluate import TaskMetrics, evaluate
from mtlcli.training.history import table_csv, table_md
from mtlcli.training.plots import plot_history
from mtlcli.training.run_folder import RunFolder

if TYPE_CHECKING:
    from mtlcli.training.trainer import Trainer

Summary = dict[str, Any]
LOG = logging.getLogger("mtl")


def finish(trainer: Trainer) -> Summary:
    """Take the best epoch's model, evaluate it on the evaluated split and on `test`, write everything."""
    run = trainer.run
    run.model.load_state_dict(load_checkpoint(trainer.folder.best)["model"])
    splits = dict.fromkeys([run.experiment.evaluation.split, *(["test"] if "test" in run.splits() else [])])
    metrics = {split: evaluate(run, split) for split in splits}
    trainer.folder.write("table.csv", table_csv(metrics))
    trainer.folder.write("table.md", table_md(metrics))
    plot_history(trainer.history, run.experiment.evaluation.split, trainer.folder.plots)
    return write_summary(trainer, "completed", metrics)


def write_summary(
    trainer: Trainer, status: str, metrics: dict[str, TaskMetrics], error: BaseException | None = None
) -> Summary:
    """`summary.json`. metrics: split → task → metric → value; where the run didn't end, of its best epoch so far."""
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
        "best": best if progress.best_epoch else None,
        "seconds_per_epoch": progress.seconds_per_epoch,
        "samples_per_second": progress.examples / seconds if seconds else None,
        "peak_memory_bytes": peak_memory(run.device),
        "parameters": run.model.count_parameters(),
        "device": str(run.device),
        "threads": torch.get_num_threads(),
        "weighting": {"name": experiment.weighting.name, "route": trainer.step.backward.route},
        "loading": trainer.loader.route,
    }
    trainer.folder.write_json("summary.json", summary)
    return summary


def write_unfinished(trainer: Trainer, status: str, error: BaseException) -> Summary:
    """What there is of a run that was interrupted or failed. The traceback goes to the folder's log only."""
    LOG.debug("%s: %s", status, error, exc_info=status == "failed")
    trainer.folder.write("metrics.csv", trainer.history.to_csv())
    metrics: dict[str, TaskMetrics] = {}
    for epoch, _, split, task, metric, value in trainer.history.rows:
        if epoch == trainer.progress.best_epoch:
            metrics.setdefault(split, {}).setdefault(task, {})[metric] = value
    return write_summary(trainer, status, metrics, error)


@contextmanager
def logged(folder: RunFolder) -> Iterator[None]:
    """Write what is logged meanwhile to the folder's `log.txt` too."""
    handler = logging.FileHandler(folder.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)
        handler.close()
