"""Predictions in the terms of a task, decoded from the raw outputs of a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Decoded:
    """Predictions of one task for B examples.

    Attributes:
        labels: The predicted values. One class: a list of B class names. Several labels: a list of B lists of the names
            of those predicted. A tag for each word: a list of B lists of tags, None for a word without a prediction. A
            number: float64 [B] in the target's own units; several numbers for each example, as named by `columns`:
            float64 [B, columns]. For each pixel: the positions in `classes`, int64 [B, H, W], −1 for a pixel without a
            prediction; a number, float32 [B, H, W]; or several, as named by `columns` if they have names, float32
            [B, columns, H, W].
        indices: Position in `classes` of the predicted class, int64 [B]; of several labels 0 or 1 for each of them,
            int64 [B, labels]; of tags int64 [B, L], −1 for a word without a prediction; of pixels as `labels`. None for
            numbers.
        probabilities: [B, len(classes)]: of the classes, which sum to 1, or of each of several labels; of tags
            [B, L, len(classes)]; of pixels [B, len(classes), H, W]. None for a kind without probabilities.
        classes: Names of the classes or labels, in the order of `probabilities`. None for numbers.
        columns: Names of the numbers that are predicted for each example; None for one number, and for classes.
    """

    labels: list[str] | list[list[str]] | list[list[str | None]] | Tensor
    indices: Tensor | None = None
    probabilities: Tensor | None = None
    classes: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None


def decode_numbers(outputs: Tensor, columns: tuple[str, ...] | None = None) -> Decoded:
    """Decode predicted numbers.

    Args:
        outputs: the numbers in the target's units, [B, outputs].
        columns: names of the outputs, if there are several.

    Returns:
        The numbers in float64; [B] if there is one for each example.
    """
    values = outputs.double()
    single = columns is None and values.ndim == 2 and values.shape[1] == 1
    return Decoded(values.squeeze(1) if single else values, columns=columns)


def decode_classes(probabilities: Tensor, indices: Tensor, classes: tuple[str, ...]) -> Decoded:
    """Decode one of several classes.

    Args:
        probabilities: probabilities of the classes, [B, classes].
        indices: indices of the predicted classes, int64 [B].
        classes: names of the classes.

    Returns:
        The predictions, with the names of the predicted classes.
    """
    return Decoded([classes[index] for index in indices.tolist()], indices, probabilities, classes)


def decode_labels(logits: Tensor, classes: tuple[str, ...]) -> Decoded:
    """Decode several labels, of which those with logits above 0 are predicted.

    Args:
        logits: logits, [B, labels].
        classes: names of the labels.

    Returns:
        The predictions, with the names of the predicted labels of each example.
    """
    indices = (logits > 0).long()
    names = [[name for name, yes in zip(classes, row, strict=True) if yes] for row in indices.tolist()]
    return Decoded(names, indices, logits.sigmoid(), classes)


def decode_tags(probabilities: Tensor, classes: tuple[str, ...]) -> Decoded:
    """Decode a class for each word.

    Args:
        probabilities: probabilities of the classes, [B, L, classes]; NaN for a word without a prediction.
        classes: names of the classes.

    Returns:
        The predictions, with the names of the predicted classes of each word.
    """
    indices = probabilities.argmax(2).masked_fill(probabilities.isnan().any(2), -1)
    names = [*classes, None]  # the last for −1
    return Decoded([[names[index] for index in row] for row in indices.tolist()], indices, probabilities, classes)


def decode_positive(logits: Tensor, classes: tuple[str, ...], positive: str) -> Decoded:
    """Decode one of two classes from the logit of the positive one, which is predicted for a logit above 0.

    Args:
        logits: logits of the positive class, [B, 1].
        classes: names of the two classes.
        positive: name of the positive class.

    Returns:
        The predictions, with the probabilities of both classes in the order of `classes`.
    """
    index = classes.index(positive)
    columns = [(-logits).sigmoid(), logits.sigmoid()]
    probabilities = torch.cat(columns if index == 1 else columns[::-1], 1)
    return decode_classes(probabilities, torch.where(logits.squeeze(1) > 0, index, 1 - index), classes)


def decode_class_map(probabilities: Tensor, classes: tuple[str, ...], indices: Tensor | None = None) -> Decoded:
    """Decode a class for each pixel.

    Args:
        probabilities: probabilities of the classes, [B, classes, H, W]; NaN for a pixel without a prediction.
        classes: names of the classes.
        indices: indices of the predicted classes, int64 [B, H, W]; by default those of the most probable ones.

    Returns:
        The predictions, as positions in `classes`.
    """
    highest, most_probable = probabilities.max(1)
    indices = (most_probable if indices is None else indices).masked_fill(highest.isnan(), -1)
    return Decoded(indices, indices, probabilities, classes)


def decode_number_map(outputs: Tensor, columns: tuple[str, ...] | None = None) -> Decoded:
    """Decode a number for each pixel, or several.

    Args:
        outputs: the numbers in the target's units, [B, outputs, H, W].
        columns: names of the outputs, if they have names.

    Returns:
        The numbers in float32, [B, H, W] if there is one for each pixel.
    """
    values = outputs.float()
    return Decoded(values.squeeze(1) if columns is None and values.shape[1] == 1 else values, columns=columns)
