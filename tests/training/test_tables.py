"""Experiments on tables: trunks that embed columns, and evaluation on other files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtlcli.cli import main
from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.errors import ConfigError
from mtlcli.models.table_encoder import Embeddings
from mtlcli.training.assembly.build import build, check_experiment, rebuild
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.evaluate import evaluate
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


def test_a_trunk_takes_columns_or_numbers(people: dict[str, Any]) -> None:
    run = build(experiment(people))
    assert run.input_shape == (2,) and not list(run.model.normalize.state_dict())
    run = build(experiment(people, trunk={"name": "mlp", "hidden": [8]}))
    assert run.input_shape == (4,) and run.model.sharing.trunks()["trunk"].fc1.in_features == 4
    assert run.specs["people"].input_shape == (2,)


def test_a_trunk_of_tables_refuses_images(people: dict[str, Any]) -> None:
    images = {"name": "digits"}
    task = {"dataset": "images", "target": "parity", "kind": "binary"}
    with pytest.raises(ConfigError, match=r"trunk: tabular needs the columns of a table, .* 'images' are 1×8×8"):
        check_experiment(experiment(people, datasets={"images": images}, tasks={"parity": task}))
    both = {"people": people, "images": images}
    with pytest.raises(ConfigError, match="tabular needs the columns of a table"):
        check_experiment(experiment(people, datasets=both, tasks={**TASKS, "parity": task}))
    with pytest.raises(ConfigError, match=r"datasets: .* differ in shape \(people 4, images 1×8×8\)"):
        check_experiment(experiment(people, datasets=both, tasks={**TASKS, "parity": task}, trunk={"name": "mlp"}))


def two_tables(first: dict[str, Any], second: dict[str, Any], **changes: Any) -> Experiment:
    tasks = {"rich": TASKS["rich"], "income": {**TASKS["income"], "dataset": "others"}}
    return experiment({}, datasets={"people": first, "others": second}, tasks=tasks, **changes)


def test_tables_share_their_columns_by_name(people: dict[str, Any], tmp_path: Path) -> None:
    """They have the same order, levels and statistics, computed from the training rows of both."""
    other = {**people, "path": write(tmp_path / "other.csv", ("Bonn", "Rom"), 60), "features": ["town", "age"]}
    run = build(two_tables(people, other))
    age, town = run.specs["people"].columns
    assert run.specs["others"].columns == (age, town) and town.levels == ("Bonn", "Köln", "Rom", "Ulm")
    ages, towns = [], []
    for alias, names in (("people", TOWNS), ("others", ("Bonn", "Rom"))):
        train = run.datasets[alias]._load()[3].rows["train"]  # type: ignore[attr-defined]
        ages += [20 + row % 50 for row in train if row % 7]
        inputs = run.datasets[alias].examples("test", 0).inputs
        assert isinstance(inputs, torch.Tensor)
        towns.append([(town.levels or ())[int(code) - 2] for code in inputs[:, 1]])
        assert towns[-1] == [names[row % len(names)] for row in range(len(inputs))]
    assert (age.mean, age.std) == pytest.approx((np.mean(ages), np.std(ages)))
    check_experiment(two_tables(people, other, trunk={"name": "mlp"}))


def test_tables_of_other_columns_are_refused(people: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("age,city,height,rich,income\n" + "40,Ulm,1.8,1,2.5\n30,Rom,1.7,0,1.5\n" * 9, encoding="utf-8")
    for trunk in ("mlp", "tabular"):
        with pytest.raises(ConfigError, match=r"datasets: .* only people has town; only others has city, height"):
            check_experiment(two_tables(people, {**people, "path": str(other)}, trunk={"name": trunk}))
    other.write_text("age,town,rich,income\n" + "40,1,1,2.5\n30,2,0,1.5\n" * 9, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"people.csv: column 'town' has no numbers, but in .*other.csv it has"):
        check_experiment(two_tables(people, {**people, "path": str(other)}))
    census = {"census": {"name": "census_income"}, "people": {**people, "features": ["age"]}}
    tasks = {"income": {"dataset": "census", "target": "income", "kind": "binary"}, "rich": TASKS["rich"]}
    with pytest.raises(ConfigError, match="only census has class of worker"):
        check_experiment(experiment({}, datasets=census, tasks=tasks))


@pytest.mark.parametrize("trunk", [{"name": "mlp", "hidden": [8]}, TABULAR])
def test_the_order_of_columns_in_a_file_does_not_matter(people: dict[str, Any], tmp_path: Path, trunk: Any) -> None:
    """Training and evaluation on two tables have the same bits for every order of the second one's columns."""
    path, text = tmp_path / "other.csv", Path(write(tmp_path / "other.csv", ("Bonn", "Rom"))).read_text("utf-8")
    runs = []
    for order in ([0, 1, 2, 3], [3, 1, 2, 0]):
        path.write_text("\n".join(",".join(line.split(",")[at] for at in order) for line in text.splitlines()), "utf-8")
        trainer = Trainer(
            build(two_tables(people, {**people, "path": str(path)}, trunk=trunk)), tmp_path / str(order), plots=False
        )
        metrics = trainer.fit()["metrics"]
        payload = load_checkpoint(trainer.folder.best)
        runs.append((metrics, evaluate(rebuild(trainer.experiment, payload), "test")))
        assert runs[-1][0]["test"] == runs[-1][1]
    assert runs[0] == runs[1]


