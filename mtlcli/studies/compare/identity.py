"""Identity of runs: a hash of the resolved experiment, without the keys that do not affect its metrics."""

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
from mtlcli.studies.runs import IGNORED_KEYS

HASH_DIGITS = 12  # in the name of a folder


def experiment_hash(experiment: Experiment) -> str:
    """Hash an experiment; the hash is equal for experiments with the same metrics, on whatever device they are trained.

    Args:
        experiment: the experiment.

    Returns:
        Hexadecimal digits.
    """
    return _hash(_relevant_content(experiment))


class RunFolders:
    """Run folders, found by the experiment that they hold.

    Args:
        root: the folder of the run folders.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, label: str, experiment: Experiment) -> Path:
        """Find the folder of an experiment's run, or name a new one.

        The name of a folder ends with the hash of its experiment when it was created. An update of `mtl` that adds
        options changes that hash. The folder is then found by its `config.yaml`, in which missing options have their
        defaults.

        Args:
            label: start of the name of a new folder.
            experiment: the experiment of the run.

        Returns:
            The folder, which may not exist yet.
        """
        digits = experiment_hash(experiment)
        if folders := sorted(self.root.glob(f"*-{digits}")):
            return folders[0]
        if (earlier := self._by_content.get(_content_hash(experiment))) is not None:
            return earlier
        slug = re.sub(r"[^A-Za-z0-9_.=-]+", "_", label).strip("_.") or "run"
        return self.root / f"{slug[:80]}-{experiment.seed}-{digits}"

    @cached_property
    def _by_content(self) -> dict[str, Path]:
        folders: dict[str, Path] = {}
        for config in sorted(self.root.glob("*/config.yaml")):
            with suppress(ConfigError):  # written by a version with other options
                folders.setdefault(_content_hash(load_experiment(config)), config.parent)
        return folders


def _relevant_content(experiment: Experiment) -> dict[str, Any]:
    content = experiment.resolved()
    for key in IGNORED_KEYS:
        *parents, last = key.split(".")
        section: dict[str, Any] = content
        for parent in parents:
            section = section[parent]
        section.pop(last)
    return content


def _content_hash(experiment: Experiment) -> str:
    """Hash an experiment such that 1 and 1.0 are equal, since a default and a number in YAML may differ in type."""
    return _hash(_integers(_relevant_content(experiment)))


def _hash(content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False, default=str)  # keys in their order: the order of the tasks matters
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def _integers(value: Any) -> Any:
    """Replace floats without a fraction by integers, in nested dicts and lists."""
    if isinstance(value, dict):
        return {key: _integers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_integers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
