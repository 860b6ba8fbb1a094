"""Checkpoints that refer to the base of a frozen trunk: smaller, with the same bits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mtlcli
from mtlcli.cli import main
from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import build, check_experiment, rebuild
from mtlcli.training.checkpoint.file import load_checkpoint, save_checkpoint
from mtlcli.training.trainer import Trainer
from tests.data.formats.text_tokenizers import small_tokenizer
from tests.studies.merge.checkpoints import MLP, config, write
from tests.training import test_text_runs as texts
from tests.training.identical import digest_checkpoint
from tests.training.killing import KilledError, Killer

FROZEN = {**MLP, "init_from": "start.pt", "frozen": True}
BEST, LAST = "checkpoints/best.pt", "checkpoints/last.pt"


@pytest.fixture(autouse=True)
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the checkpoint start.pt into the current folder."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "start.pt", config("ink", seed=9), noise=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run with a reference once, for tests that only read it, and return the folder that contains it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        write(folder / "start.pt", config("ink", seed=9), noise=1)
        train(frozen(), "run")
    return folder


def frozen(base: str = "reference", **changes: Any) -> Experiment:
    checkpoint = {"base": base, "every": "3 steps"}
    return experiment_from_dict({**config("digit", trunk=FROZEN, checkpoint=checkpoint), **changes})


def train(experiment: Experiment, folder: str, killed_at: int | None = None) -> Any:
    callbacks = [] if killed_at is None else [Killer(killed_at)]
    return Trainer(build(experiment), folder, resume="auto", plots=False, callbacks=callbacks).fit()


def state(folder: str) -> dict[str, torch.Tensor]:
    payload = load_checkpoint(f"{folder}/{BEST}")
    return dict(rebuild(experiment_from_dict(payload["config"]), payload, data=False).model.state_dict())


def test_frozen_weights_are_left_out_and_found_again() -> None:
    summary = train(frozen(), "small")
    train(frozen("include"), "large")
    payload = load_checkpoint(f"small/{BEST}")
    assert not any(key.startswith("sharing.trunk.") for key in payload["model"])
    assert payload["reference"]["values"].keys() == {
        f"sharing.trunk.fc{n}.{x}" for n in (1, 2) for x in ("weight", "bias")
    }
    assert mtlcli.evaluate("small") == summary.metrics["test"]
    small, large = state("small"), state("large")
    assert all(torch.equal(small[key], value) for key, value in large.items())


def test_a_killed_and_resumed_run_has_the_same_bits() -> None:
    train(frozen(), "whole")
    with pytest.raises(KilledError):
        train(frozen(), "killed", killed_at=4)
    train(frozen(), "killed")
    for name in (BEST, LAST):
        assert digest_checkpoint(Path("killed", name)) == digest_checkpoint(Path("whole", name))


def test_a_base_that_has_moved_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    train(frozen(), "run")
    shutil.move("start.pt", "moved.pt")
    assert main(["eval", "run"]) == 2
    message = capsys.readouterr().err
    assert "refers to weights that it doesn't hold, start.pt (" in message
    assert message.endswith("Give the checkpoint: --base PATH\n")
    for verb in (["eval", "run"], ["export", "run", "--format", "safetensors", "--out", "m.safetensors"]):
        assert main([*verb, "--base", "moved.pt"]) == 0
    assert mtlcli.load("run", base="moved.pt").predict(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))["digit"]
    write(Path("other.pt"), config("ink", seed=9), noise=2)
    capsys.readouterr()
    assert main(["eval", "run", "--base", "other.pt"]) == 2
    assert "--base other.pt: " in capsys.readouterr().err
    shutil.move("moved.pt", "elsewhere.pt")
    with pytest.raises(ConfigError, match=r"trunk\.init_from"):
        train(frozen(), "run")
    moved = frozen(trunk={**FROZEN, "init_from": "elsewhere.pt"}, training={**config("digit")["training"], "epochs": 2})
    assert train(moved, "run").epochs == 2


def test_a_base_is_given_only_for_checkpoints_that_refer_to_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "start.pt", "--base", "start.pt"]) == 2
    assert "--base: the checkpoint refers to no base" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trunk", "message"),
    [
        ({**MLP, "init_from": "start.pt"}, "all weights of the trunk are trained"),
        ({**MLP, "frozen": True}, "`reference` needs a trunk that is built from a pretrained model"),
    ],
)
def test_runs_without_a_frozen_base_are_refused(trunk: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_experiment(frozen(trunk=trunk))
    (problem,) = error.value.problems
    assert problem.path == "checkpoint.base"
    assert message in problem.message


def test_values_that_the_base_does_not_have_are_refused(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    payload = load_checkpoint(f"run/{BEST}")
    key = next(iter(payload["reference"]["values"]))
    payload["reference"]["values"][key] = "0" * 64
    save_checkpoint(Path("lying.pt"), payload)
    with pytest.raises(ConfigError, match=f"which have other values here: {key}"):
        mtlcli.evaluate("lying.pt")


@pytest.mark.parametrize(
    "changes",
    [7, {}, {"files": [["../start.pt", 1, "0" * 64]]}, {"folder": "/dev", "files": [["zero", 0, "0" * 64]]},
     {"role": "model"}, {"values": {"sharing.trunk.fc1.weight": "0" * 64, "os.system": "0" * 64}}],
    ids=str,
)  # fmt: skip
def test_hostile_references_are_refused(
    changes: Any, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    payload = load_checkpoint(f"run/{BEST}")
    payload["reference"] = {**payload["reference"], **changes} if isinstance(changes, dict) and changes else changes
    save_checkpoint(Path("hostile.pt"), payload)
    capsys.readouterr()
    for verb in (["eval", "hostile.pt"], ["merge", "hostile.pt", "hostile.pt", "--out", "m.pt"]):
        assert main(verb) == 2
        error = capsys.readouterr().err
        assert error.count("error: ") == 1, error
        assert "Traceback" not in error


def test_other_runs_start_from_a_checkpoint_with_a_reference(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    trunk = {**MLP, "init_from": f"run/{BEST}"}
    run = build(experiment_from_dict(config("digit", trunk=trunk)))
    own, expected = run.model.state_dict(), load_checkpoint("start.pt")["model"]
    assert all(torch.equal(own[key], value) for key, value in expected.items() if key.startswith("sharing.trunk."))
    train(frozen(trunk={**trunk, "frozen": True}), "third")
    third = state("third")
    assert all(torch.equal(third[key], value) for key, value in expected.items() if key.startswith("sharing.trunk."))


def test_runs_with_references_are_merged() -> None:
    for task in ("digit", "parity"):
        train(experiment_from_dict(config(task, trunk=FROZEN, checkpoint={"base": "reference"})), task)
    merged = mtlcli.merge(["digit", "parity"], out="merged.pt", coefficient=0.5)
    payload, start = load_checkpoint(merged.checkpoint), load_checkpoint("start.pt")["model"]
    assert "reference" not in payload
    assert all(torch.equal(payload["model"][key], start[key]) for key in start if key.startswith("sharing.trunk."))


def write_model(folder: Path) -> None:
    """Write the folder of a small pretrained model."""
    transformers = pytest.importorskip("transformers")
    sizes = {**texts.BERT, "num_hidden_layers": 2}
    torch.manual_seed(1)
    transformers.BertModel(transformers.BertConfig(**sizes), add_pooling_layer=False).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(small_tokenizer(90))


def test_a_pretrained_model_is_found_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "tiny")
    texts.write_rows(tmp_path / "rows.jsonl", 60)
    trunk = {"name": "transformers", "model": str(tmp_path / "tiny"), "max_length": 14}
    plain = texts.experiment(tmp_path, trunk=trunk).resolved()
    changes = {"adapters": {"name": "lora", "rank": 2}, "checkpoint": {"base": "reference"}}
    experiment = experiment_from_dict({**plain, **changes})
    summary = train(experiment, "run")
    payload = load_checkpoint(f"run/{BEST}")
    assert payload["base"]["tokenizer"] is None
    assert payload["reference"]["option"] == str(tmp_path / "tiny")
    assert all(".adapter." in key or key.startswith(("sharing.heads.", "normalize.")) or "position_ids" in key or
               "token_type_ids" in key for key in payload["model"]), list(payload["model"])  # fmt: skip
    (tmp_path / "data").mkdir()
    shutil.move(tmp_path / "tiny", tmp_path / "data/tiny")
    overrides = [f"datasets.a.path={tmp_path}/rows.jsonl"]
    with pytest.raises(ConfigError, match="Give the folder or file of the model: --base PATH"):
        mtlcli.evaluate("run", overrides=overrides)
    assert mtlcli.evaluate("run", overrides=overrides, base="data/tiny") == summary.metrics["test"]
    tokenizer = tmp_path / "data/tiny/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    with pytest.raises(ConfigError, match="another tokenizer than that of the run"):
        mtlcli.evaluate("run", overrides=overrides, base="data/tiny")


def test_no_file_of_the_model_is_needed_for_a_checkpoint_that_holds_its_weights(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny")
    texts.write_rows(tmp_path / "rows.jsonl", 60)
    trunk = {"name": "transformers", "model": "tiny", "max_length": 14, "freeze": ["embeddings"]}
    summary = train(texts.experiment(tmp_path, trunk=trunk, epochs=1), "run")
    shutil.rmtree(tmp_path / "tiny")
    assert mtlcli.evaluate("run", overrides=[f"datasets.a.path={tmp_path}/rows.jsonl"]) == summary.metrics["test"]
    payload = load_checkpoint(f"run/{BEST}")
    del payload["base"]
    save_checkpoint(Path("without.pt"), payload)
    with pytest.raises(ConfigError, match="lacks the configuration of its pretrained model"):
        mtlcli.load("without.pt")


def test_adapters_of_a_pretrained_model_are_merged(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny")
    texts.write_rows(tmp_path / "rows.jsonl", 60)
    trunk = {"name": "transformers", "model": "tiny", "max_length": 14}
    plain = texts.experiment(tmp_path, trunk=trunk, epochs=1).resolved()
    for task in ("mood", "size"):
        changes = {"adapters": {"name": "lora", "rank": 2}, "checkpoint": {"base": "reference"}}
        train(experiment_from_dict({**plain, **changes, "tasks": {task: plain["tasks"][task]}}), task)
    merged = mtlcli.merge(["mood", "size"], out="merged.pt", coefficient={"mood": 1.0, "size": 0.0})
    payload, mood = load_checkpoint(merged.checkpoint), mtlcli.load("mood")
    assert not any(".adapter." in key for key in payload["model"])
    shutil.rmtree(tmp_path / "tiny")
    rows = {"a": {"title": ["", "note"], "body": ["the dress is lovely", "it is thin"]}}
    expected = mood.predict(rows, tasks=["mood"])["mood"].probabilities
    np.testing.assert_allclose(
        mtlcli.load("merged.pt").predict(rows, tasks=["mood"])["mood"].probabilities, expected, atol=1e-6
    )
