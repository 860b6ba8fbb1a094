import json
from pathlib import Path

import pytest

from mtlcli.cli import main


@pytest.fixture
def good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["init", str(tmp_path / "good")]) == 0
    capsys.readouterr()
    return str(tmp_path / "good.yaml")


def test_valid_experiments(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", good, good, "training.epochs=3"]) == 0
    assert capsys.readouterr().out == f"{good}: ok\n"


def test_all_problems_of_all_files(good: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, worse = tmp_path / "bad.yaml", tmp_path / "a=b.yaml"
    bad.write_text("seed: -1\nsed: 2\n")
    assert main(["validate", str(bad), good, str(worse)]) == 2
    printed = capsys.readouterr()
    assert printed.out == f"{good}: ok\n"
    lines = printed.err.splitlines()
    assert lines[0].startswith(f"error: {bad}:1:1: datasets: missing")
    assert f"error: {bad}:2:1: sed: unknown key. Did you mean 'seed'?" in printed.err
    assert lines[-1] == f"error: {worse}: can't be read: No such file or directory"


def test_json(good: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(Path(good).read_text().replace("epochs: 20", "epochs: 0"))
    assert main(["validate", good, str(bad), "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.err == ""
    first, second = json.loads(printed.out)
    assert first == {"config": good, "valid": True, "problems": [], "warnings": []}
    assert second["valid"] is False
    (problem,) = second["problems"]
    assert problem["path"] == "training.epochs"
    assert problem["message"] == "expected an integer > 0, found 0"
    assert (problem["line"], problem["column"]) != (None, None)


def test_warnings(good: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = tmp_path / "twice.yaml"
    twice.write_text(Path(good).read_text().replace("target: parity", "target: digit"))
    command = ["validate", str(twice), "tasks.parity.kind=classification"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{twice}: ok\n"
    assert printed.err.startswith(f"warning: {twice}: tasks: digit and parity have the same target, 'digit'")
    assert main([*command, "--json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert document["valid"] and len(document["warnings"]) == 1
