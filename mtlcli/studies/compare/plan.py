"""What is to be compared: the methods, the baselines, and the experiment of each, all validated."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.errors import ConfigError, Problem, nearest
from mtlcli.registry import KindClass
from mtlcli.studies.compare.axes import Point, parse_axes, points
from mtlcli.studies.compare.identity import identity
from mtlcli.studies.compare.single_task import relevant, single_task
from mtlcli.studies.relate.for_weighting import unmeasured
from mtlcli.tasks.base import Direction
from mtlcli.training.assembly.check import check
from mtlcli.training.assembly.data_checks import Datasets, check_files, open_datasets
from mtlcli.training.device import choose_device
from mtlcli.training.evaluate import primary_metric

BASELINE = "single-task"


@dataclass(frozen=True)
class Candidate:
    """A point of the `--tune` grid, and the experiment there."""

    point: Point
    experiment: Experiment


@dataclass(frozen=True, eq=False)
class Method:
    """What is compared, or the baseline of a task. candidates: one for each point that is tuned over.

    task: of a baseline. settings: key → value, of a method.
    """

    label: str
    candidates: tuple[Candidate, ...]
    settings: dict[str, str]
    task: str | None = None

    def __str__(self) -> str:
        return self.label if self.task is None else f"{BASELINE} {self.task}"


@dataclass(frozen=True)
class Plan:
    """experiment: as it is, without what differs. seeds: all of them. tune_seeds: how many are tuned with.

    reference: the method that the others are compared with, in addition to the single-task baselines.
    """

    experiment: Experiment
    methods: list[Method]
    baselines: list[Method]
    tuned: list[str]
    seeds: list[int]
    tune_seeds: int
    reference: Method

    @property
    def tasks(self) -> list[str]:
        return list(self.experiment.tasks)

    def kind(self, task: str) -> KindClass:
        """Class of a task's kind, which declares its metrics."""
        return registry.kinds[self.experiment.tasks[task].kind.name].target

    @property
    def directions(self) -> dict[str, dict[str, Direction]]:
        """task → metric → whether more or less of it is better; without `loss`, and the primary one first."""
        found: dict[str, dict[str, Direction]] = {}
        for task in self.tasks:
            primary = primary_metric(self.experiment, task)
            directions = self.kind(task).directions
            rest = {metric: way for metric, way in directions.items() if metric not in ("loss", primary)}
            found[task] = {primary: directions[primary], **rest}
        return found


def make_plan(
    load: Load, vary: Sequence[str], tune: Sequence[str], seeds: int, tune_seeds: int, reference: str | None = None
) -> Plan:
    """Plan a study. ConfigError with every problem of every experiment in it, and which of them has it.

    load: overrides (`KEY=VALUE`) → the experiment with them. vary, tune: `KEY=VALUE,VALUE,…`. reference: label of the
    reference method; None: the first with uniform weighting, or else the first.
    """
    varied, tuned = parse_axes(vary, tune)
    experiment = load([])  # its own problems are told alone: all the others would have them too
    checks = Checks()
    checks.check("", experiment)
    checks.raise_problems()
    methods = []
    for point in points(varied):
        label = point.label or experiment.name
        candidates = tuple(
            Candidate(other, found)
            for other in points(tuned, ", ")
            if (found := checks.loaded(_named(label, other), load, [*point.overrides, *other.overrides]))
        )
        methods.append(Method(label, candidates, point.settings))
    checks.raise_problems()
    baselines = _baselines(load, experiment, points(relevant(tuned), ", "), checks)
    checks.raise_problems()
    _all_differ(methods)
    _same_tasks(experiment, methods)
    numbers = [(experiment.seed + number) % 2**32 for number in range(seeds)]
    chosen = _reference(methods, reference)
    return Plan(experiment, methods, baselines, [axis.key for axis in tuned], numbers, min(tune_seeds, seeds), chosen)


def _reference(methods: Sequence[Method], label: str | None) -> Method:
    if label is None:
        uniform = [method for method in methods if method.candidates[0].experiment.weighting.name == "uniform"]
        return [*uniform, *methods][0]
    labels = {method.label: method for method in methods}
    if label not in labels:
        known = ", ".join(labels)
        raise ConfigError(f"--reference: no method is called {label!r}.{nearest(label, labels)} Choose from: {known}")
    return labels[label]


def _baselines(load: Load, experiment: Experiment, tuned: list[Point], checks: Checks) -> list[Method]:
    found: dict[str, list[Candidate]] = {task: [] for task in experiment.tasks}
    for point in tuned:
        whole = checks.loaded(_named(BASELINE, point), load, point.overrides)
        if whole is None:
            continue
        for task in experiment.tasks:
            alone = single_task(whole, task, checks.opened(whole))
            if checks.check(_named(f"{BASELINE} {task}", point), alone):
                found[task].append(Candidate(point, alone))
    return [Method(task, tuple(candidates), {}, task) for task, candidates in found.items()]


def _all_differ(methods: Sequence[Method]) -> None:
    """ConfigError where two candidates are the same experiment: it would be compared with itself."""
    known: dict[str, str] = {}
    problems = []
    for method in methods:
        for candidate in method.candidates:
            own = " ".join([*(f"{key}={value}" for key, value in method.settings.items()), *candidate.point.overrides])
            other = known.setdefault(identity(candidate.experiment), own)
            if other is not own:
                problems.append(Problem(f"{other} and {own} are the same experiment: leave one of them out"))
    if problems:
        raise ConfigError(problems)


def _same_tasks(experiment: Experiment, methods: Sequence[Method]) -> None:
    """ConfigError where a method has other tasks, or tasks of another kind: their figures can't be compared."""
    kinds = {task: entry.kind.name for task, entry in experiment.tasks.items()}
    for method in methods:
        for candidate in method.candidates:
            if {task: entry.kind.name for task, entry in candidate.experiment.tasks.items()} != kinds:
                raise ConfigError(f"{method}: its tasks are others than the experiment's, so nothing can be compared")


def _named(label: str, point: Point) -> str:
    return f"{label}, {point.label}" if point.label else label


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
