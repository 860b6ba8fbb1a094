"""The plot of targets and predictions: the chosen images, their predictions and colors, and when it is drawn."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mtlcli
from mtlcli.config import experiment_from_dict
from mtlcli.plotting import class_colors, normal_colors
from mtlcli.training.assembly.build import build
from mtlcli.training.map_colors import color_span, draw_stripes, map_colors
from mtlcli.training.prediction_examples import PredictedImages, TaskMaps, choose_images, predict_images
from mtlcli.training.prediction_plots import PredictionPlots, _Sheet, draw_predictions, legend_classes
from mtlcli.training.run import Run

HEIGHT, WIDTH, IMAGES = 6, 8, 9
NAN = math.nan


def make_data(seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Make grey images; the first four have no labels of classes."""
    numbers = np.random.default_rng(seed)
    maps = (IMAGES, HEIGHT, WIDTH)
    surface = numbers.integers(0, 3, maps)
    surface[0, 0, :3] = (0, 1, 2)
    surface[:4] = 255
    surface[5, 2:, :] = 255
    normals = numbers.normal(size=(IMAGES, 3, HEIGHT, WIDTH))
    depth = numbers.uniform(1, 9, maps).astype(np.float32)
    depth[:, 0, 0] = 0
    targets = {
        "surface": surface,
        "edge": numbers.integers(0, 2, maps).astype(bool),
        "heat": numbers.normal(size=(IMAGES, 2, HEIGHT, WIDTH)).astype(np.float32),
        "depth": depth,
        "normals": (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32),
        "room": [("hall", None, "bath")[row % 3] for row in range(IMAGES)],
    }
    return numbers.integers(0, 256, (IMAGES, 1, HEIGHT, WIDTH), dtype=np.uint8), targets


def make_run(aliases: tuple[str, ...] = ("a",), **changes: Any) -> Run:
    types = {"depth": "depth_map", "normals": "normal_map"}
    kinds = {
        "surface": "segmentation", "edge": {"name": "binary", "positive": 0}, "heat": "regression", "depth": "depth",
        "normals": "normals", "room": "classification",
    }  # fmt: skip
    tasks = {
        f"{target}_{alias}": {"dataset": alias, "target": target, "kind": kind}
        for alias in aliases
        for target, kind in kinds.items()
        if alias == "a" or target == "surface"
    }
    experiment = experiment_from_dict({
        "name": "plotted",
        "datasets": {alias: {"name": "in_memory", "targets": types} for alias in aliases},
        "tasks": tasks,
        "trunk": {"name": "cnn", "widths": [4], "output": "map"},
        "evaluation": {"monitor": {"task": "surface_a", "metric": "loss"}},
        "training": {"epochs": 1, "batch_size": 4, "device": "cpu", "threads": 1},
        **changes,
    })  # fmt: skip
    data = {alias: make_data(seed) for seed, alias in enumerate(aliases)}
    return build(experiment, {alias: {"train": each, "val": each} for alias, each in data.items()})


def test_images_are_evenly_spaced_and_have_labels_where_some_do() -> None:
    (chosen,) = choose_images(make_run(), "val")
    images, targets = make_data(0)
    rows = [0, 2, 4, 6]  # the classes of 0 to 3 are missing: these are the first of their parts
    assert chosen.names == [f"image {row + 1}" for row in rows]
    assert torch.equal(chosen.inputs, torch.from_numpy(images[rows]))
    assert list(chosen.maps) == ["surface_a", "edge_a", "heat_a", "depth_a", "normals_a"]
    assert list(chosen.labels) == ["room_a"]
    assert (chosen.maps["surface_a"][:2] == -100).all()
    np.testing.assert_array_equal(chosen.maps["surface_a"][2:], targets["surface"][rows[2:]])
    np.testing.assert_array_equal(chosen.maps["heat_a"], targets["heat"][rows])


def test_the_first_image_with_labels_of_all_tasks_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlcli.training.prediction_examples.IMAGES", 2)
    run = make_run()
    (chosen,) = choose_images(run, "val")
    assert chosen.names == ["image 1", "image 5"]  # none of the first four has labels of all
    run.examples_of("a", "val").maps["surface"][1] = 0
    (chosen,) = choose_images(run, "val")
    assert chosen.names == ["image 2", "image 5"]


