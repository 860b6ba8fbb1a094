"""Order and arguments of the calls, errors in callbacks, and callbacks from YAML."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mtlcli.cli import main
from mtlcli.errors import ConfigError, InterruptedRunError, MtlError
from mtlcli.registry import callbacks as registered
from mtlcli.training.assembly.build import build
from mtlcli.training.backward.base import StepResult
from mtlcli.training.callbacks import Callback
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.evaluate import TaskMetrics
from mtlcli.training.state import TrainerState
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training
from tests.training.identical import digest_checkpoint

LAST = "checkpoints/last.pt"


class Recorder(Callback):
    """Records every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.steps: list[StepResult | None] = []
        self.summary: dict[str, Any] = {}

    def on_fit_start(self, state: TrainerState) -> None:
        assert state.header is not None
        self.calls.append(("fit start", state.header.folder, state.header.steps_per_epoch))

    def on_epoch_start(self, state: TrainerState) -> None:
        self.calls.append(("epoch start", state.progress.epoch, state.progress.step))

    def on_step_end(self, state: TrainerState, result: StepResult | None) -> None:
        self.steps.append(result)

    def on_epoch_end(self, state: TrainerState, metrics: TaskMetrics) -> None:
        assert state.report is not None and state.report.metrics == metrics
        self.calls.append(("epoch end", state.progress.epoch, len(self.steps)))

    def on_fit_end(self, state: TrainerState, summary: dict[str, Any]) -> None:
        self.calls.append(("fit end", summary["status"]))
        self.summary = summary


class Failing(Callback):
    """Raises an error in one of the methods."""

    def __init__(self, method: str, error: BaseException) -> None:
        setattr(self, method, self.fail)
        self.error = error

    def fail(self, *arguments: object) -> None:
        raise self.error


def test_callbacks_are_called_in_order_and_change_no_number(tmp_path: Path) -> None:
    recorders = [Recorder(), Recorder()]
    summary = Trainer(build(digits()), tmp_path / "run", callbacks=recorders, plots=False).fit()
    assert recorders[0].calls == recorders[1].calls == [
        ("fit start", tmp_path / "run", 6), ("epoch start", 0, 0), ("epoch end", 1, 6),
        ("epoch start", 1, 0), ("epoch end", 2, 12), ("fit end", "completed"),
    ]  # fmt: skip
    assert recorders[0].summary == summary
    for result in recorders[0].steps:
        assert result is not None and result.losses.shape == result.weights.shape == (2,)
    Trainer(build(digits()), tmp_path / "alone", plots=False).fit()
    assert digest_checkpoint(tmp_path / "run" / LAST) == digest_checkpoint(tmp_path / "alone" / LAST)


def test_callbacks_of_a_resumed_run(tmp_path: Path) -> None:
    class Stopping(Callback):
        def on_step_end(self, state: TrainerState, result: StepResult | None) -> None:
            if state.progress.steps == 8:
                raise InterruptedRunError("enough", 130)

    stopped, resumed = Recorder(), Recorder()
    with pytest.raises(InterruptedRunError):
        Trainer(build(digits()), tmp_path / "run", callbacks=[Stopping(), stopped], plots=False).fit()
    assert stopped.calls[-1] == ("fit end", "failed")
    Trainer(build(digits()), tmp_path / "run", resume="must", callbacks=[resumed], plots=False).fit()
    assert resumed.calls[1:] == [("epoch start", 1, 2), ("epoch end", 2, 4), ("fit end", "completed")]


@pytest.mark.parametrize("method", ["on_fit_start", "on_epoch_start", "on_step_end", "on_epoch_end", "on_fit_end"])
def test_an_error_in_a_callback_ends_the_run_as_failed(tmp_path: Path, method: str) -> None:
    trainer = Trainer(build(digits()), tmp_path / "run", callbacks=[Failing(method, KeyError("seconds"))], plots=False)
    with pytest.raises(MtlError) as caught:
        trainer.fit()
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "raise self.error" in text)
    assert str(caught.value).startswith("the callback Failing failed at ")
    assert f"test_callbacks.py:{line}, in fail: KeyError: 'seconds' (traceback: {tmp_path}/run/log.txt)" in str(
        caught.value
    )
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary == json.loads(json.dumps(trainer.summary))
    assert summary["status"] == "failed" and summary["error"] == str(caught.value)
    assert "Traceback" in (tmp_path / "run/log.txt").read_text()
    assert load_checkpoint(tmp_path / "run" / LAST)["progress"]["epoch"] == {"on_epoch_end": 1, "on_fit_end": 2}.get(
        method, 0
    )
    assert Trainer(build(digits()), tmp_path / "run", resume="must", plots=False).fit()["status"] == "completed"


