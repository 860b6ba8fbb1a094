"""Runs whose tasks have a label for each pixel, compared with plain loops over the images and their pixels."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import mtlcli
from mtlcli.config import experiment_from_dict
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.data_checks import open_data
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.evaluate import evaluation_batch_size, measure
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from mtlcli.training.trainer import Trainer
from tests.oracles import dense as oracle
from tests.training.identical import digest_checkpoint
from tests.training.killing import KilledError, Killer

SIDE, SPLITS = 6, {"train": range(18), "val": range(18, 23), "test": range(23, 30)}
KINDS = {"class": "segmentation", "depth": "depth", "normals": "normals", "edge": "binary"}
TYPES = {"depth": "depth_map", "normals": "normal_map"}
ROOMS = dict.fromkeys(KINDS, "rooms")
MIXED = {"class": "rooms", "edge": "rooms", "depth": "others", "normals": "others"}
Array = NDArray[Any]


def images_and_maps(seed: int) -> tuple[Array, dict[str, Array]]:
    """Images whose maps follow from their channels; a quarter of the pixels and most depth maps have no labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (30, 3, SIDE, SIDE), dtype=np.uint8)
    scaled = images / 128.0 - 1.001
    missing = rng.random((30, SIDE, SIDE)) < 0.25
    unlabelled = np.arange(30) % 4 != 0
    return images, {
        "class": np.where(missing, 255, scaled.argmax(1)).astype(np.uint8),
        "depth": np.where(missing | unlabelled[:, None, None], 0, scaled[:, 0] + 2).astype(np.float32),
        "normals": np.where(missing[:, None], 0, scaled / np.linalg.norm(scaled, axis=1, keepdims=True)),
        "edge": scaled[:, 1] > 0.3,
    }


def data(sources: dict[str, str]) -> dict[str, Any]:
    """Return alias → split → images and maps."""
    given: dict[str, Any] = {}
    for seed, alias in enumerate(dict.fromkeys(sources.values())):
        images, maps = images_and_maps(seed)
        used = {name: labels for name, labels in maps.items() if sources[name] == alias}
        given[alias] = {s: (images[rows], {name: m[rows] for name, m in used.items()}) for s, rows in SPLITS.items()}
    return given


def config(sources: dict[str, str] = ROOMS, **changes: Any) -> dict[str, Any]:
    """Return the configuration of an experiment. sources: task → alias of its dataset."""
    types = {alias: {t: TYPES[t] for t in TYPES if sources[t] == alias} for alias in dict.fromkeys(sources.values())}
    return {
        "name": "maps",
        "datasets": {alias: {"name": "in_memory", "targets": of_alias} for alias, of_alias in types.items()},
        "tasks": {task: {"dataset": alias, "kind": KINDS[task]} for task, alias in sources.items()},
        "trunk": {"name": "unet", "widths": [4, 8], "depth": 1},
        "optimizer": {"name": "SGD", "lr": 0.05},
        "evaluation": {"batch_size": 3, "monitor": {"metric": "loss"}},
        **changes,
        "training": {
            "epochs": 1, "batch_size": 4, "device": "cpu", "threads": 1, **changes.get("training", {})
        },
    }  # fmt: skip


