"""Predictions of a trained model in the terms of its tasks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mtlcli.data.formats.tag_alignment import gather_words
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.tasks.base import TaskKind


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of one task for B examples, on the CPU.

    Attributes:
        task: Name of the task.
        kind: Name of its kind, such as `classification`.
        labels: The predicted values. One class: a list of B class names. Several labels: a list of B lists of the names
            of those predicted. A tag for each word or token: a list of B lists of tags. A number: float64 [B] in the
            target's own units; several numbers (the quantiles of the kind `quantile`): float64 [B, columns]. For each
            pixel: the positions in `classes`, int64 [B, H, W], −1 for a pixel without a prediction; a number, float32
            [B, H, W]; or several, float32 [B, columns, H, W], such as a unit vector.
        indices: Position in `classes` of the predicted class, int64 [B]; of several labels 0 or 1 for each of them,
            int64 [B, labels]; of pixels as `labels`. None for a number.
        probabilities: float32 [B, len(classes)]: of the classes, which sum to 1, or of each of several labels; of
            pixels [B, len(classes), H, W]. None for a number.
        classes: Names of the classes or labels, in the order of `probabilities`; the numbers 0, 1, … if the data
            gives no names. None for a number.
        outputs: Raw outputs of the model, [B, outputs] or, for pixels, [B, outputs, H, W]: logits, or numbers.
        columns: Names of the columns of `labels` if each example has several numbers; otherwise None.
    """

    task: str
    kind: str
    labels: list[str] | list[list[str]] | list[list[str | None]] | Tensor
    indices: Tensor | None
    probabilities: Tensor | None
    classes: tuple[str, ...] | None
    outputs: Tensor
    columns: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.outputs)


def decode_predictions(
    task: str, kind_name: str, kind: TaskKind, outputs: Tensor, tokens: TokenRows | None = None
) -> Predictions:
    """Convert the raw outputs of a task to predictions.

    Args:
        task: Name of the task.
        kind_name: Name of its kind.
        kind: The task's kind, which decodes the outputs.
        outputs: [B, outputs], on the CPU; of a kind with a tag for each word, [B, L, outputs]; of one with maps,
            [B, outputs, H, W].
        tokens: Tokens of the examples, for a kind with a tag for each word: None for a word that was truncated.

    Returns:
        Labels and, for a kind that has them, probabilities.
    """
    words = tokens.words if tokens is not None and kind.target.type == "tags" else None
    if words is not None and tokens is not None:
        outputs = gather_words(outputs, tokens)
    decoded = kind.decode(outputs)
    labels = decoded.labels
    if words is not None:
        labels = [row[:count] for row, count in zip(labels, words.counts.tolist(), strict=True)]
    return Predictions(
        task,
        kind_name,
        labels,
        decoded.indices,
        decoded.probabilities,
        decoded.classes,
        outputs,
        decoded.columns,
    )
