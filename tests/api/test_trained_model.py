"""`load`: a trained model predicts what `mtl eval` measures, and refuses wrong inputs in one sentence."""

from __future__ import annotations

import copy
import csv
import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mtlcli
from mtlcli import InputError, Model, Run, Trainer
from tests.api.experiments import DIGITS, homes, write_homes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any]]:
    run = mtlcli.build(DIGITS)
    return run, Trainer(run, tmp_path_factory.mktemp("api") / "run").fit()


@pytest.fixture(scope="module")
def model(trained: tuple[Run, dict[str, Any]]) -> Model:
    return mtlcli.load(trained[1]["checkpoint"])


@pytest.fixture(scope="module")
def images(trained: tuple[Run, dict[str, Any]]) -> Tensor:
    examples = trained[0].examples("test")["digits"]
    assert isinstance(examples.inputs, Tensor) and examples.rows is not None
    return examples.inputs[examples.rows]


def labels(run: Run, task: str) -> Tensor:
    alias, target = run.sources[task]
    return run.examples("test")[alias].labels(target)


def test_evaluate_gives_the_metrics_of_the_summary(trained: tuple[Run, dict[str, Any]]) -> None:
    run, summary = trained
    final = summary["metrics"]
    assert mtlcli.evaluate(summary["checkpoint"]) == mtlcli.evaluate(run) == final["test"]
    assert mtlcli.evaluate(summary["run_dir"], split="val") == mtlcli.evaluate(run, split="val") == final["val"]
    other = mtlcli.evaluate(summary["checkpoint"], overrides=["evaluation.batch_size=7"])
    assert other["digit"]["accuracy"] == final["test"]["digit"]["accuracy"]
    with pytest.raises(mtlcli.ConfigError, match="'nowhere' is not a split of dataset 'digits', which has: train, val"):
        mtlcli.evaluate(summary["checkpoint"], split="nowhere")
    with pytest.raises(mtlcli.ConfigError, match="for a checkpoint"):
        mtlcli.evaluate(run, overrides=["evaluation.batch_size=7"])
    torch.manual_seed(3)
    before = torch.get_rng_state()
    mtlcli.evaluate(summary["checkpoint"])
    assert torch.equal(torch.get_rng_state(), before)


def test_predictions_are_those_that_the_metrics_are_of(
    trained: tuple[Run, dict[str, Any]], model: Model, images: Tensor
) -> None:
    run, summary = trained
    final = summary["metrics"]["test"]
    predictions = model.predict(images)
    assert list(predictions) == list(DIGITS["tasks"])

    digit = predictions["digit"]
    assert digit.indices is not None and digit.probabilities is not None and digit.classes is not None
    assert (digit.indices == labels(run, "digit")).double().mean().item() == final["digit"]["accuracy"]
    assert digit.labels == [digit.classes[i] for i in digit.probabilities.argmax(1).tolist()]
    assert digit.probabilities.shape == (len(images), 10) == (len(digit), 10)

    parity = predictions["parity"]
    assert parity.indices is not None and parity.probabilities is not None and parity.classes == ("0", "1")
    assert (parity.indices == labels(run, "parity")).double().mean().item() == final["parity"]["accuracy"]
    assert parity.probabilities.argmax(1).tolist() == [int(label) for label in parity.labels]
    torch.testing.assert_close(parity.probabilities.sum(1), torch.ones(len(images)))

    ink = predictions["ink"]
    assert isinstance(ink.labels, Tensor) and ink.labels.shape == (len(images),)
    assert ink.probabilities is None and ink.classes is None and ink.indices is None
    mse = (ink.labels - labels(run, "ink").double()).square().mean().item()
    assert mse == pytest.approx(final["ink"]["mse"], rel=1e-9)

    segments = predictions["segments"]
    assert segments.indices is not None and segments.probabilities is not None
    assert segments.labels[0] == [name for name, yes in zip("abcdefg", segments.indices[0], strict=True) if yes]
    accuracy = (segments.indices == labels(run, "segments")).double().mean().item()
    assert accuracy == pytest.approx(final["segments"]["accuracy"])


def test_inputs_may_be_arrays_by_alias_without_channels_and_in_any_batches(model: Model, images: Tensor) -> None:
    expected = model.predict(images)["ink"].outputs
    for inputs in ({"digits": images}, images.numpy(), images.squeeze(1), images.long(), list(images)):
        assert torch.equal(model.predict(inputs)["ink"].outputs, expected)
    batched = model.predict(images, batch_size=7)["ink"].outputs
    torch.testing.assert_close(batched, expected)


