"""Help of the verbs: examples that run, metavars, and lines that fit a terminal."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.models import CommandInfo

import mtlcli.config
from mtlcli.cli import app, main
from mtlcli.cli.data import data

ROOT = Path(__file__).parents[2]
VERBS: dict[str, CommandInfo] = {
    **{str(verb.name): verb for verb in app.registered_commands},
    **{f"data {verb.name}": verb for verb in data.registered_commands},
}
EXAMPLES = [line for verb in VERBS.values() for line in (verb.epilog or "").splitlines()]


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb(verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(capsys, *verb.split())
    assert all(len(line) <= 80 for line in text.splitlines())
    examples = text.partition("\nExamples:\n")[2].splitlines()
    assert 1 <= len(examples) <= 2
    assert all(line.startswith(f"  mtl {verb}") for line in examples)
    options, usage = text.partition("\nOptions:\n")[2].partition("\nExamples:")[0], text.partition("\n")[0]
    metavars = re.findall(r"^  (?:-\w, )?--[\w-]+ (\S+)", options, re.MULTILINE)
    assert all(re.fullmatch(r"[A-Z_]+(\.[A-Z]+>=X)?|KEY=VALUE,VALUE,…|[a-z]+(\|[a-z]+)+", name) for name in metavars)
    assert not re.search(r"[{}<>]", usage)


def test_eval_lists_the_keys_that_it_uses(capsys: pytest.CaptureFixture[str]) -> None:
    assert "weighting" not in help_of(capsys, "eval")


def test_every_example_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = mtlcli.config.load_experiment

    def load_one_epoch(config: Any, overrides: Any = (), allow_plugins: bool = False) -> mtlcli.config.Experiment:
        return load(config, [*overrides, "training.epochs=1"], allow_plugins)

    monkeypatch.setattr(mtlcli.config, "load_experiment", load_one_epoch)
    monkeypatch.setattr("mtlcli.data.download.collection.fetch_files", lambda *_: {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8), np.uint8))
    (tmp_path / "labels.csv").write_text("file,color\n1.png,red\n2.png,blue\n")
    for name in ("1.png", "2.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    for task in ("digit", "parity"):
        only = f"tasks={{{task}: {{dataset: digits, target: {task}, kind: classification}}}}"
        assert main(["train", "configs/digits.yaml", only, "--run-dir", f"runs/{task}"]) == 0
    for line in EXAMPLES:
        program, *arguments = shlex.split(line.partition(" > ")[0])
        assert program == "mtl"
        code = main(arguments)
        assert code == 0, (line, capsys.readouterr().err)
