"""Losses of the tokens of answers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlcli.specs import IGNORE_INDEX, has_label, is_labelled


def align_answers(target: Tensor, width: int) -> Tensor:
    """Move the labels of each row to its start.

    Args:
        target: labels, int64 [B, L], those of a row one after the other; IGNORE_INDEX elsewhere.
        width: number of columns of the result.

    Returns:
        Labels, int64 [B, width]; IGNORE_INDEX after the last.
    """
    first = is_labelled(target).int().argmax(1)
    columns = first.unsqueeze(1) + torch.arange(width, device=target.device)
    inside = columns < target.shape[1]
    return target.gather(1, columns.clamp(max=target.shape[1] - 1)).masked_fill(~inside, IGNORE_INDEX)


def token_losses(prediction: Tensor, target: Tensor, clean: bool = False) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy of each token of the answers.

    Args:
        prediction: logits, [B, A, vocabulary].
        target: tokens of the answers, int64 [B, L]; IGNORE_INDEX elsewhere.
        clean: whether predictions for examples without an answer may be infinite or NaN.

    Returns:
        Losses, float32 [B, A], 0 where an answer has no token; and the number of tokens of each answer, int64 [B].
    """
    answers = align_answers(target, prediction.shape[1])
    if clean:  # the prediction of an unlabelled row, even if infinite, doesn't reach the gradient
        prediction = prediction.masked_fill(~has_label(target)[:, None, None], 0.0)
    flat = prediction.flatten(0, 1).float()
    losses = F.cross_entropy(flat, answers.flatten(), ignore_index=IGNORE_INDEX, reduction="none")
    return losses.view(answers.shape), is_labelled(answers).sum(1)
