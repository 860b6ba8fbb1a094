"""Calibrator of the probabilities of tasks in order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.specs import TrunkPass


@regularizers.register("expectation_calibrator")
class ExpectationCalibrator(Regularizer):
    """Behavioural expectation calibrator of `aitm`: a later task should not be more probable than an earlier one.

        Ω = Σ_t mean over the examples of max(p̂_t − p̂_{t−1}, 0),   p̂_t = σ(prediction of the task t)

    The tasks are those of the sharing's `order`. The examples of a batch count for every pair, also those without a
    label. `sharing: aitm` adds this term with the strength `calibrator`; it needs no entry of its own.

    References:
        Xi, Chen, Yan, Zhang, Zhu, Zhuang and Chen, Modeling the sequential dependence among audience multi-step
            conversions with multi-task learning in targeted display advertising, KDD 2021, arXiv:2105.08489, the
            calibrator of section 3.

    Args:
        subject: the regularized network, whose sharing has tasks in order.
    """

    default_strength = 0.6
    sees_examples = True
    sees_trunk = False
    needs_order = True

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.sequence = tuple(subject.order)

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer.term`."""
        predictions: dict[str, list[Tensor]] = {}
        for one_pass in passes:
            for task, prediction in one_pass.predictions.items():
                predictions.setdefault(task, []).append(prediction)
        probabilities = {
            task: torch.cat(parts).to(torch.promote_types(parts[0].dtype, torch.float32)).sigmoid()
            for task, parts in predictions.items()
        }
        excess = [
            (probabilities[task] - probabilities[previous]).clamp(min=0).mean()
            for previous, task in pairwise(self.sequence)
            if task in probabilities
        ]
        if not excess:  # a batch without examples of the dataset
            features = [one_pass.activations["features"] for one_pass in passes]
            return features[0].new_zeros((), dtype=torch.float32)
        return torch.stack(excess).sum()
