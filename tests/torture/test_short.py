"""The short form of `scripts/torture.sh`."""

import signal
from pathlib import Path

import pytest

from mtlcli.cli import main
from tests.cli.processes import fork_mtl
from tests.torture import flips, steps
from tests.torture.runs import experiment, same, unreadable


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torture")


@pytest.fixture(scope="module")
def command(root: Path) -> list[str]:
    return ["train", str(experiment(root)), "weighting=famo", "--resume", "auto", "--run-dir"]


@pytest.fixture(scope="module")
def whole(root: Path, command: list[str]) -> Path:
    assert main([*command, str(root / "whole")]) == 0
    return root / "whole"


def test_killed_at_a_random_moment(root: Path, command: list[str], whole: Path) -> None:
    """By SIGKILL, somewhere in the second of its three epochs, or beyond."""
    killed = root / "killed"
    with fork_mtl(*command, str(killed)) as mtl:
        assert any(line.startswith("epoch 1 ") for line in mtl.err)
    assert mtl.wait() in (-signal.SIGKILL, 0)
    assert unreadable(killed) == []
    assert main([*command, str(killed)]) == 0
    assert same(killed, whole)


def test_damage_is_noticed(whole: Path) -> None:
    assert flips.undetected(whole / "checkpoints/last.pt", 60) == []


@pytest.mark.parametrize(("workers", "after"), [(0, (1, 5, 7)), (2, (7,))])
def test_killed_after_steps(tmp_path: Path, workers: int, after: tuple[int, ...]) -> None:
    assert steps.differing(tmp_path, workers, only=after) == []
