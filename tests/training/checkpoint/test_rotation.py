"""The rotation of checkpoints, of which one of the latest can always be loaded."""

import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mtlcli.errors import ConfigError, MtlError
from mtlcli.training.assembly.build import build
from mtlcli.training.callbacks import Callback
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.checkpoint.rotation import Checkpoints
from mtlcli.training.evaluate import TaskMetrics
from mtlcli.training.state import TrainerState
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training


def create_payload(number: int) -> dict[str, Any]:
    return {"config": {}, "specs": {}, "model": {"weight": torch.full((3,), float(number))}, "number": number}


def save_checkpoints(folder: Path, numbers: range, keep: int) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep)
    for number in numbers:
        checkpoints.save(create_payload(number))
    return checkpoints


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_latest_checkpoints_are_kept(tmp_path: Path, keep: int) -> None:
    save_checkpoints(tmp_path, range(6), keep)
    names = ["last.pt", *(f"last-{age}.pt" for age in range(1, keep))]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert [load_checkpoint(tmp_path / name)["number"] for name in names] == list(range(5, 5 - keep, -1))


def test_previous_checkpoint_is_loaded_if_the_last_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = save_checkpoints(tmp_path, range(3), 3)
    assert checkpoints.load()["number"] == 2
    assert not caplog.records
    checkpoints.last.write_bytes(checkpoints.last.read_bytes()[:-1])
    assert checkpoints.load()["number"] == 1
    assert "last.pt: damaged" in caplog.text
    assert "resuming from" in caplog.text
    assert load_checkpoint(checkpoints.last)["number"] == 1
    checkpoints.last.write_bytes(b"")
    assert Checkpoints(tmp_path, keep=1).load()["number"] == 0  # even if fewer are kept from now on
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"last\.pt: empty"):
        checkpoints.load()


@pytest.mark.parametrize("failing", ["replace", "unlink"])
def test_crash_during_renaming_leaves_a_loadable_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    checkpoints = save_checkpoints(tmp_path, range(3), 3)
    with monkeypatch.context() as patched:
        patched.setattr(Path, failing, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(create_payload(3))
    assert Checkpoints(tmp_path, 3).load()["number"] == 2


def test_checkpoints_are_copied_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    checkpoints = save_checkpoints(tmp_path, range(3), 2)
    checkpoints.mark_best()
    checkpoints.save(create_payload(3))
    assert [load_checkpoint(tmp_path / name)["number"] for name in ("last.pt", "last-1.pt", "best.pt")] == [3, 2, 2]


def test_best_checkpoint_is_kept_until_a_better_one(tmp_path: Path) -> None:
    checkpoints = save_checkpoints(tmp_path, range(1), 1)
    checkpoints.mark_best()
    for number in range(1, 5):
        checkpoints.save(create_payload(number))
    assert load_checkpoint(checkpoints.best)["number"] == 0
    checkpoints.mark_best()
    assert load_checkpoint(checkpoints.best)["number"] == 4


def test_best_checkpoint_survives_a_damaged_last_one(tmp_path: Path) -> None:
    """The previous checkpoint, which is that of the best epoch, becomes the best one again."""
    still = digits(optimizer={"name": "SGD", "lr": 1e-12})  # the metrics do not improve after the first epoch
    whole = Trainer(build(still), tmp_path / "run", plots=False).fit()
    assert whole["best"]["epoch"] == 1
    last = tmp_path / "run/checkpoints/last.pt"
    last.write_bytes(last.read_bytes()[:-1])
    assert Trainer(build(still), tmp_path / "run", resume="must", plots=False).fit()["metrics"] == whole["metrics"]
    assert load_checkpoint(tmp_path / "run/checkpoints/best.pt")["progress"]["epoch"] == 1


def test_file_size_limit_ends_the_run_with_one_message(tmp_path: Path) -> None:
    """The process gets EFBIG, as with a quota, because Python ignores SIGXFSZ."""
    Trainer(build(digits(training=training(epochs=1))), tmp_path / "run", plots=False).fit()
    before = (tmp_path / "run/checkpoints/last.pt").read_bytes()
    trainer = Trainer(build(digits()), tmp_path / "run", resume="must", plots=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(MtlError, match=r"last\.pt: can't be written: File too large$"):
            trainer.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert trainer.summary is not None
    assert trainer.summary["status"] == "failed"
    assert (tmp_path / "run/checkpoints/last.pt").read_bytes() == before
    assert Trainer(build(digits()), tmp_path / "run", resume="must", plots=False).fit()["epochs"] == 2


def test_deleted_folder_ends_the_run_with_one_message(tmp_path: Path) -> None:
    class Vandal(Callback):
        def on_epoch_end(self, state: TrainerState, metrics: TaskMetrics) -> None:
            shutil.rmtree(tmp_path / "run")

    trainer = Trainer(build(digits()), tmp_path / "run", callbacks=[Vandal()], plots=False)
    with pytest.raises(MtlError, match=r"last\.pt: can't be written: No such file or directory$"):
        trainer.fit()
    assert trainer.summary is not None
    assert trainer.summary["status"] == "failed"
