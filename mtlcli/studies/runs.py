"""The runs of a study: trained once, and used again ever after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtlcli.config import Experiment, load_experiment
from mtlcli.errors import ConfigError, InterruptedRunError, Problem
from mtlcli.studies.current_data import CurrentData
from mtlcli.training.state import check_same

# what may differ between the run that is there and the one asked for: where and how fast it trains
FREE = ("training.device", "training.threads", "training.loading", "training.workers",
        "checkpoint.every", "checkpoint.keep")  # fmt: skip


def finished(folder: Path, experiment: Experiment, data: CurrentData) -> dict[str, Any] | None:
    """The summary of the run in a folder, if it is there and completed.

    ConfigError where the folder holds a run, done or not, of another experiment or one whose `config.yaml` can't be
    loaded, or a completed one of other data.
    """
    config, summary = folder / "config.yaml", folder / "summary.json"
    if not config.is_file():
        return None
    saved = load_experiment(config).resolved()
    try:
        check_same(saved, experiment.resolved(), FREE, str(folder))
    except ConfigError as error:
        message = f"{folder} is of another experiment or budget; use another --out, or undo:"
        raise ConfigError([Problem(message), *error.problems[1:]]) from error
    if not summary.is_file():
        return None
    found = summary_of(folder)
    if found["status"] != "completed":
        return None
    if changes := data.changes(experiment, found.get("data", {})):
        message = f"{folder} was trained on data that has changed since; use another --out, or restore the data:"
        raise ConfigError(map(Problem, [message, *changes]))
    return found


def summary_of(folder: Path) -> dict[str, Any]:
    """The `summary.json` of a run folder. ConfigError where it is damaged."""
    return read_json(folder / "summary.json")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON document of a run folder. ConfigError where it is damaged."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: damaged; remove {path.parent}, and it is trained anew") from error
    return found


def interrupted(exit_code: int) -> InterruptedRunError:
    """The error of a study that a signal has stopped."""
    name = "interrupted (Ctrl-C)" if exit_code == 130 else "terminated (SIGTERM)"
    return InterruptedRunError(f"{name}; what is done is kept: the same command goes on from there", exit_code)
