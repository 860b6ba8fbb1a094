"""`mtl merge`: from two trained runs to predictions of one model."""

import json
from pathlib import Path

import pytest

import mtlcli
from mtlcli.cli import main
from mtlcli.errors import ConfigError
from mtlcli.training.checkpoint.file import load_checkpoint
from tests.studies.merge.checkpoints import config, write


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the checkpoints digit.pt and ink.pt into the current folder."""
    monkeypatch.chdir(tmp_path)
    for noise, task in enumerate(("digit", "ink")):
        write(tmp_path / f"{task}.pt", config(task), noise)


def test_merged_models_are_evaluated_and_start_other_runs(runs: None, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["digit.pt", "ink.pt", "--grid", "0.2,0.5,0.8", "--out", "merged.pt"]
    assert main(["merge", *arguments, "--json"]) == 0, capsys.readouterr().err
    merged = json.loads(capsys.readouterr().out)
    assert merged["coefficients"].keys() == {"digit", "ink"}
    assert [trial["coefficients"]["digit"] for trial in merged["trials"]] == [0.2, 0.5, 0.8]
    assert merged["split"] == "val"
    assert main(["eval", "merged.pt", "--split", "val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == merged["metrics"]
    Path("next.yaml").write_text(
        json.dumps(config("digit", trunk={**config("digit")["trunk"], "init_from": "merged.pt"}))
    )
    assert main(["train", "next.yaml", "--run-dir", "run"]) == 0


def test_the_search_is_printed_as_a_table(runs: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "digit.pt", "ink.pt", "--method", "ties", "--grid", "0.5,1,1.5", "--out", "merged.pt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["val:", "| coefficient | digit accuracy | ink r2 | Δm ↓ |"]
    assert lines[3].startswith("| single models | ")
    assert sum("← best" in line for line in lines) == 1
    assert lines[-1] == "checkpoint: merged.pt"


def test_fixed_coefficients_need_no_data(runs: None, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = ["--method", "task_arithmetic", "--coefficient", "digit=0.4,ink=0.6"]
    assert main(["merge", "digit.pt", "ink.pt", *fixed, "--out", "merged.pt"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "coefficients: digit 0.4, ink 0.6",
        "checkpoint: merged.pt",
        "evaluate it: mtl eval merged.pt",
    ]
    assert load_checkpoint("merged.pt")["merged"]["runs"] == {"digit": "digit.pt", "ink": "ink.pt"}


def test_keys_of_the_merged_experiment_are_set(runs: None) -> None:
    merged = mtlcli.merge(["digit.pt", "ink.pt"], out="m.pt", grid=[0.3, 0.4], overrides=["evaluation.split=test"])
    assert merged["split"] == "test"
    assert merged.checkpoint == Path("m.pt")
    assert merged.coefficients["digit"] in (0.3, 0.4)
    assert len(merged.trials) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digit.pt", "--out", "m.pt"], "merging needs two or more runs, got 1"),
        (["digit.pt", "none.pt", "--out", "m.pt"], "none.pt: no such checkpoint file"),
        (["digit.pt", "ink.pt", "--out", "no/m.pt"], "the folder no does not exist"),
        (["digit.pt", "ink.pt", "--out", "."], "is a folder; give the file to write"),
        (["digit.pt", "ink.pt", "--out", "m.pt", "--grid", "a"], "--grid a: expected numbers"),
        (["digit.pt", "ink.pt", "--out", "m.pt", "--coefficient", "1,2"], "give those to try to --grid"),
        (
            ["digit.pt", "ink.pt", "--out", "m.pt", "--method", "mean", "--by-task"],
            "the method mean has no coefficient",
        ),
        (["digit.pt", "ink.pt", "seed=none", "--out", "m.pt"], "seed"),
    ],
)
def test_errors(runs: None, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["merge", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path("m.pt").exists()


def test_unknown_methods_are_refused_from_python(runs: None) -> None:
    with pytest.raises(ConfigError, match=r"no such method 'tie'\. Did you mean 'ties'"):
        mtlcli.merge(["digit.pt", "ink.pt"], out="m.pt", method="tie")  # type: ignore[arg-type]