def plain_losses(task: str, outputs: Tensor, stored: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the losses of the labelled pixels and their weights, pixel by pixel. stored: maps as they were passed."""
    losses, factors = [], []
    for image in range(len(outputs)):
        for y in range(SIDE):
            for x in range(SIDE):
                prediction, label = outputs[image, :, y, x], stored[image, ..., y, x]
                if task == "class" and label != 255:
                    losses.append(F.cross_entropy(prediction.unsqueeze(0), label.long().unsqueeze(0)))
                    factors.append(torch.ones(()) if weights is None else weights[label.long()])
                    continue
                if task == "depth" and label != 0:
                    losses.append((prediction[0] - label).abs())
                elif task == "normals" and bool(label.any()):
                    losses.append(1 - F.cosine_similarity(prediction, label.float(), dim=0))
                elif task == "edge":
                    losses.append(F.binary_cross_entropy_with_logits(prediction[0], label.float()))
                else:
                    continue
                factors.append(torch.ones(()))
    return (torch.stack(losses), torch.stack(factors)) if losses else (torch.zeros(0), torch.zeros(0))


def find_rows(images: Tensor, given: Any) -> list[int]:
    """Return the rows of a batch of images among the training images."""
    return [next(row for row, one in enumerate(given["train"][0]) if (one == image.numpy()).all()) for image in images]


def plain_epoch(run: Run, given: dict[str, Any], accumulate: int, weights: Tensor | None) -> int:
    """Train an epoch in a plain loop, and return how often a task had no labels in a step."""
    loader, absent = open_data(run), 0
    optimizer = torch.optim.SGD(run.model.parameters(), lr=0.05)
    run.model.train()
    batches = list(loader.epoch(0))
    for start in range(0, len(batches), accumulate):
        parts: dict[str, list[tuple[Tensor, Tensor]]] = {task: [] for task in run.kinds}
        for batch in batches[start : start + accumulate]:
            outputs = run.model(batch.inputs, list(run.kinds))
            for task in run.kinds:
                alias = run.sources[task][0]
                if alias not in batch.inputs:
                    continue
                rows = find_rows(batch.inputs[alias], given[alias])
                stored = torch.from_numpy(np.asarray(given[alias]["train"][1][task][rows]))
                parts[task].append(plain_losses(task, outputs[task], stored, weights))
        objective = torch.zeros(())
        for of_task in parts.values():
            losses, factors = (torch.cat(tensors) for tensors in zip(*of_task, strict=True))
            absent += not len(losses)
            objective = objective + ((losses * factors).sum() / factors.sum() if len(losses) else 0.0)
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
    return absent


@pytest.mark.parametrize(
    ("sources", "accumulate", "class_weights"),
    [(ROOMS, 1, None), (ROOMS, 3, {"0": 0.5, "2": 4.0}), (MIXED, 1, {"0": 0.5, "2": 4.0})],
    ids=["one dataset", "accumulated", "two datasets"],
)
def test_an_epoch_is_that_of_a_plain_loop(
    sources: dict[str, str], accumulate: int, class_weights: dict[str, float] | None
) -> None:
    """Each loss is the mean over the labelled pixels of a step; a task without any is left out of it."""
    plain, given = config(sources, training={"accumulate": accumulate, "batch_size": 2}), data(sources)
    if class_weights:
        plain["tasks"]["class"]["class_weights"] = class_weights
    run = build(experiment_from_dict(plain), given)
    other = build(experiment_from_dict(plain), given)
    other.model.load_state_dict(run.model.state_dict())
    absent = plain_epoch(other, given, accumulate, torch.tensor([0.5, 1.0, 4.0]) if class_weights else None)
    assert absent > 0 or accumulate > 1
    loader, step = open_data(run), Step(run, make_optimizer(run))
    run.model.train()
    batches = list(loader.epoch(0))
    for start in range(0, len(batches), accumulate):
        step(batches[start : start + accumulate])
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, other.model.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("sources", [ROOMS, MIXED], ids=["one dataset", "two datasets"])
def test_metrics_are_those_of_all_pixels_of_the_split(tmp_path: Path, sources: dict[str, str]) -> None:
    given = data(sources)
    summary = mtlcli.train(config(sources), datasets=given, run_dir=tmp_path / "run", plots=False)
    model = mtlcli.load(summary.checkpoint)
    expected: dict[str, dict[str, float]] = {}
    for task, alias in sources.items():
        images, maps = given[alias]["test"]
        with torch.inference_mode():
            outputs = model.eval()({alias: torch.from_numpy(images)})[task].double()
        labels = maps[task]
        mask = (labels != 255) if task == "class" else np.ones(labels.shape, bool) if task == "edge" else labels != 0
        mask = mask.any(1) if task == "normals" else mask
        predicted, weight = outputs.numpy(), np.ones(mask.shape)
        if task == "class":
            expected[task] = oracle.segmentation(predicted, labels.astype(np.int64), mask, weight)
        elif task == "depth":
            expected[task] = oracle.depth(predicted[:, 0], labels.astype(float) + ~mask, mask, weight)
        elif task == "normals":
            expected[task] = oracle.normals(predicted, labels.astype(float), mask, weight)
        else:
            losses, positive = oracle.binary_losses(predicted[:, 0], labels.astype(float)), labels
            expected[task] = {"loss": losses.mean(), "accuracy": ((predicted[:, 0] > 0) == positive).mean()}
        losses, _ = plain_losses(task, outputs.float(), torch.from_numpy(labels))
        expected[task]["loss"] = float(losses.double().mean())
        images_with_labels = int(mask.reshape(len(mask), -1).any(1).sum())
        assert summary["examples"]["test"][task] == images_with_labels
    assert summary["examples"]["test"]["depth"] == 2
    metrics = summary.metrics["test"]
    for task, names in {
        "class": ["loss", "miou", "pixel_accuracy"], "depth": ["loss", "abs_err", "rel_err", "rmse"],
        "normals": ["loss", "angle_mean"], "edge": ["loss", "accuracy"],
    }.items():  # fmt: skip
        for name in names:
            assert metrics[task][name] == pytest.approx(expected[task][name], rel=1e-4), (task, name)


@pytest.mark.matrix
@pytest.mark.parametrize("loading", ["auto", "stream"])
def test_a_killed_and_resumed_run_has_the_same_bits(tmp_path: Path, loading: str) -> None:
    workers = {"loading": loading, "workers": 1} if loading == "stream" else {}
    experiment = experiment_from_dict(
        config(
            checkpoint={"every": "1 step"},
            training={"epochs": 2, "batch_size": 6, **workers},
            optimizer={"name": "Adam"},
        )
    )

    def train(folder: Path, killed_at: int = -1) -> None:
        run = build(experiment, copy.deepcopy(data(ROOMS)))
        Trainer(run, folder, resume="auto", callbacks=[Killer(killed_at)], plots=False).fit()

    train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "killed", killed_at=4)
    train(tmp_path / "killed")
    last = "checkpoints/last.pt"
    assert digest_checkpoint(tmp_path / "killed" / last) == digest_checkpoint(tmp_path / "whole" / last)
    assert (tmp_path / "killed/metrics.csv").read_text() == (tmp_path / "whole/metrics.csv").read_text()


def test_balanced_class_weights_count_pixels(tmp_path: Path) -> None:
    plain, given = config(), data(ROOMS)
    plain["tasks"]["class"]["class_weights"] = "balanced"
    run = build(experiment_from_dict(plain), given)
    labels = given["rooms"]["train"][1]["class"]
    counts = [int((labels == code).sum()) for code in range(3)]
    expected = [sum(counts) / (3 * count) for count in counts]
    assert run.class_weights["class"].tolist() == pytest.approx(expected)
    assert math.isfinite(sum(expected))


@pytest.mark.parametrize(("given", "expected"), [(None, {5}), (4, {4})])
def test_evaluated_batches_are_as_large_as_those_of_training(given: int | None, expected: set[int]) -> None:
    """A batch of 256 images could take more memory than a step. By default, a step's size is the largest."""
    plain = config(training={"batch_size": 5}, evaluation={"batch_size": given, "monitor": {"metric": "loss"}})
    run = build(experiment_from_dict(plain), data(ROOMS))
    sizes: list[int] = []
    measure(run, "train", receive=lambda _, prediction, *__: sizes.append(len(prediction)))
    assert {max(sizes)} == expected
    vectors = {task: entry for task, entry in run.kinds.items() if not entry.target.is_map}
    assert evaluation_batch_size(run.experiment, vectors) == (given or 256)