def test_reconstruction_needs_numeric_inputs(people: dict[str, Any]) -> None:
    term = [{"name": "reconstruction"}]
    with pytest.raises(ConfigError, match="reconstructs numbers, but this trunk receives texts or the columns"):
        check_experiment(experiment(people, regularizers=term))
    check_experiment(experiment(people, regularizers=term, trunk={"name": "mlp"}))
    check_experiment(experiment(people, regularizers=[{"name": "nuclear_norm"}]))


@pytest.mark.parametrize("weighting", ["uniform", "upgrad", {"name": "mgda", "gradients": "features"}])
def test_the_embedding_of_unseen_categories_stays_zero(people: dict[str, Any], weighting: Any, tmp_path: Path) -> None:
    run = build(experiment(people, weighting=weighting))
    (embeddings,) = (module for module in run.model.modules() if isinstance(module, Embeddings))
    before = embeddings.weight.detach().clone()
    Trainer(run, run_dir=tmp_path / "run", plots=False).fit()
    (embeddings,) = (module for module in run.model.modules() if isinstance(module, Embeddings))
    assert not embeddings.weight[0].any()
    assert (embeddings.weight[2:] != before[2:]).any(1).all()


def test_training_and_evaluation_on_another_file(
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
        outputs = torch.export.load(tmp_path / "model.pt2").module()({"people": x})
        torch.testing.assert_close(dict(outputs), {task: value.detach() for task, value in expected.items()})


def test_rows_without_labels_are_not_evaluated(
    people: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Trainer(build(experiment(people)), run_dir=tmp_path / "run", plots=False).fit()
    checkpoint, new = str(tmp_path / "run/checkpoints/best.pt"), tmp_path / "new.csv"
    command = ["eval", checkpoint, f"datasets.people.path={new}", "datasets.people.test=1.0", "--json"]
    new.write_text("age,town,rich,income\n20,Ulm,,\n30,Bonn,,\n")
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == "" and "no example of the split 'all' has a label of any task (rich, income)" in err
    new.write_text("age,town,rich,income\n20,Ulm,1,\n30,Bonn,,\n")
    assert main(command) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["examples"] == {"rich": 1, "income": 0} and document["metrics"]["income"]["loss"] is None
    assert "income: no labelled example in the split 'all' (n = 0)" in err


# labels, `targets`, kind of the task, error message
WRONG_KINDS: dict[str, tuple[str, Any, str, str]] = {
    "words": (
        "ab",
        ["y"],
        "regression",
        r"has values that are not numbers, the first at .*t.csv:2: 'a' \(dataset 't'\)",
    ),
    "declared": ("12", {"y": "classes"}, "regression", r"declared as classes; .* `targets: \{y: real\}`"),
    "numbers": (
        "12345",
        ["y"],
        "classification",
        r"'real'. To use its numbers as classes, .* `targets: \{y: classes\}`",
    ),
    "two numbers": ("12", ["y"], "binary", r"'real'. To use its numbers as classes, .* `targets: \{y: classes\}`"),
}


@pytest.mark.parametrize(("labels", "targets", "kind", "message"), WRONG_KINDS.values(), ids=WRONG_KINDS)
def test_a_kind_that_does_not_fit_the_target_is_refused_with_a_remedy(
    tmp_path: Path, labels: str, targets: Any, kind: str, message: str
) -> None:
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"0.{at}1,{label}\n" for at, label in enumerate(labels * 4)))
    table = {"name": "csv", "path": str(tmp_path / "t.csv"), "targets": targets, "test": 0.0, "val": 0.0}
    tasks = {"y": {"dataset": "t", "target": "y", "kind": kind}}
    with pytest.raises(ConfigError, match=rf"tasks\.y\.kind: .*{message}"):
        check_experiment(experiment({}, datasets={"t": table}, tasks=tasks, evaluation={"split": "train"}))


