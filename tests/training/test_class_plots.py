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


def test_tasks_without_classes_or_labels_have_no_plots(tmp_path: Path) -> None:
    results = ClassResults({
        "price": kind("regression", TargetSpec("real")),
        "size": kind("ordinal", TargetSpec("classes", 3, missing=True)),
        "many": kind("classification", TargetSpec("classes", MOST_CLASSES + 1)),
    })  # fmt: skip
    results.receive("price", predictions(5, 1), torch.zeros(5))
    results.receive("size", predictions(5, 2), as_indices([None] * 5))
    results.receive("many", predictions(5, MOST_CLASSES + 1), torch.arange(5))
    results.write(tmp_path, "test")
    assert [path.name for path in tmp_path.iterdir()] == ["calibration-many.png"]
