"""Closed, full or broken stdout and stderr: exit codes, no traceback, and runs that continue."""

import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mtlcli.cli import main
from mtlcli.cli.streams import SafeWriter

DIGITS = str(Path(__file__).parents[2] / "configs" / "digits.yaml")
QUICK = ["train", DIGITS, "training.epochs=2", "training.batch_size=256", "training.threads=1"]
FULL = Path("/dev/full")
BROKEN = ["full", "gone", "closed", "closed_later"]


@contextmanager
def broken(how: str) -> Iterator[io.TextIOWrapper | None]:
    """A stream on a full disk, a pipe without a reader, or a closed stream."""
    if how == "closed":
        yield None
        return
    if how == "full":
        if not FULL.exists():
            pytest.skip("no /dev/full here")
        descriptor = os.open(FULL, os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    stream = io.TextIOWrapper(io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False)), line_buffering=True)
    if how == "closed_later":
        os.close(descriptor)
    yield stream
    stream.detach()  # its buffers are empty
    if how != "closed_later":
        os.close(descriptor)


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_stderr_does_not_end_a_run(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with broken(how) as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        assert main([*QUICK, "--run-dir", str(tmp_path / "run"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["status"], summary["error"], summary["epochs"]) == ("completed", None, 2)
    assert "epoch 2" in (tmp_path / "run/log.txt").read_text()


@pytest.mark.parametrize(("how", "code"), [("full", 1), ("gone", 0), ("closed", 1), ("closed_later", 1)])
def test_a_result_that_stdout_cannot_write(
    how: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run completes; a closed pipe is no error, any other failure is an error in one line."""
    with broken(how) as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert main([*QUICK, "--run-dir", str(tmp_path / "run")]) == code
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "completed"
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ["stdout can't be written" in line for line in errors] == ([True] if code else [])


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("command", [["schema"], ["list", "weighting"], ["show", "mlp"], ["--help"], ["data", "list"]])
def test_broken_streams_of_verbs_that_only_print(command: list[str], how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with broken(how) as stdout, broken(how) as stderr:
        monkeypatch.setattr("sys.stdout", stdout)
        monkeypatch.setattr("sys.stderr", stderr)
        assert main(command) == (0 if how == "gone" else 1)


def test_an_error_keeps_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken("gone") as stdout, broken("gone") as stderr:
        monkeypatch.setattr("sys.stdout", stdout)
        monkeypatch.setattr("sys.stderr", stderr)
        assert main(["train", "nowhere.yaml"]) == 2
        assert main(["trian"]) == 2


def test_a_slow_reader_of_a_non_blocking_pipe_gets_everything() -> None:
    """A parent process may leave such a pipe if it sets O_NONBLOCK, as Node does."""
    reader, descriptor = os.pipe()
    os.set_blocking(descriptor, False)
    received = io.BytesIO()

    def read() -> None:
        while chunk := os.read(reader, 1 << 16):
            received.write(chunk)

    writer = SafeWriter(io.FileIO(descriptor, "w"))
    slow = threading.Thread(target=read)
    data = os.urandom(1 << 20)  # more than the capacity of a pipe
    buffered = io.BufferedWriter(writer)
    timer = threading.Timer(0.05, slow.start)
    timer.start()
    buffered.write(data)
    buffered.flush()
    writer.target.close()
    timer.join()
    slow.join()
    os.close(reader)
    assert writer.failure is None
    assert received.getvalue() == data
