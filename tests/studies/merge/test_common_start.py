"""Common start of runs: rebuilt from the seed or from a checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mtlcli.errors import ConfigError
from mtlcli.studies.merge.common_start import common_start
from mtlcli.studies.merge.source_runs import read_sources
from mtlcli.training.checkpoint.file import load_checkpoint, rng_state, save_checkpoint
from tests.studies.merge.checkpoints import CNN, MLP, config, sources, write


@pytest.mark.parametrize("trunk", [MLP, CNN], ids=["mlp", "cnn"])
def test_the_start_is_that_of_the_seed(tmp_path: Path, trunk: dict[str, Any]) -> None:
    first, start = write(tmp_path / "0.pt", config("digit", trunk=trunk, seed=3), noise=0)
    second, _ = write(tmp_path / "1.pt", config("parity", trunk=trunk, seed=3), noise=1)
    before = rng_state()["torch"]
    rebuilt = common_start(read_sources([first, second]))
    assert torch.equal(rng_state()["torch"], before)
    assert all(torch.equal(rebuilt[key], value) for key, value in start.items() if not key.startswith("normalize."))
    assert any(key.startswith("sharing.heads.parity.") for key in rebuilt)


def test_other_seeds_are_refused(tmp_path: Path) -> None:
    runs = sources(tmp_path, config("digit"), config("parity", seed=1))
    with pytest.raises(ConfigError) as error:
        common_start(runs)
    first, second = map(str, error.value.problems)
    assert "0.pt (seed 0) and" in first
    assert "1.pt (seed 1) did not start from the same weights: sharing.trunk.fc1.weight" in first
    assert "`--method mean` needs none" in second


def test_the_start_is_the_checkpoint_of_the_trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, start = write(tmp_path / "start.pt", config("ink", seed=9))
    trunk = {**MLP, "init_from": "start.pt"}
    runs = sources(tmp_path, config("digit", trunk=trunk), config("parity", trunk=trunk, seed=1))
    rebuilt = common_start(runs)
    trunk_keys = [key for key in start if key.startswith("sharing.trunk.")]
    assert trunk_keys
    assert all(torch.equal(rebuilt[key], start[key]) for key in trunk_keys)


def test_a_file_outside_the_current_folder_is_read_only_if_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, start = write(tmp_path / "start.pt", config("ink", seed=9))
    trunk = {**MLP, "init_from": str(path)}
    runs = sources(tmp_path, config("digit", trunk=trunk), config("parity", trunk=trunk))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(ConfigError, match="is not read because a checkpoint names it: give it yourself with --base"):
        common_start(runs)
    for rebuilt in (common_start(runs, base=path), common_start(runs, trusted=True)):
        assert torch.equal(rebuilt["sharing.trunk.fc1.weight"], start["sharing.trunk.fc1.weight"])


def test_a_base_is_only_for_runs_that_started_from_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--base: .*0\.pt did not start from a checkpoint or"):
        common_start(sources(tmp_path, config("digit"), config("parity")), base=tmp_path / "0.pt")


def test_another_version_of_torch_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, _ = write(tmp_path / "0.pt", config("digit"))
    payload = load_checkpoint(path)
    payload["made_with"]["torch"] = "1.0"
    save_checkpoint(path, payload)
    common_start(read_sources([path, path]))
    assert "they were trained with 1.0: its random weights may differ" in caplog.text
