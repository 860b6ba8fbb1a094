"""Losses and metrics of maps in float64 NumPy, pixel by pixel or with sorted values, from their definitions.

Missing pixels are marked by `labelled`, bool [B, H, W]; weights are of pixels, [B, H, W].
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def mean(values: Array, labelled: Mask, weight: Array | None = None) -> float:
    weight = np.ones(values.shape) if weight is None else weight
    total = sum(float(w) for w, used in zip(weight.flat, labelled.flat, strict=True) if used)
    terms = zip(values.flat, weight.flat, labelled.flat, strict=True)
    return sum(float(v) * float(w) for v, w, used in terms if used and w) / total if total else 0.0


def cross_entropies(logits: Array, labels: Ints, labelled: Mask, smoothing: float = 0.0) -> Array:
    losses = np.zeros(labels.shape)
    classes = logits.shape[1]
    for b, y, x in np.argwhere(labelled):
        z = logits[b, :, y, x]
        log_p = z - z.max() - math.log(np.exp(z - z.max()).sum())
        target = np.full(classes, smoothing / classes)
        target[labels[b, y, x]] += 1 - smoothing
        losses[b, y, x] = -(target * log_p).sum()
    return losses


def depth_losses(predicted: Array, true: Array, name: str, delta: float) -> Array:
    e = np.abs(predicted - true)
    if name == "l1":
        return e
    if name == "mse":
        return np.square(e)
    if name == "huber":
        return np.where(e <= delta, np.square(e) / 2, delta * (e - delta / 2))
    return np.abs(np.log(predicted) - np.log(true))


def normal_losses(predicted: Array, true: Array) -> Array:
    """[B, 3, H, W] → [B, H, W]."""
    length = np.sqrt(np.square(predicted).sum(1))
    return 1 - (predicted * true).sum(1) / length


def confusion(logits: Array, labels: Ints, labelled: Mask, weight: Array) -> Array:
    """Sums of the weights of pixels, [classes, classes + 1]; the last column is for logits that are NaN."""
    classes = logits.shape[1]
    matrix = np.zeros((classes, classes + 1))
    for b, y, x in np.argwhere(labelled):
        z = logits[b, :, y, x]
        column = classes if np.isnan(z).any() else int(z.argmax())
        matrix[labels[b, y, x], column] += weight[b, y, x]
    return matrix


def segmentation(logits: Array, labels: Ints, labelled: Mask, weight: Array) -> dict[str, float]:
    matrix = confusion(logits, labels, labelled, weight)
    classes = len(matrix)
    ious, recalls, f1s = [], [], []
    values: dict[str, float] = {}
    for k in range(classes):
        tp = matrix[k, k]
        fp, fn = matrix[:, k].sum() - tp, matrix[k].sum() - tp
        values[f"iou[{k}]"] = tp / (tp + fp + fn) if tp + fp + fn else math.nan
        if tp + fp + fn:
            ious.append(tp / (tp + fp + fn))
            f1s.append(2 * tp / (2 * tp + fp + fn))
        if tp + fn:
            recalls.append(tp / (tp + fn))
    return {
        "miou": float(np.mean(ious)),
        "pixel_accuracy": sum(matrix[k, k] for k in range(classes)) / matrix.sum(),
        "balanced_accuracy": float(np.mean(recalls)),
        "f1": float(np.mean(f1s)),
        **values,
    }


def depth(predicted: Array, true: Array, labelled: Mask, weight: Array) -> dict[str, float]:
    p, d, w = predicted[labelled], true[labelled], weight[labelled]

    def average(values: Array) -> float:
        return float((values * w).sum() / w.sum())

    with np.errstate(divide="ignore"):
        ratio = np.maximum(p / d, d / p)
    ratio[p <= 0] = math.inf
    logs = np.log(np.maximum(p, 0.001)) - np.log(d)
    return {
        "abs_err": average(np.abs(p - d)),
        "rel_err": average(np.abs(p - d) / d),
        "rmse": math.sqrt(average(np.square(p - d))),
        "sq_rel": average(np.square(p - d) / d),
        "rmse_log": math.sqrt(average(np.square(logs))),
        **{f"delta{k}": average((ratio < 1.25**k).astype(float)) for k in (1, 2, 3)},
    }


def angles(predicted: Array, true: Array) -> Array:
    """Degrees, [B, H, W], by the arc cosine."""
    lengths = np.sqrt(np.square(predicted).sum(1)) * np.sqrt(np.square(true).sum(1))
    with np.errstate(invalid="ignore"):
        cosines = np.where(lengths > 0, (predicted * true).sum(1) / lengths, 0.0)
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))


def normals(predicted: Array, true: Array, labelled: Mask, weight: Array) -> dict[str, float]:
    a, w = angles(predicted, true)[labelled], weight[labelled]
    order = np.argsort(a)
    reached = w[order].cumsum() >= w.sum() / 2
    return {
        "angle_mean": float((a * w).sum() / w.sum()),
        "angle_median": float(a[order][reached.argmax()]),
        "angle_rmse": math.sqrt(float((np.square(a) * w).sum() / w.sum())),
        **{f"within_{t:g}": float(((a < t) * w).sum() / w.sum()) for t in (11.25, 22.5, 30)},
    }


def binary_losses(logits: Array, labels: Array) -> Array:
    return np.logaddexp(0, np.where(labels == 1, -logits, logits))


def ranks(logits: Array, positive: Mask, weight: Array) -> tuple[float, float, float]:
    """Area under the ROC curve by pairs; average precision and largest F1 by thresholds."""
    ones, zeros = np.flatnonzero(positive), np.flatnonzero(~positive)
    pairs = sum(
        weight[i] * weight[j] * ((logits[i] > logits[j]) + 0.5 * (logits[i] == logits[j])) for i in ones for j in zeros
    )
    area = pairs / (weight[ones].sum() * weight[zeros].sum())
    precision_area = best = before = 0.0
    for threshold in sorted(set(logits), reverse=True):
        chosen = logits >= threshold
        tp, all_of_them = (weight * (chosen & positive)).sum(), (weight * chosen).sum()
        recall = tp / weight[ones].sum()
        precision_area += (recall - before) * (tp / all_of_them if all_of_them else 0.0)
        best, before = max(best, 2 * tp / (all_of_them + weight[ones].sum())), recall
    return area, precision_area, best


def regression(predicted: Array, true: Array, labelled: Mask, weight: Array) -> dict[str, float]:
    """Metrics of [B, C, H, W], with the labelled pixels [B, H, W]."""
    p, y = (np.moveaxis(values, 1, 0)[:, labelled] for values in (predicted, true))
    w = weight[labelled]
    mean_label = (y * w).sum(1, keepdims=True) / w.sum()
    mse = float((np.square(p - y) * w).sum() / w.sum() / len(p))
    return {
        "r2": 1 - float((np.square(p - y) * w).sum() / (np.square(y - mean_label) * w).sum()),
        "mse": mse,
        "rmse": math.sqrt(mse),
        "mae": float((np.abs(p - y) * w).sum() / w.sum() / len(p)),
    }
