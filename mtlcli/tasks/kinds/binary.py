"""Yes or no."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from mtlcli.errors import nearest
from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec, is_labelled
from mtlcli.tasks.base import Direction, TaskKind, at_least_float32, masked_mean
from mtlcli.tasks.metrics import MISSING, Counts, f1, is_yes

SHOWN = 5  # classes that a message names


@kinds.register("binary")
class Binary(TaskKind):
    """Yes or no: cross-entropy of one sigmoid. Metrics: accuracy, auroc, f1.

    prediction: logits [B, 1]. target: 0/1 [B], or the indices [B] of a target with two classes. "Yes" is 1, or the
    second of the target's classes in their order (of `no` and `yes` it is `yes`, of `fraud` and `legit` it is `legit`),
    unless `positive` names the other one; a positive logit means "yes". The metric
    tables, `mtl summary` and the log say which class it is.
    `accuracy` and `f1` take a logit above 0 for "yes"; f1 is 0 where "yes" neither occurs nor is predicted.
    `auroc` is the exact area under the ROC curve, NaN unless both labels occur.

    Options:
        positive: the class that counts as "yes", by name (0 or 1 for a 0/1 target), usually the rare one. `pos_weight`
            and `f1` are of this class.
        pos_weight: factor on the loss of the examples labelled "yes"; the mean still divides by the number of examples.
        primary: the metric that the task is judged by where none is named; `auroc` or `f1` where one answer is rare.
    """

    accepts = ("binary", "classes")
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "accuracy": "max", "auroc": "max", "f1": "max"}
    bounded: ClassVar[frozenset[str]] = frozenset({"accuracy", "auroc", "f1"})
    probabilities = "sigmoid"
    outputs = 1

    def __init__(
        self,
        target: TargetSpec,
        *,
        positive: str | int | bool | None = None,
        pos_weight: PositiveFloat = 1.0,
        primary: Literal["accuracy", "auroc", "f1"] = "accuracy",
    ) -> None:
        super().__init__(target)
        self.primary = primary
        if target.type == "classes" and target.size != 2:
            some = [repr(name) for name in (target.classes or ())[:SHOWN]] + ["…"] * (target.size > SHOWN)
            shown = f" ({', '.join(some)})" if target.classes else ""
            raise ValueError(
                f"class count mismatch: binary takes a target of 2 classes, and this one has {target.size}{shown}; "
                "for more than 2 there is the kind 'classification'"
            )
        self.pos_weight = pos_weight
        names = target.classes or ("0", "1")
        chosen = 1 if positive is None else _index(positive, names)
        self.positive, self._inverted = names[chosen], chosen == 0

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean binary cross-entropy over the labelled examples."""
        prediction = prediction.float().squeeze(1)
        target = inverted(target) if self._inverted else target
        if not self.target.missing:
            return self._losses(prediction, target.float()).mean()
        mask = is_labelled(target)
        # Whatever an unlabelled row predicts, ∞ included, it doesn't reach the gradient.
        losses = self._losses(prediction.masked_fill(~mask, 0.0), target.masked_fill(~mask, 0).float())
        return masked_mean(losses, mask)

    def metrics(self, device: torch.device) -> BinaryMetrics:
        """Accuracy, area under the ROC curve, F1."""
        return BinaryMetrics(device, self._inverted)

    def _losses(self, prediction: Tensor, target: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
        return losses if self.pos_weight == 1.0 else losses * (1.0 + (self.pos_weight - 1.0) * target)


def inverted(target: Tensor) -> Tensor:
    """Exchange 0 and 1 in a target [B], leaving missing labels as they are."""
    return torch.where(is_labelled(target), 1 - target, target)


def _index(positive: str | int | bool, names: tuple[str, ...]) -> int:
    """Position in `names` of the class that the option `positive` names. ValueError where there is none."""
    aliases = {"true": "1", "false": "0"} if names == ("0", "1") else {}
    wanted = str(positive)
    for same in (str, str.lower):
        for position, name in enumerate(names):
            if same(name) in (same(wanted), aliases.get(wanted.lower())):
                return position
    hint = nearest(wanted, names)
    raise ValueError(f"`positive`: the target has no class {wanted!r}.{hint} Its classes: {', '.join(names)}")


class BinaryMetrics:
    """Accuracy and F1 from exact counts; the area under the ROC curve from all logits, which it keeps."""

    def __init__(self, device: torch.device, invert: bool = False) -> None:
        self._invert = invert
        self._counts = Counts(1, device)
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """prediction: logits [B, 1]."""
        logits, mask = at_least_float32(prediction).squeeze(1), is_labelled(target)
        target = inverted(target) if self._invert else target
        labels = target.masked_fill(~mask, 0).to(torch.int8).masked_fill(~mask, MISSING)
        self._counts.update(is_yes(logits, labels).unsqueeze(1), labels.unsqueeze(1))
        self._logits.append(logits)
        self._labels.append(labels)

    def compute(self) -> dict[str, float]:
        """float64 values; NaN where no example was labelled."""
        counts = self._counts.read()
        tp, fp, tn, fn = counts[:, 0].tolist()
        total = tp + fp + tn + fn
        return {
            "accuracy": (tp + tn) / total if total else float("nan"),
            "auroc": auroc(torch.cat(self._logits), torch.cat(self._labels)) if total else float("nan"),
            "f1": f1(counts).nan_to_num().item() if total else float("nan"),
        }


def auroc(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve: the share of pairs of a 1 and a 0 in which the 1 scores higher, ties counting half.

    It depends on the order of the scores alone, so logits are ranked as they are: their sigmoids are all 1 in float32
    from 17 on, where torchmetrics counts ties. The pairs are counted in integers.

    scores: [N]. labels: integers [N]: 1, 0, or MISSING for examples to leave out.
    NaN unless both labels occur, or where a labelled score is NaN.
    """
    known = labels != MISSING
    scores, order = scores[known].sort()
    positive = labels[known][order].long()
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives or bool(scores.isnan().any()):
        return float("nan")
    _, sizes = torch.unique_consecutive(scores, return_counts=True)
    last = sizes.cumsum(0) - 1  # of each group of equal scores
    zero = torch.zeros(1, dtype=torch.long, device=scores.device)
    ones = torch.cat([zero, positive.cumsum(0)[last]]).diff()
    zeros = sizes - ones
    below = zeros.cumsum(0) - zeros
    halves = int((ones * (2 * below + zeros)).sum())
    return halves / (2 * positives * negatives)
