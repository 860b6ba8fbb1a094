"""Description of the data by a summary, a dry run and an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mtlcli.cli import main
from mtlcli.config import experiment_from_dict
from mtlcli.training.assembly.build import build
from mtlcli.training.data_report import data_report, report_rows
from mtlcli.training.trainer import Trainer
from tests.training.experiments import training

ROWS = 60


def write(path: Path, towns: tuple[str, ...] = ("Bonn", "Ulm"), plans: tuple[str, ...] = ("1.0", "2.0")) -> str:
    rows = ["n,age,town,plan,day,rich,income,news,sport"]
    for row in range(ROWS):
        age = "" if row % 5 == 0 else 20 + row
        rows.append(
            f"{row},{age},{towns[row % 2]},{plans[row // 2 % 2]},2023-07-{1 + row % 28:02},{int(row % 3 == 0)},"
            f"{1_700_000_000 + row % 7},{row % 2},{'' if row % 4 == 0 else int(row % 6 == 1)}"
        )
    path.write_text("\n".join(rows), encoding="utf-8")
    return str(path)


def config(tmp_path: Path, **options: Any) -> dict[str, Any]:
    targets = {"rich": "classes", "income": "real", "tags": ["news", "sport"]}
    table = {
        "name": "csv", "path": write(tmp_path / "t.csv"), "targets": targets, "dates": ["day"],
        "categorical": ["plan"], "test": 0.2, "val": 0.0,
    }  # fmt: skip
    kinds = {"rich": "binary", "income": "regression", "tags": "multilabel"}
    return {
        "datasets": {"t": {**table, **options}},
        "tasks": {name: {"dataset": "t", "target": name, "kind": kind} for name, kind in kinds.items()},
        "trunk": {"name": "tabular", "hidden": [8], "features": 4},
        "evaluation": {"split": "test"},
        "training": training(epochs=1, batch_size=20),
    }


def test_every_column_and_target_is_listed(tmp_path: Path) -> None:
    run = build(experiment_from_dict(config(tmp_path)))
    report = data_report(run)["t"]
    examples = run.examples("train")["t"]
    assert examples.rows is not None
    rows = examples.rows.tolist()
    ages = [20 + row for row in rows if row % 5]
    absent = 1 - len(ages) / len(rows)
    assert report["columns"] == {
        "age": {"type": "numeric", "missing": pytest.approx(absent), "range": [min(ages), max(ages)]},
        "town": {"type": "categorical", "missing": 0.0, "levels": 2},
        "plan": {"type": "categorical", "missing": 0.0, "levels": 2},
        "day": {"type": "date", "missing": 0.0, "range": [
            19539 + min(row % 28 for row in rows), 19539 + max(row % 28 for row in rows)
        ]},
    }  # fmt: skip
    assert report["excluded"] == {"n": "it numbers the rows"}
    rich, income, tags = (report["targets"][name] for name in ("rich", "income", "tags"))
    assert rich["labels"] == {"train": len(rows), "test": ROWS - len(rows)} and rich["missing"] == 0
    yes = sum(row % 3 == 0 for row in rows)
    assert rich["classes"] == {"0": len(rows) - yes, "1": yes}
    assert income["range"] == [1_700_000_000, 1_700_000_006] and 1_700_000_000 < income["mean"] < 1_700_000_006
    assert tags["classes"] == {
        "news": sum(row % 2 for row in rows), "sport": sum(row % 6 == 1 for row in rows if row % 4)
    }  # fmt: skip
    text = "\n".join(" ".join(row) for row in report_rows({"t": report}))
    for text_part in (
        "day feature date 0.0% 2023-07-01 …",
        "n not used",
        "rich target classes",
        f"test {ROWS - len(rows)})",
        "2 levels",
    ):
        assert text_part in text


def test_a_summary_and_a_dry_run_list_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(config(tmp_path)))
    for command in (["summary", str(file)], ["train", str(file), "--dry-run"]):
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert "town    feature   categorical  0.0%" in out.replace("  town", "town") and "not used" in out
        assert "column 'n' is not used as a feature: it numbers the rows" in out + err
        assert main([*command, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["data"]["t"]["columns"]["town"]["levels"] == 2
        assert document["data"]["t"]["targets"]["tags"]["type"] == "multilabel"


def test_several_columns_are_one_multilabel_target(tmp_path: Path) -> None:
    run = build(experiment_from_dict(config(tmp_path)))
    target = run.specs["t"].targets["tags"]
    assert (target.type, target.size, target.classes, target.missing) == ("multilabel", 2, ("news", "sport"), True)
    assert {column.name for column in run.specs["t"].columns}.isdisjoint({"news", "sport"})
    labels = run.examples("train")["t"].targets["tags"]
    assert labels.shape == (ROWS, 2) and labels[:, 0].tolist() == [row % 2 for row in range(ROWS)]
    assert labels[:, 1].isnan().tolist() == [row % 4 == 0 for row in range(ROWS)]
    assert torch.isfinite(labels).sum() > ROWS


def test_unknown_and_missing_values_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A category in another spelling of the same number is the same; one in other letters is unknown, with a note."""
    run = build(experiment_from_dict(config(tmp_path, test=0.4)))
    summary = Trainer(run, run_dir=tmp_path / "run", plots=False).fit()
    assert summary["unknown"] == {"test": {}} and list(summary["missing"]["test"]["t"]) == ["age"]
    new = write(tmp_path / "new.csv", ("bonn", "Ulm"), ("1", "02"))
    command = ["eval", str(tmp_path / "run/checkpoints/best.pt"), f"datasets.t.path={new}", "datasets.t.test=1.0"]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["unknown"] == {"t": {"town": {"count": 30, "share": 0.5}}}
    assert document["missing"] == {"t": {"age": {"count": 12, "share": 0.2}}}
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "t.town: 30 categories that training has not seen (50.0% of the rows)" in out
    assert "t.age: 12 missing values (20.0% of the rows)" in out and "plan" not in out
    assert (
        f"{new} has categories that don't occur in training in the columns 'town' (30 of 60 rows)" in err + caplog.text
    )
