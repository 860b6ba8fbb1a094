"""Everything a run is at one moment, as a checkpoint holds it, so that a resumed run gives the same bits."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch

from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.errors import ConfigError, Problem
from mtlcli.specs import DatasetSpec
from mtlcli.text import listed
from mtlcli.training.assembly.optimizers import learning_rates, scale_rates
from mtlcli.training.checkpoint.experiment import plugins_of
from mtlcli.training.checkpoint.file import plain, rng_state, set_rng_state
from mtlcli.training.data_changes import check_unchanged
from mtlcli.training.environment import device_name
from mtlcli.training.history import History
from mtlcli.training.run import Run

if TYPE_CHECKING:
    from mtlcli.training.trainer import Trainer


LOG = logging.getLogger("mtl")

# what may change when a run goes on (patterns of key paths): how long and how fast it learns, where and how it trains,
# where its data is
FREE = ("training.epochs", "optimizer.lr", "optimizer.groups.*.lr", "scheduler.T_max",
        "scheduler.total_iters", "scheduler.total_steps", "datasets.*.root", "datasets.*.path",
        "datasets.*.test_path", "datasets.*.val_path",
        "training.device", "training.threads", "training.loading", "training.workers", "training.early_stopping",
        "checkpoint.every", "checkpoint.keep")  # fmt: skip


@dataclass
class Progress:
    """How far a run is.

    epoch: epochs done. step: steps made in the current epoch; steps: in all; examples: in all.
    updates: steps in all in which the optimizer changed the parameters, neither without labels nor skipped by fp16's
    loss scaling; epoch_updates: those in the current epoch. rates: learning rate of each of the optimizer's groups in
    the latest step. best_epoch: 0 before there is one. seconds: trained in the current epoch.
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


def capture(trainer: Trainer) -> dict[str, Any]:
    """The payload of a checkpoint: plain tensors, numbers, strings, lists and dicts."""
    run = trainer.run
    return {
        "config": run.experiment.resolved(),
        "specs": {alias: spec.to_dict() for alias, spec in run.specs.items()},
        "data": {alias: record.to_dict() for alias, record in trainer.data.items()},
        "plugins": plugins_of(run.experiment),
        "made_with": _made_with(run),
        "model": plain(dict(run.model.state_dict())),
        "weighting": plain(dict(run.weighting.state_dict())),
        "regularizers": plain(dict(run.regularization.state_dict())),
        "step": plain(trainer.step.state_dict()),
        "schedule": plain(trainer.schedule.state_dict()),
        "rates": trainer.rates,
        "progress": asdict(trainer.progress),
        "log": trainer.log.state_dict(),
        "history": json.dumps(trainer.history.rows),  # a hundred times as quick to read as so many rows of a pickle
        "examples": trainer.examples,
        "rng": rng_state(),
    }


def _difference(stored: dict[str, Any] | None, spec: DatasetSpec) -> str:
    """Say how a dataset whose content hasn't changed differs from that of the checkpoint, with the remedy."""
    before = [column["name"] for column in (stored or {}).get("columns", [])]
    here = [column.name for column in spec.columns]
    if before != here and sorted(before) == sorted(here):
        return f"the feature columns stand in another order. Restore the order in the file: {listed(before)}"
    return "the run was started with other data than this, or the data is read in another way now; start a new run"


