"""The tasks' losses in pairs, as far as a matrix says that they are related."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtlcli.errors import MtlError
from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask
from mtlcli.weighting.relation_matrix import Matrix, check_psd, nearest_psd, relation_matrix
from mtlcli.weighting.solvers.gramian import exact_type

ROUNDING = 1e-6  # of the largest weight of a step: what a weight of 0 may be


@weightings.register("relation")
class Relation(LossWeighting):
    """A matrix R of how related the tasks are: the products of all pairs of losses, each by its R_ij.

    The seed document's objective, with λ_i the tasks' `weight:`:

        L = Σ_i Σ_j R_ij λ_i λ_j L_i L_j,    so the gradient of L_i gets the weight 2 λ_i Σ_j R_ij λ_j L_j

    It is one quadratic form of the T losses, with one backward: a task counts for more, the higher the losses of the
    tasks that R relates to it. R is symmetric, of exactly the experiment's tasks (a regularizer with `as_task` is one,
    by its name in tables), in any order. A task that is absent from a step leaves both sums.

    Scale: the document's own, not normalized. With R = 1 throughout it is (Σ λ L)², with R the identity Σ (λ L)²: the
    weights shrink with the losses, and don't sum to the number of tasks.

    Where R isn't positive semidefinite, L isn't convex in the losses, may have no lower bound, and may fall while
    they rise: it is an error unless `project` says what to do. In any case the weight of a task can turn negative in a
    step where R_ij < 0, which would train it to do worse. What is done then is `negative`:

    * `error`: the run fails, with the task, its weight and the step. Nothing in a step waits for the device, so that
      is noticed where the log of the steps is read: at most 128 steps later (64 on a CPU), or at the end of the epoch
      or before a checkpoint, neither of which is then saved.
    * `clamp`: the weight is 0 in that step. L keeps its value, and is a constant to the losses of those tasks.
    * `allow`: the gradient is the one that L has.

    Options:
        matrix: R: the file `relation.csv` of `mtl relate`; or a list of rows in the order of the tasks; or
            `{task: {task: number}}`. A run's own config holds the numbers, whatever becomes of the file.
        from: what to measure R by before the run, as `mtl relate --measure` does; in the place of `matrix`.
        project: `psd` takes the nearest positive semidefinite matrix for R, `none` takes R as it is; to be chosen
            where R isn't positive semidefinite.
        negative: what is done with a weight below 0.
    """

    linear = False
    uses_task_weights = True
    preferences: Tensor
    relations: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask],
        *,
        matrix: str | list[list[float]] | dict[str, dict[str, float]] | None = None,
        from_: Literal["performance", "gradient", "affinity", "data", "semantic"] | None = None,
        project: Literal["psd", "none"] | None = None,
        negative: Literal["error", "clamp", "allow"] = "error",
    ) -> None:
        super().__init__(tasks)
        if (matrix is None) == (from_ is None):
            raise ValueError(
                "relation needs one of `matrix` (a file such as the relation.csv of `mtl relate`, or the numbers) and "
                f"`from` (what to measure it by first), and has {'neither' if matrix is None else 'both'}"
            )
        self.project = project
        self.negative = negative
        relations = self._relations(matrix)
        # Set by the configuration, not learned: no part of the state.
        self.register_buffer("preferences", torch.tensor([task.weight for task in self.tasks]), persistent=False)
        self.register_buffer("relations", torch.tensor(relations, dtype=torch.float32), persistent=False)

    def _relations(self, given: str | list[list[float]] | dict[str, dict[str, float]] | None) -> Matrix:
        """R [T, T]; NaN as long as it isn't measured, so that nothing can be trained by it."""
        if given is None:
            return np.full((len(self.tasks), len(self.tasks)), np.nan)
        matrix = relation_matrix(given, [task.name for task in self.tasks])
        if self.project == "psd":
            return nearest_psd(matrix)
        if self.project is None:
            check_psd(matrix)
        return matrix

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        exact = exact_type(losses.device)  # the square of a loss may overflow float32
        preferences = self.select(self.preferences, present)
        relations = self.select(self.select(self.relations, present).T, present)
        scaled = preferences * losses.to(exact)
        objective = (relations * scaled[:, None] * scaled).sum()
        weights = 2 * preferences * (relations * scaled.detach()).sum(1)
        if self.negative == "clamp":
            kept = weights.clamp(min=0)
            objective = objective + ((kept - weights) * (losses - losses.detach())).sum()  # adds 0, but to the gradient
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
                f"negatively to tasks with a higher loss, and it would be trained to do worse. Choose "
                f"`weighting.negative=clamp` (a weight below 0 counts as 0) or `allow`, or another matrix"
            )
