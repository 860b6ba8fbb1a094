"""Measurements of a run for a comparison: metrics on resampled examples, and memory of training."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from mtlcli.specs import TargetSpec
from mtlcli.studies.compare import measured, resampling
from mtlcli.studies.compare.measured import MEASURED, measure
from mtlcli.studies.compare.resampling import OutputCollector, resample_metrics
from mtlcli.training.assembly.build import build
from mtlcli.training.trainer import Trainer
from tests.studies.fake_data import TRAINING, experiment, fake_dataset, task
from tests.tasks.labels import kind

__all__ = ["fake_dataset"]


def outputs(right: np.ndarray, missing: int = 0) -> OutputCollector:
    """Collect logits whose predictions are right or wrong, in batches of 64; the last labels are missing."""
    target = torch.zeros(len(right))
    target[len(right) - missing :] = math.nan
    logits = torch.where(torch.from_numpy(right), -1.0, 1.0).unsqueeze(1)
    kept = OutputCollector({})
    for batch in zip(logits.split(64), target.split(64), strict=True):
        kept.receive("t", *batch)
    return kept


def test_resampled_accuracy_has_binomial_variance() -> None:
    right = np.random.RandomState(0).uniform(size=500) < 0.8
    kinds = {"t": kind("binary", TargetSpec("binary", missing=True))}
    result = resample_metrics(kinds, outputs(right), resamples=400)["t"]
    share = right.mean()
    assert np.std(result["accuracy"], ddof=1) == pytest.approx(math.sqrt(share * (1 - share) / 500), rel=0.18)  # 5 SE
    assert np.mean(result["accuracy"]) == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 500 / 400))
    assert all(math.isnan(value) for value in result["auroc"])  # all labels are of one class


def test_resamples_are_the_same_for_all_models() -> None:
    """Two models that differ in five examples have a difference with little variance."""
    kinds = {"t": kind("binary", TargetSpec("binary", missing=True))}
    right = np.random.RandomState(0).uniform(size=500) < 0.8
    better = right.copy()
    better[np.flatnonzero(~right)[:5]] = True
    first, second = (
        np.array(resample_metrics(kinds, outputs(correct, missing=100))["t"]["accuracy"]) for correct in (right, better)
    )
    expected = math.sqrt(0.0125 * 0.9875 / 400)  # 5 of 400 labelled examples differ
    assert np.std(second - first, ddof=1) == pytest.approx(expected, rel=0.25)  # 5 standard errors of 200 resamples
    assert np.std(first, ddof=1) > 3 * np.std(second - first, ddof=1)


def test_large_predictions_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "MAX_KEPT", 100)
    kinds = {"t": kind("binary", TargetSpec("binary", missing=True))}
    assert resample_metrics(kinds, outputs(np.ones(500, dtype=bool))) == {}


def train_and_measure(folder: Path, tasks: tuple[str, ...], hidden: int) -> dict[str, float]:
    """Train and measure a run, and return its step memory and the bytes of its parameters."""
    run = build(experiment({name: task(name) for name in tasks}, trunk={"name": "mlp", "hidden": [hidden]}))
    trainer = Trainer(run, folder, plots=False)
    summary = trainer.fit()
    measure(trainer.state, trainer.folder)
    result = json.loads((folder / MEASURED).read_text())
    values = result["resampled"]["values"][tasks[0]]["accuracy"]
    assert (result["resampled"]["split"], len(values)) == ("test", 200)
    accuracy = summary["metrics"]["test"][tasks[0]]["accuracy"]
    assert np.mean(values) == pytest.approx(accuracy, abs=5 * np.std(values, ddof=1) / math.sqrt(200) + 1e-9)
    return {"memory": result["memory_bytes"], "parameters": 4.0 * summary["parameters"]["total"]}


@pytest.mark.usefixtures("fake_dataset")
def test_step_memory_matches_the_model(tmp_path: Path) -> None:
    """The memory of the process is excluded: the numbers follow from model, optimizer and batch."""
    small = train_and_measure(tmp_path / "small", ("sign",), 8)
    wide = train_and_measure(tmp_path / "wide", ("sign",), 4096)
    both = train_and_measure(tmp_path / "both", ("sign", "flipped"), 4096)
    adam = 4 * wide["parameters"]  # parameters, gradients and two moments
    activations = 4 * 30 * (4096 + 128)  # float32, of a batch of 30
    assert adam + activations < wide["memory"] < 2 * (adam + activations)
    assert small["memory"] < 0.01 * wide["memory"]
    assert wide["memory"] < both["memory"] < 1.5 * wide["memory"]


@pytest.mark.usefixtures("fake_dataset")
def test_training_metrics_are_those_of_as_many_examples_as_an_epoch_has(tmp_path: Path) -> None:
    limited = {"sampling": {"name": "proportional", "limit": 40}}
    run = build(experiment({"sign": task("sign")}, training={**TRAINING, **limited}))
    trainer = Trainer(run, tmp_path, plots=False)
    trainer.fit()
    examples = run.examples("train")["fake"]
    rows = [i * len(examples) // 40 for i in range(40)]
    with torch.inference_mode():
        logits = run.model.eval()(examples.inputs if examples.rows is None else examples.inputs[examples.rows])["sign"]
    losses = binary_cross_entropy_with_logits(logits[:, 0], examples.labels("sign"), reduction="none")
    assert len(examples) > 100
    metrics = measured.measure_model(run, trainer.folder.best)["train"]["sign"]
    assert metrics["loss"] == pytest.approx(float(losses[rows].mean()), rel=1e-5)
    assert metrics["loss"] != pytest.approx(float(losses.mean()), rel=1e-5)


def test_outputs_of_sequences_are_padded() -> None:
    kinds = {"t": kind("tagging", TargetSpec("tags", 2))}
    target = torch.randint(0, 2, (10, 6), generator=torch.Generator().manual_seed(0))
    kept, whole = OutputCollector({}), torch.nn.functional.one_hot(target, 2).float()
    kept.receive("t", whole[:4, :3], target[:4])
    kept.receive("t", whole[4:], target[4:])
    prediction, labels = kept.get("t") or (None, None)
    assert prediction is not None and labels is not None and prediction.shape == (10, 6, 2)
    assert torch.equal(labels, target) and not prediction[:4, 3:].any()
    assert set(resample_metrics(kinds, kept, resamples=3)["t"]) == {"accuracy", "f1"}


@pytest.mark.parametrize("weighted", [False, True])
def test_images_are_resampled_with_all_their_pixels(weighted: bool) -> None:
    """The sums of the numbers of images give the metrics of the drawn images, each as often as it is drawn."""
    amount = 7
    generator = torch.Generator().manual_seed(0)
    kinds = {
        "class": kind("segmentation", TargetSpec("class_map", 3, missing=True)),
        "depth": kind("depth", TargetSpec("depth_map", missing=True)),
    }
    logits = torch.randn(amount + 1, 3, 4, 5, generator=generator)
    classes = torch.randint(-1, 3, (amount + 1, 4, 5), generator=generator)
    targets = {
        "class": classes.masked_fill(classes < 0, -100),
        "depth": torch.rand(amount + 1, 4, 5, generator=generator) + 0.5,
    }
    targets["class"][3] = -100  # an image without labels isn't drawn
    targets["depth"][3] = math.nan
    predictions = {"class": logits, "depth": logits[:, :1]}
    predictions["depth"][2, 0, 0, 0] = math.nan  # only the samples with this image have no value
    weight = torch.rand(amount + 1, generator=generator) + 0.5 if weighted else None
    kept = OutputCollector(kinds)
    for name in kinds:
        for rows in (slice(0, 5), slice(5, amount + 1)):
            own = () if weight is None else (weight[rows],)
            kept.receive(name, predictions[name][rows], targets[name][rows], *own)
    result = resample_metrics(kinds, kept, resamples=4)
    drawn = np.random.default_rng(amount)
    labelled = [row for row in range(amount + 1) if row != 3]
    for sample in range(4):
        rows = [labelled[row] for row in drawn.integers(amount, size=amount)]
        for name, own_kind in kinds.items():
            metrics = own_kind.create_metrics(torch.device("cpu"))
            for row in rows:
                own = () if weight is None else (weight[[row]],)
                metrics.update(predictions[name][[row]], targets[name][[row]], *own)
            for metric, value in metrics.compute().items():
                assert result[name][metric][sample] == pytest.approx(value, rel=1e-9, nan_ok=True)
