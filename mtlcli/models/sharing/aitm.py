"""Adaptive information transfer between the towers of tasks in order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from mtlcli.config.options import Width, Widths
from mtlcli.models.dependent_tasks import Dependencies, TaskOrder, check_order
from mtlcli.models.sharing.base import AnyNameModuleDict, MakeHead, MakeTrunk, SharingRecord
from mtlcli.models.sharing.hard import HardSharing
from mtlcli.registry import sharings


@sharings.register("aitm")
class AITM(HardSharing):
    """Adaptive information transfer (AITM): the tower of each task receives information from that of the previous one.

        z_1 = q_1,   z_t = Σ_u w_u h₃(u) with u ∈ {p_{t−1}, q_t},   p_{t−1} = g(z_{t−1})
        w_u = softmax over u of ⟨h₁(u), h₂(u)⟩ / √k

    q_t, [B, k], is the output of the tower of the task t in `order`, fully connected layers with ReLU on the features
    of the trunk; z_t is the input of its head. g is a linear layer with ReLU, h₁, h₂ and h₃ are linear layers without
    bias, and each task after the first has its own. The attention thus learns for each example how much to transfer
    from the previous task.

    The objective has another term, the behavioural expectation calibrator, since a later step can't be more probable
    than an earlier one:

        calibrator · Σ_t mean over the examples of max(p̂_t − p̂_{t−1}, 0)        p̂_t: predicted probability

    It is the regularizer `expectation_calibrator`, which this sharing adds, and under whose name its values are
    recorded. To treat it as a task, list it under `regularizers` with `as_task: true`. The tasks of `order` are binary.

    The loss of a task reaches the towers of all tasks before it, which are shared; its head is its own, and so are the
    tower and the transfer of the last task. Tasks that are not in `order` have a head on the features of the trunk. The
    mean weights w of the transferred information are recorded in metrics.csv (`sharing.<task>`).

    Note:
        Deviations: in the paper the tasks share the embeddings of the categories; here they share the trunk. With
        `trunk: {name: tabular, hidden: []}`, nearly all layers are in the towers. Where the paper leaves the form of g
        and h open, they are those of the authors' TensorFlow code. (The reimplementation in torch that is often used
        sums the calibrator over the batch, and takes the product of h₁ and h₃ in the attention; the paper and the
        authors' code do neither.)

    References:
        Xi, Chen, Yan, Zhang, Zhu, Zhuang and Chen, Modeling the sequential dependence among audience multi-step
            conversions with multi-task learning in targeted display advertising, KDD 2021, arXiv:2105.08489, section 3.

    Args:
        make_trunk: creates a trunk; called once.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of its dataset.
        order: the tasks in their order, such as [click, purchase], all on the same dataset; null: all tasks, as they
            are listed.
        tower: widths of the layers of a tower; the last one is k. The authors' code has [128, 64, 32].
        dropout: dropout probability after each layer of a tower, and after g.
        calibrator: strength of the calibrator; 0 removes it.

    Raises:
        ValueError: if a task of `order` does not exist, or tasks are on different datasets.
    """

    common_features = False

    def __init__(
        self,
        make_trunk: MakeTrunk,
        make_head: MakeHead,
        inputs: Mapping[str, str],
        *,
        order: TaskOrder = None,
        tower: Annotated[Widths, Field(min_length=1)] = [64, 32],  # noqa: B006 (never changed)
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        calibrator: NonNegativeFloat = 0.6,
    ) -> None:
        sequence = check_order(order, inputs)

        def make_tower_head(task: str, features: int) -> nn.Module:
            return make_head(task, tower[-1] if task in sequence else features)

        super().__init__(make_trunk, make_tower_head, inputs)
        self.sequence = sequence
        self.towers = AnyNameModuleDict({task: make_tower(self.trunk.features, tower, dropout) for task in sequence})
        self.transfers = AnyNameModuleDict({task: Transfer(tower[-1], dropout) for task in sequence[1:]})
        self.dependencies = Dependencies({}, {task: previous for previous, task in pairwise(sequence)})

    @classmethod
    def implied_regularizer(cls, options: Mapping[str, Any]) -> tuple[str, float, dict[str, Any]] | None:
        """Return the calibrator: name, strength and options of a regularizer; None if `calibrator` is 0."""
        strength = options["calibrator"]
        return ("expectation_calibrator", strength, {}) if strength else None

    def encode(
        self, inputs: Mapping[str, Tensor], alias_of: Mapping[str, str], record: SharingRecord
    ) -> dict[str, Tensor]:
        """See `Sharing.encode`; the recorded activations are those of the trunk."""
        representations = super().encode(inputs, alias_of, record)
        if self.pooling is not None:
            representations = self.pooling.apply(representations, inputs, alias_of)
        wanted = [index for index, task in enumerate(self.sequence) if task in alias_of]
        if not wanted:
            return representations
        features, z = representations[self.sequence[wanted[0]]], None
        for task in self.sequence[: wanted[-1] + 1]:
            q: Tensor = self.towers[task](features)
            if z is None:
                z = q
            else:
                z, weight = self.transfers[task](z, q)
                if record.stats is not None and task in alias_of:
                    record.stats.add(task, "transferred", weight.mean(), len(weight))
            if task in alias_of:
                representations[task] = z
        return representations

    def own_modules(self, task: str) -> list[nn.Module]:
        own = super().own_modules(task)
        return [*own, self.towers[task], self.transfers[task]] if task == self.sequence[-1] else own


def make_tower(features: int, widths: Widths, dropout: float) -> nn.Sequential:
    """Create a tower: linear layers with ReLU and dropout.

    Args:
        features: width of the input.
        widths: widths of the layers.
        dropout: dropout probability after each layer.

    Returns:
        A module [B, features] → [B, widths[-1]].
    """
    layers: list[nn.Module] = []
    for before, width in pairwise([features, *widths]):
        layers += [nn.Linear(before, width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


class Transfer(nn.Module):
    """Attention between the information of the previous task and the tower of a task.

    Args:
        width: width k of both.
        dropout: dropout probability of the transferred information.
    """

    def __init__(self, width: Width, dropout: float) -> None:
        super().__init__()
        self.information = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout))
        self.h1, self.h2, self.h3 = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, previous: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Combine both.

        Args:
            previous: z of the previous task, [B, k].
            q: output of the tower, [B, k].

        Returns:
            z, [B, k], and the weight of the transferred information, [B].
        """
        u = torch.stack([self.information(previous), q], 1)  # [B, 2, k]
        scores = (self.h1(u) * self.h2(u)).sum(2) / math.sqrt(u.shape[2])
        weights = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(1)
        return (weights.to(u.dtype).unsqueeze(2) * self.h3(u)).sum(1), weights[:, 0]
