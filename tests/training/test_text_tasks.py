"""Runs of tasks with a tag for each word, and of tasks on pairs of texts: steps, evaluation and predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mtlcli
from mtlcli.config import experiment_from_dict
from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import build, check
from mtlcli.training.assembly.data_checks import open_data, open_datasets
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.evaluate import measure
from mtlcli.training.run import Run
from mtlcli.training.step import Step

pytest.importorskip("transformers")
BERT = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "vocab_size": 90, "max_position_embeddings": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
NOUNS, VERBS = ["dress", "fabric", "sleeves"], ["fits", "runs", "tears"]


def write_tags(path: Path, amount: int = 60) -> None:
    generator = np.random.default_rng(0)
    rows = []
    for row in range(amount):
        pairs = [(w, "N" if w in NOUNS else "V") for w in generator.choice(NOUNS + VERBS, 1 + row % 11)]
        words, tags = ([pair[at] for pair in pairs] for at in (0, 1))
        tags = None if row % 7 == 3 else [tag if at % 5 else None for at, tag in enumerate(tags)]
        rows.append({"words": words, "pos": tags, "mood": row % 3, "weight": 1 + row % 4})
    path.write_text("\n".join(map(json.dumps, rows)))


def write_pairs(path: Path, amount: int = 60) -> None:
    generator = np.random.default_rng(1)
    rows = []
    for row in range(amount):
        first, second = (" ".join(generator.choice(NOUNS + VERBS, 1 + row % n)) for n in (4, 5))
        rows.append({"first": first, "second": second, "score": None if row % 8 == 5 else row % 6, "mood": row % 2})
    path.write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text_tasks")
    write_tags(folder / "tags.jsonl")
    write_pairs(folder / "pairs.jsonl")
    return folder


def experiment(folder: Path, tasks: dict[str, Any], **options: Any) -> dict[str, Any]:
    tags = {"name": "table", "path": str(folder / "tags.jsonl"), "text": ["words"],
            "targets": {"pos": "tags", "mood": "classes"}, "exclude": ["weight"]}  # fmt: skip
    pairs = {"name": "table", "path": str(folder / "pairs.jsonl"), "text": ["first", "second"],
             "targets": {"score": "real", "mood": "binary"}}  # fmt: skip
    named = {task["dataset"] for task in tasks.values()}
    return {
        "name": "texts", "datasets": {k: v for k, v in {"tags": tags, "pairs": pairs}.items() if k in named},
        "tasks": tasks, "trunk": {"name": "transformers", "config": BERT, "max_length": 10},
        "optimizer": {"name": "SGD", "lr": 0.1},
        "training": {"epochs": 1, "batch_size": 6, "device": "cpu", "workers": 0, "bucketing": 1}, **options,
    }  # fmt: skip


TAGGING = {"pos": {"dataset": "tags", "kind": "tagging"}, "mood": {"dataset": "tags", "kind": "classification"}}
PAIRS = {
    "score": {"dataset": "pairs", "kind": {"name": "similarity", "scale": [0, 5]}},
    "partner": {"dataset": "pairs", "kind": {"name": "contrastive", "dimensions": 8}, "target": "pair"},
    "mood": {"dataset": "pairs", "kind": "binary"},
}


def gradient_of_step(run: Run, batches: list[Any]) -> tuple[Tensor, Tensor]:
    """Losses and the gradient of all parameters after one step."""
    step = Step(run, make_optimizer(run))
    made = step(batches)
    assert made is not None
    parameters = [p.grad for p in run.model.parameters() if p.grad is not None]
    return made[0].losses, torch.cat([gradient.flatten() for gradient in parameters])


@pytest.mark.parametrize("weighting", ["uniform", "pcgrad", {"name": "pcgrad", "gradients": "features"}, "gls"])
@pytest.mark.parametrize("weighted", [False, True])
def test_micro_batches_of_words_are_a_step_of_the_whole_batch(folder: Path, weighting: Any, weighted: bool) -> None:
    given = experiment(folder, json.loads(json.dumps(TAGGING)), weighting=weighting)
    if weighted:
        given["datasets"]["tags"] |= {"weight_column": "weight"}
        given["tasks"]["pos"] |= {"class_weights": {"N": 0.25}}
    results = []
    for size, accumulate in ((6, 2), (12, 1)):
        given["training"] |= {"batch_size": size, "accumulate": accumulate}
        run = build(experiment_from_dict(given))
        batches = open_data(run).epoch(0)
        results.append(gradient_of_step(run, [next(batches) for _ in range(accumulate)]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_evaluation_is_the_mean_over_all_words(folder: Path) -> None:
    given = experiment(folder, TAGGING)
    losses = []
    for size in (5, 64):
        given["evaluation"] = {"batch_size": size}
        run = build(experiment_from_dict(given))
        evaluation = measure(run, "train")
        losses.append(evaluation.metrics["pos"])
        labels = run.examples_of("tags", "train").labels("pos")
        assert evaluation.examples["pos"] == int((labels >= 0).sum())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("sharing", ["hard", "none", "mmoe"])
def test_tagging_and_pairs_train_together(folder: Path, tmp_path: Path, sharing: str) -> None:
    tasks = {**{f"{task}_of_words": entry for task, entry in TAGGING.items()}, **PAIRS}
    tasks["pos_of_words"] = {**TAGGING["pos"], "target": "pos"}
    tasks["mood_of_words"] = {**TAGGING["mood"], "target": "mood"}
    if sharing == "mmoe":  # its gates are those of vectors
        del tasks["pos_of_words"]
    given = experiment(folder, tasks, sharing=sharing, evaluation={"monitor": {"task": "score"}})
    given["optimizer"] = {"name": "AdamW", "lr": 0.01}
    summary = mtlcli.train(given, run_dir=tmp_path / "run", plots=False)
    assert summary["status"] == "completed"
    assert set(summary["metrics"]["test"]["partner"]) == {"loss", "recall_at_1", "mrr"}
    model = mtlcli.load(tmp_path / "run")
    texts = [("dress fits", "fabric"), ("runs", "sleeves tears dress")]
    predicted = model.predict({"pairs": texts})
    features = model.features({"pairs": texts})["score"]
    if sharing == "hard":
        cosine = torch.nn.functional.cosine_similarity(features[:, 0], features[:, 1], dim=1)
        torch.testing.assert_close(torch.as_tensor(predicted["score"].labels).float(), 5 * cosine, rtol=0, atol=1e-4)
    alone = model.predict({"pairs": texts[1:]})
    torch.testing.assert_close(alone["partner"].labels, predicted["partner"].labels[1:], rtol=0, atol=1e-5)
    if sharing != "mmoe":
        words = model.predict({"tags": [["dress", "fits"], ["runs"] * 12]}, tasks=["pos_of_words"])["pos_of_words"]
        assert [len(tags) for tags in words.labels] == [2, 12]  # type: ignore[arg-type]
        assert None not in words.labels[0] and words.labels[1][-1] is None  # truncated


def test_files_of_words_are_predicted(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from mtlcli.cli import main

    mtlcli.train(experiment(folder, TAGGING), run_dir=tmp_path / "run", plots=False)
    (tmp_path / "new.jsonl").write_text('{"words": ["dress", "fits"]}\n{"words": "runs runs"}\n{"words": []}\n')
    new, out = str(tmp_path / "new.jsonl"), tmp_path / "out.jsonl"
    assert main(["predict", str(tmp_path / "run"), new, "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [len(row["pos"]) for row in rows] == [2, 2, 0]
    assert main(["predict", str(tmp_path / "run"), new, "--tasks", "pos"]) == 0
    assert capfd.readouterr().out.splitlines()[1] == " ".join(rows[0]["pos"])
    assert main(["predict", str(tmp_path / "run"), new, "--out", str(out), "--features"]) == 2
    assert "has a prediction for each word" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"datasets": {"pairs": {"pairs": "joint"}}},
            "'similarity' compares two texts that are encoded one by one, but",
        ),
        ({"tasks": {"score": {"head": {"name": "mlp"}}}}, "for the head 'mlp', set `dimensions` in `kind`"),
        ({"tasks": {"mood": {"after": "score"}}}, "needs a prediction for each example, and task 'score' is of kind"),
        (
            {"datasets": {"pairs": {"text": ["first"]}}},
            "a task compares two texts, which needs two columns under `text`",
        ),
    ],
)
def test_pairs_that_can_not_work(folder: Path, changes: dict[str, Any], message: str) -> None:
    tasks = {task: entry for task, entry in PAIRS.items() if task != "partner"}
    given = json.loads(json.dumps(experiment(folder, tasks)))
    for section, entries in changes.items():
        for name, options in entries.items():
            given[section][name] |= options
    experiment_ = experiment_from_dict(given)
    with pytest.raises(ConfigError, match=message):
        check(experiment_, open_datasets(experiment_))
