"""A short version of `scripts/torture.sh`."""

import signal
from pathlib import Path

import pytest

from mtlcli.cli import main
from tests.cli.processes import fork_mtl
from tests.torture import damage, steps
from tests.torture.runs import are_identical, find_unreadable, write_experiment


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torture")


@pytest.fixture(scope="module")
def command(root: Path) -> list[str]:
    return ["train", str(write_experiment(root)), "weighting=famo", "--resume", "auto", "--run-dir"]


@pytest.fixture(scope="module")
def reference(root: Path, command: list[str]) -> Path:
    assert main([*command, str(root / "reference")]) == 0
    return root / "reference"


def test_run_killed_at_a_random_moment_resumes_identically(root: Path, command: list[str], reference: Path) -> None:
    """SIGKILL arrives after the first epoch."""
    killed = root / "killed"
    with fork_mtl(*command, str(killed)) as mtl:
        assert any(line.startswith("epoch 1 ") for line in mtl.err)
    assert mtl.wait() in (-signal.SIGKILL, 0)
    assert find_unreadable(killed) == []
    assert main([*command, str(killed)]) == 0
    assert are_identical(killed, reference)


def test_damaged_checkpoints_are_detected(reference: Path) -> None:
    assert damage.find_undetected(reference / "checkpoints/last.pt", 60) == []


@pytest.mark.parametrize(("workers", "after"), [(0, (1, 5, 7)), (2, (7,))])
def test_run_killed_after_steps_resumes_identically(tmp_path: Path, workers: int, after: tuple[int, ...]) -> None:
    assert steps.find_differences(tmp_path, workers, only=after) == []
