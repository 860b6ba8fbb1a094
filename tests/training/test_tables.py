"""Experiments on tables: what a trunk that embeds them needs, and the way from training to another file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mtlcli.cli import main
from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.errors import ConfigError
from mtlcli.models.table_encoder import Embeddings
from mtlcli.training.build import build
from mtlcli.training.check import check_experiment
from mtlcli.training.trainer import Trainer
from tests.training.experiments import training

TOWNS = ("Bonn", "Köln", "Ulm")
TABULAR = {"name": "tabular", "hidden": [8], "features": 4}
TASKS = {
    "rich": {"dataset": "people", "target": "rich", "kind": "binary"},
    "income": {"dataset": "people", "target": "income", "kind": "regression"},
}


def write(path: Path, towns: tuple[str, ...] = TOWNS, amount: int = 90) -> str:
    lines = ["age,town,rich,income"]
    for row in range(amount):
        town = towns[row % len(towns)]
        lines.append(f"{20 + row % 50 if row % 7 else ''},{town},{int(town == 'Ulm')},{row % 50 / 10}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.fixture
def people(tmp_path: Path) -> dict[str, Any]:
    return {"name": "csv", "path": write(tmp_path / "people.csv"), "targets": ["rich", "income"]}


def experiment(people: dict[str, Any], **changes: Any) -> Experiment:
    plain = {"datasets": {"people": people}, "tasks": TASKS, "trunk": TABULAR, "training": training(batch_size=20)}
    return experiment_from_dict({**plain, **changes})


def test_a_trunk_is_given_columns_or_numbers(people: dict[str, Any]) -> None:
    run = build(experiment(people))
    assert run.input_shape == (2,) and not list(run.model.normalize.state_dict())
    run = build(experiment(people, trunk={"name": "mlp", "hidden": [8]}))
    assert run.input_shape == (4,) and run.model.sharing.trunks()["trunk"].fc1.in_features == 4
    assert run.specs["people"].input_shape == (2,)


def test_no_table(people: dict[str, Any]) -> None:
    images = {"name": "digits"}
    task = {"dataset": "images", "target": "parity", "kind": "binary"}
    with pytest.raises(ConfigError, match=r"trunk: tabular needs a table's columns, .* 'images' are 1×8×8"):
        check_experiment(experiment(people, datasets={"images": images}, tasks={"parity": task}))
    both = {"people": people, "images": images}
    with pytest.raises(ConfigError, match="tabular needs a table's columns"):
        check_experiment(experiment(people, datasets=both, tasks={**TASKS, "parity": task}))
    with pytest.raises(ConfigError, match=r"datasets: .* differ in shape \(people 4, images 1×8×8\)"):
        check_experiment(experiment(people, datasets=both, tasks={**TASKS, "parity": task}, trunk={"name": "mlp"}))


def test_columns_that_differ(people: dict[str, Any], tmp_path: Path) -> None:
    other = {**people, "path": write(tmp_path / "other.csv", ("Bonn", "Rom"))}
    tasks = {"rich": TASKS["rich"], "income": {**TASKS["income"], "dataset": "others"}}
    with pytest.raises(ConfigError, match=r"same columns in all datasets.* 'people' and 'others' differ: town( |$)"):
        check_experiment(experiment(people, datasets={"people": people, "others": other}, tasks=tasks))
    swapped = [{**people, "features": names} for names in (["age", "town"], ["town", "age"])]
    with pytest.raises(ConfigError, match="differ: their order"):
        check_experiment(
            experiment(people, datasets=dict(zip(("people", "others"), swapped, strict=True)), tasks=tasks)
        )
    check_experiment(experiment(people, datasets={"people": people, "others": dict(people)}, tasks=tasks))


def test_nothing_to_reconstruct(people: dict[str, Any]) -> None:
    term = [{"name": "reconstruction"}]
    with pytest.raises(ConfigError, match="rebuilds numbers, and this trunk is given a table's raw columns"):
        check_experiment(experiment(people, regularizers=term))
    check_experiment(experiment(people, regularizers=term, trunk={"name": "mlp"}))
    check_experiment(experiment(people, regularizers=[{"name": "nuclear_norm"}]))


@pytest.mark.parametrize("weighting", ["uniform", "upgrad", {"name": "mgda", "gradients": "features"}])
def test_training_leaves_the_vector_of_what_was_not_seen_at_zero(
    people: dict[str, Any], weighting: Any, tmp_path: Path
) -> None:
    run = build(experiment(people, weighting=weighting))
    (embeddings,) = (module for module in run.model.modules() if isinstance(module, Embeddings))
    before = embeddings.weight.detach().clone()
    Trainer(run, run_dir=tmp_path / "run", plots=False).fit()
    (embeddings,) = (module for module in run.model.modules() if isinstance(module, Embeddings))
    assert not embeddings.weight[0].any()
    assert (embeddings.weight[2:] != before[2:]).any(1).all()


def test_from_training_to_another_file(
    people: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Trainer(build(experiment(people)), run_dir=tmp_path / "run", plots=False).fit()
    path = write(tmp_path / "other.csv", ("Ulm", "Rom", ""), amount=12)
    checkpoint, there = str(tmp_path / "run/checkpoints/best.pt"), f"datasets.people.path={path}"
    assert main(["eval", checkpoint, there, "datasets.people.test=1.0", "--split", "test", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert 0 <= metrics["rich"]["accuracy"] <= 1 and metrics["income"]["mse"] > 0


def test_export(people: dict[str, Any], tmp_path: Path) -> None:
    from mtlcli.training.export import export

    for trunk in (TABULAR, {"name": "mlp", "hidden": [8]}):
        run = build(experiment(people, trunk=trunk))
        x = torch.tensor([[30.0, 2.0], [50.0, 0.0], [41.5, 1.0]])
        expected = run.model.eval()({"people": x})
        export(run, "torch-export", tmp_path / "model.pt2")
        found = torch.export.load(tmp_path / "model.pt2").module()({"people": x})
        torch.testing.assert_close(dict(found), {task: value.detach() for task, value in expected.items()})


def test_rows_without_labels_are_not_evaluated(
    people: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Trainer(build(experiment(people)), run_dir=tmp_path / "run", plots=False).fit()
    checkpoint, new = str(tmp_path / "run/checkpoints/best.pt"), tmp_path / "new.csv"
    command = ["eval", checkpoint, f"datasets.people.path={new}", "datasets.people.test=1.0", "--json"]
    new.write_text("age,town,rich,income\n20,Ulm,,\n30,Bonn,,\n")
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == "" and "no example of the split 'test' has a label of any task (rich, income)" in err
    new.write_text("age,town,rich,income\n20,Ulm,1,\n30,Bonn,,\n")
    assert main(command) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["examples"] == {"rich": 1, "income": 0} and document["metrics"]["income"]["loss"] is None
    assert "income: no labelled example in the split 'test' (n = 0)" in err
