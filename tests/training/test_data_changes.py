"""Changed data is detected when a run is resumed and when a checkpoint is evaluated."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mtlcli.cli import main
from mtlcli.config import Experiment, experiment_from_dict
from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import build, rebuild
from mtlcli.training.checkpoint.file import load_checkpoint, save_checkpoint
from mtlcli.training.trainer import Trainer
from tests.data.datasets.test_image_folder import draw
from tests.training.experiments import training

HEADER = "x,z,y"


def rows(start: int, stop: int) -> list[str]:
    return [f"{row}.5,{row % 13},{'ab'[row % 2]}" for row in range(start, stop)]


def write(path: Path, lines: list[str], header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]))
    return path


def experiment(path: Path, epochs: int = 1, **changes: Any) -> Experiment:
    dataset = {"name": "csv", "path": str(path), "targets": ["y"], "features": ["x", "z"]}
    return experiment_from_dict({
        "datasets": {"t": dataset}, "tasks": {"y": {"dataset": "t", "kind": "classification"}},
        "trunk": {"name": "mlp", "hidden": [4], "features": 4}, "training": training(epochs=epochs), **changes,
    })  # fmt: skip


def fit(settings: Experiment, folder: Path, **options: Any) -> dict[str, Any]:
    return Trainer(build(settings), folder, plots=False, **options).fit()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    fit(experiment(write(folder / "t.csv", rows(0, 200))), folder / "run")
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Folder of a run of one epoch, which a test may change; its parent has the table `t.csv`."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy/run"


def test_the_summary_and_the_checkpoint_record_the_data(trained: Path) -> None:
    summary = json.loads((trained / "run/summary.json").read_text())
    record = load_checkpoint(trained / "run/checkpoints/best.pt")["data"]["t"]
    assert record["rule"] == "content" and record["columns"] == ["x", "y", "z"]
    train = summary["data"]["t"]["train"]
    assert train["n"] == summary["examples"]["val"]["y"] + len(
        build(experiment(trained / "t.csv")).examples("train")["t"]
    )
    assert {key: record["splits"]["train"][key] for key in train} == train


def test_columns_in_another_order_are_the_same_data(tmp_path: Path) -> None:
    """Without the option `features`, the inputs are in another order."""
    plain = {"name": "csv", "path": str(tmp_path / "t.csv"), "targets": ["y"]}
    write(tmp_path / "t.csv", rows(0, 60))
    fit(experiment(tmp_path / "t.csv", datasets={"t": plain}), tmp_path / "run")
    write(tmp_path / "t.csv", [",".join(row.split(",")[at] for at in (1, 2, 0)) for row in rows(0, 60)], "z,y,x")
    with pytest.raises(ConfigError, match=r"datasets\.t: .*in another order\. Restore the order in the file: x, z$"):
        fit(experiment(tmp_path / "t.csv", 2, datasets={"t": plain}), tmp_path / "run", resume="auto")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (rows(0, 200) + rows(500, 600), r"datasets\.t: train: \d+ examples were added at the end of \d+"),
        (
            rows(500, 600) + rows(0, 200),
            r"train: \d+ examples were added \(a changed one counts as both\); \d+ before",
        ),
        (rows(0, 200)[::-1], r"train: the same \d+ examples are in another order"),
        (rows(30, 200), r"train: \d+ examples were removed \(a changed one counts as both\); \d+ before, \d+ now"),
        (rows(0, 150) + rows(700, 750), r"train: \d+ examples were removed and \d+ examples were added"),
    ],
)
def test_a_run_is_not_resumed_on_other_data(run: Path, lines: list[str], message: str) -> None:
    table = write(run.parent / "t.csv", lines)
    with pytest.raises(ConfigError, match=message) as caught:
        fit(experiment(table, epochs=2), run, resume="auto")
    messages = [str(problem) for problem in caught.value.problems]
    assert "a run can be resumed only with the data it was started with" in messages[0]
    assert "Restore the data as it was, or start a new run" in messages[-1] and "best.pt gives it" in messages[-1]


def test_a_new_column_is_noticed(run: Path) -> None:
    table = write(run.parent / "t.csv", [f"{row},1" for row in rows(0, 200)], HEADER + ",w")
    with pytest.raises(ConfigError, match=r"datasets\.t: column 'w' is new; rows are identified by all cells"):
        fit(experiment(table, epochs=2), run, resume="auto")


def test_a_run_is_resumed_on_moved_data_and_on_a_changed_test_split(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = write(run.parent / "elsewhere.csv", rows(0, 200))
    first = fit(experiment(moved, epochs=2), run, resume="must")
    assert first["epochs"] == 2 and "examples were" not in caplog.text
    amount = first["examples"]["test"]["y"]
    for line in rows(300, 400):
        write(moved, [*rows(0, 200), line])
        if len(build(experiment(moved)).examples("test")["t"]) > amount:
            break
    with caplog.at_level(logging.WARNING, "mtl"):
        assert fit(experiment(moved, epochs=3), run, resume="must")["epochs"] == 3
    assert "changed since the checkpoint: datasets.t: test: 1 example was added at the end" in caplog.text


def test_a_checkpoint_of_an_earlier_version(run: Path, trained: Path) -> None:
    """Its splits were drawn by position: they are kept in an evaluation, and a run is refused if they would change."""
    trained_experiment = experiment(run.parent / "t.csv")
    for path in run.glob("checkpoints/*.pt"):
        payload = load_checkpoint(path)
        del payload["data"]
        save_checkpoint(path, payload)
    with pytest.raises(
        ConfigError, match=r"datasets\.t: its splits were drawn by another rule, that of an earlier mtl"
    ):
        fit(experiment(run.parent / "t.csv", epochs=2), run, resume="auto")
    old = rebuild(trained_experiment, payload)
    assert len(old.examples("test")["t"]) == 40 and len(old.examples("val")["t"]) == 16
    digits = experiment_from_dict({
        **trained_experiment.resolved(), "datasets": {"t": {"name": "digits"}},
        "tasks": {"y": {"dataset": "t", "target": "digit", "kind": "classification"}},
    })  # fmt: skip
    fit(digits, run.parent / "digits")
    for path in (run.parent / "digits").glob("checkpoints/*.pt"):
        payload = load_checkpoint(path)
        del payload["data"]
        save_checkpoint(path, payload)
    more = {"training": {**digits.resolved()["training"], "epochs": 2}}
    longer = experiment_from_dict({**digits.resolved(), **more})
    assert fit(longer, run.parent / "digits", resume="must")["epochs"] == 2  # published data keeps its rule


@pytest.mark.parametrize("broken", [
    {"t": 3}, {"t": {"rule": "luck"}}, {"t": {"rule": "content", "kept": {"test": ["zz"]}}}, [],
    {"t": {"rule": "content", "splits": {"train": {"n": -1}}}}, {"t": {"rule": "content", "columns": [1]}},
])  # fmt: skip
def test_a_malformed_record_is_refused(trained: Path, broken: Any) -> None:
    payload = load_checkpoint(trained / "run/checkpoints/best.pt")
    with pytest.raises(ConfigError, match=r"the checkpoint's data.*: is not a valid record of a dataset"):
        rebuild(experiment(trained / "t.csv"), {**payload, "data": broken})


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> tuple[dict[str, Any], str]:
    assert main(["eval", *map(str, arguments), "--json"]) == code
    out, err = capsys.readouterr()
    return json.loads(out) if out else {}, err


def test_all_rows_of_another_file_are_evaluated(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Earlier versions evaluated only the rows that would be in the test split."""
    best = run / "checkpoints/best.pt"
    old, new = f"datasets.t.path={run.parent / 't.csv'}", run.parent / "new.csv"
    document, err = evaluated(capsys, best, old)
    test = document["examples"]["y"]
    assert document["split"] == "test" and 0 < test < 80 and err == ""
    swapped = [",".join(reversed(line.split(","))) for line in rows(1000, 1150)]
    for header, lines in ((HEADER, rows(1000, 1150)), ("y,z,x,more", [f"{line},0" for line in swapped])):
        write(new, lines, header)
        document, err = evaluated(capsys, best, f"datasets.t.path={new}")
        assert (document["split"], document["examples"], err) == ("all", {"y": 150}, "")
    document, _ = evaluated(capsys, best, f"datasets.t.path={new}", "--split", "test")
    assert document["split"] == "test" and 0 < document["examples"]["y"] < 75
    document, _ = evaluated(capsys, best, old, "--split", "all")
    assert (document["split"], document["examples"]) == ("all", {"y": 200})
    write(new, [])
    assert "has a header and no rows" in evaluated(capsys, best, f"datasets.t.path={new}", code=2)[1]