def restore(trainer: Trainer, payload: Mapping[str, Any]) -> None:
    """Put a trainer where the checkpoint was taken, and log what has changed since and may.

    ConfigError where it is of another experiment or other data, or holds no such state.
    """
    source = str(trainer.folder.last)
    for changed in check_same(_resolved(payload["config"], source), trainer.experiment.resolved(), FREE, source):
        LOG.warning("changed since the checkpoint: %s", changed)
    check_unchanged(trainer.run, trainer.data, payload, source)
    # parsed first, since an older checkpoint lacks the fields that have been added since
    stored = {a: DatasetSpec.from_dict(s, f"{source}: specs.{a}").to_dict() for a, s in payload["specs"].items()}
    if differing := [alias for alias, spec in trainer.run.specs.items() if stored.get(alias) != spec.to_dict()]:
        raise ConfigError(
            Problem(f"{source}: {_difference(stored.get(alias), trainer.run.specs[alias])}", f"datasets.{alias}")
            for alias in differing
        )
    trainer.threads.keep(payload.get("made_with", {}).get("threads"))
    for name, value in _made_with(trainer.run).items():
        if (before := payload.get("made_with", {}).get(name)) != value:
            LOG.warning(
                "saved with %s %s, and this is %s: the last bits of the numbers may differ", name, before, value
            )
    try:
        trainer.run.model.load_state_dict(payload["model"])
        trainer.run.weighting.load_state_dict(payload["weighting"])
        trainer.run.regularization.load_state_dict(payload["regularizers"])
        trainer.step.load_state_dict(payload["step"])
        scale_rates(trainer.step.optimizer, payload["rates"], trainer.rates)
        trainer.schedule.load_state_dict(payload["schedule"])
        trainer.progress = _progress(payload["progress"])
        trainer.progress.rates = trainer.progress.rates or learning_rates(trainer.step.optimizer)
        trainer.log.load_state_dict(payload["log"])
        trainer.history = History([tuple(row) for row in json.loads(payload["history"])])
        trainer.examples = {split: dict(amounts) for split, amounts in payload.get("examples", {}).items()}
        set_rng_state(payload["rng"])
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{source} holds no state that this run can go on from: {reason}") from error


def _progress(saved: Mapping[str, Any]) -> Progress:
    """The progress in a checkpoint; in one from before updates were counted, every step was one."""
    return Progress(**{"updates": saved["steps"], "epoch_updates": saved["step"], **saved})


def _resolved(config: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """The experiment of a checkpoint with the defaults of options that its version did not have."""
    try:
        return experiment_from_dict(dict(config), source=source).resolved()
    except ConfigError:  # of a version with options that no longer exist: the differences are named as they are
        return config


def _made_with(run: Run) -> dict[str, Any]:
    """What the bits of a run depend on beside its experiment."""
    return {"torch": str(torch.__version__), "device": device_name(run.device), "threads": torch.get_num_threads()}


def check_same(saved: Mapping[str, Any], asked: Mapping[str, Any], free: Sequence[str], source: str) -> list[Problem]:
    """What differs between two resolved experiments, of the keys that are free to.

    free: patterns of key paths. ConfigError, naming every other key that differs, where there is one.
    """
    before, now = _flat(saved), _flat(asked)
    missing = "(none)"
    changed = [
        Problem(f"is {_yaml(now.get(key, missing))}, and the saved run has {_yaml(before.get(key, missing))}", key)
        for key in dict.fromkeys([*before, *now])
        if before.get(key, missing) != now.get(key, missing)
    ]
    both = before.keys() & now.keys()
    allowed = [one for one in changed if one.path in both and any(fnmatchcase(one.path, key) for key in free)]
    if problems := [one for one in changed if one not in allowed]:
        raise ConfigError([Problem(f"{source} is of another experiment; use another --run-dir, or undo:"), *problems])
    return allowed


def _yaml(value: Any) -> str:
    """Format a scalar as YAML writes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted key path → scalar."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {path: value}
    found: dict[str, Any] = {} if value else {path: value}
    for key, item in items:
        found |= _flat(item, f"{path}.{key}" if path else str(key))
    return found


def stopped_early(experiment: Experiment, progress: Progress) -> bool:
    """Return whether there has been no improvement for as many epochs as `training.early_stopping` says."""
    patience = experiment.training.early_stopping
    return patience is not None and progress.epoch - progress.best_epoch >= patience


def stopped_note(experiment: Experiment, progress: Progress) -> str | None:
    """A warning that a resumed run stays ended although its epochs aren't done; None where it does not."""
    training = experiment.training
    if progress.epoch >= training.epochs or not stopped_early(experiment, progress):
        return None
    return (
        f"the run stopped early after epoch {progress.epoch}, since epoch {progress.best_epoch} was the best and "
        f"training.early_stopping is {training.early_stopping}; training.epochs: {training.epochs} doesn't change "
        f"that. To continue, raise training.early_stopping above {progress.epoch - progress.best_epoch} or set it to "
        f"null"
    )