def test_the_model_is_an_ordinary_module(model: Model, images: Tensor) -> None:
    assert isinstance(model, torch.nn.Module) and not model.training
    outputs = model(images[:4])
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        "digit": (4, 10), "parity": (4, 1), "ink": (4, 1), "segments": (4, 7)
    }  # fmt: skip
    outputs["digit"].sum().backward()
    assert any(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()
    features = model.features(images[:4].float())
    assert features["digit"].shape == (4, 16) and features["digit"] is features["ink"]
    head = model.network.model.heads["digit"]
    assert torch.equal(head(features["digit"]), outputs["digit"])
    other = copy.deepcopy(model)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.to("cpu")(images[:4])["ink"], outputs["ink"])
    other.train()
    other.predict(images[:4])
    assert other.training
    assert "digit" in model.experiment.tasks and model.sources["ink"] == ("digits", "ink")


def test_loading_changes_no_random_state_and_no_number_of_threads(trained: tuple[Run, dict[str, Any]]) -> None:
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    mtlcli.load(Path(trained[1]["run_dir"]), device="auto")
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"digit": x}, r"no dataset 'digit'\. Did you mean 'digits'\? The model's datasets: digits"),
        (lambda x: x.float(), "expected uint8 with the raw values 0 to 16, got float32"),
        (lambda x: x * 20, "expected values from 0 to 16, as the dataset stores them, got 240"),
        (lambda x: x.permute(0, 2, 3, 1), r"expected the shape \[B, 1, 8, 8\], got \[360, 8, 8, 1\]; channels come"),
        (lambda x: x[0, 0], r"expected the shape \[B, 1, 8, 8\], got \[8, 8\]"),
        (lambda x: x[:0], "expected at least one example, got none"),
        (lambda x: x.bool(), "expected numbers, got bool"),
        (lambda x: {}, "no inputs; expected those of digits"),
        (lambda x: "an image", "expected a tensor or an array of numbers, got str"),
        (lambda x: [{"a": 1}], r"expected a tensor or an array \[B, 1, 8, 8\], got rows of a table"),
    ],
)
def test_wrong_images_are_refused_in_one_sentence(model: Model, images: Tensor, change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.predict(change(images))
    with pytest.raises(ValueError, match=message):  # the idiom of Python
        model.predict(change(images))


def test_inputs_of_several_datasets_are_given_by_name(tmp_path: Path, images: Tensor) -> None:
    two = {
        **DIGITS,
        "datasets": {"first": {"name": "digits"}, "second": {"name": "digits"}},
        "tasks": {
            "digit": {"dataset": "first", "kind": "classification"},
            "parity": {"dataset": "second", "kind": "binary"},
        },
    }
    run = mtlcli.build(two, overrides=["training.epochs=1"])
    model = mtlcli.load(Trainer(run, tmp_path / "run").fit()["checkpoint"])
    assert list(model.predict({"second": images})) == ["parity"]
    both = model.predict({"second": images, "first": images[:3]})
    assert [len(predictions) for predictions in both.values()] == [3, 360]
    with pytest.raises(InputError, match="the model has 2 datasets; pass their inputs by name"):
        model.predict(images)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path, Model]:
    folder = tmp_path_factory.mktemp("homes")
    path = write_homes(folder / "homes.csv")
    run = mtlcli.build(homes(path))
    return run, path, mtlcli.load(Trainer(run, folder / "run").fit()["checkpoint"])


