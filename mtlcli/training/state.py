"""Everything a run is at one moment, as a checkpoint holds it, so that a resumed run gives the same bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mtlcli.errors import ConfigError, Problem
from mtlcli.training.checkpoint import plain, rng_state, set_rng_state
from mtlcli.training.history import History
from mtlcli.training.optimization import has_derived_length

if TYPE_CHECKING:
    from mtlcli.training.trainer import Trainer

# what may change when a run goes on: how long (unless its schedule is made for its length) and where it trains
FREE = ("training.epochs", "training.device", "training.threads", "training.loading", "training.workers",
        "training.checkpoint_every", "training.early_stopping")  # fmt: skip


@dataclass
class Progress:
    """How far a run is.

    epoch: epochs done. step: optimizer steps made in the epoch in hand; steps: in all; examples: in all.
    best_epoch: 0 before there is one. seconds: trained in the epoch in hand.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    examples: int = 0
    best_epoch: int = 0
    best_value: float = math.nan
    seconds: float = 0.0
    seconds_per_epoch: list[float] = field(default_factory=list)


def capture(trainer: Trainer) -> dict[str, Any]:
    """The payload of a checkpoint: plain tensors, numbers, strings, lists and dicts."""
    run = trainer.run
    return {
        "config": run.experiment.resolved(),
        "specs": {alias: spec.to_dict() for alias, spec in run.specs.items()},
        "model": plain(dict(run.model.state_dict())),
        "weighting": plain(dict(run.weighting.state_dict())),
        "regularizers": plain(dict(run.regularization.state_dict())),
        "step": plain(trainer.step.state_dict()),
        "schedule": plain(trainer.schedule.state_dict()),
        "progress": asdict(trainer.progress),
        "log": trainer.log.state_dict(),
        "history": [list(row) for row in trainer.history.rows],
        "rng": rng_state(),
    }


def restore(trainer: Trainer, payload: Mapping[str, Any]) -> None:
    """Put a trainer where the checkpoint was taken. ConfigError where it is of another experiment."""
    of_its_length = has_derived_length(trainer.experiment) or trainer.run.regularization.follows_progress
    free = [key for key in FREE if key != "training.epochs" or not of_its_length]
    check_same(payload["config"], trainer.experiment.resolved(), free, str(trainer.folder.last))
    trainer.run.model.load_state_dict(payload["model"])
    trainer.run.weighting.load_state_dict(payload["weighting"])
    trainer.run.regularization.load_state_dict(payload.get("regularizers", {}))
    trainer.step.load_state_dict(payload["step"])
    trainer.schedule.load_state_dict(payload["schedule"])
    trainer.progress = Progress(**payload["progress"])
    trainer.log.load_state_dict(payload["log"])
    trainer.history = History([tuple(row) for row in payload["history"]])
    set_rng_state(payload["rng"])


def check_same(saved: Mapping[str, Any], asked: Mapping[str, Any], free: Sequence[str], source: str) -> None:
    """ConfigError, naming every key that differs and is not free to, where two resolved experiments aren't the same."""
    before, now = _flat(saved), _flat(asked)
    missing = "(none)"
    problems = [
        Problem(f"is {now.get(key, missing)!r}, and the run in hand was started with {before.get(key, missing)!r}", key)
        for key in dict.fromkeys([*before, *now])
        if before.get(key, missing) != now.get(key, missing) and key not in free
    ]
    if problems:
        raise ConfigError([Problem(f"{source} is of another experiment; use another --run-dir, or undo:"), *problems])


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted key path → scalar."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {path: value}
    found: dict[str, Any] = {} if value else {path: value}
    for key, item in items:
        found |= _flat(item, f"{path}.{key}" if path else str(key))
    return found
