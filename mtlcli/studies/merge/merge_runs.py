"""Merging of runs: from their checkpoints to one checkpoint with all of their tasks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.errors import ConfigError, MtlError, Problem, suggest
from mtlcli.models.merging import GRIDS, METHODS, Merger, MergeRule
from mtlcli.models.warm_start import find_not_finite, join_problems
from mtlcli.studies.merge.batch_statistics import recompute_batch_norm
from mtlcli.studies.merge.coefficient_search import Coefficients, CoefficientSearch, Trial, at_edge
from mtlcli.studies.merge.common_start import common_start
from mtlcli.studies.merge.source_runs import SourceRun
from mtlcli.studies.merge.united import unite
from mtlcli.training.assembly.build import rebuild
from mtlcli.training.checkpoint.file import plain
from mtlcli.training.data_changes import warn_of_changes
from mtlcli.training.evaluate import TaskMetrics

LOG = logging.getLogger("mtl")
BatchNorm = Literal["average", "recompute"]


@dataclass(frozen=True)
class MergeOptions:
    """Options of merging that don't belong to the method.

    Attributes:
        coefficients: task → fixed coefficient of its run; `""` for all runs. Empty to search `grid`.
        grid: the coefficients to try; empty for those of `GRIDS`.
        by_task: whether to search a coefficient for each run instead of a common one.
        batch_norm: whether the running statistics of batch norm are averaged, or recomputed on training examples.
        base: the checkpoint or the folder of a pretrained model that the runs started from, in place of the path in
            their experiments.
    """

    coefficients: Mapping[str, float] = field(default_factory=dict)
    grid: tuple[float, ...] = ()
    by_task: bool = False
    batch_norm: BatchNorm = "average"
    base: Path | None = None


@dataclass(frozen=True)
class Merged:
    """A merged model.

    Attributes:
        payload: content of its checkpoint.
        rule: the method.
        coefficients: name of each run → its coefficient; empty for `mean`.
        split: the split that the search evaluated; None without a search.
        own: task → metric → value of the model of its own run, on that split; empty without a search.
        trials: the models that the search has evaluated.
        best: the chosen trial; None without a search.
    """

    payload: dict[str, Any]
    rule: MergeRule
    coefficients: Coefficients
    split: str | None = None
    own: TaskMetrics = field(default_factory=dict)
    trials: Sequence[Trial] = ()
    best: Trial | None = None


def check_options(rule: MergeRule, options: MergeOptions) -> None:
    """Check the options of merging.

    Args:
        rule: the method and its options.
        options: the other options.

    Raises:
        ConfigError: If a value is out of range, or an option doesn't belong to the method.
    """
    problems = []
    if rule.method not in METHODS:
        choices = f"{suggest(rule.method, METHODS)} Choose from: {', '.join(METHODS)}"
        problems.append(f"--method: no such method {rule.method!r}.{choices}")
    if not 0 < rule.density <= 1:
        problems.append(f"--density: expected a number in (0, 1], got {rule.density}")
    if not 0 <= rule.drop < 1:
        problems.append(f"--drop: expected a number in [0, 1), got {rule.drop}")
    searched = bool(options.grid) or options.by_task
    if rule.method == "mean" and (options.coefficients or searched):
        problems.append("--coefficient, --grid and --by-task: the method mean has no coefficient")
    elif options.coefficients and searched:
        problems.append("--coefficient fixes the coefficient, and --grid and --by-task search it: leave one out")
    if rule.method == "mean" and options.base is not None:
        problems.append("--base: the method mean needs no start")
    if not all(map(math.isfinite, [*options.grid, *options.coefficients.values()])):
        problems.append("--coefficient and --grid: expected finite numbers")
    if problems:
        raise ConfigError(map(Problem, problems))


def merge_sources(
    sources: Sequence[SourceRun],
    rule: MergeRule,
    options: MergeOptions,
    locate: Callable[[Mapping[str, Any], bool], Experiment],
    trusted: bool = False,
) -> Merged:
    """Merge runs, and choose the coefficients that are not fixed.

    Args:
        sources: the runs, from `read_sources`.
        rule: the method and its options.
        options: the other options.
        locate: returns the experiment to evaluate from the content of the merged checkpoint, and whether its data will
            be read.
        trusted: whether files outside the current folder that the experiments name may be read.

    Returns:
        The merged model.

    Raises:
        ConfigError: If the runs can't be merged.
        MtlError: If the merged parameters are not finite, or no coefficient of the grid gives finite metrics.
    """
    check_options(rule, options)
    payload = unite(sources)
    payload["config"] = experiment_from_dict(payload["config"], source="the merged experiment").resolved()
    fixed = _fixed_coefficients(sources, options.coefficients) if rule.needs_start else {}
    start = common_start(sources, options.base, trusted) if rule.needs_start else None
    recomputes, searches = options.batch_norm == "recompute", fixed is None
    run = rebuild(locate(payload, searches or recomputes), payload, data=searches or recomputes)
    parameters = {name for name, _ in run.model.named_parameters()}
    merger = Merger(rule, {source.name: source.state for source in sources}, parameters, start)
    search, best = None, None
    if fixed is None:
        split = run.experiment.evaluation.split
        warn_of_changes(run, dict.fromkeys(run.datasets, split), set())
        search = CoefficientSearch(run, merger, sources, recomputes)
        best = _search(search, options.grid or GRIDS[rule.method], options.by_task)
        fixed = best.coefficients
    state = merger.merge(fixed)
    if recomputes:
        run.model.load_state_dict(state)
        recompute_batch_norm(run)
        state = plain(dict(run.model.state_dict()))
    if wrong := find_not_finite(state):
        raise MtlError(f"the merged model can't be used: {join_problems(wrong)}")
    merged = {**payload, "model": state, "merged": _record(sources, rule, fixed, options)}
    if search is None:
        return Merged(merged, rule, fixed)
    return Merged(merged, rule, fixed, search.split, search.own, search.trials, best)


def _search(search: CoefficientSearch, grid: Sequence[float], by_task: bool) -> Trial:
    """Search the coefficients; warn if the best one is at the edge of the grid."""
    best = search.search(grid, by_task)
    if math.isnan(best.delta_m):
        raise MtlError(
            f"no coefficient of the grid ({', '.join(f'{value:g}' for value in grid)}) gives finite metrics on "
            f"{search.split!r}; try smaller ones"
        )
    if at_edge(grid, best.coefficients):
        LOG.warning("the best coefficient is at the edge of the grid; try values beyond it with --grid")
    return best


def _fixed_coefficients(sources: Sequence[SourceRun], given: Mapping[str, float]) -> Coefficients | None:
    """Return the coefficient of each run from those of tasks, or from the common one; None if none is given."""
    if not given:
        return None
    if set(given) == {""}:
        return {source.name: given[""] for source in sources}
    tasks = [task for source in sources for task in source.tasks]
    if unknown := [task for task in given if task not in tasks]:
        hint = suggest(unknown[0], tasks)
        raise ConfigError(f"--coefficient: no run has a task {unknown[0]!r}.{hint} Choose from: {', '.join(tasks)}")
    coefficients, problems = {}, []
    for source in sources:
        values = {given[task] for task in source.tasks if task in given}
        if len(values) != 1:
            reason = "several coefficients" if values else "no coefficient"
            problems.append(Problem(f"--coefficient: {reason} for {source.path} ({', '.join(source.tasks)})"))
        coefficients[source.name] = next(iter(values), 0.0)
    if problems:
        raise ConfigError(problems)
    return coefficients


def _record(
    sources: Sequence[SourceRun], rule: MergeRule, coefficients: Coefficients, options: MergeOptions
) -> dict[str, Any]:
    """Return the description of a merge that its checkpoint holds."""
    return {
        "method": rule.method,
        **({"density": rule.density} if rule.elects_signs else {}),
        **({"drop": rule.drop, "seed": rule.seed} if rule.drops else {}),
        "coefficients": dict(coefficients),
        "runs": {source.name: str(source.path) for source in sources},
        "batch_norm": options.batch_norm,
    }
