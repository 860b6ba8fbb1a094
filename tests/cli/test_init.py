from pathlib import Path

import pytest

from mtlcli.cli import main
from mtlcli.config import load_experiment


def test_the_example_experiment_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert capsys.readouterr().out == "wrote experiment.yaml; next: mtl train experiment.yaml\n"
    assert main(["validate", "experiment.yaml"]) == 0
    experiment = load_experiment("experiment.yaml")
    assert list(experiment.tasks) == ["digit", "parity", "ink"]
    assert experiment.datasets["digits"].name == "digits"
    assert experiment.name == "experiment"


def test_files_are_overwritten_only_with_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("precious")
    assert main(["init", str(file)]) == 2
    assert "exists already; use --force to overwrite it" in capsys.readouterr().err
    assert file.read_text() == "precious"
    assert main(["init", str(file), "--force"]) == 0
    assert "precious" not in file.read_text()


def test_a_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "nowhere" / "x")]) == 2
    assert "can't be written: No such file or directory" in capsys.readouterr().err


def test_printed_commands_can_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "my own"]) == 0
    assert capsys.readouterr().out == "wrote my own.yaml; next: mtl train 'my own.yaml'\n"
    assert "mtl train 'my own.yaml' " in Path("my own.yaml").read_text()
