"""Weights from the learned homoscedastic uncertainty of each task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask


@weightings.register("uncertainty")
class Uncertainty(LossWeighting):
    """Uncertainty weighting: learn the noise s_t = log σ_t² of each task; noisier tasks get a smaller weight.

        objective = Σ_t c_t exp(−s_t) L_t + ½ s_t,    c_t = ½ for a Gaussian likelihood (regression),
                                                      c_t = 1 for a softmax or sigmoid (classification)

    The s_t are parameters of the network's optimizer (`log_variance`, a tensor [1] per task). With s = 0, the default
    start, a classification task has weight 1 and a regression task ½. A regularizer that counts as a task (`as_task`)
    is Gaussian if it is a sum of squares (`reconstruction`, `l2`, `orthogonality`). The sum of the weights is not
    fixed.

    Note:
        Deviations from the paper. s = log σ² is learned instead of σ, as the authors recommend. A task that is absent
        from a step keeps its s, and its ½ s leaves the objective together with its loss. Absolute and Huber losses are
        weighted like Gaussian ones.

    Args:
        tasks: The T tasks with their likelihoods.
        init: Initial value of every s_t; the weights start at c_t exp(−init).

    References:
        Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
        Semantics", CVPR 2018, arXiv:1705.07115, equations 7 and 10.
    """

    coefficients: Tensor

    def __init__(self, tasks: Sequence[WeightedTask | str], *, init: float = 0.0) -> None:
        super().__init__(tasks)
        coefficients = torch.tensor([0.5 if task.likelihood == "gaussian" else 1.0 for task in self.tasks])
        self.register_buffer("coefficients", coefficients, persistent=False)
        # one parameter per task: that of an absent task has no gradient, whereas momentum would move a zero gradient
        self.log_variance = nn.ParameterList(nn.Parameter(torch.tensor([float(init)])) for _ in self.tasks)

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        log_variance = torch.cat([self.log_variance[task] for task in present])
        weights = self.select(self.coefficients, present) * torch.exp(-log_variance)
        return (weights * losses + share * 0.5 * log_variance).sum(), weights.detach()