def test_predictions_are_those_of_the_model() -> None:
    run = make_run()
    (chosen,) = choose_images(run, "val")
    run.model.train()
    state = torch.random.get_rng_state()
    shown = predict_images(run, chosen)
    assert run.model.training and torch.equal(state, torch.random.get_rng_state())
    run.model.eval()
    with torch.inference_mode():
        outputs = run.model({"a": chosen.inputs})
    maps = {each.task: each for each in shown.tasks}
    assert [(name, each.form, each.channels) for name, each in maps.items()] == [
        ("surface_a", "classes", 1), ("edge_a", "probability", 1), ("heat_a", "numbers", 2), ("depth_a", "numbers", 1),
        ("normals_a", "normals", 1),
    ]  # fmt: skip
    np.testing.assert_array_equal(maps["surface_a"].prediction, outputs["surface_a"].argmax(1))
    assert (maps["surface_a"].target[:2] == -1).all() and (maps["surface_a"].target[2:] >= 0).all()
    # the positive class is 0
    np.testing.assert_allclose(maps["edge_a"].prediction, outputs["edge_a"].sigmoid().squeeze(1), atol=1e-6)
    assert maps["edge_a"].classes == ("0",)
    np.testing.assert_array_equal(maps["edge_a"].target, 1 - chosen.maps["edge_a"])
    np.testing.assert_array_equal(maps["heat_a"].target, chosen.maps["heat_a"].amax(1))
    np.testing.assert_allclose(maps["heat_a"].prediction, outputs["heat_a"].amax(1), rtol=1e-5)
    assert np.isnan(maps["depth_a"].target[:, 0, 0]).all()
    np.testing.assert_allclose(np.linalg.norm(maps["normals_a"].prediction, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(shown.images, np.repeat(chosen.inputs.numpy()[:, 0, ..., None], 3, -1))
    names = run.kinds["room_a"].class_names
    rooms = [names[at] for at in outputs["room_a"].argmax(1).tolist()]
    labels = ["hall", "bath", "–", "hall"]
    assert shown.captions == [
        [name, f"room_a: {room} ({label})"] for name, room, label in zip(chosen.names, rooms, labels, strict=True)
    ]


def test_datasets_have_their_own_images() -> None:
    run = make_run(("a", "b"))
    of_a, of_b = choose_images(run, "val")
    assert (of_a.alias, of_b.alias) == ("a", "b") and list(of_b.maps) == ["surface_b"] and not of_b.labels
    assert [each.task for each in predict_images(run, of_b).tasks] == ["surface_b"]


def numbers(values: list[float], predicted: list[float]) -> TaskMaps:
    shape = (1, 1, -1)
    return TaskMaps("d", "numbers", np.array(values, np.float32).reshape(shape), np.array(predicted).reshape(shape))


def test_targets_and_predictions_have_the_same_colors() -> None:
    maps = numbers([NAN, *range(101)], [0.0] * 102)
    low, high = color_span(maps)
    assert (low, high) == pytest.approx((1, 99))
    colors = map_colors(maps, np.array([[[-5.0, 1.0, 50.0, 99.0, 120.0, NAN]]]), (low, high))[0, 0]
    viridis = np.array([[68, 1, 84], [33, 145, 140], [253, 231, 37]])  # of matplotlib, at 0, ½ and 1
    expected = viridis[[0, 0, 1, 2, 2, 0]]
    assert np.abs(colors.astype(int) - expected).max() <= 2
    assert color_span(numbers([NAN, NAN], [2.0, 2.0]))[0] == 2.0  # no labels: of the predictions
    assert color_span(numbers([NAN], [NAN])) == (0.0, 1.0)


def test_colors_of_classes_are_distinct_and_not_grey() -> None:
    colors = class_colors(255).astype(int)
    assert len({tuple(color) for color in colors.tolist()}) == 255
    assert np.ptp(colors, 1).min() > 30
    assert (class_colors(25) == colors[:25]).all()
    differences = np.abs(colors[:30, None] - colors[:30]).sum(-1) + 1000 * np.eye(30, dtype=int)
    assert differences.min() > 50


def test_colors_of_normals() -> None:
    vectors = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1], [NAN, NAN, NAN]]).T
    assert normal_colors(vectors).tolist() == [[255, 128, 128], [128, 0, 128], [128, 128, 0], [0, 0, 0]]


def shown_classes(classes: tuple[str, ...], target: np.ndarray, prediction: np.ndarray) -> PredictedImages:
    maps = TaskMaps("surface", "classes", target, prediction, classes)
    images = np.full((*target.shape, 3), 7, np.uint8)
    return PredictedImages("a", images, [[f"image {row}", "room: hall (–)"] for row in range(len(images))], [maps])


def drawn(shown: list[PredictedImages], monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, list[str]]:
    """Return the pixels and the texts of a figure."""
    sheets = []
    monkeypatch.setattr(_Sheet, "save", lambda sheet, _: sheets.append(sheet))
    draw_predictions(shown, Path("unused.png"), "the title")
    return sheets[0].pixels, [text.get_text() for text in sheets[0]._figure.texts]


