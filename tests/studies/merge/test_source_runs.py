"""Checkpoints that can and can't be merged."""

from pathlib import Path

import pytest
import torch

from mtlcli.errors import ConfigError
from mtlcli.studies.merge.source_runs import read_sources
from mtlcli.training.checkpoint.file import load_checkpoint, save_checkpoint
from tests.studies.merge.checkpoints import CNN, config, sources, write


def test_runs_are_named_by_their_tasks(tmp_path: Path) -> None:
    first, second, third = sources(tmp_path, config("digit", "ink"), config("parity"), config("parity"))
    assert (first.name, second.name, third.name) == ("digit,ink", "parity", "parity#2")


def test_one_run_is_not_merged(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two or more runs, got 1"):
        read_sources([tmp_path / "0.pt"])


def test_trunks_of_other_architecture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        sources(tmp_path, config("digit"), config("parity", trunk=CNN), config("ink", trunk={"name": "mlp"}))
    first, second = map(str, error.value.problems)
    assert "1.pt: its trunk is 'cnn', and that of " in first
    assert "is 256×64, expected 16×64" in second


def test_models_with_several_trunks_are_refused(tmp_path: Path) -> None:
    shared = config("parity", "ink", sharing={"name": "mmoe", "experts": 2})
    with pytest.raises(ConfigError, match="has `sharing: mmoe`; only models with one trunk"):
        sources(tmp_path, config("digit"), shared)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "0.pt", config("digit"))
    payload = load_checkpoint(path)
    payload["model"]["sharing.trunk.fc1.bias"][0] = torch.nan
    save_checkpoint(path, payload)
    with pytest.raises(ConfigError, match=r"fc1\.bias contains NaN or infinity"):
        read_sources([path, path])