def test_a_copy_of_the_data_counts_as_the_same_data(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A longer table in another file is evaluated completely, with a warning; in the same file, its test split is."""
    table = run.parent / "t.csv"
    best = fit(experiment(table), run.parent / "own")["checkpoint"]
    before, _ = evaluated(capsys, best, f"datasets.t.path={table}")
    copy = write(run.parent / "copy.csv", rows(0, 200)[::-1])
    document, err = evaluated(capsys, best, f"datasets.t.path={copy}")
    assert document["examples"] == before["examples"] and document["split"] == "test"
    assert "are in another order" in err
    write(copy, rows(0, 260))
    document, err = evaluated(capsys, best, f"datasets.t.path={copy}")
    assert document["split"] == "all" and document["examples"] == {"y": 260}
    assert "100% of the examples that the model was trained on are among those evaluated" in err
    write(table, rows(0, 260))
    document, err = evaluated(capsys, best, f"datasets.t.path={table}")
    assert document["split"] == "test" and document["examples"]["y"] > before["examples"]["y"]
    assert "the data has changed since the model was trained: train: " in err


def test_a_grown_table_has_no_training_row_in_test(run: Path) -> None:
    payload = load_checkpoint(run / "checkpoints/best.pt")
    trained_experiment = experiment(run.parent / "t.csv")

    def members(*splits: str) -> set[float]:
        again = rebuild(trained_experiment, payload)
        return {x for s in splits for x in _inputs(again.examples(s)["t"])[:, 0].tolist()}

    trained_rows = members("train", "val")
    write(run.parent / "t.csv", rows(900, 1000) + rows(0, 200)[::-1])
    assert not trained_rows & members("test") and trained_rows <= members("train", "val")


def _inputs(examples: Any) -> torch.Tensor:
    inputs: torch.Tensor = examples.inputs[examples.rows]
    return inputs


def test_the_split_column_of_another_file_selects_its_test_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All rows of a file without that column are evaluated."""
    marked = [f"{line},{('train', 'val', 'test', 'train')[at % 4]}" for at, line in enumerate(rows(0, 80))]
    table = write(tmp_path / "t.csv", marked, HEADER + ",split")
    dataset = {"name": "csv", "path": str(table), "targets": ["y"], "split_column": "split"}
    best = fit(experiment(table, datasets={"t": dataset}), tmp_path / "run")["checkpoint"]
    new = write(tmp_path / "new.csv", [f"{line},{('test', 'val')[at % 2]}" for at, line in enumerate(rows(100, 140))],
                HEADER + ",split")  # fmt: skip
    document, _ = evaluated(capsys, best, f"datasets.t.path={new}")
    assert (document["split"], document["examples"]) == ("test", {"y": 20})
    write(new, rows(100, 140))
    document, _ = evaluated(capsys, best, f"datasets.t.path={new}")
    assert (document["split"], document["examples"]) == ("all", {"y": 40})
    assert "which has: all" in evaluated(capsys, best, f"datasets.t.path={new}", "--split", "test", code=2)[1]


def test_all_rows_of_only_the_new_dataset_are_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, other = write(tmp_path / "t.csv", rows(0, 100)), write(tmp_path / "u.csv", rows(100, 200))
    dataset = {"name": "csv", "targets": ["y"], "features": ["x", "z"]}
    trained_experiment = experiment(
        table,
        datasets={"t": {**dataset, "path": str(table)}, "u": {**dataset, "path": str(other)}},
        tasks={"a": {"dataset": "t", "kind": "classification"}, "b": {"dataset": "u", "kind": "classification"}},
    )
    best = fit(trained_experiment, tmp_path / "run")["checkpoint"]
    new = write(tmp_path / "new.csv", rows(300, 350))
    command = [best, f"datasets.t.path={table}", f"datasets.u.path={new}"]
    document, _ = evaluated(capsys, *command)
    assert document["split"] == {"t": "test", "u": "all"}
    assert document["examples"]["b"] == 50 and 0 < document["examples"]["a"] < 50
    assert main(["eval", *map(str, command)]) == 0
    out = capsys.readouterr().out
    assert "| test | a |" in out and "| all | b | 50 |" in out


def test_changes_of_image_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, amount in (("train", 24), ("new", 9)):
        for i in range(amount):
            draw(tmp_path / folder / ("cat" if i % 2 else "dog") / f"{folder}{i}.png", i)
    images = {"name": "image_folder", "root": str(tmp_path / "train"), "size": 6}
    trained_experiment = experiment(
        tmp_path, datasets={"i": images}, tasks={"class": {"dataset": "i", "kind": "classification"}}
    )
    best = fit(trained_experiment, tmp_path / "run")["checkpoint"]
    document, _ = evaluated(capsys, best, f"datasets.i.root={tmp_path / 'new'}")
    assert (document["split"], document["examples"]) == ("all", {"class": 9})
    for i in range(24):
        draw(tmp_path / "train" / ("cat" if i % 2 else "dog") / f"train{i}.png", i, (9, 40))
    longer = experiment_from_dict(
        {**trained_experiment.resolved(), "training": {**trained_experiment.resolved()["training"], "epochs": 2}}
    )
    with pytest.raises(
        ConfigError, match=r"datasets\.i: train: (\d+) examples were removed and \1 examples were added"
    ):
        fit(longer, tmp_path / "run", resume="auto")
