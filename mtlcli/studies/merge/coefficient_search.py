"""Coefficients of a merged model, chosen on the evaluated split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mtlcli.metric_names import is_bounded
from mtlcli.models.merging import Merger
from mtlcli.studies.compare.statistics import Change, Metric, compute_change, delta_m_of_changes
from mtlcli.studies.merge.batch_statistics import recompute_batch_norm
from mtlcli.studies.merge.source_runs import SourceRun
from mtlcli.training.evaluate import TaskMetrics, measure
from mtlcli.training.run import Run

Coefficients = dict[str, float]  # name of a run → λ


@dataclass(frozen=True)
class Trial:
    """A merged model that was evaluated.

    Attributes:
        coefficients: name of each run → its coefficient.
        metrics: task → metric → value on the evaluated split.
        delta_m: Δm over the primary metrics, relative to the models that are merged; lower is better. NaN if it is
            undefined.
    """

    coefficients: Coefficients
    metrics: TaskMetrics
    delta_m: float


class CoefficientSearch:
    """Evaluates merged models on the evaluated split, relative to the models that are merged.

    Args:
        run: the run of the united experiment, whose model is changed.
        merger: merges the runs.
        sources: the runs.
        batch_norm: whether to recompute the statistics of batch norm on training examples for each merged model.

    Attributes:
        own: task → metric → value of the model of its own run.
        trials: the merged models that have been evaluated.
    """

    def __init__(self, run: Run, merger: Merger, sources: Sequence[SourceRun], batch_norm: bool = False) -> None:
        self.run, self.merger, self.batch_norm = run, merger, batch_norm
        self.names = [source.name for source in sources]
        self.split = run.experiment.evaluation.split
        self.trials: list[Trial] = []
        self.own: TaskMetrics = {}
        for source in sources:
            run.model.load_state_dict({**run.model.state_dict(), **source.state})
            self.own |= measure(_restrict(run, source.tasks), self.split).metrics

    def search(self, grid: Sequence[float], by_task: bool = False) -> Trial:
        """Choose from a grid the coefficients with the smallest Δm, the first of equal ones.

        Args:
            grid: the coefficients to try, the same for all runs.
            by_task: whether to choose a coefficient for each run: one run after the other, from the best common
                coefficient, with those of the other runs unchanged.

        Returns:
            The best trial.
        """
        best = self._best([dict.fromkeys(self.names, value) for value in grid])
        if by_task:
            for name in self.names:
                others = [value for value in grid if value != best.coefficients[name]]
                best = self._best([{**best.coefficients, name: value} for value in others], best)
        return best

    def evaluate(self, coefficients: Coefficients) -> Trial:
        """Evaluate the model that is merged with given coefficients; it stays in the run.

        Args:
            coefficients: name of each run → its coefficient.

        Returns:
            The trial.
        """
        self.run.model.load_state_dict(self.merger.merge(coefficients))
        if self.batch_norm:
            recompute_batch_norm(self.run)
        metrics = measure(self.run, self.split).metrics
        trial = Trial(coefficients, metrics, self._delta_m(metrics))
        self.trials.append(trial)
        return trial

    def _best(self, choices: Sequence[Coefficients], best: Trial | None = None) -> Trial:
        for coefficients in choices:
            trial = self.evaluate(coefficients)
            if best is None or trial.delta_m < best.delta_m or math.isnan(best.delta_m):
                best = trial
        assert best is not None
        return best

    def _delta_m(self, metrics: TaskMetrics) -> float:
        """Return Δm over the primary metrics as `mtl compare` defines it, relative to the models of the runs."""
        changes: dict[Metric, Change] = {}
        higher: dict[Metric, bool] = {}
        for task, kind in self.run.kinds.items():
            name = kind.primary
            value, own = metrics[task][name], self.own[task][name]
            if math.isfinite(own) and not math.isfinite(value):
                return math.nan  # the merged model has diverged
            finite = all(map(math.isfinite, self.own[task].values()))
            floors = kind.negligible_errors(self.own[task]) if finite else {}
            changes[task, name] = compute_change({0: value}, {0: own}, is_bounded(name, kind), floors.get(name, 0.0))
            higher[task, name] = kind.reported[name] == "max"
        return delta_m_of_changes(changes, higher).get(0, math.nan)


def at_edge(grid: Sequence[float], coefficients: Mapping[str, float]) -> bool:
    """Return whether one of the chosen coefficients is the smallest or largest of a grid of several."""
    return len(grid) > 1 and any(value in (min(grid), max(grid)) for value in coefficients.values())


def _restrict(run: Run, tasks: Sequence[str]) -> Run:
    """Return a run with the same model, examples and datasets that evaluates some of the tasks only."""
    aliases = {run.sources[task][0] for task in tasks}
    return replace(
        run,
        kinds={task: run.kinds[task] for task in tasks},
        sources={task: run.sources[task] for task in tasks},
        specs={alias: spec for alias, spec in run.specs.items() if alias in aliases},
        spaces={task: space for task, space in run.spaces.items() if task in tasks},
    )
