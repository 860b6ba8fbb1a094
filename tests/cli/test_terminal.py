"""Output on terminals of several widths: numbers and names are never cut."""

import io
import os
import pty
import re
import threading
from pathlib import Path

import pytest

from mtlcli.cli import main

DIGITS = str(Path(__file__).parents[2] / "configs" / "digits.yaml")


def shown(monkeypatch: pytest.MonkeyPatch, width: int, *arguments: str) -> list[str]:
    """Return the lines of a command on a terminal, without control sequences."""
    ours, theirs = pty.openpty()
    received = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(ours, 65536):
                received.extend(chunk)
        except OSError:  # Linux's error for a closed pseudo-terminal
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with monkeypatch.context() as patched:
        patched.setenv("COLUMNS", str(width))
        patched.setenv("TERM", "xterm-256color")
        for name in ("stdout", "stderr"):
            file = io.BufferedWriter(io.FileIO(theirs, "w", closefd=False))
            patched.setattr(f"sys.{name}", io.TextIOWrapper(file, encoding="utf-8", line_buffering=True))
        assert main([*arguments]) == 0
    os.close(theirs)
    reader.join()
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", received.decode()).replace("\r\n", "\n")
    return [line.rpartition("\r")[2] for line in text.split("\n")]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_run_of_the_readme_experiment(width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["train", DIGITS, "training.epochs=2", "training.threads=1", "--run-dir", "run"]
    lines = shown(monkeypatch, width, *command)
    text = "\n".join(lines)
    assert "…" not in text
    assert max(map(len, lines)) <= width
    assert text.startswith("run folder: run\ndevice: cpu, 1 thread\nexamples: digits 1,")
    assert re.search(r"^epoch 2 of 2 \| val mean primary [0-9.]+, best so far", text, re.MULTILINE)
    assert re.search(r"^  ink: train loss [0-9.]+, val r2 [0-9.]+ mse [0-9.]+e-05", text, re.MULTILINE)
    assert "best epoch 2 of 2" in text
    for line in (tmp_path / "run/table.md").read_text().splitlines()[2:]:
        split, task, *figures = [cell.strip() for cell in line.strip("|").split("|")]
        if split not in ("val", "test"):
            continue
        text = " ".join(row for row in lines if row.startswith(f"{split} ") and f" {task} " in row)
        assert set(figures) - {""} <= set(text.split())


def test_twenty_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"a_task_with_a_long_name_{number}" for number in range(20)]
    columns = [f"column_{number}" for number in range(20)]
    rows = [",".join(["x", *columns])]
    rows += [
        ",".join(f"{(row * row + at * row) % 23 * 10.0 ** (at % 7 - 3):.6g}" for at in range(21)) for row in range(60)
    ]
    Path("t.csv").write_text("\n".join(rows) + "\n")
    targets = ", ".join(f"{column}: real" for column in columns)
    tasks = "".join(
        f"  {name}: {{dataset: t, target: {column}, kind: regression}}\n"
        for name, column in zip(names, columns, strict=True)
    )
    Path("c.yaml").write_text(
        f"datasets: {{t: {{name: csv, path: t.csv, val: 0.3, targets: {{{targets}}}}}}}\ntasks:\n{tasks}"
        "trunk: {name: mlp, hidden: [4], features: 4}\n"
    )
    lines = shown(monkeypatch, 80, "train", "c.yaml", "training.epochs=1", "--run-dir", "run")
    text = "\n".join(lines)
    assert "…" not in text
    assert max(map(len, lines)) <= 80
    for name in names:
        assert re.search(rf"^  {name}: train loss [0-9.e+-]+, val r2 -?[0-9.e+-]+", text, re.MULTILINE)
        assert re.search(rf"^test +{name} +[0-9]+ +[0-9.e+-]+", text, re.MULTILINE)
    table = "\n".join(shown(monkeypatch, 80, "eval", "run/checkpoints/best.pt"))
    assert all(name in table for name in names)


def test_huge_numbers_are_short_and_non_finite_metrics_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new file has a sentinel (1e30) that is not in the training data."""
    monkeypatch.chdir(tmp_path)
    values = [((3 * row) % 7, (5 * row) % 11) for row in range(60)]
    table = ["a,b,y", *(f"{a},{b},{a - 0.5 * b}" for a, b in values)]
    Path("t.csv").write_text("\n".join(table) + "\n")
    Path("new.csv").write_text("\n".join([*table[:-2], "1e30,1,2.5", "-1e30,1,2.5"]) + "\n")
    Path("c.yaml").write_text(
        "datasets: {t: {name: csv, path: t.csv, targets: {y: real}}}\ntasks: {y: {dataset: t, kind: regression}}\n"
        "trunk: {name: mlp, hidden: [8], features: 4}\n"
    )
    assert main(["train", "c.yaml", "training.epochs=1", "training.threads=1", "--run-dir", "out"]) == 0
    capsys.readouterr()
    assert main(["eval", "out/checkpoints/best.pt", "datasets.t.path=new.csv", "datasets.t.test=1"]) == 0
    printed = capsys.readouterr()
    head, _, row = [line.strip("| ").split(" | ") for line in printed.out.splitlines()[:3]]
    figures = dict(zip(head, row, strict=True))
    assert re.fullmatch(r"-\d\.\d{3}e\+\d\d", figures["r2"])
    assert all(len(figure) <= 11 for figure in row)
    assert figures["n"] == "60"
    for name, figure in figures.items():
        if figure in ("inf", "nan"):
            assert re.search(rf"warning: y: .*\b{name}\b.* not a finite number", printed.err)