def test_the_figure_shows_targets_predictions_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    target, prediction = np.full((1, 6, 8), -1), np.zeros((1, 6, 8), int)
    target[:, :, :4] = 1
    pixels, texts = drawn([shown_classes(("floor", "wall"), target, prediction)], monkeypatch)
    assert texts == [
        "the title", "input", "target", "prediction", "image 0", "room: hall (–)",
        "surface", "floor", "wall", "no label",
    ]  # fmt: skip
    floor, wall = class_colors(2)

    def box(color: np.ndarray | int) -> tuple[int, int, int, int]:
        """Return the first and the last row and column of the largest area of a color."""
        mask = (pixels == color).all(-1)
        rows, columns = mask.sum(1) > 30, mask.sum(0) > 30
        return rows.argmax(), len(rows) - rows[::-1].argmax(), columns.argmax(), len(columns) - columns[::-1].argmax()

    image, of_wall, of_floor = box(np.array([7, 7, 7])), box(wall), box(floor)
    height, width = image[1] - image[0], image[3] - image[2]
    assert width / height == pytest.approx(8 / 6, rel=0.02)
    assert of_wall[:2] == image[:2] and of_floor[0] > image[1]  # the prediction is below the target
    assert of_wall[3] - of_wall[2] == pytest.approx(width / 2, abs=1)
    assert of_floor[2] == of_wall[2] > image[3] and of_floor[3] - of_floor[2] == width
    unlabelled = pixels[image[0] : image[1], of_wall[3] : of_floor[3]]
    np.testing.assert_array_equal(unlabelled, draw_stripes(height, width)[:, -unlabelled.shape[1] :])


def test_a_figure_of_two_datasets_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.zeros((2, 4, 4), int)
    shown = shown_classes(("floor", "wall"), maps, maps)
    one = shown_classes(("floor", "wall"), maps[:1], maps[:1])
    other = PredictedImages("b", one.images, one.captions, one.tasks)
    _, texts = drawn([shown, other], monkeypatch)
    assert "input (a)" in texts and "input (b)" in texts and "no label" not in texts


def test_the_legend_of_many_classes_has_the_most_frequent_ones() -> None:
    target = np.arange(30).repeat(np.arange(30)).reshape(1, 1, -1)  # class k occurs k times
    maps = TaskMaps("t", "classes", target, target, tuple(map(str, range(40))))
    assert legend_classes(maps) == (list(range(10, 30)), False)


@pytest.mark.usefixtures("plots")
def test_a_run_draws_the_predictions(tmp_path: Path) -> None:
    config = {
        "name": "tiny",
        "datasets": {"scenes": {"name": "scenes", "train": 2, "val": 2, "test": 1, "size": [16, 24]}},
        "tasks": {
            "class": {"dataset": "scenes", "kind": "segmentation"},
            "depth": {"dataset": "scenes", "kind": "depth"},
        },
        "trunk": {"name": "cnn", "widths": [4], "output": "map"},
        "evaluation": {"monitor": {"task": "class", "metric": "miou"}},
        "training": {"epochs": 1, "batch_size": 2, "device": "cpu", "threads": 1},
    }
    mtlcli.train(config, run_dir=tmp_path / "run")
    with Image.open(tmp_path / "run" / "plots" / "predictions.png") as image:
        assert image.width > 500 and image.height > 500


def test_predictions_are_drawn_for_the_best_epochs_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now, epochs = [0.0], []

    def draw(_: PredictionPlots, state: Any) -> None:
        now[0] += 1.0  # takes a second
        epochs.append(state.progress.epoch)

    monkeypatch.setattr(PredictionPlots, "_draw", draw)
    monkeypatch.setattr("mtlcli.training.prediction_plots.time.perf_counter", lambda: now[0])
    plots = PredictionPlots("val")
    for epoch, best, time in [(1, 1, 0.0), (2, 1, 100.0), (3, 3, 200.0), (4, 4, 210.0), (5, 5, 222.0)]:
        now[0] = time
        progress = SimpleNamespace(epoch=epoch, best_epoch=best)
        plots.on_epoch_end(SimpleNamespace(progress=progress), {})  # type: ignore[arg-type]
    assert epochs == [1, 3, 5]  # 4 is too soon after 3
    for status in ("failed", "interrupted", "completed"):
        plots.on_fit_end(SimpleNamespace(progress=progress), {"status": status})  # type: ignore[arg-type]
    assert epochs == [1, 3, 5, 5]
