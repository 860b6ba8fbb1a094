"""Number of threads by load, with simulated samples and a simulated /proc."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mtlcli.training import device
from mtlcli.training.assembly.build import build
from mtlcli.training.backward.base import StepResult
from mtlcli.training.device import Sample, Threads, first_threads, free_cores, sample, thread_limit
from mtlcli.training.state import TrainerState
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training
from tests.training.identical import digest_checkpoint
from tests.training.killing import KilledError, Killer


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with four cores, and no number of threads in the environment."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(device, "affinity", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(device, "physical_cores", lambda _: 4)
    monkeypatch.setattr(device, "cpu_quota", lambda _: None)
    monkeypatch.setattr("time.sleep", lambda _: None)
    yield
    torch.set_num_threads(before)


class Load:
    """Samples of a machine whose clock advances by `pass_`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = Sample(100.0, 1000.0, 50.0)
        monkeypatch.setattr(device, "sample", lambda _=None: self.now)

    def pass_(self, seconds: float, others: float, own: float = 1.0) -> None:
        now = self.now
        self.now = Sample(
            now.moment + seconds, now.busy + (others + own) * seconds, now.own + own * seconds, None
        )  # fmt: skip


def test_free_cores() -> None:
    before = Sample(0.0, 500.0, 10.0, 30.0)
    after = Sample(10.0, 535.0, 25.0, 47.0)  # 3.5 cores busy, 1.5 of them by this process, 1.7 in its group
    assert free_cores(before, after, 4) == pytest.approx(2.0)
    assert free_cores(before, after, 4, quota=2.0) == pytest.approx(1.8)
    assert free_cores(before, after, 4, quota=8.0) == pytest.approx(2.0)
    assert free_cores(before, Sample(10.0, 505.0, 25.0), 4, quota=2.0) == pytest.approx(4.0)  # clocks that differ


