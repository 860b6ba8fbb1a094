"""The targets of tasks, and the notes about them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import f1_score

from mtlcli.cli import main
from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import build, check_experiment
from mtlcli.training.evaluate import measure
from mtlcli.training.trainer import Trainer
from tests.training.experiments import training


def experiment(dataset: dict[str, Any], tasks: dict[str, Any], **changes: Any) -> Experiment:
    plain = {"datasets": {"d": dataset}, "trunk": {"name": "mlp", "hidden": [4], "features": 4},
             "training": training(epochs=1), "evaluation": {"split": "train"}}  # fmt: skip
    return experiment_from_dict({**plain, "tasks": {n: {"dataset": "d", **t} for n, t in tasks.items()}, **changes})


def write_table(path: Path, amount: int = 120) -> dict[str, Any]:
    """Write a table of which every tenth row is labelled as fraud, and determined by `x`."""
    rows = [f"{row % 10 == 0:d}.{row},{'fraud' if row % 10 == 0 else 'legit'},{row % 3}" for row in range(amount)]
    path.write_text("x,label,code\n" + "\n".join(rows))
    return {"name": "csv", "path": str(path), "targets": {"label": "classes", "code": "classes"}, "test": 0.0,
            "val": 0.0}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "kind", "target"),
    [("parity", "binary", "parity"), ("ink", "regression", "ink"), ("anything", "classification", "digit")],
)
def test_target_defaults_to_that_named_as_the_task_then_to_the_main_one(task: str, kind: str, target: str) -> None:
    assert build(experiment({"name": "digits"}, {task: {"kind": kind}})).sources == {task: ("d", target)}


def test_target_defaults_to_the_only_one_if_none_matches(tmp_path: Path) -> None:
    both = write_table(tmp_path / "t.csv")
    only = {**both, "targets": ["label"], "features": ["x"]}
    assert build(experiment(only, {"any": {"kind": "classification"}})).sources == {"any": ("d", "label")}
    assert build(experiment(both, {"code": {"kind": "classification"}})).sources == {"code": ("d", "code")}
    with pytest.raises(ConfigError, match=r"neither a target 'labels' nor .* Did you mean 'label'\? Set `target`"):
        check_experiment(experiment(both, {"labels": {"kind": "classification"}}))


def test_two_tasks_with_the_same_target_are_noted() -> None:
    tasks = {"one": {"kind": "classification"}, "two": {"kind": "classification", "target": "digit"}}
    (note,) = check_experiment(experiment({"name": "digits"}, tasks))
    assert note.startswith("tasks: one and two have the same target, 'digit' of dataset 'd'")
    different = experiment({"name": "digits"}, {"digit": tasks["one"], "parity": {"kind": "binary"}})
    assert check_experiment(different) == build(different).notes() == []


def test_positive_class_is_configurable_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    dataset = write_table(tmp_path / "t.csv")
    config = experiment(dataset, {"label": {"kind": "binary"}})
    assert build(config).positive == {"label": "legit"}
    caplog.set_level(logging.INFO)
    config = experiment(dataset, {"label": {"kind": {"name": "binary", "positive": "fraud", "pos_weight": 9.0}}},
                        training=training(epochs=20, batch_size=20),
                        optimizer={"name": "Adam", "lr": 0.05})  # fmt: skip
    run = build(config)
    summary = Trainer(run, run_dir=tmp_path / "run", plots=False).fit()
    assert summary["positive"] == {"label": "fraud"}
    assert "task label: class 'fraud' counts as yes" in caplog.text
    assert (tmp_path / "run/table.md").read_text().endswith("\nCounts as yes: label = 'fraud'\n")

    command = ["eval", summary["checkpoint"], f"datasets.d.path={dataset['path']}", "--split", "train"]
    capsys.readouterr()
    assert main(command) == 0
    assert "Counts as yes: label = 'fraud'" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["positive"] == {"label": "fraud"}

    pairs: list[tuple[bool, bool]] = []
    result = measure(run, "train", receive=lambda task, p, t, w: pairs.extend(zip(p[:, 0] > 0, t == 0, strict=True)))
    predicted, true = zip(*[(bool(p), bool(t)) for p, t in pairs], strict=True)
    assert sum(true) == 12 and result.metrics["label"]["f1"] > 0
    assert document["metrics"]["label"]["f1"] == result.metrics["label"]["f1"]
    assert result.metrics["label"]["f1"] == pytest.approx(f1_score(true, predicted, zero_division=0.0))


def test_positive_class_of_0_and_1_is_not_reported(tmp_path: Path) -> None:
    assert build(experiment({"name": "digits"}, {"parity": {"kind": "binary"}})).positive == {}
    zero = experiment({"name": "digits"}, {"parity": {"kind": {"name": "binary", "positive": 0}}})
    assert build(zero).positive == {"parity": "0"}
