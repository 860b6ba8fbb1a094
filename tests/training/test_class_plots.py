"""Confusion matrices and calibration plots, from batches of predictions."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec
from mtlcli.tasks.base import TaskKind
from mtlcli.training.class_plots import MOST_CLASSES, ClassResults
from tests.tasks.labels import as_floats, as_indices, class_labels, predictions

NAMES = ("no", "$\\frac{$", "名前 " + "x" * 40)


def kind(name: str, target: TargetSpec) -> TaskKind:
    created: TaskKind = kinds[name].target(target)
    return created


def read(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    return header, [row[0] for row in rows], np.array([[float(value) for value in row[1:]] for row in rows])


@pytest.mark.parametrize("weighted", [False, True])
def test_confusion_of_classes(tmp_path: Path, weighted: bool) -> None:
    results = ClassResults({"size": kind("classification", TargetSpec("classes", 3, NAMES, missing=True))})
    labels, logits = class_labels(3, 50, 0.2), predictions(50, 3)
    weight = torch.linspace(0, 2, 50) if weighted else None
    for rows in (slice(0, 30), slice(30, 50)):
        results.receive("size", logits[rows], as_indices(labels)[rows], None if weight is None else weight[rows])
    results.write(tmp_path, "test")
    header, names, cells = read(tmp_path / "confusion-size.csv")
    assert header == ["label", *NAMES] and tuple(names) == NAMES
    kept = [row for row, label in enumerate(labels) if label is not None]
    expected = confusion_matrix(
        [labels[row] for row in kept], logits.argmax(1)[kept],
        labels=range(3), sample_weight=None if weight is None else weight[kept].double(),
    )  # fmt: skip
    np.testing.assert_allclose(cells, expected, rtol=1e-12)
    for name in ("confusion", "calibration"):
        with Image.open(tmp_path / f"{name}-size.png") as image:
            assert min(image.size) > 300


def test_confusion_of_labels(tmp_path: Path) -> None:
    results = ClassResults({"tags": kind("multilabel", TargetSpec("multilabel", 2, ("a", "b"), missing=True))})
    columns = [class_labels(2, 40, 0.3, seed) for seed in range(2)]
    target, logits = torch.stack([as_floats(column) for column in columns], 1), predictions(40, 2)
    results.receive("tags", logits, target)
    results.write(tmp_path, "val")
    header, names, cells = read(tmp_path / "confusion-tags.csv")
    assert header[1:] == ["true positive", "false negative", "false positive", "true negative"] and names == ["a", "b"]
    for row, column in enumerate(columns):
        kept = [index for index, label in enumerate(column) if label is not None]
        truth, guess = np.array([column[index] for index in kept]), (logits[kept, row] > 0).numpy()
        (tn, fp), (fn, tp) = confusion_matrix(truth, guess)
        assert cells[row].tolist() == [tp, fn, fp, tn]


def maps(
    classes: int, weighted: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, np.ndarray, np.ndarray]:
    """Logits [B, classes, H, W], classes with missing ones, weights of images, and the labels and weights of pixels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, classes, 3, 4, generator=generator)
    labels = torch.randint(0, 2, (5, 3, 4), generator=generator)
    labels[0], labels[1, 0] = -100, -100
    weight = torch.tensor([1.0, 2.0, 0.0, 0.5, 1.0]) if weighted else None
    weights = (torch.ones(5) if weight is None else weight).view(-1, 1, 1).expand(5, 3, 4)
    return logits, labels, weight, weights.double().numpy()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["segmentation", "zero", "one"])
def test_confusion_of_pixels(tmp_path: Path, name: str, weighted: bool) -> None:
    segmentation = name == "segmentation"
    logits, labels, weight, weights = maps(3 if segmentation else 1, weighted)
    if segmentation:
        task, target = kind(name, TargetSpec("class_map", 3, NAMES, missing=True)), labels
        guess = logits.argmax(1).numpy()
    else:
        positive = int(name == "one")
        task = kinds["binary"].target(TargetSpec("binary_map", missing=True), positive=positive)
        target = labels.float().masked_fill(labels < 0, torch.nan)
        guess = np.where(logits[:, 0].numpy() > 0, positive, 1 - positive)
    results = ClassResults({"surface": task})
    for rows in (slice(0, 2), slice(2, 5)):
        results.receive("surface", logits[rows], target[rows], None if weight is None else weight[rows])
    results.write(tmp_path, "test")
    truth, kept, classes = labels.numpy(), labels.numpy() >= 0, range(len(task.class_names))
    expected = confusion_matrix(truth[kept], guess[kept], labels=classes, sample_weight=weights[kept])
    header, names, cells = read(tmp_path / "confusion-surface.csv")
    assert header == ["label", *task.class_names] and names == header[1:]
    np.testing.assert_allclose(cells, expected, rtol=1e-12)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["confusion-surface.csv", "confusion-surface.png"]


def test_tasks_without_classes_or_labels_have_no_plots(tmp_path: Path) -> None:
    results = ClassResults({
        "price": kind("regression", TargetSpec("real")),
        "size": kind("ordinal", TargetSpec("classes", 3, missing=True)),
        "many": kind("classification", TargetSpec("classes", MOST_CLASSES + 1)),
        "far": kind("depth", TargetSpec("depth_map")),
        "surface": kind("segmentation", TargetSpec("class_map", 2)),
    })  # fmt: skip
    results.receive("price", predictions(5, 1), torch.zeros(5))
    results.receive("size", predictions(5, 2), as_indices([None] * 5))
    results.receive("many", predictions(5, MOST_CLASSES + 1), torch.arange(5))
    results.receive("far", torch.ones(2, 1, 3, 3), torch.ones(2, 3, 3))
    results.write(tmp_path, "test")
    assert [path.name for path in tmp_path.iterdir()] == ["calibration-many.png"]