@pytest.mark.parametrize(("others", "expected"), [(0.0, 4), (0.2, 4), (0.9, 3), (2.1, 2), (3.5, 1), (4.0, 1)])
def test_first_threads_by_load(others: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Sample(0.0, 0.0, 0.0)
    samples = iter([before, Sample(0.2, (others + 1) * 0.2, 0.2)])
    monkeypatch.setattr(device, "_STARTED", None)
    monkeypatch.setattr(device, "sample", lambda _=None: next(samples))
    assert first_threads("auto") == expected


def test_first_threads_that_do_not_depend_on_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def unasked(_: object = None) -> Sample:
        raise AssertionError

    monkeypatch.setattr(device, "sample", unasked)
    assert first_threads(7) == 7
    assert first_threads("auto", by_load=False) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert first_threads("auto") == thread_limit() == 3
    assert not Threads("auto", judged=True).judged
    for nonsense in ("", "many", "0", "-1"):
        monkeypatch.setenv("OMP_NUM_THREADS", nonsense)
        assert thread_limit() == 4


def test_fewer_threads_at_once_and_more_after_two_measurements(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load = Load(monkeypatch)
    torch.set_num_threads(4)
    judge = Threads("auto", judged=True)
    numbers = []
    with caplog.at_level(logging.INFO, logger="mtl"):
        for epoch, others in enumerate([0.0, 3.0, 3.0, 0.1, 3.0, 0.1, 1.0, 0.0, 0.0], start=2):
            load.pass_(5.0, others)
            judge.judge(epoch)
            numbers.append(torch.get_num_threads())
    assert numbers == [4, 1, 1, 1, 1, 1, 3, 3, 4]
    assert [record.getMessage() for record in caplog.records][:1] == [
        "threads: 1 instead of 4 from epoch 3 on, as other processes leave 1.0 of 4 cores free"
    ]
    assert len(caplog.records) == 3


def test_short_epochs_are_measured_together(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(monkeypatch)
    torch.set_num_threads(4)
    judge = Threads("auto", judged=True)
    for epoch in range(2, 6):
        load.pass_(0.3, 4.0)
        judge.judge(epoch)
        assert torch.get_num_threads() == (4 if epoch < 5 else 1)


@pytest.mark.parametrize("asked", [2, "auto"])
def test_a_fixed_number_never_changes(asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(monkeypatch)
    torch.set_num_threads(2)
    judge = Threads(asked, judged=asked != "auto")
    load.pass_(10.0, 4.0)
    judge.judge(2)
    assert torch.get_num_threads() == 2


def test_a_resumed_run_keeps_its_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load = Load(monkeypatch)
    torch.set_num_threads(4)
    judge = Threads("auto", judged=True)
    judge.keep(1)
    assert torch.get_num_threads() == 1
    assert [record.getMessage() for record in caplog.records] == [
        "continuing with 1 thread as before, for the same bits; this machine allows 4, which "
        "training.threads=4 would use"
    ]
    load.pass_(100.0, 0.0)
    judge.judge(2)
    load.pass_(100.0, 0.0)
    judge.judge(3)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("saved", [None, 0, -1, 10**9, "4", 2.0])
def test_an_invalid_saved_number_is_ignored(saved: object) -> None:
    torch.set_num_threads(3)
    Threads("auto", judged=True).keep(saved)
    assert torch.get_num_threads() == 3


def test_a_number_set_by_the_user_takes_precedence_over_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    Threads(3, judged=True).keep(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    Threads("auto", judged=True).keep(1)
    assert torch.get_num_threads() == 3


def test_a_sample_reads_proc_stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(device, "affinity", lambda: {0, 2})
    monkeypatch.setattr("os.nice", lambda _: 0)
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(
        "cpu  9 9 9 9 9 9 9 9 0 0\n"
        "cpu0 100 5000 200 9999 777 10 20 70 0 0\n"
        "cpu1 90000 0 0 0 0 0 0 0 0 0\n"
        "cpu2 300 0 0 9999 0 0 0 0 0 0\n"
        "intr 1 2 3\n"
    )
    current = sample(tmp_path)
    assert current is not None
    assert current.busy == 7.0  # of lower priority, idle, and other cores: nothing
    monkeypatch.setattr("os.nice", lambda _: 10)
    assert (current := sample(tmp_path)) is not None and current.busy == 57.0
    assert sample(tmp_path / "nowhere") is None


def test_a_killed_run_resumes_with_its_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run has two threads, then one from the second epoch on; so has the resumed run, which starts with two."""
    monkeypatch.setattr("mtlcli.training.device.first_threads", lambda *_, **__: 2)
    seen = []

    def judge(self: Threads, epoch: int) -> None:
        if self.judged:
            torch.set_num_threads(1)

    class Killed(Killer):
        def on_step_end(self, state: TrainerState, result: StepResult | None) -> None:
            seen.append(torch.get_num_threads())
            super().on_step_end(state, result)

    monkeypatch.setattr(Threads, "judge", judge)
    experiment = digits(training=training(threads="auto", epochs=3, batch_size=700), checkpoint={"every": "1 step"})
    whole = Trainer(build(experiment), tmp_path / "whole", callbacks=[Killed(-1)]).fit()
    assert (seen, whole["threads"]) == ([2, 2, 1, 1, 1, 1], 1)
    for kill in (1, 3, 5):
        folder = tmp_path / f"killed-{kill}"
        with pytest.raises(KilledError):
            Trainer(build(experiment), folder, callbacks=[Killed(kill)]).fit()
        seen.clear()
        resumed = Trainer(build(experiment), folder, resume="auto", callbacks=[Killed(-1)])
        judged = resumed.state.threads.judged
        summary = resumed.fit()
        assert (judged, resumed.state.threads.judged) == (True, False)
        if kill > 1:  # before, the change was still to come, and a resumed run isn't judged
            assert set(seen) == {1}
            assert digest_checkpoint(folder / "checkpoints/last.pt") == digest_checkpoint(
                tmp_path / "whole/checkpoints/last.pt"
            )
            assert summary["metrics"] == whole["metrics"]
