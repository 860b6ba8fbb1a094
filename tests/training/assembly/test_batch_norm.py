"""Batches of one example, which batch norm can't take in training: avoided, or told before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import build
from mtlcli.training.assembly.check import check_experiment
from mtlcli.training.assembly.data_checks import BATCH_NORM_REFUSAL
from mtlcli.training.failures import explain_error
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training

CNN = {"name": "cnn", "widths": [4, 8, 8], "features": 8}  # whose last maps are 1 × 1 for 8 × 8 images


def two_datasets(share: float, **changes: Any) -> Any:
    """Two tasks with trunks of their own. share: of the second dataset's examples that are not for training."""
    datasets = {"big": {"name": "digits", "val": 0.2}, "small": {"name": "digits", "val": share}}
    tasks = {alias: {"dataset": alias, "target": "digit", "kind": "classification"} for alias in datasets}
    return digits(**{"datasets": datasets, "tasks": tasks, "trunk": CNN, "sharing": "none", **changes})


@pytest.mark.parametrize(("changes", "refused"), [
    ({}, True), ({"trunk": {"name": "torchvision", "model": "resnet18"}}, True),
    ({"trunk": {**CNN, "frozen": True}}, False), ({"trunk": {**CNN, "widths": [4]}}, False), ({"trunk": "mlp"}, False),
])  # fmt: skip
def test_a_batch_size_of_1_is_told_by_validate(changes: dict[str, Any], refused: bool) -> None:
    experiment = digits(**{"trunk": CNN, "training": training(batch_size=1, epochs=1), **changes})
    if not refused:
        check_experiment(experiment)
        return
    message = r"training\.batch_size: a step uses a single example of dataset 'digits'.*Set it to 2 or more"
    with pytest.raises(ConfigError, match=message):
        check_experiment(experiment)


@pytest.mark.parametrize(("changes", "refused"), [
    ({}, True), ({"sharing": "hard"}, False),
    ({"sharing": "hard", "training": training(batch_size=1, sampling="round_robin")}, True),
])  # fmt: skip
def test_what_counts_is_how_many_examples_pass_one_trunk(changes: dict[str, Any], refused: bool) -> None:
    experiment = two_datasets(0.2, **{"training": training(batch_size=1), **changes})
    if refused:
        with pytest.raises(ConfigError, match="batch norm needs more than one value per channel"):
            check_experiment(experiment)
    else:
        check_experiment(experiment)


def test_a_small_dataset_beside_a_large_one_trains(tmp_path: Path) -> None:
    """The small one has 14 training examples for 19 steps."""
    experiment = two_datasets(0.99, training=training(batch_size=32, epochs=1))
    trainer = Trainer(build(experiment), tmp_path / "run", plots=False)
    sizes = [len(range(*trainer.state.loader.sampler.take(step)[1])) for step in range(trainer.state.loader.steps)]
    assert sum(sizes) < trainer.state.loader.steps and set(sizes) <= {0, 2, 3}
    assert trainer.fit()["status"] == "completed"


def test_odd_numbers_with_a_batch_size_of_2_train(tmp_path: Path) -> None:
    experiment = digits(
        datasets={"digits": {"name": "digits", "val": 0.99}}, trunk=CNN, training=training(batch_size=2)
    )
    trainer = Trainer(build(experiment), tmp_path / "run", plots=False)
    assert {sum(batch.counts.values()) for batch in trainer.state.loader.epoch(0)} <= {4, 6}  # of two tasks
    assert trainer.fit()["status"] == "completed"


def test_a_dataset_of_one_training_example(tmp_path: Path) -> None:
    message = r"datasets\.small: a step uses a single example of dataset 'small'.*sampling: uniform"
    run = build(two_datasets(0.9995, training=training(epochs=1)))
    assert len(run.examples("train")["small"]) == 1
    with pytest.raises(ConfigError, match=message):
        Trainer(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    repeated = two_datasets(0.9995, training=training(epochs=1, sampling="uniform"))
    assert Trainer(build(repeated), tmp_path / "run", plots=False).fit()["status"] == "completed"


def test_the_check_leaves_the_model_and_the_random_numbers_as_they_are(tmp_path: Path) -> None:
    run = build(two_datasets(0.9995, trunk={**CNN, "widths": [4]}, training=training(batch_size=2)))
    run.examples("train")
    before, state = {k: v.clone() for k, v in run.model.state_dict().items()}, torch.get_rng_state()
    Trainer(run, tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in run.model.state_dict().items())


def test_what_is_refused_all_the_same_is_explained() -> None:
    with pytest.raises(ValueError, match=BATCH_NORM_REFUSAL) as caught:
        torch.nn.BatchNorm1d(3)(torch.zeros(1, 3))
    assert "batch norm got one value per channel, with training.batch_size 4" in str(explain_error(caught.value, 4))
