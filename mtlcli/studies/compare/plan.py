"""Plan of a comparison: its methods, baselines, grid points and seeds, validated before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError, Problem, suggest
from mtlcli.models.merging import MergeRule
from mtlcli.studies.compare.axes import Point, grid_points, parse_axes
from mtlcli.studies.compare.baselines import make_baseline, select_baseline_axes
from mtlcli.studies.compare.identity import experiment_hash
from mtlcli.studies.relate.for_weighting import with_placeholder_relation
from mtlcli.tasks.base import Direction, TaskKind
from mtlcli.training.assembly.build import check
from mtlcli.training.assembly.data_checks import Datasets, check_files, open_datasets
from mtlcli.training.device import choose_device
from mtlcli.training.evaluate import primary_metric
from mtlcli.training.run import Run

BASELINE = "single-task"  # label of the baselines

Load = Callable[[Sequence[str]], Experiment]
"""Loads the experiment with overrides (`KEY=VALUE`)."""


@dataclass(frozen=True)
class Candidate:
    """A point of the `--tune` grid, and the experiment at that point."""

    point: Point
    experiment: Experiment


@dataclass(frozen=True, eq=False)
class Method:
    """A method of the comparison, or the baseline of a task.

    Attributes:
        label: name of the method; for a baseline, that of its task.
        candidates: one for each point of the `--tune` grid.
        settings: key → value of `--vary`; empty for a baseline.
        task: task of a baseline; None for a method.
        merge: rule by which the models of the baselines are merged; None for a method that is trained.
    """

    label: str
    candidates: tuple[Candidate, ...]
    settings: dict[str, str]
    task: str | None = None
    merge: MergeRule | None = None

    def __str__(self) -> str:
        return self.label if self.task is None else f"{BASELINE} {self.task}"


@dataclass(frozen=True)
class Plan:
    """Plan of a comparison.

    Attributes:
        experiment: the experiment without the varied keys.
        methods: the methods.
        baselines: the baseline of each task.
        tuned: keys of the `--tune` grid.
        seeds: seeds of the runs of each method and each baseline.
        tune_seeds: number of the first seeds that are used for tuning.
        reference: method that the others are compared with, in addition to the single-task baselines.
        kinds: task → its kind.
    """

    experiment: Experiment
    methods: list[Method]
    baselines: list[Method]
    tuned: list[str]
    seeds: list[int]
    tune_seeds: int
    reference: Method
    kinds: Mapping[str, TaskKind]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(self.experiment.tasks)

    @property
    def directions(self) -> dict[str, dict[str, Direction]]:
        """Task → metric → whether to maximize or minimize it; without `loss`, and the primary metric first."""
        by_task: dict[str, dict[str, Direction]] = {}
        for task in self.tasks:
            primary, directions = self.kinds[task].primary, self.kinds[task].reported
            rest = {metric: direction for metric, direction in directions.items() if metric not in ("loss", primary)}
            by_task[task] = {primary: directions[primary], **rest}
        return by_task


def make_plan(
    load: Load, vary: Sequence[str], tune: Sequence[str], seeds: int, tune_seeds: int, reference: str | None = None
) -> Plan:
    """Plan a comparison. A ConfigError lists all problems of all experiments, with the methods that have them.

    Args:
        load: loads the experiment with overrides.
        vary: `KEY=VALUE,VALUE,…`; the methods are all combinations.
        tune: `KEY=VALUE,VALUE,…`; the grid of each method and each baseline is all combinations.
        seeds: number of seeds: the experiment's and the following ones.
        tune_seeds: number of seeds used for tuning.
        reference: label of the reference method; by default the first method with uniform weighting, else the first.

    Returns:
        The plan.
    """
    varied, tuned = parse_axes(vary, tune)
    experiment = load([])
    validator = _Validator()
    run = validator.validate("", experiment)
    validator.raise_problems()  # alone, since every method has the experiment's own problems too
    methods = []
    for point in grid_points(varied):
        label = point.label or experiment.name
        candidates = tuple(
            Candidate(tune_point, candidate)
            for tune_point in grid_points(tuned, ", ")
            if (candidate := validator.load(
                _join_labels(label, tune_point), load, [*point.overrides, *tune_point.overrides]))
        )  # fmt: skip
        methods.append(Method(label, candidates, point.settings))
    validator.raise_problems()
    baselines = _make_baselines(load, experiment, grid_points(select_baseline_axes(tuned), ", "), validator)
    validator.raise_problems()
    _require_distinct(methods)
    _require_same_tasks(experiment, methods)
    all_seeds = [(experiment.seed + offset) % 2**32 for offset in range(seeds)]
    chosen = _choose_reference(methods, reference)
    keys = [axis.key for axis in tuned]
    assert run is not None
    return Plan(experiment, methods, baselines, keys, all_seeds, min(tune_seeds, seeds), chosen, run.kinds)


def _choose_reference(methods: Sequence[Method], label: str | None) -> Method:
    if label is None:
        uniform = [method for method in methods if method.candidates[0].experiment.weighting.name == "uniform"]
        return [*uniform, *methods][0]
    by_label = {method.label: method for method in methods}
    if label not in by_label:
        raise ConfigError(
            f"--reference: no method is called {label!r}.{suggest(label, by_label)} Choose from: {', '.join(by_label)}"
        )
    return by_label[label]


def _make_baselines(
    load: Load, experiment: Experiment, tune_points: list[Point], validator: _Validator
) -> list[Method]:
    candidates: dict[str, list[Candidate]] = {task: [] for task in experiment.tasks}
    for point in tune_points:
        joint = validator.load(_join_labels(BASELINE, point), load, point.overrides)
        if joint is None:
            continue
        for task in experiment.tasks:
            baseline = make_baseline(joint, task, validator.open_datasets(joint))
            if validator.validate(_join_labels(f"{BASELINE} {task}", point), baseline):
                candidates[task].append(Candidate(point, baseline))
    return [Method(task, tuple(candidates[task]), {}, task) for task in experiment.tasks]


def _require_distinct(methods: Sequence[Method]) -> None:
    """Raise ConfigError if two candidates are the same experiment, which would be compared with itself."""
    overrides_of: dict[str, str] = {}
    problems = []
    for method in methods:
        for candidate in method.candidates:
            settings = (f"{key}={value}" for key, value in method.settings.items())
            overrides = " ".join([*settings, *candidate.point.overrides])
            first = overrides_of.setdefault(experiment_hash(candidate.experiment), overrides)
            if first is not overrides:
                problems.append(Problem(f"{first} and {overrides} are the same experiment: leave one of them out"))
    if problems:
        raise ConfigError(problems)


def _require_same_tasks(experiment: Experiment, methods: Sequence[Method]) -> None:
    """Raise ConfigError if the tasks of a method, their kinds or metrics differ from those of the experiment."""
    for method in methods:
        for candidate in method.candidates:
            if _reported(candidate.experiment) != _reported(experiment):
                raise ConfigError(
                    f"{method}: its tasks differ from the experiment's, so their metrics can't be compared"
                )


def _reported(experiment: Experiment) -> dict[str, tuple[str, list[str] | None, str]]:
    """Return task → name of its kind, the metrics that it chooses, and the primary one."""
    return {
        task: (entry.kind.name, entry.metrics, primary_metric(experiment, task))
        for task, entry in experiment.tasks.items()
    }


def _join_labels(label: str, point: Point) -> str:
    return f"{label}, {point.label}" if point.label else label


class _Validator:
    """Validates experiments, and collects each problem once, with the labels of the experiments that have it."""

    def __init__(self) -> None:
        self._labels: dict[Problem, list[str]] = {}
        self._opened: dict[str, Datasets] = {}

    def load(self, label: str, load: Load, overrides: Sequence[str]) -> Experiment | None:
        """Load and validate the experiment with overrides; None if it has problems."""
        try:
            experiment = load(overrides)
        except ConfigError as error:
            self._collect(label, error)
            return None
        return experiment if self.validate(label, experiment) else None

    def validate(self, label: str, experiment: Experiment) -> Run | None:
        """Return the run of an experiment, on `meta`; None if it can't be trained, and collect its problems."""
        try:
            choose_device(experiment)
            return check(with_placeholder_relation(experiment), self.open_datasets(experiment))
        except ConfigError as error:
            self._collect(label, error)
            return None

    def open_datasets(self, experiment: Experiment) -> Datasets:
        """Open the datasets and check their files, once for all experiments with the same datasets."""
        key = json.dumps(experiment.resolved()["datasets"], default=str)
        if key not in self._opened:
            opened = open_datasets(experiment)
            check_files(experiment, opened)
            self._opened[key] = opened
        return self._opened[key]

    def raise_problems(self) -> None:
        """Raise ConfigError if problems were collected."""
        if self._labels:
            raise ConfigError(
                [
                    replace(problem, message=f"{problem.message} [{'; '.join(labels)}]") if any(labels) else problem
                    for problem, labels in self._labels.items()
                ]
            )

    def _collect(self, label: str, error: ConfigError) -> None:
        for problem in error.problems:
            labels = self._labels.setdefault(problem, [])
            if label not in labels:
                labels.append(label)
