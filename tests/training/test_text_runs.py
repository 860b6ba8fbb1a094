"""Runs of a trunk that reads text: training, resuming, evaluation and prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mtlcli
from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.data.formats.python_texts import as_texts
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.errors import ConfigError, InputError
from mtlcli.studies.relate.data_similarity import _inputs
from mtlcli.studies.relate.linear_probe import _compute_features
from mtlcli.studies.relate.task_labels import subsample
from mtlcli.text_spec import TextSpec
from mtlcli.training.assembly.build import build, rebuild
from mtlcli.training.assembly.data_checks import open_datasets
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.evaluate import measure
from mtlcli.training.trainer import Trainer
from tests.training.identical import digest_checkpoint
from tests.training.killing import KilledError, Killer

pytest.importorskip("transformers")
BERT = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "vocab_size": 90, "max_position_embeddings": 32,
}  # fmt: skip
TRUNK = {"name": "transformers", "config": BERT, "max_length": 11}
GOOD, BAD = ["lovely", "soft", "fits"], ["thin", "returned", "itchy"]
FILLERS = ["the", "dress", "is", "it", "very", "and", "for", "me"]


def write_rows(path: Path, amount: int, seed: int = 0, labels: bool = True) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    rows = []
    for row in range(amount):
        words = [*generator.choice(FILLERS, 1 + row % 9), generator.choice(GOOD if row % 2 else BAD)]
        rows.append({"title": None if row % 3 else "note", "body": " ".join(words), "age": 20 + row % 5})
        if labels:
            rows[-1] |= {"mood": row % 2, "size": ["S", "M", "L"][row % 9 // 3]}
    path.write_text("\n".join(map(json.dumps, rows)))
    return rows


def experiment(
    folder: Path, dataset: str = "table", trunk: dict[str, Any] | None = None, **training: Any
) -> Experiment:
    data: dict[str, Any] = {
        "name": dataset, "path": str(folder / "rows.jsonl"), "text": ["title", "body"], "features": ["title", "body"],
        "targets": {"mood": "binary", "size": "classes"},
    }  # fmt: skip
    if dataset == "streaming":
        data |= {"name": "huggingface", "streaming": True, "buffer": 20}
    tasks = {name: {"dataset": "a", "kind": kind} for name, kind in (("mood", "binary"), ("size", "classification"))}
    return experiment_from_dict({
        "name": "texts", "datasets": {"a": data}, "tasks": tasks, "trunk": trunk or TRUNK,
        "optimizer": {"name": "AdamW", "lr": 0.003},
        "training": {"epochs": 2, "batch_size": 8, "device": "cpu", "bucketing": 3, "workers": 0, **training},
        "checkpoint": {"every": "4 steps"},
    })  # fmt: skip


def train(given: Experiment, run_dir: Path, killed_at: int = -1) -> Any:
    return Trainer(build(given), run_dir, resume="auto", callbacks=[Killer(killed_at)], plots=False).fit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_rows(folder / "rows.jsonl", 90)
    return folder


@pytest.fixture(scope="module")
def run_dir(folder: Path) -> Path:
    train(experiment(folder), folder / "run")
    return folder / "run"


ADAPTERS = {"name": "lora", "rank": 2, "dropout": 0.1, "arrangement": "mtl_lora", "targets": ["*.query", "*.value"]}


@pytest.mark.parametrize(("dataset", "adapters"), [("table", None), ("streaming", None), ("table", ADAPTERS)])
def test_a_killed_and_resumed_run_has_the_same_bits(
    dataset: str, adapters: dict[str, Any] | None, folder: Path, tmp_path: Path
) -> None:
    if dataset == "streaming":
        pytest.importorskip("datasets")
    given = experiment_from_dict({**experiment(folder, dataset).resolved(), "adapters": adapters})
    whole = train(given, tmp_path / "whole")
    with pytest.raises(KilledError):
        train(given, tmp_path / "killed", killed_at=14)  # in the second epoch, inside a window
    assert train(given, tmp_path / "killed")["metrics"] == whole["metrics"]
    last = "checkpoints/last.pt"
    assert digest_checkpoint(tmp_path / "killed" / last) == digest_checkpoint(tmp_path / "whole" / last)
    run = rebuild(given, load_checkpoint(tmp_path / "whole/checkpoints/best.pt"))
    assert measure(run, "test").metrics == whole["metrics"]["test"]


def test_padding_changes_no_prediction_and_rows_keep_their_order(run_dir: Path, folder: Path) -> None:
    model = mtlcli.load(run_dir)
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    pairs = [(row["title"], row["body"]) for row in rows]
    together, alone = model.predict(pairs), model.predict(pairs, batch_size=1)
    for task in ("mood", "size"):
        first, second = together[task].probabilities, alone[task].probabilities
        assert first is not None and second is not None
        torch.testing.assert_close(first, second, rtol=0, atol=1e-5)
    by_rows = model.predict({"a": rows})
    assert torch.equal(by_rows["mood"].probabilities, together["mood"].probabilities)
    outputs = model(pairs)["size"]
    probabilities = together["size"].probabilities
    assert probabilities is not None
    torch.testing.assert_close(outputs.softmax(1), probabilities, rtol=0, atol=1e-5)
    assert model.features(pairs[:3])["mood"].shape == (3, 16)


def test_files_of_texts_are_predicted_in_order(
    run_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from mtlcli.cli import main

    rows = write_rows(tmp_path / "new.jsonl", 40, 1, labels=False)
    out = tmp_path / "out.jsonl"
    arguments = ["--out", str(out), "--features", "--probabilities"]
    assert main(["predict", str(run_dir), str(tmp_path / "new.jsonl"), *arguments]) == 0
    written = [json.loads(line) for line in out.read_text().splitlines()]
    expected = mtlcli.load(run_dir).predict(rows)["mood"]
    assert [row["mood"] for row in written] == expected.labels
    assert expected.probabilities is not None
    np.testing.assert_allclose([row["mood[1]"] for row in written], expected.probabilities[:, 1], atol=1e-5)
    assert len(written[0]["features"]) == 16
    capfd.readouterr()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["one text"], r"expected a list of pairs of texts \(title and body\), but example 0 is 'one text'"),
        ("text", "expected a list of pairs of texts, got str"),
        ([("a", 3)], "body of example 0: expected a text, got 3"),
        ([], "expected at least one example, got none"),
        ({"title": ["a"], "bodi": ["b"]}, r"column 'body' is missing\. Did you mean 'bodi'"),
        (torch.zeros(2, 2, 50, dtype=torch.int32), r"expected tokens \[B, 2, at most 11\], got \[2, 2, 50\]"),
        (torch.zeros(2, 2, 8), r"expected texts, or their tokens .*, got float32"),
    ],
)
def test_inputs_that_are_no_texts(run_dir: Path, inputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mtlcli.load(run_dir).predict(inputs)


def test_truncated_texts_are_counted(run_dir: Path) -> None:
    texts = json.loads((run_dir / "summary.json").read_text())["texts"]["a"]
    assert list(texts) == ["train", "val", "test"]
    assert sum(split["examples"] for split in texts.values()) == 90 and texts["train"]["longest"] == 11
    total = sum(split["truncated"] for split in texts.values())
    assert 0 < total < 90 and f"{total} of 90 truncated (" in (run_dir / "log.txt").read_text()


def test_a_trained_tokenizer_is_stored_in_the_checkpoint(run_dir: Path, folder: Path) -> None:
    first, again = (load_checkpoint(run_dir / f"checkpoints/{name}.pt") for name in ("best", "last"))
    assert first["base"]["tokenizer"] == again["base"]["tokenizer"]
    assert build(experiment(folder)).base.tokenizer == first["base"]["tokenizer"]  # type: ignore[union-attr]
    text = first["specs"]["a"]["text"]
    assert (text["columns"], text["max_length"]) == (["title", "body"], 11)


def test_another_trunk_gets_features_of_the_texts(folder: Path) -> None:
    run = build(experiment(folder, trunk={"name": "mlp", "hidden": [8], "features": 8}))
    assert run.specs["a"].text is None and run.specs["a"].input_shape == (1024,) and run.tokenizer is None


def test_a_tokenizer_file_of_another_form(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("not JSON")
    with pytest.raises(ConfigError, match=r"tokenizer\.json is not the file of a tokenizer"):
        build(experiment(folder, trunk={**TRUNK, "tokenizer": str(tmp_path / "tokenizer.json")}))


@pytest.mark.parametrize("pairs", [False, True])
def test_texts_passed_from_python(pairs: bool, folder: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    texts = [(row["title"], row["body"]) if pairs else row["body"] for row in rows]
    labels = {"mood": [bool(row["mood"]) for row in rows]}
    config = experiment(folder, epochs=1).resolved()
    config["tasks"] = {"mood": {"dataset": "a", "kind": "binary"}}
    config["datasets"] = {"a": {"name": "in_memory"}}
    summary = mtlcli.train(config, datasets={"a": (texts, labels)}, run_dir=tmp_path / "run", plots=False)
    splits = summary["texts"]["a"]
    assert list(splits) == ["train", "val", "test"] and sum(split["examples"] for split in splits.values()) == 90
    model = mtlcli.load(tmp_path / "run")
    assert model.specs["a"].text == TextSpec(("first", "second") if pairs else ("text",), 11)
    assert len(model.predict(texts)["mood"].labels) == 90
    items = [(text, label) for text, label in zip(texts, labels["mood"], strict=True)]
    run = mtlcli.build({**config, "tasks": {"mood": {"dataset": "a", "kind": "binary", "target": "target"}}},
                       datasets={"a": items})  # fmt: skip
    assert run is not None


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([1, 2], "the input of example 0 is not a string, or a pair of strings, but '1'"),
        ([("a", "b", "c")], "example 0 has 3 texts, expected 1 or 2"),
        (["a", ("a", "b")], "example 1 has 2 texts, expected 1"),
        (np.zeros((2, 3)), "the input of example 0 is not a string"),
    ],
)
def test_inputs_passed_from_python_that_are_no_texts(texts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_texts(texts)


def test_stems_of_texts(folder: Path) -> None:
    plain = experiment(folder).resolved()
    with pytest.raises(ConfigError, match="the trunk 'transformers' reads text, which no stem returns"):
        build(experiment_from_dict({**plain, "stems": {"a": {"name": "linear"}}}))


@pytest.mark.parametrize("dataset", ["table", "streaming"])
def test_texts_of_some_examples_are_compared_by_their_words(dataset: str, folder: Path, run_dir: Path) -> None:
    if dataset == "streaming":
        pytest.importorskip("datasets")
    opened = open_datasets(experiment(folder, dataset))
    train, again = (subsample(opened, "a", "train", 0, size) for size in (20, 20))
    assert isinstance(train.inputs, TextRows) and len(train) == 20 and train.targets["mood"].shape == (20,)
    words, same = (_inputs(examples, opened["a"][1]) for examples in (train, again))
    np.testing.assert_allclose(np.linalg.norm(words, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(words, same)
    run = rebuild(experiment(folder), load_checkpoint(run_dir / "checkpoints/best.pt"))
    features = _compute_features(run, run, "a", train)
    rows = list(zip(*train.inputs.columns, strict=True))
    np.testing.assert_allclose(features, mtlcli.load(run_dir).features(rows)["mood"].detach(), atol=1e-5)
