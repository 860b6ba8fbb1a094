"""`mtl predict` for tasks with a prediction for each pixel: what is read from the files is what the model predicts."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import mtlcli
from mtlcli.api.file_prediction import predict_files
from mtlcli.api.trained_model import Model
from mtlcli.cli import main
from mtlcli.data.datasets.image_masks import ImageMasks
from mtlcli.plotting import class_colors

HEIGHT, WIDTH, COUNT = 12, 16, 6
SIZES = [(12, 16), (30, 25), (7, 40)]
PARTS = ("sky", "road", "car")


def write_images(folder: Path, sizes: list[tuple[int, int]], seed: int = 0) -> list[Path]:
    numbers = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{at}.png" for at in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        Image.fromarray(numbers.integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a model of image_masks in the folder `run`."""
    folder, numbers = tmp_path_factory.mktemp("maps"), np.random.default_rng(0)
    write_images(folder / "train", [(HEIGHT, WIDTH)] * COUNT)
    lines = ["file,part,depth,normals,edge,weather"]
    for at in range(COUNT):
        Image.fromarray(numbers.integers(0, 3, (HEIGHT, WIDTH)).astype(np.uint8)).save(folder / f"train/{at}_part.png")
        Image.fromarray(numbers.integers(0, 2, (HEIGHT, WIDTH)).astype(np.uint8)).save(folder / f"train/{at}_edge.png")
        np.save(folder / f"train/{at}_depth.npy", numbers.uniform(1, 9, (HEIGHT, WIDTH)))
        normals = numbers.normal(size=(HEIGHT, WIDTH, 3))
        np.save(folder / f"train/{at}_normals.npy", normals / np.linalg.norm(normals, axis=-1, keepdims=True))
        lines.append(f"{at}.png,{at}_part.png,{at}_depth.npy,{at}_normals.npy,{at}_edge.png,{('wet', 'dry')[at % 2]}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    targets: dict[str, Any] = {
        "part": {"type": "classes", "classes": list(PARTS)}, "depth": {"type": "depth"},
        "normals": {"type": "normals"}, "edge": {"type": "binary"}, "weather": "classes",
    }  # fmt: skip
    kinds = {
        "part": "segmentation", "depth": "depth", "normals": "normals", "edge": "binary", "weather": "classification",
    }  # fmt: skip
    config = {
        "name": "maps",
        "datasets": {
            "rooms": {
                "name": "image_masks", "path": str(folder / "table.csv"), "image": "file", "targets": targets,
                "root": str(folder / "train"), "size": [HEIGHT, WIDTH], "fit": "stretch", "val": 0.2, "test": 0.2,
            }
        },
        "tasks": {task: {"dataset": "rooms", "kind": kind} for task, kind in kinds.items()},
        "trunk": {"name": "cnn", "widths": [4], "output": "map"},
        "optimizer": {"name": "Adam", "lr": 0.05},
        "training": {"epochs": 20, "batch_size": 2, "device": "cpu", "threads": 1},
        "evaluation": {"batch_size": 2, "monitor": {"task": "part", "metric": "loss"}},
    }  # fmt: skip
    mtlcli.train(config, run_dir=folder / "run", plots=False)
    write_images(folder / "photos/a", SIZES, seed=1)
    write_images(folder / "photos/b", SIZES[:1], seed=2)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return mtlcli.load(folder / "run")


