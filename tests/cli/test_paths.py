"""Paths in all options and keys: expanded, or rejected with one message and no leftover files."""

import json
import os
from pathlib import Path

import pytest

from mtlcli.cli import main
from mtlcli.config import load_experiment
from mtlcli.config.yaml import read

DIGITS = str(Path(__file__).parents[2] / "configs" / "digits.yaml")
TRAIN = ["train", DIGITS, "training.epochs=1", "training.batch_size=512", "training.threads=1"]
LONG = "d" * 300
BYTES = os.fsdecode(b"caf\xe9")  # a file name in Latin-1
TABLE = """\
datasets: {{t: {{name: csv, path: {path}, targets: {{y: classes}}}}}}
tasks: {{y: {{dataset: t, kind: classification}}}}
trunk: {{name: mlp, hidden: [4], features: 4}}
"""
STUDY = ["compare", DIGITS, "--vary", "weighting=uniform,mgda"]
PLACES: dict[str, tuple[list[str], dict[str, str]]] = {
    "run_dir": ([*TRAIN, "--run-dir", "{}/run"], {}),
    "MTL_RUNS": (TRAIN, {"MTL_RUNS": "{}/runs"}),
    "MTL_DATA": (["data", "list"], {"MTL_DATA": "{}/data"}),
    "data_root": (["data", "fetch", "mnist", "--root", "{}/data"], {}),
    "run_root": (["doctor", "--run-root", "{}/runs"], {}),
    "config": (["validate", "{}/c.yaml"], {}),
    "plugin": (["list", "head", "--plugin", "{}/p.py"], {}),
    "checkpoint": (["eval", "{}/best.pt"], {}),
    "export": (["export", "{}/best.pt", "--format", "safetensors"], {}),
    "export_out": (["export", "best.pt", "--format", "safetensors", "--out", "{}/m"], {}),
    "init": (["init", "{}/new.yaml"], {}),
    "compare_out": ([*STUDY, "--out", "{}/study"], {}),
    "published": ([*STUDY, "--published", "{}/p.yaml"], {}),
    "relate_out": (["relate", DIGITS, "--measure", "gradient", "--out", "{}/study"], {}),
    "yaml_path": (["validate", "table.yaml", "datasets.t.path={}/t.csv"], {}),
    "yaml_root": (["validate", DIGITS, "datasets.digits={{name: mnist, root: '{}/data'}}"], {}),
    "image_folder": (["validate", DIGITS, "datasets.digits={{name: image_folder, root: '{}/images'}}"], {}),
    "init_from": (["validate", DIGITS, "trunk.init_from={}/best.pt"], {}),
    "matrix": (["validate", DIGITS, "weighting={{name: relation, matrix: '{}/r.csv'}}"], {}),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "table.yaml").write_text(TABLE.format(path="t.csv"))
    return tmp_path


@pytest.mark.parametrize("path", [LONG, "~no-such-user-here"], ids=["long", "user"])
@pytest.mark.parametrize("place", PLACES)
def test_impossible_paths(
    place: str, path: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, environment = PLACES[place]
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(path))
    assert main([argument.format(path) for argument in command]) == 2
    printed = capsys.readouterr()
    (error,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    reason = "has 300 bytes; the maximum is 255" if path == LONG else "a user who does not exist here"
    assert reason in error
    assert [path.name for path in folder.iterdir()] == ["table.yaml"]


def test_a_home_folder_is_expanded_everywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = folder / "home"
    home.mkdir()
    (home / "t.csv").write_text("a,b,y\n" + "".join(f"{n % 7},{n % 5},{n % 3}\n" for n in range(60)))
    (home / "table.yaml").write_text(TABLE.format(path="~/t.csv"))
    (home / "plugin.py").write_text("")
    assert main(["init", "~/new.yaml"]) == 0
    assert main([*TRAIN, "--run-dir", "~/run"]) == 0
    monkeypatch.setenv("MTL_RUNS", "~/runs")
    assert main([*TRAIN, "name=here"]) == 0
    assert len(list((home / "runs/here").iterdir())) == 1
    best = "~/run/checkpoints/best.pt"
    assert main(["validate", "~/table.yaml", "~/new.yaml"]) == 0
    assert main(["validate", DIGITS, f"trunk.init_from={best}", "--plugin", "~/plugin.py"]) == 0
    assert main(["export", best, "--format", "safetensors", "--out", "~/model.safetensors"]) == 0
    capsys.readouterr()
    assert main(["eval", best, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == str(home / "run/checkpoints/best.pt")
    assert sorted(path.name for path in folder.iterdir()) == ["home", "table.yaml"]
    expected = {"model.safetensors", "new.yaml", "plugin.py", "run", "runs", "t.csv", "table.yaml"}
    assert expected <= {path.name for path in home.iterdir()}


@pytest.mark.usefixtures("plots")
def test_a_run_folder_whose_name_is_not_utf8(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run's files contain its name with escapes, which JSON parses to the same bytes; it resumes and exports."""
    try:
        (folder / BYTES).mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert main([*TRAIN, "--run-dir", BYTES]) == 0
    assert capsys.readouterr().out.endswith("run folder: caf\\udce9\n")
    summary = json.loads((folder / BYTES / "summary.json").read_text(encoding="utf-8"))
    assert (summary["run_dir"], summary["status"]) == (BYTES, "completed")
    assert Path(summary["checkpoint"]).is_file()
    load_experiment(folder / BYTES / "config.yaml")
    assert read(folder / BYTES / "config.yaml").data["name"] == "digits"
    assert main([*TRAIN, "--run-dir", BYTES, "--resume", "auto"]) == 0
    best = f"{BYTES}/checkpoints/best.pt"
    assert main(["eval", best]) == 0
    for file_format in ("safetensors", "torch-export"):
        assert main(["export", best, "--format", file_format]) == 0
    assert {"best.safetensors", "best.pt2"} <= {path.name for path in (folder / BYTES / "checkpoints").iterdir()}


def test_names_at_the_limit_and_with_spaces(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--run-dir", "x" * 255]) == 0
    best = f"{'x' * 255}/checkpoints/best.pt"
    assert main(["export", best, "--format", "safetensors", "--out", "y" * 255]) == 0
    assert (folder / ("y" * 255)).is_file()
    assert main(["validate", "table.yaml "]) == 2
    assert "'table.yaml ': can't be read" in capsys.readouterr().err
    assert main(["export", best, "--format", "safetensors", "--out", "x" * 255]) == 2
    assert "is a folder; give the file to write" in capsys.readouterr().err
