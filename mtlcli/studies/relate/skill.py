"""How much of a task a frozen trunk has learned: a linear probe on its features, and a score that tasks can compare."""

from __future__ import annotations

import math

import numpy as np

from mtlcli.studies.relate.labels import Labels, Nature
from mtlcli.studies.relate.relation import Matrix

PENALTIES = np.logspace(-2, 4, 7)


def skill(nature: Nature, train: tuple[Matrix, Labels], held_out: tuple[Matrix, Labels]) -> float:
    """The skill of a linear probe: 1 is perfect, 0 the best constant prediction, below 0 worse than that.

        classes, binary:  (accuracy − p) / (1 − p), with p the share of the most frequent class among the held out
        multilabel:       the mean of that over the labels
        real:             R²

    train, held_out: features [n, F] and labels [n] or [n, labels], NaN where missing. The probe is a ridge regression
    on the standardized features (of one-hot labels for classes, the largest output taken), its penalty chosen by
    leave-one-out on the training part: a closed form, the same for every kind. NaN where a part has no labels, or all
    of the held-out ones are the same.
    """
    (x, y), (x_out, y_out) = _standardized(train, held_out)
    if nature == "multilabel":
        each = [_class_skill(x, y[:, k], x_out, y_out[:, k]) for k in range(y.shape[1])]
        defined = [one for one in each if not math.isnan(one)]
        return sum(defined) / len(defined) if defined else math.nan
    return (_real_skill if nature == "real" else _class_skill)(x, y, x_out, y_out)


def _standardized(
    train: tuple[Matrix, Labels], held_out: tuple[Matrix, Labels]
) -> tuple[tuple[Matrix, Labels], tuple[Matrix, Labels]]:
    mean, std = train[0].mean(0), train[0].std(0)
    std = np.where(std > 0, std, 1.0)
    return ((train[0] - mean) / std, train[1]), ((held_out[0] - mean) / std, held_out[1])


def _class_skill(x: Matrix, y: Labels, x_out: Matrix, y_out: Labels) -> float:
    x, y, x_out, y_out = _labelled(x, y, x_out, y_out)
    if len(y) < 2 or not len(y_out):
        return math.nan
    constant = np.unique(y_out, return_counts=True)[1].max() / len(y_out)
    if constant == 1:
        return math.nan
    classes = np.unique(y)
    outputs = _ridge(x, (y[:, None] == classes).astype(np.float64), x_out)
    accuracy = np.mean(classes[outputs.argmax(1)] == y_out)
    return float((accuracy - constant) / (1 - constant))


def _real_skill(x: Matrix, y: Labels, x_out: Matrix, y_out: Labels) -> float:
    x, y, x_out, y_out = _labelled(x, y, x_out, y_out)
    if len(y) < 2 or not len(y_out) or np.ptp(y_out) == 0:
        return math.nan
    residual = y_out - _ridge(x, y[:, None], x_out)[:, 0]
    return float(1 - np.sum(residual**2) / np.sum((y_out - y_out.mean()) ** 2))


def _labelled(x: Matrix, y: Labels, x_out: Matrix, y_out: Labels) -> tuple[Matrix, Labels, Matrix, Labels]:
    known, known_out = ~np.isnan(y), ~np.isnan(y_out)
    return x[known], y[known], x_out[known_out], y_out[known_out]


def _ridge(x: Matrix, y: Matrix, x_out: Matrix) -> Matrix:
    """What ridge regression, fitted to [n, F] → [n, K], predicts for x_out."""
    from sklearn.linear_model import RidgeCV

    predicted: Matrix = RidgeCV(PENALTIES).fit(x, y).predict(x_out).reshape(len(x_out), -1)
    return predicted
