"""What a comparison measures in each run: the metrics on resampled examples, and the memory of training."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mtlcli.specs import TargetSpec
from mtlcli.studies.compare import measured as measuring
from mtlcli.studies.compare.measured import MEASURED, OutputCollector, measure, resample_metrics
from mtlcli.training.assembly.build import build
from mtlcli.training.trainer import Trainer
from tests.studies.fake_data import experiment, made, task
from tests.tasks.labels import kind

__all__ = ["made"]


def outputs(right: np.ndarray, missing: int = 0) -> OutputCollector:
    """Logits whose predictions are right or wrong, in batches of 64; the labels of the last examples are missing."""
    target = torch.zeros(len(right))
    target[len(right) - missing :] = math.nan
    logits = torch.where(torch.from_numpy(right), -1.0, 1.0).unsqueeze(1)
    kept = OutputCollector()
    for batch in zip(logits.split(64), target.split(64), strict=True):
        kept.receive("t", *batch)
    return kept


def test_the_scatter_over_the_resamples_is_the_binomial_one() -> None:
    right = np.random.RandomState(0).uniform(size=500) < 0.8
    kinds = {"t": kind("binary", TargetSpec("binary", missing=True))}
    found = resample_metrics(kinds, outputs(right), resamples=400)["t"]
    share = right.mean()
    assert np.std(found["accuracy"], ddof=1) == pytest.approx(math.sqrt(share * (1 - share) / 500), rel=0.18)  # 5 SE
    assert np.mean(found["accuracy"]) == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 500 / 400))
    assert all(math.isnan(value) for value in found["auroc"])  # there is one class only


def test_models_meet_the_same_resamples() -> None:
    """The difference of a model that is right wherever another is, but for five examples, hardly scatters."""
    kinds = {"t": kind("binary", TargetSpec("binary", missing=True))}
    right = np.random.RandomState(0).uniform(size=500) < 0.8
    better = right.copy()
    better[np.flatnonzero(~right)[:5]] = True
    first, second = (
        np.array(resample_metrics(kinds, outputs(one, missing=100))["t"]["accuracy"]) for one in (right, better)
    )
    expected = math.sqrt(0.0125 * 0.9875 / 400)  # of 5 differing examples in the 400 that are labelled
    assert np.std(second - first, ddof=1) == pytest.approx(expected, rel=0.25)  # 5 standard errors of 200 resamples
    assert np.std(first, ddof=1) > 3 * np.std(second - first, ddof=1)


def test_predictions_that_are_too_many_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MAX_KEPT", 100)
    kinds = {"t": kind("binary", TargetSpec("binary", missing=True))}
    assert resample_metrics(kinds, outputs(np.ones(500, dtype=bool))) == {}


def measured(folder: Path, tasks: tuple[str, ...], hidden: int) -> dict[str, float]:
    """`measured.json` of a trained run, with its number of parameters."""
    run = build(experiment({name: task(name) for name in tasks}, trunk={"name": "mlp", "hidden": [hidden]}))
    trainer = Trainer(run, folder, plots=False)
    summary = trainer.fit()
    measure(trainer.state, trainer.folder)
    found = json.loads((folder / MEASURED).read_text())
    values = found["resampled"]["values"][tasks[0]]["accuracy"]
    assert (found["resampled"]["split"], len(values)) == ("test", 200)
    accuracy = summary["metrics"]["test"][tasks[0]]["accuracy"]
    assert np.mean(values) == pytest.approx(accuracy, abs=5 * np.std(values, ddof=1) / math.sqrt(200) + 1e-9)
    return {"memory": found["memory_bytes"], "parameters": 4.0 * summary["parameters"]["total"]}


@pytest.mark.usefixtures("made")
def test_memory_is_what_the_model_needs(tmp_path: Path) -> None:
    """Nothing of it is the process's: the numbers follow from the model, its optimizer and its batch."""
    small = measured(tmp_path / "small", ("sign",), 8)
    wide = measured(tmp_path / "wide", ("sign",), 4096)
    both = measured(tmp_path / "both", ("sign", "flipped"), 4096)
    adam = 4 * wide["parameters"]  # parameters, gradients and two moments
    activations = 4 * 30 * (4096 + 128)  # float32, of a batch of 30
    assert adam + activations < wide["memory"] < 2 * (adam + activations)
    assert small["memory"] < 0.01 * wide["memory"]
    assert wide["memory"] < both["memory"] < 1.5 * wide["memory"]
