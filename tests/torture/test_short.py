"""The short form of `scripts/torture.sh`."""

import signal
from pathlib import Path

import pytest

from tests.torture import flips, steps
from tests.torture.runs import Whole, experiment, stopped


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torture")


@pytest.fixture(scope="module")
def whole(root: Path) -> Whole:
    return Whole(experiment(root), root, ("famo",))


def test_killed_at_a_random_moment(root: Path, whole: Whole) -> None:
    assert stopped(root / "torture.yaml", root, whole, 1, signal.SIGKILL) == []


def test_damage_is_noticed(root: Path, whole: Whole) -> None:
    assert flips.undetected(whole.folders["famo"] / "checkpoints/last.pt", 60) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_after_steps(tmp_path: Path, workers: int) -> None:
    assert steps.differing(tmp_path, workers, only=(1, 5, 7)) == []
