"""`mtl compare` from the command line."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from mtlcli.cli import main
from mtlcli.cli.progress import StudyTable
from tests.cli.processes import fork_mtl

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "digits.yaml")
TIMED = ("seconds_per_epoch", "peak_memory_bytes")
VARY = ["--vary", "optimizer.lr=1e-2,1e-3,1e30", "--seeds", "1", "--jobs", "2"]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A quick study of three methods, one of which diverges, and two tasks, and published values."""
    config = tmp_path / "quick.yaml"
    config.write_text(
        """
        datasets: {digits: {name: digits}}
        tasks:
          digit: {dataset: digits, target: digit, kind: classification}
          ink: {dataset: digits, target: ink, kind: regression}
        trunk: {name: mlp, hidden: [16], features: 8}
        training: {epochs: 1, batch_size: 200, threads: 1, device: cpu}
        """
    )
    first, second = re.findall(
        r"^```yaml\n(.*?)^```$", (ROOT / "docs/comparison.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "published.yaml").write_text(first + second.removeprefix("tables:\n"))
    return ["compare", str(config), *VARY, "--published", str(tmp_path / "published.yaml")]


def table(out: Path) -> list[list[str]]:
    """Return `comparison.csv` without times and memory."""
    with (out / "comparison.csv").open() as file:
        return [row for row in csv.reader(file) if row[3] not in TIMED]


def test_a_killed_study_resumes_with_the_same_results(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mtlcli.studies.compare.compare_study.draw_plots", lambda *_: None
    )  # plots are tested elsewhere
    assert main([*command, "--out", str(tmp_path / "complete")]) == 1  # a run has failed
    complete = capsys.readouterr()
    lines = complete.err.splitlines()
    assert len([line for line in lines if not line.startswith("warning: ")]) == 5 + 1
    assert any("no seed has a value on both sides for lr=1e30 in digit, lr=1e30 in ink" in line for line in lines)
    assert "lr=1e30, seed 0: failed: the loss of task 'digit' is nan" in complete.err
    assert complete.err.endswith("error: 1 of the runs failed: lr=1e30, seed 0\n")
    assert complete.out.startswith("quick: comparison\nCommand: mtl ")
    assert "Examples in `test`: digit 360, ink 360\n" in complete.out
    assert "| digit, accuracy ↑ | lr=1e-2 | " in complete.out
    assert "\n| lr=1e30 | 0 of 1 | – | – |" in complete.out
    assert "## Published: Somebody et al. 2020, table 1\n" in complete.out
    assert complete.out.endswith(f"study folder: {tmp_path / 'complete'}\n")
    first = complete.out.partition("## ")[2].partition("\nDifference: ")[0]
    assert first in (tmp_path / "complete/comparison.md").read_text()

    out = tmp_path / "killed"
    with fork_mtl(*command, "--out", str(out)) as study:
        assert re.match("lr=1e-[23], seed 0: ", study.err.readline())  # it has ended; the next one is running
    finished = {path.parent: path.stat().st_mtime_ns for path in out.glob("runs/*/measured.json")}
    assert len(finished) < 4
    capsys.readouterr()
    assert main([*command, "--out", str(out), "--json"]) == 1
    again = capsys.readouterr()
    assert again.err.count("trained before") == len(finished)
    assert {folder: (folder / "measured.json").stat().st_mtime_ns for folder in finished} == finished
    assert table(out) == table(tmp_path / "complete")
    assert json.loads(again.out) == json.loads((out / "comparison.json").read_text())


def test_wrong_arguments(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong: list[tuple[list[str], str]] = [
        (["--vary", "weighting=unifrom"], "Did you mean 'uniform'?"),
        (["--vary", "weighting"], "expected KEY=VALUE"),
        (["--tune", "optimizer.lr=1,2"], "optimizer.lr is given twice"),
        (["--seeds", "0"], "--seeds"),
        (["--out", ""], "the current folder can't be used"),
        (["--published", str(tmp_path / "nowhere.yaml")], "nowhere.yaml: can't be read"),
        (["trunk.name=lenet"], "lenet needs images"),
    ]
    for arguments, message in wrong:
        given = arguments if "--out" in arguments else [*arguments, "--out", str(tmp_path / "study")]
        assert main([*command, *given]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_the_live_table() -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=80)
    live = StudyTable(console)
    live.on_study_start(4)
    live.on_run_end("uniform, seed 0", {}, reused=False)
    live.on_means({"uniform": {"digit": (0.5, 1)}, "single-task": {}})
    live.on_run_failure("mgda, seed 0", "out of memory")
    console.print(live.drawn())
    live.on_study_end()
    text = shown.getvalue()
    assert "mgda, seed 0: failed: out of memory" in text
    assert re.search(r"uniform +0.5000 \(1\)", text)
    assert re.search(r"runs 2/4, 1 failed, about 0\.[0-9]+ s to go", text)
