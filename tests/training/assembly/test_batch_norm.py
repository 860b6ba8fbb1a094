"""Batches of one example, which batch norm refuses in training: avoided, or reported before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mtlcli.errors import ConfigError
from mtlcli.training.assembly.batch_norm_checks import BATCH_NORM_REFUSAL
from mtlcli.training.assembly.build import build, check_experiment
from mtlcli.training.failures import explain_error
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training

CNN = {"name": "cnn", "widths": [4, 8, 8], "features": 8}  # the last maps are 1 × 1 for 8 × 8 images


def create_experiment(held_out: float, **changes: Any) -> Any:
    """Return two tasks with separate trunks; `held_out` is the share of the second dataset that is not trained on."""
    datasets = {"big": {"name": "digits", "val": 0.2}, "small": {"name": "digits", "val": held_out}}
    tasks = {alias: {"dataset": alias, "target": "digit", "kind": "classification"} for alias in datasets}
    return digits(**{"datasets": datasets, "tasks": tasks, "trunk": CNN, "sharing": "none", **changes})


@pytest.mark.parametrize(("changes", "refused"), [
    ({}, True), ({"trunk": {"name": "torchvision", "model": "resnet18"}}, True),
    ({"trunk": {**CNN, "frozen": True}}, False), ({"trunk": {**CNN, "widths": [4]}}, False), ({"trunk": "mlp"}, False),
])  # fmt: skip
def test_batch_size_of_1_is_refused_by_the_check(changes: dict[str, Any], refused: bool) -> None:
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
def test_examples_are_counted_per_trunk(changes: dict[str, Any], refused: bool) -> None:
    experiment = create_experiment(0.2, **{"training": training(batch_size=1), **changes})
    if refused:
        with pytest.raises(ConfigError, match="batch norm needs more than one value per channel"):
            check_experiment(experiment)
    else:
        check_experiment(experiment)


def test_small_dataset_trains_with_a_large_one(tmp_path: Path) -> None:
    """The small one has 14 training examples for 19 steps."""
    experiment = create_experiment(0.99, training=training(batch_size=32, epochs=1))
    trainer = Trainer(build(experiment), tmp_path / "run", plots=False)
    sizes = [len(range(*trainer.state.loader.sampler.take(step)[1])) for step in range(trainer.state.loader.steps)]
    assert sum(sizes) < trainer.state.loader.steps and set(sizes) <= {0, 2, 3}
    assert trainer.fit()["status"] == "completed"


def test_odd_number_of_examples_trains_with_a_batch_size_of_2(tmp_path: Path) -> None:
    experiment = digits(
        datasets={"digits": {"name": "digits", "val": 0.99}}, trunk=CNN, training=training(batch_size=2)
    )
    trainer = Trainer(build(experiment), tmp_path / "run", plots=False)
    assert {sum(batch.counts.values()) for batch in trainer.state.loader.epoch(0)} <= {4, 6}  # two tasks
    assert trainer.fit()["status"] == "completed"


def test_dataset_of_one_training_example_is_refused(tmp_path: Path) -> None:
    message = r"datasets\.small: a step uses a single example of dataset 'small'.*sampling: uniform"
    run = build(create_experiment(0.9995, training=training(epochs=1)))
    assert len(run.examples("train")["small"]) == 1
    with pytest.raises(ConfigError, match=message):
        Trainer(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    repeated = create_experiment(0.9995, training=training(epochs=1, sampling="uniform"))
    assert Trainer(build(repeated), tmp_path / "run", plots=False).fit()["status"] == "completed"


def test_check_changes_neither_the_model_nor_the_random_state(tmp_path: Path) -> None:
    run = build(create_experiment(0.9995, trunk={**CNN, "widths": [4]}, training=training(batch_size=2)))
    run.examples("train")
    before, state = {k: v.clone() for k, v in run.model.state_dict().items()}, torch.get_rng_state()
    Trainer(run, tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in run.model.state_dict().items())


def test_error_of_batch_norm_is_explained() -> None:
    with pytest.raises(ValueError, match=BATCH_NORM_REFUSAL) as caught:
        torch.nn.BatchNorm1d(3)(torch.zeros(1, 3))
    assert "batch norm got one value per channel, with training.batch_size 4" in str(explain_error(caught.value, 4))
