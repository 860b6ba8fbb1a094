"""The examples and statements of README are correct."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from mtlcli.cli import main
from mtlcli.config import experiment_from_dict
from mtlcli.training.assembly.build import check_experiment

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8), np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_works(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands():
        if command[0] == "make":
            assert re.search(rf"^{command[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            continue
        assert command[0] == "mtl"
        if command == ["mtl", "train", "configs/digits.yaml"]:
            command.append("training.epochs=1")  # the command with runs/a trains for all epochs
        code = main(command[1:])
        assert code == 0, (command, capsys.readouterr().err)
    assert (workplace / "runs/a/table.md").exists()
    assert {path.stem for path in (workplace / "runs/digits/compare").glob("*.png")} == {"delta_m", "tasks", "cost"}
    assert (workplace / "my_experiment.yaml").exists()


def test_the_experiment_is_valid() -> None:
    text, regularizers = blocks("yaml")
    check_experiment(experiment_from_dict({"name": "readme", **yaml.safe_load(text)}))
    experiment = experiment_from_dict({"name": "readme", **yaml.safe_load(text), **yaml.safe_load(regularizers)})
    check_experiment(experiment)
    assert list(experiment.tasks) == ["digit", "garment"]


def test_the_documented_error_is_printed(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, _ = blocks("yaml")
    (workplace / "my.yaml").write_text(text.replace("features", "fetures"))
    assert main(["validate", "my.yaml"]) == 2
    shown = next(line for line in README.splitlines() if line.startswith("error: my.yaml"))
    assert capsys.readouterr().err.startswith(shown.removesuffix(" …"))


def test_the_python_example_runs(workplace: Path) -> None:
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(code, names)
    assert names["metrics"] == names["summary"]["metrics"]["test"]  # type: ignore[index]


def test_the_table_of_components_is_what_mtl_list_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert f"<!-- components -->\n{printed}<!-- /components -->" in README, "run scripts/update_readme.sh to update it"
