"""`mtl predict`: predictions for files, which recompute to the metrics of `mtl eval`."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, r2_score, roc_auc_score

import mtlcli
from mtlcli.cli import main
from tests.api.experiments import DIGITS, TRAINING, homes, write_homes

ROWS = 240
CITIES = ("Rome", "Oslo", "Århus")


def write_houses(path: Path, rows: int = ROWS, seed: int = 0) -> Path:
    """Write a table with all types of targets, some of them blank."""
    numbers = np.random.default_rng(seed)
    lines = ["id,area,city,price,state,sold,garden,pool"]
    for row in range(rows):
        area = int(numbers.integers(20, 300))
        city = CITIES[int(numbers.integers(3))]
        state = "" if row % 13 == 4 else ("bad", "fair", "good")[(area + int(numbers.integers(60))) // 121]
        price = "" if row % 17 == 6 else f"{1.7 * area + float(numbers.normal(0, 30)):.2f}"
        sold = "" if row % 19 == 8 else int(area + numbers.integers(100) > 200)
        garden, pool = int(area > 150), int(numbers.integers(2))
        lines.append(f"{row},{area if row % 23 else ''},{city},{price},{state},{sold},{garden},{pool}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    targets = {"price": "real", "state": "classes", "sold": "binary", "extras": ["garden", "pool"]}
    table = {"name": "csv", "path": str(write_houses(folder / "train.csv")), "exclude": ["id"], "targets": targets}
    kinds = {"price": "regression", "state": "classification", "sold": "binary", "extras": "multilabel"}
    config = {
        "name": "houses",
        "datasets": {"houses": {**table, "test_path": str(write_houses(folder / "test.csv", seed=1))}},
        "tasks": {task: {"dataset": "houses", "kind": kind} for task, kind in kinds.items()},
        "trunk": {"name": "mlp", "hidden": [16], "features": 8},
        "optimizer": {"name": "Adam", "lr": 0.02},
        "training": {**TRAINING, "epochs": 10},
        "evaluation": {"batch_size": 50},
    }
    mtlcli.train(config, run_dir=folder / "run", plots=False)
    return folder


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_of_the_test_split_recompute_to_the_metrics_of_eval(folder: Path) -> None:
    run, out = str(folder / "run"), folder / "out.csv"
    assert main(["predict", run, str(folder / "test.csv"), "--out", str(out), "--probabilities"]) == 0
    rows, labels = read_csv(out), read_csv(folder / "test.csv")
    assert len(rows) == ROWS
    extras = ["extras", "extras[garden]", "extras[pool]"]
    classes = ["state[bad]", "state[fair]", "state[good]"]
    assert list(rows[0]) == ["price", "state", *classes, "sold", "sold[0]", "sold[1]", *extras]
    overrides = [f"datasets.houses.path={folder / 'train.csv'}", f"datasets.houses.test_path={folder / 'test.csv'}"]
    metrics = mtlcli.evaluate(folder / "run", split="test", overrides=overrides)

    def pairs(task: str, column: str = "") -> tuple[list[str], list[str]]:
        labelled = [(label[task], row[column or task]) for label, row in zip(labels, rows, strict=True) if label[task]]
        true, predicted = zip(*labelled, strict=True)
        return list(true), list(predicted)

    assert accuracy_score(*pairs("state")) == metrics["state"]["accuracy"]
    assert f1_score(*pairs("state"), average="macro") == pytest.approx(metrics["state"]["f1"], rel=1e-12)
    assert accuracy_score(*pairs("sold")) == metrics["sold"]["accuracy"]
    sold, probabilities = pairs("sold", "sold[1]")
    areas = roc_auc_score(np.array(sold, float), np.array(probabilities, float))
    assert areas == pytest.approx(metrics["sold"]["auroc"], rel=1e-12)
    true, predicted = (np.array(values, float) for values in pairs("price"))
    # the same predictions and labels in float64 and in float32: relative rounding errors of 2^-24
    assert r2_score(true, predicted) == pytest.approx(metrics["price"]["r2"], abs=1e-5)
    assert mean_absolute_error(true, predicted) == pytest.approx(metrics["price"]["mae"], rel=1e-5)
    several = [[int(name in row["extras"].split(";")) for name in ("garden", "pool")] for row in rows]
    given = [[int(label["garden"]), int(label["pool"])] for label in labels]
    assert np.mean(np.array(several) == np.array(given)) == pytest.approx(metrics["extras"]["accuracy"], rel=1e-12)


def test_every_format_and_python_hold_the_same_predictions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pa = pytest.importorskip("pyarrow.parquet")
    run, table = str(folder / "run"), str(folder / "test.csv")
    assert main(["predict", run, table, "--tasks", "extras,price"]) == 0
    printed = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    for suffix in ("jsonl", "parquet"):
        arguments = ["--out", str(folder / f"p.{suffix}"), "--tasks", "extras,price", "--json"]
        assert main(["predict", run, table, *arguments]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["rows"] == ROWS and document["skipped"] == 0 and document["tasks"] == ["extras", "price"]
    lines = [json.loads(line) for line in (folder / "p.jsonl").read_text(encoding="utf-8").splitlines()]
    assert pa.read_table(folder / "p.parquet").to_pylist() == lines
    assert [row["price"] for row in lines] == [float(row["price"]) for row in printed]
    assert [";".join(row["extras"]) for row in lines] == [row["extras"] for row in printed]
    columns = {name: [row[name] or None for row in read_csv(folder / "test.csv")] for name in ("area", "city")}
    predicted = mtlcli.load(folder / "run").predict(columns, tasks=["price"])
    assert list(predicted) == ["price"]
    assert torch.as_tensor(predicted["price"].labels).tolist() == [row["price"] for row in lines]


def test_features_are_written_as_an_array_or_a_column(folder: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow.parquet")
    run, table = str(folder / "run"), str(folder / "test.csv")
    assert main(["predict", run, table, "--features", "--out", str(tmp_path / "f.npy")]) == 0
    features = np.load(tmp_path / "f.npy")
    assert features.shape == (ROWS, 8) and features.dtype == np.float32
    assert main(["predict", run, table, "--features", "--out", str(tmp_path / "f.parquet")]) == 0
    column = pa.read_table(tmp_path / "f.parquet").column("features").to_pylist()
    assert np.array_equal(np.array(column, np.float32), features)
    columns = {name: [row[name] or None for row in read_csv(folder / "test.csv")] for name in ("area", "city")}
    expected = mtlcli.load(folder / "run").features(columns)["price"].detach().numpy()
    assert np.allclose(features, expected, rtol=1e-5, atol=1e-6)  # float32, in batches of another size


def test_faulty_rows_stop_or_are_skipped(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (folder / "test.csv").read_text(encoding="utf-8").splitlines()
    for row in (3, 100, 101):
        lines[row] = lines[row].replace(lines[row].split(",")[1], "large", 1) if row != 3 else "3,large,Rome,,,,,"
    lines[100] = lines[101] = "9,wide,Oslo,,,,,"
    faulty = tmp_path / "faulty.csv"
    faulty.write_text("\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "out.csv"
    command = ["predict", str(folder / "run"), str(faulty), "--out", str(out), "--tasks", "price"]
    assert main(command) == 2
    assert f"{faulty}:4: " in capsys.readouterr().err
    assert not out.exists()
    assert main([*command, "--on-error", "skip"]) == 0
    stderr = capsys.readouterr().err
    assert all(f"{faulty}:{line}" in stderr for line in (4, 101, 102)) and "3 skipped" in stderr
    rows = read_csv(out)
    assert [int(row["row"]) for row in rows] == [row for row in range(1, ROWS + 1) if row not in (3, 100, 101)]
    assert {row["file"] for row in rows} == {str(faulty)}
    # the batches differ, and with them the order of float32 sums
    whole = mtlcli.load(folder / "run")
    columns = {name: [row[name] or None for row in read_csv(folder / "test.csv")] for name in ("area", "city")}
    price: Any = whole.predict(columns, tasks=["price"])["price"].labels
    assert [float(row["price"]) for row in rows] == pytest.approx(
        [price[int(row["row"]) - 1].item() for row in rows], rel=1e-5
    )


def test_invalid_lines_are_skipped(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ragged, broken = tmp_path / "ragged.csv", tmp_path / "broken.jsonl"
    ragged.write_text("area,city\n50,Rome\n60\n70,Oslo,x\n80,Oslo\n", encoding="utf-8")
    broken.write_text('{"area": 50, "city": "Rome"}\n{"area": 6\n[7]\n{"area": 80, "city": "Oslo"}\n', encoding="utf-8")
    for table, line in ((ragged, 3), (broken, 2)):
        command = ["predict", str(folder / "run"), str(table), "--tasks", "price"]
        assert main(command) == 2
        assert f"{table}:{line}: " in capsys.readouterr().err
        assert main([*command, "--on-error", "skip"]) == 0
        captured = capsys.readouterr()
        assert all(f"skipped: {table}:{at}: " in captured.err for at in (line, line + 1))
        assert [row["row"] for row in csv.DictReader(captured.out.splitlines())] == ["1", "4"]


WRONG = [
    (["--tasks", "prise"], "no task 'prise'. Did you mean 'price'?"),
    (["--dataset", "home"], "no dataset 'home'. Did you mean 'houses'?"),
    (["--out", "o.csv", "--features"], "features are not written to .csv"),
    (["--out", "o.npy"], "add --features"),
    (["--out", "o.cvs"], "unknown format. Did you mean '.csv'?"),
    (["--out", "nowhere/o.csv"], "does not exist"),
    (["--json"], "--json needs --out"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[" ".join(options) for options, _ in WRONG])
def test_wrong_options_are_refused_in_one_line(
    folder: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(folder / "run"), str(folder / "test.csv"), *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("error:") == 1 and not captured.out
    assert not list(tmp_path.iterdir())


def test_wrong_inputs_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(folder / "run")
    assert main(["predict", run, str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]) == 2
    assert capsys.readouterr().err.count("no such file or folder") == 2
    (tmp_path / "less.csv").write_text("area\n1\n", encoding="utf-8")
    assert main(["predict", run, str(tmp_path / "less.csv")]) == 2
    assert "no column 'city'" in capsys.readouterr().err
    np.save(tmp_path / "a.npy", np.zeros((2, 3), np.float32))
    assert main(["predict", run, str(tmp_path / "a.npy")]) == 2
    assert "expected the shape [B, 2], got [2, 3]" in capsys.readouterr().err
    out = str(folder / "test.csv")
    assert main(["predict", run, out, "--out", out]) == 2
    assert "is one of the inputs" in capsys.readouterr().err


def test_raw_arrays_are_predicted_in_batches_of_the_evaluation(tmp_path: Path) -> None:
    summary = mtlcli.train({**DIGITS, "evaluation": {"batch_size": 64}}, run_dir=tmp_path / "run", plots=False)
    images = np.random.default_rng(0).integers(0, 17, (150, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    out = tmp_path / "out.jsonl"
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "images.npy"), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    predicted = mtlcli.load(summary.checkpoint).predict(images)
    for task, predictions in predicted.items():
        labels: Any = predictions.labels
        assert [row[task] for row in rows] == (labels.tolist() if isinstance(labels, torch.Tensor) else labels)


def test_images_are_predicted_from_files_and_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = np.random.default_rng(0)
    for split, amount in (("train", 12), ("test", 6)):
        for shade in ("dark", "light"):
            folder = tmp_path / "photos" / split / shade
            folder.mkdir(parents=True)
            for at in range(amount):
                low = 0 if shade == "dark" else 140
                pixels = numbers.integers(low, low + 110, (10 + at % 3, 12, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{at}.png")
    config = {
        "name": "shades",
        "datasets": {"photos": {"name": "image_folder", "root": str(tmp_path / "photos"), "size": 8, "val": 0.2}},
        "tasks": {"class": {"dataset": "photos", "kind": "classification"}},
        "trunk": {"name": "mlp", "hidden": [8], "features": 8},
        "training": {**TRAINING, "epochs": 3},
    }
    summary = mtlcli.train(config, run_dir=tmp_path / "run", plots=False)
    test = tmp_path / "photos" / "test"
    (test / "dark" / "notes.txt").write_text("none", encoding="utf-8")
    out = tmp_path / "out.csv"
    assert main(["predict", str(tmp_path / "run"), str(test), "--out", str(out)]) == 0
    assert "ignored 1 .txt" in capsys.readouterr().err
    rows = read_csv(out)
    paths = sorted(test.glob("*/*.png"))
    assert [row["file"] for row in rows] == [str(path) for path in paths]
    right = [row["class"] == Path(row["file"]).parent.name for row in rows]
    assert math.isclose(np.mean(right), summary["metrics"]["test"]["class"]["accuracy"])
    assert mtlcli.load(tmp_path / "run").predict(paths)["class"].labels == [row["class"] for row in rows]
    (test / "light" / "0.png").write_bytes(b"no image")
    assert main(["predict", str(tmp_path / "run"), str(test), "--out", str(out)]) == 2
    assert f"{test / 'light' / '0.png'}: is not an image" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "run"), str(test), "--out", str(out), "--on-error", "skip"]) == 0
    assert len(read_csv(out)) == len(paths) - 1


def test_a_model_of_several_datasets_needs_the_name_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = homes(write_homes(tmp_path / "homes.csv"))
    config["datasets"]["again"] = dict(config["datasets"]["homes"])
    config["tasks"]["again"] = {"dataset": "again", "kind": "regression", "target": "price"}
    mtlcli.train(config, run_dir=tmp_path / "run", plots=False)
    command = ["predict", str(tmp_path / "run"), str(tmp_path / "homes.csv")]
    assert main(command) == 2
    assert "choose one with --dataset" in capsys.readouterr().err
    assert main([*command, "--dataset", "again"]) == 0
    assert capsys.readouterr().out.startswith("again\n")
    assert main([*command, "--dataset", "again", "--tasks", "price"]) == 2
    assert "no task 'price' on dataset 'again'" in capsys.readouterr().err
