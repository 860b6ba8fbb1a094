"""Every config that ships is valid."""

from pathlib import Path

import pytest

from mtlcli.config import load_experiment
from mtlcli.training.build import build
from mtlcli.training.check import check_experiment
from mtlcli.training.checkpoint import plain, save_checkpoint

ROOT = Path(__file__).parents[1]
CONFIGS = sorted([*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "benchmarks").rglob("*.yaml")])


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint such as `configs/transfer_pretrain.yaml` leaves, but that its model has learned nothing."""
    run = build(load_experiment(ROOT / "configs/transfer_pretrain.yaml"))
    path = tmp_path_factory.mktemp("pretrained") / "best.pt"
    model = plain(dict(run.model.state_dict()))
    save_checkpoint(path, {"config": run.experiment.resolved(), "specs": {}, "model": model})
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_valid(path: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_PRETRAINED", str(pretrained))  # what those of transfer learning start from
    check_experiment(load_experiment(path))
