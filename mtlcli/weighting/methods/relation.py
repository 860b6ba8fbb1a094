"""Pairs of losses weighted by a task relation matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtlcli.errors import MtlError
from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask
from mtlcli.weighting.relation_matrix import Matrix, build_relation_matrix, check_psd, nearest_psd
from mtlcli.weighting.solvers.gramian import exact_dtype

ROUNDING = 1e-6  # error of a weight, relative to the largest one of the step


@weightings.register("relation")
class Relation(LossWeighting):
    """Task relations: minimize the sum of the products of all pairs of losses, weighted by a relation matrix R.

    With λ_i the `weight:` of task i:

        L = Σ_i Σ_j R_ij λ_i λ_j L_i L_j,    so the gradient of L_i gets the weight 2 λ_i Σ_j R_ij λ_j L_j

    This is a quadratic form in the T losses, with one backward pass: the weight of a task increases with the losses of
    the tasks that R relates it to. R is symmetric and covers exactly the tasks of the experiment (including
    regularizers with `as_task`, by their names in the tables). Tasks that are absent from a step leave both sums.

    The objective is not normalized. With all entries of R equal to 1 it is (Σ λ L)², with R the identity Σ (λ L)²: the
    weights decrease with the losses, and do not sum to the number of tasks.

    If R is not positive semidefinite, L is not convex in the losses, may have no lower bound, and may decrease while
    they increase; this is an error unless `project` is set. In all cases the weight of a task can become negative in a
    step if some R_ij < 0, which would increase its loss. The option `negative` controls the handling:

    * `error`: the run fails and reports the task, its weight and the step. As nothing in a step waits for the device,
      this is detected when the log of the steps is read: at most 128 steps later (64 on a CPU), or before the end of
      the epoch or a checkpoint, which is then not saved.
    * `clamp`: the weight is 0 in this step. L keeps its value, but is constant in the losses of these tasks.
    * `allow`: the gradient is that of L.

    Args:
        tasks: The T tasks with their weights λ.
        matrix: R: path of the `relation.csv` of `mtl relate`; a list of rows in the order of the tasks; or
            `{task: {task: number}}`. The config of a run contains the numbers, so that it does not depend on the file.
        from_: Measure of `mtl relate` by which R is computed before the run, instead of `matrix`.
        project: `psd` replaces R by the nearest positive semidefinite matrix, `none` uses R as it is; required if R is
            not positive semidefinite.
        negative: Handling of a negative weight: `error`, `clamp` or `allow`.
    """

    linear = False
    uses_task_weights = True
    preferences: Tensor
    relations: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask | str],
        *,
        matrix: str | list[list[float]] | dict[str, dict[str, float]] | None = None,
        from_: Literal["performance", "gradient", "affinity", "data", "semantic"] | None = None,
        project: Literal["psd", "none"] | None = None,
        negative: Literal["error", "clamp", "allow"] = "error",
    ) -> None:
        super().__init__(tasks)
        self.project = project
        self.negative = negative
        relations = self._relations(matrix, from_)
        # from the configuration, so not part of the state
        self.register_buffer("preferences", torch.tensor([task.weight for task in self.tasks]), persistent=False)
        self.register_buffer("relations", torch.tensor(relations, dtype=torch.float32), persistent=False)

    def _relations(
        self, source: str | list[list[float]] | dict[str, dict[str, float]] | None, measure: str | None
    ) -> Matrix:
        """Return R [T, T]; NaN until it is measured, so that training without a measured matrix fails."""
        if (source is None) == (measure is None):
            raise ValueError(
                "relation needs exactly one of `matrix` (the relation.csv of `mtl relate`, or the numbers) and "
                f"`from` (the measure to compute it by), got {'neither' if source is None else 'both'}"
            )
        if source is None:
            return np.full((len(self.tasks), len(self.tasks)), np.nan)
        matrix = build_relation_matrix(source, [task.name for task in self.tasks])
        if self.project == "psd":
            return nearest_psd(matrix)
        if self.project is None:
            check_psd(matrix)
        return matrix

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        exact = exact_dtype(losses.device)  # the square of a loss may overflow float32
        preferences = self.select(self.preferences, present)
        relations = self.select(self.select(self.relations, present).T, present)
        scaled = preferences * losses.to(exact)
        objective = (relations * scaled[:, None] * scaled).sum()
        weights = 2 * preferences * (relations * scaled.detach()).sum(1)
        if self.negative == "clamp":
            kept = weights.clamp(min=0)
            objective = objective + ((kept - weights) * (losses - losses.detach())).sum()  # changes the gradient only
            weights = kept
        return objective, weights.to(losses.dtype)

    def check(self, step: int, weights: Mapping[str, float]) -> None:
        """See `Weighting.check`."""
        weights = {task.name: weights[task.name] for task in self.tasks if task.name in weights}
        largest = max(map(abs, weights.values()))
        task, lowest = min(weights.items(), key=lambda item: item[1])
        if self.negative == "error" and lowest < -ROUNDING * largest:
            raise MtlError(
                f"weighting relation: the weight of task {task!r} is {lowest:.4g} at step {step}: R relates it "
                f"negatively to tasks with a higher loss, so training would increase its loss. Set "
                f"`weighting.negative=clamp` (a negative weight counts as 0) or `allow`, or use another matrix"
            )
