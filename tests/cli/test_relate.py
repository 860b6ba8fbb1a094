"""`mtl relate` from the command line."""

import json
import re
from pathlib import Path

import pytest

from mtlcli.cli import main
from mtlcli.weighting.relation_matrix import build_relation_matrix

DIGITS = str(Path(__file__).parents[2] / "configs" / "digits.yaml")
TASKS = ["digit", "parity", "ink", "segments"]
SMALL = ["training.threads=1", "training.batch_size=200", "--epochs", "1"]


def test_all_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlcli.studies.relate.relate_study.draw_heatmap", lambda *given: given[-1].touch())
    out = tmp_path / "study"
    assert main(["relate", DIGITS, *SMALL, "--seeds", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    for measure in ("performance", "gradient", "affinity", "data", "semantic"):
        assert f"\n{measure}: " in f"\n{printed.out}"
        assert (out / measure / "heatmap.png").is_file()
        build_relation_matrix(str(out / measure / "relation.csv"), TASKS)
    assert "n=8" in printed.out
    assert "[95% interval: bootstrap over examples, 200 resamples]" in printed.out
    assert re.search(r"  parity +0\.4617 \[0\.46\d+, 0\.46\d+\] n=1293 ", printed.out)
    assert "semantic: cosine of the descriptions [no interval: computed from the descriptions as given" in printed.out
    assert printed.out.count("  groups (average linkage, threshold ") == 5
    assert printed.out.count("  best in 2 networks or fewer: ") == 5
    assert printed.out.endswith(f"study folder: {out}\n")
    lines = printed.err.splitlines()
    assert len(lines) == 4 * 2 + 1  # a line for each run
    assert lines[0].startswith("baseline digit, seed 0: digit accuracy 0.")
    assert lines[-1].startswith("joint run: ")

    assert (
        main(["relate", DIGITS, *SMALL, "--measure", "affinity", "--measure", "data", "--out", str(out), "--json"]) == 0
    )
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document == json.loads((out / "relate.json").read_text())
    assert list(document["measures"]) == ["affinity", "data"]
    numbers = document["measures"]["data"]["numbers"]
    low, high = numbers["interval"]["ink"]["digit"]
    assert 0 < low < numbers["labels"]["ink"]["digit"] < high < 1
    assert numbers["examples"]["ink"]["digit"] == 1293
    assert json.loads((out / "semantic/numbers.json").read_text())["interval"] is None
    assert (out / "relation.csv").read_text() == (out / "affinity/relation.csv").read_text()
    assert printed.err.endswith("trained before\n")


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong: list[tuple[list[str], str]] = [
        (["--measure", "gradiant"], "no measure 'gradiant'. Did you mean 'gradient'?"),
        (["--seeds", "0"], "--seeds"),
        (["trunk.name=lenet"], "lenet needs images"),
        (["--out", ""], "the current folder can't be used"),
        (["tasks.ink.description=''", "--measure", "semantic"], "missing for: ink"),
    ]
    for arguments, message in wrong:
        given = arguments if "--out" in arguments else [*arguments, "--out", str(tmp_path / "study")]
        assert main(["relate", DIGITS, *given]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """A study of two quick baselines."""
    config = tmp_path / "two.yaml"
    config.write_text(
        """
        datasets: {digits: {name: digits}}
        tasks:
          a: {dataset: digits, target: ink, kind: regression}
          b: {dataset: digits, target: parity, kind: binary}
        trunk: {name: mlp, hidden: [16], features: 8}
        training: {batch_size: 200, threads: 1, device: cpu}
        """
    )
    return ["relate", str(config), "--measure", "performance", "--seeds", "1", "--epochs", "1"]


def test_baselines_in_processes(two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers equal those of a sequential study."""
    assert main([*two, "--out", str(tmp_path / "one")]) == 0
    capsys.readouterr()
    assert main([*two, "--jobs", "2", "--out", str(tmp_path / "jobs")]) == 0
    assert (tmp_path / "jobs/relation.csv").read_text() == (tmp_path / "one/relation.csv").read_text()
    lines = sorted(line.partition(":")[0] for line in capsys.readouterr().err.splitlines())
    assert lines == ["baseline a, seed 0", "baseline b, seed 0"]


def test_a_failing_process(two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing = [*two, "optimizer.lr=1e30", "--jobs", "2", "--out", str(tmp_path / "study")]
    assert main(failing) == 1
    error = capsys.readouterr().err
    assert re.match(r"error: baseline [ab], seed 0: the loss of task '[ab]' is ", error)
    assert error.count("\n") == 1


def test_a_signal_is_passed_on_to_the_processes(
    two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first run sends the signal to the study, as Ctrl-C does."""
    plugin = tmp_path / "interrupting.py"
    plugin.write_text(
        f"""
import multiprocessing, os, pathlib, signal
study = multiprocessing.parent_process()
if study is not None:  # in a process of a run
    try:
        pathlib.Path({str(tmp_path / "once")!r}).mkdir()
        os.kill(study.pid, signal.SIGINT)
    except FileExistsError:
        pass
    signal.pause()
"""
    )
    given = ["--jobs", "2", "--out", str(tmp_path / "study"), "--plugin", str(plugin)]
    assert main([*two, *given]) == 130
    assert "interrupted (Ctrl-C); finished work is kept" in capsys.readouterr().err
