"""Runs of tasks that generate texts: learning, exact resume, evaluation and prediction."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import mtlcli
from mtlcli.cli import main
from mtlcli.config import experiment_from_dict
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import build, check_experiment
from mtlcli.training.evaluate import evaluate
from mtlcli.training.trainer import Trainer
from tests.training.identical import digest_checkpoint
from tests.training.instructions import GENERATION, TASKS, experiment, write_table
from tests.training.killing import KilledError, Killer

pytest.importorskip("transformers")
LEARNED: dict[str, Any] = {"reverse": GENERATION["reverse"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, and the run of a model that has learned to reverse words."""
    folder = tmp_path_factory.mktemp("words")
    write_table(folder, rows=500, words=3)
    plain = experiment(folder, LEARNED, training={"epochs": 13, "batch_size": 32, "device": "cpu", "threads": 1})
    plain["optimizer"]["lr"] = 0.005
    (folder / "words.yaml").write_text(yaml.safe_dump(plain))
    assert main(["train", str(folder / "words.yaml"), "--run-dir", str(folder / "run")]) == 0
    return folder


def test_a_small_model_learns_to_reverse_words(trained: Path) -> None:
    summary = json.loads((trained / "run/summary.json").read_text())
    metrics = summary["metrics"]["test"]["reverse"]
    assert metrics["exact_match"] > 0.9 and metrics["rouge_l"] > 0.9 and metrics["chrf"] > 0.9
    assert 1 <= metrics["perplexity"] < 2


def test_evaluation_and_predictions_agree(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The texts that `mtl predict` writes, those of `Model.predict`, and the exact match of `mtl eval`."""
    rows = [json.loads(line) for line in (trained / "words.jsonl").read_text().splitlines()]
    (trained / "questions.jsonl").write_text("".join(json.dumps({"words": row["words"]}) + "\n" for row in rows))
    arguments = ["predict", str(trained / "run"), str(trained / "questions.jsonl"), "--out", str(trained / "out.csv")]
    assert main(arguments) == 0, capsys.readouterr().err
    written = [row["reverse"] for row in csv.DictReader((trained / "out.csv").read_text().splitlines())]
    right = [text == row["answer"] for text, row in zip(written, rows, strict=True)]
    assert sum(right) > 0.9 * len(rows)
    model = mtlcli.load(trained / "run/checkpoints/best.pt")
    words = [row["words"] for row in rows[:40]]
    predicted = model.predict(words)["reverse"]
    assert predicted.labels == written[:40] and predicted.outputs.shape == (40, 5)
    alone = [model.predict([text])["reverse"].labels[0] for text in words[:5]]
    assert alone == written[:5]
    overrides = [f"datasets.a.path={trained / 'words.jsonl'}"]
    assert main(["eval", str(trained / "run"), *overrides, "--split", "all", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]["reverse"]
    assert metrics["exact_match"] == pytest.approx(sum(right) / len(rows))


def test_features_are_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(trained / "run"), str(trained / "words.jsonl"), "--features", "--out", str(trained / "x.npy")]
    assert main(["predict", *arguments]) == 2
    assert "task 'reverse' generates texts" in capsys.readouterr().err


def test_only_weights_are_exported(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(trained / "run")
    assert main(["export", run, "--format", "torch-export", "--out", str(trained / "model.pt2")]) == 2
    assert "task 'reverse' generates a text token by token" in capsys.readouterr().err
    assert main(["export", run, "--format", "safetensors", "--out", str(trained / "model.safetensors")]) == 0


@pytest.mark.parametrize("model", ["gpt2", pytest.param("t5", marks=pytest.mark.matrix)])
def test_a_killed_and_resumed_run_has_the_same_bits(tmp_path: Path, model: str) -> None:
    write_table(tmp_path, rows=60)
    plain = experiment(tmp_path, TASKS, model, weighting="pcgrad", checkpoint={"every": "1 step"})

    def train(folder: Path, killed_at: int = -1) -> dict[str, Any]:
        run = build(experiment_from_dict(plain))
        return Trainer(run, folder, resume="auto", callbacks=[Killer(killed_at)]).fit()

    whole = train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "killed", killed_at=2)
    assert train(tmp_path / "killed")["metrics"] == whole["metrics"]
    last = [digest_checkpoint(tmp_path / name / "checkpoints/last.pt") for name in ("whole", "killed")]
    assert last[0] == last[1]


@pytest.mark.parametrize("model", ["gpt2", "t5"])
def test_the_bound_of_the_width_of_answers_changes_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """Devices other than a CPU use the bound, so that counting the tokens doesn't wait for them."""
    write_table(tmp_path, rows=20)
    run = build(experiment_from_dict(experiment(tmp_path, GENERATION, model)))
    (trunk,) = run.model.sharing.trunks().values()
    assert trunk.language_model.longest == max(kind.max_new_tokens for kind in run.kinds.values())
    counted = evaluate(run, "train")
    monkeypatch.setattr(type(trunk.language_model), "_longest_answer", lambda model, answered: model.longest)
    for task, metrics in evaluate(run, "train").items():
        assert metrics["loss"] == pytest.approx(counted[task]["loss"], rel=1e-5)


@pytest.mark.parametrize("model", ["gpt2", "t5"])
def test_generated_tokens_are_the_most_probable_ones_with_the_adapters_of_the_task(tmp_path: Path, model: str) -> None:
    write_table(tmp_path, rows=40)
    adapters = {"name": "lora", "rank": 2, "arrangement": "per_task"}
    run = build(experiment_from_dict(experiment(tmp_path, GENERATION, model, adapters=adapters)))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    run.model.eval()
    for task, (alias, _) in run.sources.items():
        rows = run.examples_of(alias, "train").inputs
        assert isinstance(rows, TokenRows)
        x = rows.batch(np.arange(6))
        tokens = run.model.generate(task, x, 4)
        answered = torch.full((6, 2, 32), -1, dtype=torch.int32)
        for row, (ids, types) in enumerate(zip(x[:, 0].tolist(), x[:, 1].tolist(), strict=True)):
            answer = [token for token in tokens[row].tolist() if token >= 0]
            prompt = [i for i, t in zip(ids, types, strict=True) if i >= 0 and (model == "t5" or t == 0)]
            planes = (prompt, answer) if model == "t5" else (prompt + answer, [0] * len(prompt) + [1] * len(answer))
            for plane, values in enumerate(planes):
                answered[row, plane, : len(values)] = torch.tensor(values)
        with torch.no_grad():
            best = run.model({alias: answered}, [task])[task].argmax(2)
        valid = tokens[:, : best.shape[1]] >= 0
        assert valid.any() and torch.equal(best[:, : tokens.shape[1]][valid], tokens[:, : best.shape[1]][valid])


def test_part_of_a_split_is_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path, rows=60)
    kind = GENERATION["first"]["kind"]
    tasks = {
        "some": {**GENERATION["first"], "kind": {**kind, "generate": 3}},
        "none": {**GENERATION["first"], "dataset": "a", "metrics": ["perplexity"]},
    }
    run = build(experiment_from_dict(experiment(tmp_path, tasks, evaluation={"monitor": {"task": "some"}})))
    generated: list[tuple[str, int]] = []
    generate = run.model.generate
    monkeypatch.setattr(
        run.model, "generate", lambda task, x, n: generated.append((task, len(x))) or generate(task, x, n)
    )
    before = torch.get_rng_state()
    first, second = evaluate(run, "train"), evaluate(run, "train")
    assert torch.equal(torch.get_rng_state(), before) and first == second
    assert generated == [("some", 3)] * 2
    assert list(first["none"]) == ["loss", "perplexity"]


