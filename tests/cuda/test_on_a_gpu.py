"""Training on a GPU: steps don't synchronize, results match the CPU's, and a resumed run gives the same bits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlcli.config import Experiment
from mtlcli.data.loader import Batch
from mtlcli.registry import sharings, weightings
from mtlcli.training.assembly.build import build
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits
from tests.training.identical import digest_checkpoint
from tests.training.killing import KilledError, Killer

RELATED = {"digit": {"digit": 1, "ink": 0.5, "parity": 0.5}, "ink": {"digit": 0.5, "ink": 1, "parity": 0.2},
           "parity": {"digit": 0.5, "ink": 0.2, "parity": 1}}  # fmt: skip
OPTIONS = {"torchjd": {"aggregator": "Mean"}, "relation": {"matrix": RELATED}}
WEIGHTINGS = [{"name": name, **OPTIONS.get(name, {})} for name in weightings.names()]
SYNCHRONIZING = {"aligned_mtl", "imtl_g", "torchjd"}  # by torch's eigh and by TorchJD
TASKS = {
    "digit": {"dataset": "digits", "target": "digit", "kind": "classification"},
    "ink": {"dataset": "digits", "target": "ink", "kind": "regression"},
    "parity": {"dataset": "digits", "target": "parity", "kind": "binary"},
}
LENET = {"name": "cnn", "widths": [4, 4], "dropout": 0.0}


def experiment(weighting: Any = "uniform", device: str = "cuda", **changes: Any) -> Experiment:
    options = {"epochs": 2, "batch_size": 200, "device": device, **changes.pop("training", {})}
    return digits(**{"tasks": TASKS, "trunk": LENET, "weighting": weighting, "training": options, **changes})


@contextmanager
def forbid_synchronization() -> Iterator[None]:
    """Raise an error if an operation waits for the GPU."""
    with warnings.catch_warnings(action="ignore"):  # torch warns that it may not detect all of them
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def run_steps(trainer: Trainer, batches: Iterator[Batch], count: int) -> None:
    for number in range(count):
        result = trainer.state.step([next(batches)])
        assert result is not None
        trainer.state.log.record(number + 1, *result)
        trainer.state.schedule.after_step()


def assert_does_not_synchronize(trainer: Trainer) -> None:
    trainer.run.model.train()
    batches = trainer.state.loader.epoch(0)
    run_steps(trainer, batches, 2)  # allocates persistent buffers and the order of the epoch
    with forbid_synchronization():
        run_steps(trainer, batches, 4)


@pytest.mark.parametrize(
    "weighting", [w for w in WEIGHTINGS if w["name"] not in SYNCHRONIZING], ids=lambda w: w["name"]
)
def test_steps_do_not_synchronize(weighting: dict[str, Any], tmp_path: Path) -> None:
    trainer = Trainer(build(experiment(weighting)), tmp_path)
    assert_does_not_synchronize(trainer)


@pytest.mark.parametrize(
    "sharing", [name for name in sharings.names() if name not in ("shared_private", "esmm", "aitm")]
)
def test_steps_of_every_sharing_do_not_synchronize(sharing: str, tmp_path: Path) -> None:
    trainer = Trainer(build(experiment("pcgrad", sharing=sharing)), tmp_path)
    assert_does_not_synchronize(trainer)


@pytest.mark.parametrize("options", [{"gradients": "features"}, {"every": 2}], ids=str)
def test_cheaper_steps_do_not_synchronize(options: dict[str, Any], tmp_path: Path) -> None:
    trainer = Trainer(build(experiment({"name": "mgda", **options})), tmp_path)
    assert_does_not_synchronize(trainer)


def train_weights(device: str, weighting: dict[str, Any], folder: Path) -> dict[str, Tensor]:
    trainer = Trainer(build(experiment(weighting, device, optimizer={"name": "SGD", "lr": 0.01})), folder)
    trainer.run.model.train()
    run_steps(trainer, trainer.state.loader.epoch(0), 3)
    return {name: value.cpu() for name, value in trainer.run.model.state_dict().items()}


DEVICE_RANDOMNESS = {"graddrop"}  # draws on the device, whose generator differs from the CPU's


@pytest.mark.parametrize(
    "weighting", [w for w in WEIGHTINGS if w["name"] not in DEVICE_RANDOMNESS], ids=lambda w: w["name"]
)
def test_results_match_the_cpu(weighting: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    actual, expected = train_weights("cuda", weighting, tmp_path), train_weights("cpu", weighting, tmp_path)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-3, atol=1e-4)


def train(config: Experiment, folder: Path, killed_at: int | None = None) -> Mapping[str, Any]:
    return Trainer(build(config), folder, resume="auto", callbacks=[Killer(killed_at or -1)], plots=False).fit()


STATEFUL = ["uniform", "uncertainty", "gradnorm", "famo", "moco", "mgda", "pcgrad", "graddrop", "sdmgrad"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("weighting", STATEFUL)
def test_killed_run_resumes_identically(weighting: str, precision: str, tmp_path: Path) -> None:
    config = experiment(weighting, training={"precision": precision}, checkpoint={"every": "1 step"},
                        trunk={"name": "mlp", "hidden": [16], "dropout": 0.2})  # fmt: skip
    whole = train(config, tmp_path / "whole")
    with pytest.raises(KilledError):
        train(config, tmp_path / "killed", killed_at=9)
    resumed = train(config, tmp_path / "killed")
    last = "checkpoints/last.pt"
    assert digest_checkpoint(tmp_path / "killed" / last) == digest_checkpoint(tmp_path / "whole" / last)
    assert resumed["metrics"] == whole["metrics"]
    assert whole["device"].startswith("cuda") and whole["peak_memory_bytes"] > 0


@pytest.mark.filterwarnings("ignore")  # warnings of torch during compilation
@pytest.mark.parametrize("weighting", ["uniform", "pcgrad"])
def test_compiled_model_learns(weighting: str, tmp_path: Path) -> None:
    config = experiment(weighting, training={"compile": True, "epochs": 6}, optimizer={"name": "Adam", "lr": 0.01})
    metrics = train(config, tmp_path)["metrics"]["test"]
    assert metrics["digit"]["accuracy"] > 0.6


def test_checkpoint_loads_on_the_cpu(tmp_path: Path) -> None:
    train(experiment(), tmp_path)
    model = load_checkpoint(tmp_path / "checkpoints/best.pt")["model"]
    assert {value.device.type for value in model.values()} == {"cpu"}