def predict(folder: Path, out: Path, *arguments: str, inputs: tuple[str, ...] = ("photos",)) -> list[dict[str, str]]:
    paths = [str(folder / path) for path in inputs]
    assert main(["predict", str(folder / "run"), *paths, "--out", str(out), *arguments]) == 0
    with (out / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pixels(path: str) -> np.ndarray:
    return np.load(path) if path.endswith(".npy") else np.asarray(Image.open(path))


def decoded(model: Model, path: str) -> dict[str, dict[str, torch.Tensor]]:
    """Return task → labels and probabilities in the size of an image, by torch's interpolation of all outputs."""
    image = Image.open(path)
    prepared = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    inputs = torch.from_numpy(prepared.copy()).permute(2, 0, 1)[None]
    outputs = {task: each.outputs for task, each in model.predict(inputs).items()}
    size = (image.height, image.width)
    maps = {}
    for task in ("part", "depth", "normals", "edge"):
        values = F.interpolate(outputs[task].double(), size, mode="bilinear", align_corners=False)
        maps[task] = values[0]
    both = torch.cat([(-maps["edge"]).sigmoid(), maps["edge"].sigmoid()])
    return {
        "part": {"labels": maps["part"].argmax(0), "probabilities": maps["part"].softmax(0)},
        "depth": {"labels": maps["depth"][0]},
        "normals": {"labels": F.normalize(maps["normals"], dim=0)},
        "edge": {"labels": (maps["edge"][0] > 0).long(), "probabilities": both},
        "weather": {"labels": outputs["weather"].argmax(1)},
    }


def margin(values: torch.Tensor) -> np.ndarray:
    """Mark the pixels whose two most probable classes differ by more than rounding."""
    top = values.topk(2, 0).values
    return (top[0] - top[1] > 1e-5).numpy()


def test_files_have_the_predictions_in_the_size_of_the_images(folder: Path, model: Model, tmp_path: Path) -> None:
    rows = predict(folder, tmp_path / "out", "--maps", "npy", "--probabilities")
    assert [row["file"] for row in rows] == [
        str(folder / f"photos/{name}.png") for name in ("a/0", "a/1", "a/2", "b/0")
    ]
    assert list(rows[0]) == [
        "file", "part", "part[probabilities]", "depth", "normals", "edge", "edge[probabilities]", "weather",
        "weather[dry]", "weather[wet]",
    ]  # fmt: skip
    assert rows[3]["normals"] == str(tmp_path / "out/normals/b/0.npy")
    assert rows[1]["part[probabilities]"] == str(tmp_path / "out/part/a/1-probabilities.npy")
    for row in rows:
        expected = decoded(model, row["file"])
        for task in ("part", "edge"):
            probabilities = expected[task]["probabilities"]
            np.testing.assert_allclose(pixels(row[f"{task}[probabilities]"]), probabilities, atol=1e-5)
            clear = margin(probabilities)
            assert clear.mean() > 0.9
            np.testing.assert_array_equal(pixels(row[task])[clear], expected[task]["labels"].numpy()[clear])
            assert pixels(row[task]).dtype == np.uint8
        for task in ("depth", "normals"):
            assert pixels(row[task]).dtype == np.float32
            np.testing.assert_allclose(pixels(row[task]), expected[task]["labels"], atol=1e-5)
        names = model.specs["rooms"].targets["weather"].class_names
        assert row["weather"] == names[int(expected["weather"]["labels"])]


def test_images_have_the_values_of_the_arrays(folder: Path, tmp_path: Path) -> None:
    arrays = predict(folder, tmp_path / "arrays", "--maps", "npy")
    images = predict(folder, tmp_path / "images")
    for array, image in zip(arrays, images, strict=True):
        for task in ("part", "edge"):
            np.testing.assert_array_equal(pixels(image[task]), pixels(array[task]))
        depth = pixels(image["depth"])
        assert depth.dtype == np.uint16 and (depth > 1).mean() > 0.9
        np.testing.assert_allclose(depth / 1000, pixels(array["depth"]).clip(0.001), atol=0.0005 + 1e-6)
        normals = np.moveaxis(pixels(image["normals"]), -1, 0) * (2 / 255) - 1
        np.testing.assert_allclose(normals, pixels(array["normals"]), atol=1 / 255 + 1e-6)
    with Image.open(images[0]["part"]) as mask, Image.open(images[0]["edge"]) as edge:
        assert mask.mode == edge.mode == "P"
        assert np.array_equal(np.asarray(mask.convert("RGB")), class_colors(3)[np.asarray(mask)])
        assert np.array_equal(np.asarray(edge.convert("L")), np.asarray(edge) * 255)


def test_predictions_are_labels_of_image_masks(folder: Path, tmp_path: Path) -> None:
    """Train on predictions: the table that is written is one of `image_masks`."""
    rows = predict(folder, tmp_path / "out", inputs=("train/0.png", "train/1.png", "train/2.png"))
    targets: dict[str, Any] = {
        "part": {"type": "classes", "classes": list(PARTS)}, "depth": {"type": "depth", "scale": 1000},
        "normals": {"type": "normals"}, "edge": {"type": "binary"},
    }  # fmt: skip
    again = ImageMasks(path=str(tmp_path / "out/predictions.csv"), image="file", targets=targets, test=0.3)
    whole = again.whole()
    for at, row in enumerate(rows):
        for task in ("part", "edge"):
            np.testing.assert_array_equal(whole.maps[task][at], pixels(row[task]))
        np.testing.assert_allclose(whole.maps["depth"][at], pixels(row["depth"]) / 1000, rtol=1e-6)
        assert not whole.maps["normals"][at].isnan().any()


def test_python_predicts_the_same(folder: Path, model: Model, tmp_path: Path) -> None:
    images = np.stack([pixels(str(folder / f"train/{at}.png")) for at in range(3)])
    predicted = model.predict(images.transpose(0, 3, 1, 2))
    rows = predict(folder, tmp_path / "out", "--maps", "npy", inputs=("train/0.png", "train/1.png", "train/2.png"))
    for at, row in enumerate(rows):
        for task in ("part", "edge", "depth", "normals"):
            np.testing.assert_allclose(predicted[task].labels[at], pixels(row[task]), atol=1e-5)
    part, depth, normals = predicted["part"], predicted["depth"], predicted["normals"]
    assert isinstance(part.labels, torch.Tensor) and part.indices is not None and part.probabilities is not None
    assert part.labels.shape == (3, HEIGHT, WIDTH) and torch.equal(part.labels, part.indices)
    assert part.probabilities.shape == (3, 3, HEIGHT, WIDTH) and part.classes == PARTS
    assert isinstance(depth.labels, torch.Tensor) and depth.labels.shape == (3, HEIGHT, WIDTH)
    assert isinstance(normals.labels, torch.Tensor) and normals.labels.shape == (3, 3, HEIGHT, WIDTH)
    assert normals.columns == ("x", "y", "z")


def test_arrays_and_equal_names(folder: Path, tmp_path: Path) -> None:
    array = np.stack([pixels(str(folder / f"train/{at}.png")) for at in range(3)]).transpose(0, 3, 1, 2)
    np.save(tmp_path / "images.npy", array)
    inputs = (str(tmp_path / "images.npy"), "train/0.png", "photos/a/0.png", "photos/b")
    rows = predict(folder, tmp_path / "out", "--tasks", "part", inputs=inputs)
    names = ["images-000001", "images-000002", "images-000003", "0", "0-2", "0-3"]
    assert [row["part"] for row in rows] == [str(tmp_path / f"out/part/{name}.png") for name in names]
    assert [row["row"] for row in rows] == ["1", "2", "3", "1", "1", "1"]
    np.testing.assert_array_equal(pixels(rows[0]["part"]), pixels(rows[3]["part"]))


def test_faulty_images_are_skipped(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write_images(tmp_path / "in", SIZES)
    paths[1].write_bytes(b"no image")
    rows = predict(folder, tmp_path / "out", "--on-error", "skip", "--json", inputs=(str(tmp_path / "in"),))
    assert [Path(row["part"]).name for row in rows] == ["0.png", "2.png"]
    assert not (tmp_path / "out/part/1.png").exists()
    assert json.loads(capsys.readouterr().out)["skipped"] == 1


def test_distances_beyond_the_files_are_reported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = predict(folder, tmp_path / "exact", "--maps", "npy", "--tasks", "depth", inputs=("photos/b",))
    depth = pixels(row["depth"])
    scale = round(65535 / float(np.median(depth)))
    (row,) = predict(folder, tmp_path / "out", "--depth-scale", str(scale), "--tasks", "depth", inputs=("photos/b",))
    stored = pixels(row["depth"])
    beyond = np.rint(depth.astype(np.float64) * scale) > 65535
    assert 0 < beyond.sum() < beyond.size and (stored[beyond] == 65535).all()
    np.testing.assert_allclose(stored[~beyond], (depth[~beyond].astype(np.float64) * scale).clip(1), atol=0.51)
    assert f"depth: {int(beyond.sum())} pixels are beyond {65535 / scale:g}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give their folder with --out"),
        (["--out", "{out}/x.csv"], "give the folder, such as --out {out}/x"),
        (["--out", "{out}/file"], "is a file"),
        (["--out", "{out}/no/folder"], "the folder {out}/no does not exist"),
        (["--out", "{photos}/predicted"], "lies in the input folder {photos}"),
        (["--out", "{out}/new", "--features"], "--features: the tasks 'part', 'depth', 'normals', 'edge' predict"),
        (["--out", "{out}/new", "--depth-scale", "0"], "--depth-scale: expected a number > 0"),
        (["--out", "{out}/new", "--depth-scale", "2", "--maps", "npy"], "--depth-scale: an array has the distances"),
        (["--tasks", "weather", "--maps", "npy"], "--maps: no task that is predicted has a value for each pixel"),
    ],
)
def test_errors(
    arguments: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    places = {"out": str(tmp_path), "photos": str(folder / "photos")}
    given = [argument.format(**places) for argument in arguments]
    assert main(["predict", str(folder / "run"), str(folder / "photos"), *given]) == 2
    assert message.format(**places) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_inputs_are_not_overwritten(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write_images(tmp_path / "out/part", SIZES[:1])[0])
    before = Path(path).read_bytes()
    assert main(["predict", str(folder / "run"), path, "--out", str(tmp_path / "out")]) == 2
    assert "lies where predictions would be written" in capsys.readouterr().err
    assert Path(path).read_bytes() == before
    assert len(predict(folder, tmp_path / "out", "--tasks", "depth", inputs=(path,))) == 1


def test_cropped_images_have_no_predictions_outside(folder: Path, tmp_path: Path) -> None:
    model = mtlcli.load(folder / "run")
    spec = model.specs["rooms"]
    model.specs["rooms"] = replace(spec, state={**spec.state, "image": {**spec.state["image"], "fit": "crop"}})
    for form in ("png", "npy"):
        predict_files(model, [folder / "photos/a/2.png"], tmp_path / form, io.StringIO(), maps=form)
    height, width = SIZES[2]
    kept = height * WIDTH / HEIGHT
    columns = np.arange(width) + 0.5
    outside = np.broadcast_to(np.abs(columns - width / 2) > kept / 2, (height, width))
    for task in ("part", "edge"):
        for form in ("png", "npy"):
            np.testing.assert_array_equal(pixels(str(tmp_path / f"{form}/{task}/2.{form}")) == 255, outside)
    np.testing.assert_array_equal(pixels(str(tmp_path / "png/depth/2.png")) == 0, outside)
    np.testing.assert_array_equal((pixels(str(tmp_path / "png/normals/2.png")) == 0).all(-1), outside)
    np.testing.assert_array_equal(np.isnan(pixels(str(tmp_path / "npy/depth/2.npy"))), outside)
    np.testing.assert_array_equal(np.isnan(pixels(str(tmp_path / "npy/normals/2.npy"))).all(0), outside)