def problems(plain: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        check_experiment(experiment_from_dict(plain))
    return str(error.value)


def test_configuration_errors(tmp_path: Path) -> None:
    write_table(tmp_path, rows=30)
    first = GENERATION["first"]

    def with_kind(**changes: Any) -> dict[str, Any]:
        return experiment(tmp_path, {"first": {**first, "kind": {**first["kind"], **changes}}})

    assert "names. Did you mean 'words'?" in problems(with_kind(prompt="{wrods}:"))
    assert "without its counterpart at character 8" in problems(with_kind(prompt="first: {words"))
    assert "tasks.first.kind.prompt: contains the target 'first' itself" in problems(with_kind(prompt="{first}"))
    assert "no class 'redd'. Did you mean 'red'?" in problems(with_kind(answers={"redd": "r"}))
    assert "answers of up to 24 tokens leave no token of a prompt" in problems(with_kind(max_new_tokens=24))
    both = experiment(tmp_path, {"first": first, "reverse": {**GENERATION["reverse"], "dataset": "b"}})
    assert "give each task an entry of its own under `datasets`" in problems(both)
    mixed = experiment(tmp_path, TASKS, sharing={"name": "mmoe", "experts": 2})
    assert "which needs one trunk, and `sharing: mmoe` combines several" in problems(mixed)
    encoder = experiment(tmp_path, {"first": first})
    encoder["trunk"]["config"] = {
        "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2
    }  # fmt: skip
    del encoder["trunk"]["tokenizer"]
    assert problems(encoder)
    table = experiment(tmp_path, {"first": first}, trunk={"name": "mlp"})
    assert "task 'first' generates texts, which needs a language model" in problems(table)


def test_examples_without_an_answer(tmp_path: Path) -> None:
    path = write_table(tmp_path, rows=40)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[::3]:
        row["answer"] = row["first"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = build(experiment_from_dict(experiment(tmp_path, GENERATION)))
    metrics = evaluate(run, "train")
    assert all(value == value for values in metrics.values() for value in values.values())
    labels = run.examples_of("a", "all").targets["answer"]
    assert (labels == -100).all(1).sum() == len(rows[::3])
