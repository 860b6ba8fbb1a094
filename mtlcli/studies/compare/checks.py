"""Whether all experiments of a study can work, with every problem told once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError, Problem
from mtlcli.studies.with_relation import unmeasured
from mtlcli.training.assemble import Datasets, open_datasets
from mtlcli.training.check import check
from mtlcli.training.device import choose_device
from mtlcli.training.preflight import check_files

Load = Callable[[Sequence[str]], Experiment]
"""Overrides (`KEY=VALUE`) → the experiment with them."""


class Checks:
    """Validates experiments; a problem that several have is told once, with the names of those."""

    def __init__(self) -> None:
        self.found: dict[Problem, list[str]] = {}
        self._opened: dict[str, Datasets] = {}

    def loaded(self, label: str, load: Load, overrides: Sequence[str]) -> Experiment | None:
        """The experiment with these overrides, checked; None where it can't be."""
        try:
            experiment = load(overrides)
        except ConfigError as error:
            self._note(label, error)
            return None
        return experiment if self.check(label, experiment) else None

    def check(self, label: str, experiment: Experiment) -> bool:
        """Whether an experiment can work."""
        try:
            choose_device(experiment)
            check(unmeasured(experiment), self.opened(experiment))
        except ConfigError as error:
            self._note(label, error)
            return False
        return True

    def opened(self, experiment: Experiment) -> Datasets:
        """The experiment's datasets, opened once for all experiments that have the same, and their files checked."""
        plain = json.dumps(experiment.resolved()["datasets"], default=str)
        if plain not in self._opened:
            opened = open_datasets(experiment)
            check_files(experiment, opened)
            self._opened[plain] = opened
        return self._opened[plain]

    def raise_problems(self) -> None:
        if self.found:
            raise ConfigError(
                [
                    replace(problem, message=f"{problem.message} [{'; '.join(labels)}]") if any(labels) else problem
                    for problem, labels in self.found.items()
                ]
            )

    def _note(self, label: str, error: ConfigError) -> None:
        for problem in error.problems:
            labels = self.found.setdefault(problem, [])
            if label not in labels:
                labels.append(label)