def read(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_of_a_table_are_encoded_as_the_data_file_was(table: tuple[Run, Path, Model]) -> None:
    run, path, model = table
    examples = run.examples("all")["homes"]
    expected = model.predict(examples.inputs)  # encoded
    rows = read(path)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for inputs in (rows, columns, {"homes": rows}, {"homes": columns}):
        predictions = model.predict(inputs)
        assert torch.equal(predictions["price"].outputs, expected["price"].outputs)
        assert predictions["state"].labels == expected["state"].labels
        assert set(predictions["state"].labels) <= {"good", "bad", "fair"}


class Series:
    """A column of `Frame`."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def tolist(self) -> list[Any]:
        return self.values


class Frame:
    """A table with the interface of a pandas DataFrame."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns = columns
        self.columns = list(columns)
        self.dtypes = dict.fromkeys(columns, object)

    def __getitem__(self, name: str) -> Series:
        return Series(self._columns[name])


def test_python_values_count_as_what_the_file_spells(table: tuple[Run, Path, Model]) -> None:
    _, path, model = table
    rows = read(path)[:30]
    expected = model.predict(rows)["price"].outputs
    typed: dict[str, Any] = {
        "area": [float(row["area"]) if row["area"] else float("nan") for row in rows],
        "city": [row["city"] or None for row in rows],
        "listed": [datetime.date.fromisoformat(row["listed"]) for row in rows],
        "garden": np.array([row["garden"] == "True" for row in rows]),
    }
    assert torch.equal(model.predict(typed)["price"].outputs, expected)
    frame = Frame({name: list(values) for name, values in typed.items()})
    assert torch.equal(model.predict(frame)["price"].outputs, expected)
    unseen = model.predict({**typed, "city": ["Paris"] * 30})["price"].outputs  # not seen in training
    assert unseen.isfinite().all() and not torch.equal(unseen, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"area": None}, r"column 'area' is missing\. The model's columns: area, city, listed, garden"),
        ({"area": None, "aera": [1.0]}, r"column 'area' is missing\. Did you mean 'aera'\?"),
        ({"gardn": [True]}, r"unknown column 'gardn'\. Did you mean 'garden'\?"),
        ({"area": ["big"]}, "row 0: 'big' in the numeric column 'area' is not a finite number"),
        ({"listed": ["11.1.2024"]}, "row 0: '11.1.2024' in the numeric column 'listed' is not a date in ISO 8601"),
        ({"area": [1.0, 2.0]}, "the columns differ in length"),
        ({"area": [], "city": [], "listed": [], "garden": []}, "expected at least one example, got none"),
        ({"area": 1.0}, "column 'area': expected a sequence with a value for each row, got float"),
    ],
)
def test_wrong_rows_are_refused_in_one_sentence(
    table: tuple[Run, Path, Model], change: dict[str, Any], message: str
) -> None:
    row = {"area": [50.0], "city": ["Rome"], "listed": ["2024-01-11"], "garden": [True]}
    assert len(table[2].predict(row)["price"]) == 1
    wrong = {name: values for name, values in {**row, **change}.items() if values is not None}
    with pytest.raises(InputError, match=message):
        table[2].predict(wrong)


def test_a_row_without_a_key_and_a_tensor_of_another_width_are_refused(table: tuple[Run, Path, Model]) -> None:
    model = table[2]
    row = {"area": 50.0, "city": "Rome", "listed": "2024-01-11", "garden": True}
    with pytest.raises(InputError, match="row 1 has no 'city'; use None for a missing value"):
        model.predict([row, {name: value for name, value in row.items() if name != "city"}])
    with pytest.raises(InputError, match=r"expected the shape \[B, 4\], got \[2, 3\]"):
        model.predict(torch.zeros(2, 3))


def test_a_bad_checkpoint_or_device_is_a_configuration_error(trained: tuple[Run, dict[str, Any]]) -> None:
    with pytest.raises(mtlcli.ConfigError, match="no such checkpoint file"):
        mtlcli.load("nowhere.pt")
    for call in (mtlcli.load, mtlcli.evaluate):
        with pytest.raises(mtlcli.ConfigError, match="expected the path of a checkpoint or of a run folder, got int"):
            call(3)  # type: ignore[operator]
    with pytest.raises(mtlcli.ConfigError, match="device 'gpu' can't be used here"):
        mtlcli.load(trained[1]["checkpoint"], device="gpu")


@pytest.mark.parametrize(
    "change",
    [
        {"regularizers": [{"name": "multi_nuclear_norm", "strength": 1e-3, "layers": ["fc1"], "rank": 4}]},
        {"sharing": "mmoe"},
        {"training": {**DIGITS["training"], "precision": "bf16"}},
    ],
    ids=["compressed", "mmoe", "bf16"],
)
def test_predictions_match_the_metrics_of_other_models(tmp_path: Path, images: Tensor, change: dict[str, Any]) -> None:
    run = mtlcli.build({**DIGITS, **change}, overrides=["training.epochs=1"])
    summary = Trainer(run, tmp_path / "run", plots=False).fit()
    model = mtlcli.load(tmp_path / "run")
    predicted = model.predict(images)["digit"].indices
    assert (predicted == labels(run, "digit")).double().mean().item() == summary["metrics"]["test"]["digit"]["accuracy"]
    assert sum(parameter.numel() for parameter in model.parameters()) == summary["parameters"]["total"]