def test_on_fit_end_is_called_for_every_callback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failing, recorder = Failing("on_fit_end", SystemExit(3)), Recorder()
    trainer = Trainer(
        build(digits()),
        tmp_path / "run",
        callbacks=[failing, Failing("on_step_end", ValueError("x")), recorder],
        plots=False,
    )
    with pytest.raises(MtlError, match=r"in fail: ValueError: x \(traceback"):
        trainer.fit()
    assert recorder.calls[-1] == ("fit end", "failed")
    assert "in fail: calls sys.exit(3)" in caplog.text


@pytest.mark.parametrize(("callbacks", "message"), [
    (print, "callbacks: expected a list of callbacks, got the function print"),
    ([print], r"callbacks\[0\]: expected an instance of a subclass of mtlcli.Callback, got the function print"),
    ([Recorder], r"callbacks\[0\]: .*got the class Recorder; create an instance of it: Recorder\(\)"),
    ([Recorder(), "csv"], r"callbacks\[1\]: .*got str 'csv'"),
    (Recorder(), r"callbacks: expected a list of callbacks, got a single one; write \[callback\]"),
    (None, "callbacks: expected a list of callbacks, got NoneType None"),
])  # fmt: skip
def test_other_objects_are_refused_before_the_folder_is_created(tmp_path: Path, callbacks: Any, message: str) -> None:
    run = build(digits())
    with pytest.raises(TypeError, match=f"^{message}$"):
        Trainer(run, tmp_path / "run", callbacks=callbacks)
    assert not (tmp_path / "run").exists()


PLUGIN = '''"""A plugin with a callback."""

from pathlib import Path

from mtlcli.registry import callbacks
from mtlcli.training.callbacks import Callback


@callbacks.register("steps_file")
class StepsFile(Callback):
    """Appends the number of steps to a file after each epoch.

    Args:
        path: the file.
        fail: whether to fail at once.
    """

    def __init__(self, *, path: str, fail: bool = False) -> None:
        self.path = Path(path)
        if fail:
            raise ValueError("fail was asked for")

    def on_epoch_end(self, state, metrics):
        with self.path.open("a") as file:
            file.write(f"{state.progress.steps}\\n")


@callbacks.register("no_callback")
def no_callback():
    """A function that returns no callback."""
'''
CONFIG = """
name: tiny
datasets: {digits: {name: digits, val: 0.2}}
tasks: {digit: {dataset: digits, kind: classification}}
trunk: {name: mlp, hidden: [8], features: 4}
training: {epochs: 2, batch_size: 200, device: cpu, threads: 1}
callbacks:
  - {name: steps_file, path: steps.txt}
plugins: [plugin.py]
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return tmp_path / "tiny.yaml"


def test_a_callback_from_yaml(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is called and kept in config.yaml. Neither an evaluation nor a resumed run needs it."""
    assert main(["train", str(config), "--allow-plugins", "--run-dir", "run"]) == 0
    assert Path("steps.txt").read_text() == "6\n12\n"
    capsys.readouterr()
    assert main(["train", "run/config.yaml", "--allow-plugins", "--run-dir", "again"]) == 0
    assert Path("steps.txt").read_text() == "6\n12\n6\n12\n"
    assert digest_checkpoint(Path("again") / LAST)["model"] == digest_checkpoint(Path("run") / LAST)["model"]
    assert "callbacks" not in load_checkpoint(Path("run") / LAST)["config"]
    assert main(["train", str(config), "--allow-plugins", "--run-dir", "run", "--resume", "must", "callbacks=[]"]) == 0
    assert main(["eval", "run/checkpoints/best.pt"]) == 0


@pytest.mark.parametrize(("entry", "message"), [
    ("{name: steps_file, path: x, fail: true}", r"tiny\.yaml:8.*callbacks\.0\.fail: fail .*plugin\.py:21"),
    ("no_callback", r"tiny\.yaml:8.*callbacks\.0: no_callback is registered as a callback, but is NoneType None"),
    ("{name: steps_file}", r"tiny\.yaml:8.*callbacks\.0\.path"),
    ("{name: steps_fil, path: x}", r"tiny\.yaml:8.*unknown callback 'steps_fil'\. Did you mean 'steps_file'\?"),
])  # fmt: skip
def test_errors_of_callbacks_from_yaml(
    config: Path, capsys: pytest.CaptureFixture[str], entry: str, message: str
) -> None:
    config.write_text(CONFIG.replace("{name: steps_file, path: steps.txt}", entry))
    assert main(["train", str(config), "--allow-plugins", "--run-dir", "run"]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err), err
    assert not Path("run").exists()


def test_no_callback_ships_with_mtl() -> None:
    if not registered.names():
        assert "No callback ships with mtl; they come from --plugin" in registered.unknown("csv")


def test_callbacks_differ_without_being_another_experiment() -> None:
    assert digits().resolved().keys() == digits(callbacks=[]).resolved().keys()
    assert "callbacks" not in digits(training=training()).resolved(callbacks=True)
    with pytest.raises(ConfigError, match="callbacks"):
        digits(callbacks=["nothing"])
