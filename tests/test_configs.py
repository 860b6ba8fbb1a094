"""Every config that ships is valid."""

from pathlib import Path

import pytest

from mtlcli.config import load_experiment
from mtlcli.training.check import check_experiment

ROOT = Path(__file__).parents[1]
CONFIGS = sorted([*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "benchmarks").rglob("*.yaml")])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_valid(path: Path) -> None:
    check_experiment(load_experiment(path))
