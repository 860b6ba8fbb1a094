"""What a run is known by: its resolved experiment, but for what makes no difference to its figures."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from mtlcli.config import Experiment, load_experiment
from mtlcli.errors import ConfigError
from mtlcli.studies.runs import FREE

DIGITS = 12  # of the hash, in a folder's name


def identity(experiment: Experiment) -> str:
    """The hash of an experiment: the same for two that give the same run, wherever and however fast they train."""
    return _hash(_relevant(experiment))


def _relevant(experiment: Experiment) -> dict[str, Any]:
    plain = experiment.resolved()
    for path in FREE:
        *parents, last = path.split(".")
        section: dict[str, Any] = plain
        for parent in parents:
            section = section[parent]
        section.pop(last)
    return plain


def _hash(plain: Any) -> str:
    text = json.dumps(plain, ensure_ascii=False, default=str)  # in the order of the keys: that of the tasks counts
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


class RunFolders:
    """The run folders under `root`, found by the identity of the experiment they hold."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def of(self, label: str, experiment: Experiment) -> Path:
        """The folder that holds this experiment's run, else the one to be made for it.

        A folder's name tells people what it is, and ends with its identity when it was made. An update of `mtl` that
        adds options changes that identity: then the folder is found by its `config.yaml`, in which the options that it
        lacks have their defaults.
        """
        known = identity(experiment)
        if there := sorted(self.root.glob(f"*-{known}")):
            return there[0]
        if (earlier := self._by_content.get(_content(experiment))) is not None:
            return earlier
        slug = re.sub(r"[^A-Za-z0-9_.=-]+", "_", label).strip("_.") or "run"
        return self.root / f"{slug[:80]}-{experiment.seed}-{known}"

    @cached_property
    def _by_content(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for config in sorted(self.root.glob("*/config.yaml")):
            with suppress(ConfigError):  # of a version that knew other options
                found.setdefault(_content(load_experiment(config)), config.parent)
        return found


def _content(experiment: Experiment) -> str:
    """The hash of an experiment in which 1 and 1.0 are the same: a default may be one, and YAML's number the other."""
    return _hash(_numbers(_relevant(experiment)))


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
