"""A signal stops a run at any point, with its state saved; the resumed run has the same bits."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mtlcli.errors import InterruptedRunError
from mtlcli.training import evaluate as evaluation
from mtlcli.training.assembly.build import build
from mtlcli.training.backward.base import StepResult
from mtlcli.training.callbacks import Callback
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.failures import StopRequest
from mtlcli.training.state import TrainerState
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits
from tests.training.identical import digest_checkpoint


def train(folder: Path, *callbacks: Callback) -> Mapping[str, Any]:
    return Trainer(build(digits(weighting="dwa")), folder, resume="auto", callbacks=callbacks, plots=False).fit()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder)
    return folder


def assert_same_bits_when_resumed(folder: Path, whole: Path) -> None:
    train(folder)
    for name in ("checkpoints/last.pt", "checkpoints/best.pt"):
        assert digest_checkpoint(folder / name) == digest_checkpoint(whole / name)
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


@pytest.mark.parametrize("passes", [1, 3, 4], ids=["first epoch", "final val", "final test"])
def test_a_signal_in_an_evaluation(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
    """Evaluations 1 and 2 follow the epochs; 3 and 4 are those of the best model at the end."""
    real, seen, examples = evaluation._add_batch, [0], [0]

    def take(*arguments: Any) -> None:
        examples[0] += 1
        if examples[0] == 1:
            seen[0] += 1
            if seen[0] == passes:
                os.kill(os.getpid(), signal.SIGTERM)
        real(*arguments)

    def batches(*arguments: Any) -> Any:
        examples[0] = 0
        return batches_of(*arguments)

    batches_of = evaluation.evaluation_batches
    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "_add_batch", take)
        patched.setattr(evaluation, "evaluation_batches", batches)
        with pytest.raises(InterruptedRunError, match=r"terminated \(SIGTERM\); saved .*last\.pt") as caught:
            train(tmp_path / "run")
    assert caught.value.exit_code == 143
    assert seen[0] == passes
    progress = load_checkpoint(tmp_path / "run/checkpoints/last.pt")["progress"]
    assert (progress["epoch"], progress["step"]) == ((0, 6) if passes == 1 else (2, 0))
    assert_same_bits_when_resumed(tmp_path / "run", whole)


def test_a_signal_in_a_step(tmp_path: Path, whole: Path) -> None:
    class Sender(Callback):
        left = 9

        def on_step_end(self, state: TrainerState, result: StepResult | None) -> None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRunError) as caught:
        train(tmp_path / "run", Sender())
    assert caught.value.exit_code == 130
    assert load_checkpoint(tmp_path / "run/checkpoints/last.pt")["progress"]["steps"] == 9
    assert_same_bits_when_resumed(tmp_path / "run", whole)


def test_a_second_signal_acts_at_once() -> None:
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for background processes
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.requested == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, usual)
