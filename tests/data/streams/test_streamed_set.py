from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mtlcli.config import experiment_from_dict
from mtlcli.data.datasets.huggingface import HuggingFace
from mtlcli.data.examples import Examples, StreamedExamples
from mtlcli.data.loader import Loader, evaluation_batches
from mtlcli.data.placement import Placement
from mtlcli.errors import ConfigError, MtlError
from mtlcli.registry import samplers
from mtlcli.training.assembly.build import build, rebuild
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.evaluate import measure
from mtlcli.training.trainer import Trainer
from tests.data.batches import CPU, plain
from tests.data.hub_sets import people, write_parquet
from tests.training.identical import digest_checkpoint
from tests.training.killing import KilledError, Killer

library = pytest.importorskip("datasets")
TASKS = {"income": ("a", "income"), "married": ("a", "married")}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def numbered(rows: int, first: int = 0) -> pa.Table:
    return people(rows).append_column("number", pa.array(range(first, first + rows)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "set", {"train": numbered(53), "test": numbered(20, 1000)}, 4)


def open_set(folder: Path, **options: Any) -> HuggingFace:
    options = {"targets": {"income": "real", "married": "binary", "number": "real"}, "streaming": True, **options}
    return HuggingFace(path=str(folder), buffer=8, **options)


def make_loader(examples: Examples, sampling: str = "proportional", seed: int = 0, workers: int = 0) -> Loader:
    other = Examples(torch.arange(30.0).unsqueeze(1), {"y": torch.zeros(30)})
    parts = {"a": examples, "b": other}
    tasks = {**TASKS, "number": ("a", "number"), "y": ("b", "y")}
    sampler = samplers[sampling].target([len(split) for split in parts.values()], 5)
    return Loader(parts, tasks, sampler, seed, Placement(CPU, "auto", workers))


@pytest.mark.parametrize("sampling", ["proportional", "uniform", "round_robin"])
def test_a_restart_at_any_step_gives_the_following_batches(folder: Path, sampling: str) -> None:
    dataset = open_set(folder)
    dataset.describe()
    loader = make_loader(dataset.examples("train", 0), sampling)
    for epoch in range(2):
        whole = plain(loader.epoch(epoch))
        assert all(plain(loader.epoch(epoch, at)) == whole[at:] for at in (1, loader.steps // 2, loader.steps - 1))


def test_an_epoch_has_every_row_once_with_its_labels(folder: Path) -> None:
    dataset = open_set(folder, val=0)
    dataset.describe()
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        batches = list(make_loader(dataset.examples("train", 0), seed=seed).epoch(epoch))
        numbers = torch.cat([batch.targets["number"] for batch in batches]).int().tolist()
        married = torch.cat([batch.targets["married"] for batch in batches]).tolist()
        counts = sum(batch.counts["married"] for batch in batches)
        assert sorted(numbers) == list(range(53)) and numbers != list(range(53))
        expected = numbered(53)["married"].to_pylist()
        np.testing.assert_array_equal(married, [expected[n] if expected[n] is not None else np.nan for n in numbers])
        assert counts == 53 - expected.count(None)
        orders.append(numbers)
    assert orders[0] != orders[1] and orders[0] != orders[2]


def test_a_worker_gives_the_same_batches(folder: Path) -> None:
    dataset = open_set(folder)
    dataset.describe()
    examples = dataset.examples("train", 0)
    assert plain(make_loader(examples, workers=1).epoch(1, 2)) == plain(make_loader(examples).epoch(1, 2))


def test_evaluation_reads_the_same_examples_as_without_streaming(folder: Path) -> None:
    batches = []
    for streaming in (False, True):
        dataset = open_set(folder, streaming=streaming)
        spec = dataset.describe()
        examples = {"a": dataset.examples("test", 0)}
        batches.append((spec, plain(evaluation_batches(examples, TASKS, Placement(CPU), 6))))
    assert batches[0] == batches[1]


def test_splits_are_drawn_by_position(folder: Path) -> None:
    dataset = open_set(folder / "train-*.parquet", val=0.3)
    spec = dataset.describe()
    assert spec.splits == ("train", "val", "test") and dataset.draws_test()
    numbers = {split: dataset.examples(split, 0).labels("number").int().tolist() for split in spec.splits}
    assert sorted(n for split in numbers.values() for n in split) == list(range(53)) and all(numbers.values())
    assert dataset.examples("val", 1).labels("number").tolist() != dataset.examples("val", 0).labels("number").tolist()
    assert dataset.examples("test", 1).labels("number").int().tolist() == numbers["test"]
    assert {split: p.n for split, p in dataset.recorded().splits.items()} == {
        "train": len(numbers["train"]) + len(numbers["val"]), "test": len(numbers["test"])
    }  # fmt: skip


def test_json_lines_with_missing_keys_and_stated_numbers_of_rows(tmp_path: Path) -> None:
    rows = [{"x": at * at, "y": at % 2 == 0, **({"z": "a"} if at > 5 else {})} for at in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for given in ({}, {"train": 20}):
        dataset = HuggingFace(
            path=str(tmp_path / "rows.jsonl"), targets=["y"], streaming=True, rows=given, test=0, val=0
        )
        spec = dataset.describe()
        assert [(c.name, c.levels) for c in spec.columns] == [("x", None), ("z", ("a",))] and spec.splits == ("train",)
        examples = dataset.examples("train", 0)
        assert len(examples) == 20 and examples.labels("y").tolist() == [1.0, 0.0] * 10
        assert examples.inputs[7].tolist() == [49.0, 2.0] and examples.inputs[0].tolist() == [0.0, 1.0]
    wrong = HuggingFace(path=str(tmp_path / "rows.jsonl"), targets=["y"], streaming=True, rows={"train": 21}, test=0)
    wrong.describe()
    with pytest.raises(
        MtlError, match=r"split 'train': 20 rows, but 21 were expected: .* or the option `rows` is wrong"
    ):
        wrong.examples("train", 0).labels("y")


def test_weights(folder: Path) -> None:
    dataset = open_set(folder, weight_column="age", targets=["income"], val=0)
    dataset.describe()
    examples = dataset.examples("test", 0)
    ages = people(20)["age"].to_pylist()
    weights = examples.sample_weights()
    assert weights is not None and weights.tolist() == ages
    (batch,) = evaluation_batches({"a": examples}, {"income": ("a", "income")}, Placement(CPU), 50)
    assert batch.weights["income"].tolist() == ages and batch.counts["income"] == sum(ages)


def test_some_examples_are_copied_to_memory(folder: Path) -> None:
    dataset = open_set(folder, val=0, weight_column="age")
    dataset.describe()
    examples = dataset.examples("train", 0)
    assert isinstance(examples, StreamedExamples)
    copied = examples.copy_rows(torch.tensor([3, 4, 40]))
    assert copied.labels("number").tolist() == [3, 4, 40] and isinstance(copied.inputs, torch.Tensor)
    assert all(torch.equal(copied.inputs[at], examples.inputs[row]) for at, row in enumerate((3, 4, 40)))
    ages = people(53)["age"].to_pylist()
    assert copied.weights is not None and copied.weights.tolist() == [ages[row] for row in (3, 4, 40)]


def test_targets_that_are_functions_of_others(folder: Path) -> None:
    dataset = open_set(folder, val=0)
    dataset.describe()
    examples = dataset.examples("train", 0)
    derived = examples.with_labels({"double": lambda labels: 2 * labels["number"]})
    assert derived.labels("double").tolist() == (2 * examples.labels("number")).tolist()
    sampler = samplers["proportional"].target([53], 10)
    tasks = {"number": ("a", "number"), "double": ("a", "double")}
    for batch in Loader({"a": derived}, tasks, sampler, 0, Placement(CPU, workers=0)).epoch(0):
        assert torch.equal(batch.targets["double"], 2 * batch.targets["number"])


def test_a_class_that_is_not_among_the_first_rows(tmp_path: Path) -> None:
    towns = ["Ulm"] * 30 + ["Bonn"] * 10 + ["Rom"] * 10
    pq.write_table(pa.table({"x": np.random.default_rng(0).normal(size=50), "town": towns}), tmp_path / "t.parquet")
    options: dict[str, Any] = {"path": str(tmp_path / "t.parquet"), "streaming": True, "test": 0, "val": 0}
    dataset = HuggingFace(targets=["town"], fit_rows=40, **options)
    dataset.describe()
    assert any("those of the first 40 training rows" in note for note in dataset.notes())
    with pytest.raises(ConfigError, match="split 'train', row 40: target 'town' has the class 'Rom'"):
        dataset.examples("train", 0).labels("town")
    stated = HuggingFace(
        targets={"town": {"classes": ["Ulm", "Bonn", "Rom"], "others": "error"}}, fit_rows=40, **options
    )
    stated.describe()
    assert stated.examples("train", 0).labels("town").tolist() == [0] * 30 + [1] * 10 + [2] * 10


def test_groups_need_random_access(folder: Path) -> None:
    with pytest.raises(ValueError, match="`group_column` can't keep groups in one split with `streaming`"):
        open_set(folder, group_column="town")


def test_changed_files_are_detected(folder: Path) -> None:
    before = open_set(folder).recorded()
    table = pq.read_table(folder / "train-00000-of-00004.parquet")
    pq.write_table(table.slice(0, 10), folder / "train-00000-of-00004.parquet")
    last = pq.read_table(folder / "train-00003-of-00004.parquet")
    pq.write_table(pa.concat_tables([last, table.slice(10)]), folder / "train-00003-of-00004.parquet")
    now = open_set(folder).recorded()
    assert now.splits["test"] == before.splits["test"] and now.splits["train"].n == before.splits["train"].n
    assert now.splits["train"].order != before.splits["train"].order


def experiment(folder: Path, streaming: bool = True) -> Any:
    plain = {
        "name": "stream",
        "datasets": {"a": {"name": "huggingface", "path": str(folder), "targets": ["income", "married"], "buffer": 8,
                           "streaming": streaming, "exclude": ["number"]}},
        "tasks": {"income": {"dataset": "a", "kind": "regression"}, "married": {"dataset": "a", "kind": "binary"}},
        "trunk": {"name": "tabular", "hidden": [8], "features": 4},
        "training": {"epochs": 2, "batch_size": 4, "accumulate": 2, "device": "cpu", "threads": 1, "workers": 0},
        "checkpoint": {"every": "4 steps"},
    }  # fmt: skip
    return experiment_from_dict(plain)


def train(folder: Path, run_dir: Path, killed_at: int = -1) -> Any:
    run = build(experiment(folder))
    return Trainer(run, run_dir, resume="auto", callbacks=[Killer(killed_at)], plots=False).fit()


def test_a_killed_and_resumed_run_has_the_same_bits(folder: Path, tmp_path: Path) -> None:
    whole = train(folder, tmp_path / "whole")
    with pytest.raises(KilledError):
        train(folder, tmp_path / "killed", killed_at=12)  # in the second epoch, after a step that is not saved
    assert train(folder, tmp_path / "killed")["metrics"] == whole["metrics"]
    last = "checkpoints/last.pt"
    assert digest_checkpoint(tmp_path / "killed" / last) == digest_checkpoint(tmp_path / "whole" / last)
    payload = load_checkpoint(tmp_path / "whole/checkpoints/best.pt")
    for streaming in (False, True):
        run = rebuild(experiment(folder, streaming), payload)
        assert measure(run, "test").metrics == whole["metrics"]["test"]


def test_a_sample_space(folder: Path, tmp_path: Path) -> None:
    """The run of a restricted task has the metrics of the examples in the space, as without streaming."""
    plain = experiment(folder).resolved()
    plain["tasks"]["income"]["where"] = {"task": "married", "equals": 1}
    restricted = experiment_from_dict(plain)
    summary = Trainer(build(restricted), tmp_path / "run", plots=False).fit()
    plain["datasets"]["a"]["streaming"] = False
    run = rebuild(experiment_from_dict(plain), load_checkpoint(tmp_path / "run/checkpoints/best.pt"))
    evaluation = measure(run, "test")
    assert evaluation.examples == summary["examples"]["test"]
    assert evaluation.examples["income"] < evaluation.examples["married"]
    assert evaluation.metrics == summary["metrics"]["test"]
