"""Pool of processes."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from mtlcli.config import Experiment
from mtlcli.errors import InterruptedRunError
from mtlcli.studies.pool import ProcessPool
from mtlcli.studies.worker import Job
from tests.studies.fake_workers import by_seed, endless, first_of_two, interrupting
from tests.studies.nested import start_study
from tests.training.experiments import digits


@dataclass(frozen=True)
class Run:
    experiment: Experiment
    folder: Path

    def __str__(self) -> str:
        return self.folder.name


def runs(root: Path, count: int) -> list[Run]:
    return [Run(digits(seed=seed), root / str(seed)) for seed in range(count)]


def test_outcomes_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MTL_SEEN", "yes")  # possibly after the server has started
    monkeypatch.setattr("mtlcli.plugins._loaded_plugins", {"plugin.py": "plugin.py"})
    with ProcessPool[Run](2, run=by_seed) as pool:
        result = {str(run): problem for run, problem in pool.train(runs(tmp_path / "runs", 5))}
    assert result["0"] is None
    assert (tmp_path / "runs/0/seen.txt").read_text() == f"{tmp_path} yes ('plugin.py',)"
    assert result["1"] == "out of memory"
    assert result["2"] == "the process was killed by SIGKILL (out of memory?)"
    assert "seed: expected an integer" in str(result["3"])
    assert result["4"] == "the process ended with exit code 3: terminate called"
    assert not (tmp_path / "runs/0/output.txt").exists()  # its output is empty


def test_cores_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlcli.studies.pool.usable_cores", lambda: 8)
    assert [ProcessPool[Run](jobs).threads for jobs in (1, 3, 8, 16)] == [8, 2, 1, 1]


def test_leaving_early_stops_other_processes(tmp_path: Path) -> None:
    with ProcessPool[Run](2, run=first_of_two) as pool:
        for run, problem in pool.train(runs(tmp_path, 3)):
            assert (str(run), problem) == ("0", "failed")
            break
    assert (tmp_path / "1/signal").read_text() == str(int(signal.SIGTERM))
    assert not (tmp_path / "2").exists()  # the third run never started


def test_signals_are_forwarded(tmp_path: Path) -> None:
    with (
        pytest.raises(InterruptedRunError, match="finished work is kept") as caught,
        ProcessPool[Run](2, run=interrupting) as pool,
    ):
        assert list(pool.train(runs(tmp_path, 3))) == []
    assert caught.value.exit_code == 130
    assert (tmp_path / "1/signal").read_text() == str(int(signal.SIGTERM))
    assert not (tmp_path / "2").exists()


def study(root: Path, work: Callable[[Job, Connection], None]) -> None:
    with ProcessPool[Run](2, run=work) as pool:
        list(pool.train(runs(root, 2)))


def test_runs_end_when_the_study_is_killed(tmp_path: Path) -> None:
    killed = start_study(study, tmp_path, endless)
    started = [tmp_path / str(seed) / "started" for seed in range(2)]
    while not all(path.exists() and path.read_text() for path in started):
        assert killed.is_alive()
    killed.kill()
    killed.join()
    for path in started:
        while _exists(int(path.read_text())):
            pass  # a failure here ends by the time limit of the test
    assert not list(tmp_path.glob("*/signal"))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
