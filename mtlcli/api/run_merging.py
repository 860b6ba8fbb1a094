"""Merging of trained models: the code of `mtlcli.merge` and of `mtl merge`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from mtlcli.api.checkpoint_evaluation import checkpoint_path
from mtlcli.config import Experiment
from mtlcli.errors import ConfigError
from mtlcli.files import given_path, quote_path
from mtlcli.models.merging import MergeMethod, MergeRule
from mtlcli.plugins import load_plugin
from mtlcli.studies.merge.merge_runs import BatchNorm, Merged, MergeOptions, check_options, merge_sources
from mtlcli.studies.merge.source_runs import read_sources
from mtlcli.training.checkpoint.experiment import experiment_from_checkpoint
from mtlcli.training.checkpoint.file import rng_state, save_checkpoint, set_rng_state


class MergedModel(dict[str, Any]):
    """The result of `merge`: a dict, of which the most used entries are attributes too.

    Its keys are `checkpoint`, `method`, its options (`density`, `drop`, `seed`), `coefficients`, `runs`, `batch_norm`,
    and after a search `split`, `own` (task → metric → value of the model of its own run), `metrics` (the same of the
    merged model), `delta_m` and `trials` (those of every coefficient that was tried).
    """

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of the merged model."""
        return Path(self["checkpoint"])

    @property
    def coefficients(self) -> dict[str, float]:
        """Names of the tasks of each run, separated by commas → its coefficient; empty for `mean`."""
        return dict(self["coefficients"])

    @property
    def trials(self) -> list[dict[str, Any]]:
        """The coefficients that were tried, each with `coefficients`, `metrics` and `delta_m`."""
        return list(self.get("trials", []))


def merge(
    runs: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str],
    method: MergeMethod = "task_arithmetic",
    coefficient: float | Mapping[str, float] | None = None,
    grid: Sequence[float] = (),
    by_task: bool = False,
    density: float = 0.2,
    drop: float = 0.5,
    seed: int = 0,
    batch_norm: BatchNorm = "average",
    base: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> MergedModel:
    """Merge trained models into one multi-task model, as `mtl merge` does.

    The trunks are merged, and each task keeps its head. The models must have `hard` sharing and trunks of the same
    architecture; except for `mean`, they must have been trained from the same weights. The result is a checkpoint for
    `evaluate`, `load` and `trunk.init_from`.

    Args:
        runs: Run folders or checkpoints, two or more.
        out: The checkpoint to write.
        method: `mean`, `task_arithmetic`, `ties`, `dare` or `dare_ties`; `docs/merging.md` defines them.
        coefficient: The coefficient λ of all task vectors, or task → that of its run. By default it is chosen on the
            evaluated split (`evaluation.split`, `val`).
        grid: The coefficients to try. By default 0.1, 0.2, …, 1 for `task_arithmetic` and `dare`, and 0.25, 0.5, …, 2.5
            for the forms of TIES.
        by_task: Whether to choose a coefficient for each run, one after the other, instead of a common one.
        density: Share of the entries of each task vector that TIES keeps.
        drop: Probability with which DARE drops an entry.
        seed: Seed of the entries that DARE drops.
        batch_norm: `average` the running statistics of batch norm, or `recompute` them on training examples.
        base: The checkpoint (`trunk.init_from`) or folder of a pretrained model (`trunk.model`) that the runs started
            from, in place of the path in their experiments.
        overrides: `KEY=VALUE` strings for the merged experiment, such as `datasets.t.path=new.csv`.
        plugins: Modules, or files ending in `.py`, with components that the models need; imported first.

    Returns:
        The result; the checkpoint is written.

    Raises:
        ConfigError: The runs or the options don't fit together; the message lists all problems.
        MtlError: The data can't be read, or no coefficient gives finite metrics.
    """
    for plugin in [plugins] if isinstance(plugins, str) else plugins:
        load_plugin(plugin, "plugin")
    overrides = [overrides] if isinstance(overrides, str) else list(overrides)
    target = _target(out)
    rule = MergeRule(method, density, drop, seed)
    fixed = {} if coefficient is None else coefficient if isinstance(coefficient, Mapping) else {"": coefficient}
    source_base = None if base is None else given_path(os.fspath(base), "--base")
    options = MergeOptions(dict(fixed), tuple(grid), by_task, batch_norm, source_base)
    check_options(rule, options)
    paths = [checkpoint_path(run) for run in ([runs] if isinstance(runs, str | os.PathLike) else runs)]
    command = " ".join(["mtl merge", *(quote(str(path)) for path in paths), f"--out {quote(str(target))}"])

    def locate(payload: Mapping[str, Any], data: bool) -> Experiment:
        return experiment_from_checkpoint(payload, overrides, target, data=data, command=command)

    random_state, threads = rng_state(), torch.get_num_threads()
    try:
        merged = merge_sources(read_sources(paths, source_base), rule, options, locate)
    finally:
        set_rng_state(random_state)
        torch.set_num_threads(threads)
    save_checkpoint(target, merged.payload)
    return MergedModel(_document(merged, target))


def _target(out: str | os.PathLike[str]) -> Path:
    """Return the file to write; ConfigError if it can't be one."""
    target = given_path(os.fspath(out), "--out")
    if target.is_dir():
        raise ConfigError(f"--out {quote_path(target)}: is a folder; give the file to write, such as merged.pt")
    if not target.parent.is_dir():
        raise ConfigError(f"--out {quote_path(target)}: the folder {quote_path(target.parent)} does not exist")
    return target


def _document(merged: Merged, target: Path) -> dict[str, Any]:
    document = {"checkpoint": str(target), **merged.payload["merged"]}
    if merged.best is None:
        return document
    return {
        **document,
        "split": merged.split,
        "own": merged.own,
        "metrics": merged.best.metrics,
        "delta_m": merged.best.delta_m,
        "trials": [
            {"coefficients": trial.coefficients, "metrics": trial.metrics, "delta_m": trial.delta_m}
            for trial in merged.trials
        ],
    }