def test_regression_of_targets_far_from_zero(tmp_path: Path) -> None:
    """Unix seconds and UTM northings, linear in x: the model's outputs are in the target's own units."""
    rng = np.random.default_rng(0)
    x = rng.random(200)
    rows = [f"{a:.4f},{1_700_000_000 + 1000 * a:.1f},{5_400_000 + 10 * a:.2f}" for a in x]
    (tmp_path / "t.csv").write_text("x,arrival,north\n" + "\n".join(rows))
    table = {"name": "csv", "path": str(tmp_path / "t.csv"), "targets": ["arrival", "north"]}
    tasks = {name: {"dataset": "t", "target": name, "kind": "regression"} for name in ("arrival", "north")}
    config = experiment(
        {}, datasets={"t": table}, tasks=tasks, trunk={"name": "mlp", "hidden": [16], "features": 8},
        optimizer={"name": "Adam", "lr": 0.01}, training=training(epochs=25, batch_size=32),
    )  # fmt: skip
    trainer = Trainer(build(config), tmp_path / "run", plots=False)
    metrics = trainer.fit()["metrics"]["test"]
    examples = trainer.run.examples("test")["t"]
    assert isinstance(examples.inputs, torch.Tensor) and examples.rows is not None
    trainer.run.model.eval()
    with torch.inference_mode():
        out = trainer.run.model({"t": examples.inputs[examples.rows]})
    for name, std in (("arrival", 290), ("north", 2.9)):
        values = {
            f"{a:.4f}": float(row.split(",")[1 if name == "arrival" else 2]) for a, row in zip(x, rows, strict=True)
        }
        labels = np.array([values[f"{a:.4f}"] for a in examples.inputs[examples.rows][:, 0].double().tolist()])
        errors = out[name][:, 0].double().numpy() - labels
        assert metrics[name]["rmse"] == pytest.approx(float(np.sqrt((errors**2).mean())), rel=1e-5)
        assert metrics[name]["r2"] > 0.98 and metrics[name]["rmse"] < 0.15 * std


@pytest.mark.parametrize("trunk", ["mlp", "tabular"])
def test_features_far_from_zero_are_learned(tmp_path: Path, trunk: str) -> None:
    """Unix milliseconds within five minutes give the same batch as seconds from 0."""
    seconds = np.random.default_rng(1).integers(0, 300, 120)
    runs = {}
    for name, origin, factor in (("ms", 1_700_000_000_000, 1000), ("s", 0, 1)):
        rows = "".join(f"{origin + factor * int(s)},{int(s > 200)}\n" for s in seconds)
        (tmp_path / f"{name}.csv").write_text("at,late\n" + rows)
        table = {"name": "csv", "path": str(tmp_path / f"{name}.csv"), "targets": ["late"], "test": 0.0, "val": 0.0}
        tasks = {"late": {"dataset": "t", "target": "late", "kind": "binary"}}
        run = build(experiment(
            {}, datasets={"t": table}, tasks=tasks, trunk={"name": trunk, "hidden": [8]},
            evaluation={"split": "train"},
        ))  # fmt: skip
        inputs = run.examples("train")["t"].inputs
        assert isinstance(inputs, torch.Tensor)
        runs[name] = run.model({"t": inputs})["late"].detach()
    torch.testing.assert_close(runs["ms"], runs["s"], rtol=1e-5, atol=1e-5)
