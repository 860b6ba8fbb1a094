"""The plot of targets and predictions of a few images, `plots/predictions.png`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtlcli.plotting import DPI, class_colors, new_figure, save_figure
from mtlcli.text import format_number, printable
from mtlcli.training.callbacks import Callback
from mtlcli.training.evaluate import TaskMetrics
from mtlcli.training.map_colors import (
    Pixels,
    color_span,
    draw_sphere,
    draw_stripes,
    map_colors,
    number_colors,
    resize_pixels,
)
from mtlcli.training.prediction_examples import (
    ChosenImages,
    PredictedImages,
    TaskMaps,
    choose_images,
    missing_pixels,
    predict_images,
)
from mtlcli.training.run_summary import Summary
from mtlcli.training.state import TrainerState

FILE = "predictions.png"
MOST_COLUMNS = 8  # tasks side by side
MOST_NAMES = 20  # classes of a legend
AREA, NARROWEST, WIDEST = 36_000, 150, 320  # of an image, in pixels of the figure
LINE = 17  # height of a line of text
LETTER = 8  # width of a letter
SMALL = 0.85  # size of the letters of a legend, relative to others
GAP, APART = 6, 16  # between columns and a target and its prediction; between images
LABEL = 24  # width of the labels of the rows
MARGIN = 14
BAR = 12  # height of a color bar
SWATCH = 12
KEY = 56  # diameter of the sphere that shows the colors of normals


class PredictionPlots(Callback):
    """Draws targets and predictions of a few images, for the best epoch so far and at the end of the run.

    After an epoch that is the best so far, nothing is drawn unless the time since the last drawing is at least 20 times
    the time that it took, so that a run of short epochs doesn't get slower.

    Args:
        split: name of the split of the images.
    """

    def __init__(self, split: str) -> None:
        self._split = split
        self._chosen: list[ChosenImages] | None = None
        self._next = 0.0

    def on_epoch_end(self, state: TrainerState, metrics: TaskMetrics) -> None:
        """Draw the predictions if the epoch is the best so far."""
        if state.progress.epoch == state.progress.best_epoch and time.perf_counter() >= self._next:
            start = time.perf_counter()
            self._draw(state)
            end = time.perf_counter()
            self._next = end + 20 * (end - start)

    def on_fit_end(self, state: TrainerState, summary: Summary) -> None:
        """Draw the predictions of the final model."""
        if summary["status"] == "completed":
            self._draw(state)

    def _draw(self, state: TrainerState) -> None:
        assert state.header is not None
        if self._chosen is None:
            self._chosen = choose_images(state.run, self._split)
        predicted = [predict_images(state.run, chosen) for chosen in self._chosen]
        title = f"{self._split} images, epoch {state.progress.best_epoch}"
        draw_predictions(predicted, state.header.folder / "plots" / FILE, title)


@dataclass
class _Block:
    """A dataset's images and some of its tasks, which are drawn together.

    Attributes:
        shown: the images.
        tasks: the tasks.
        width: width of an image in the figure.
        height: its height.
        legends: height of the legends.
    """

    shown: PredictedImages
    tasks: Sequence[TaskMaps]
    width: int
    height: int
    legends: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the block."""
        width = LABEL + (1 + len(self.tasks)) * (self.width + GAP)
        return LINE + len(self.shown.images) * (2 * self.height + GAP + APART) + self.legends + LINE, width


def draw_predictions(predicted: Sequence[PredictedImages], path: Path, title: str) -> None:
    """Draw images, and below each other the target and the prediction of each task.

    Args:
        predicted: images of each dataset.
        path: the PNG file.
        title: the title.
    """
    blocks = [
        _make_block(shown, shown.tasks[start : start + MOST_COLUMNS])
        for shown in predicted
        for start in range(0, len(shown.tasks), MOST_COLUMNS)
    ]
    height = 2 * MARGIN + 2 * LINE + sum(block.size[0] for block in blocks)
    sheet = _Sheet(height, 2 * MARGIN + max(block.size[1] for block in blocks))
    sheet.write(MARGIN, MARGIN, title)
    top = MARGIN + 2 * LINE
    for block in blocks:
        _draw_block(sheet, block, top, len(predicted) > 1)
        top += block.size[0]
    sheet.save(path)


class _Sheet:
    """Pixels of a figure, and texts on them.

    Args:
        height: height in pixels.
        width: width in pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        self.pixels = np.full((height, width, 3), 255, np.uint8)
        self._figure = new_figure(width / DPI, height / DPI, fit=False)
        self._figure.set_dpi(DPI)

    def paste(self, x: int, y: int, pixels: Pixels) -> None:
        """Draw pixels, [h, w, 3], with their upper left corner at (x, y)."""
        self.pixels[y : y + len(pixels), x : x + pixels.shape[1]] = pixels

    def write(self, x: float, y: float, text: str, width: float | None = None, **options: Any) -> None:
        """Write a line whose upper left corner is at (x, y), shortened to a width in pixels."""
        height, total = self.pixels.shape[:2]
        small = options.get("fontsize") == "x-small"
        text, most = printable(text), None if width is None else max(int(width / (LETTER * (SMALL if small else 1))), 2)
        text = text if most is None or len(text) <= most else f"{text[: most - 1]}…"
        style = {"fontsize": "small", "va": "top", "ha": "left", "parse_math": False, **options}
        self._figure.text(x / total, 1 - y / height, text, **style)

    def save(self, path: Path) -> None:
        """Write the figure to a PNG file."""
        self._figure.figimage(self.pixels)
        with warnings.catch_warnings(action="ignore"):  # names may have letters that the font lacks
            save_figure(self._figure, path)


def _make_block(shown: PredictedImages, tasks: Sequence[TaskMaps]) -> _Block:
    height, width = shown.images.shape[1:3]
    wide = min(max(round((AREA * width / height) ** 0.5), NARROWEST), WIDEST)
    legends = max(_legend_height(maps) for maps in tasks)
    return _Block(shown, tasks, wide, max(round(wide * height / width), 40), legends)


def _draw_block(sheet: _Sheet, block: _Block, top: int, named: bool) -> None:
    width, height, across = block.width, block.height, block.width + GAP
    left = MARGIN + LABEL
    sheet.write(left + width / 2, top, f"input ({block.shown.alias})" if named else "input", width, ha="center")
    first = top + LINE
    step = 2 * height + GAP + APART
    for number, (image, lines) in enumerate(zip(block.shown.images, block.shown.captions, strict=True)):
        y = first + number * step
        for row, name in enumerate(("target", "prediction")):
            middle = y + row * (height + GAP) + height / 2
            sheet.write(MARGIN + 2, middle, name, rotation=90, va="center")
        sheet.paste(left, y, resize_pixels(image, height, width, smooth=True))
        for line, text in enumerate(lines[: max((height - GAP) // LINE, 1)]):
            sheet.write(left, y + height + GAP + line * LINE, text, width)
    for column, maps in enumerate(block.tasks):
        x = left + (1 + column) * across
        sheet.write(x + width / 2, top, _heading(maps), width, ha="center")
        span = color_span(maps)
        for row, values in enumerate((maps.target, maps.prediction)):
            missing = missing_pixels(maps, values)
            for number, colors in enumerate(map_colors(maps, values, span)):
                drawn = resize_pixels(colors, height, width)
                stripes = resize_pixels(missing[number].astype(np.uint8) * 255, height, width) > 127
                drawn[stripes] = draw_stripes(height, width)[stripes]
                sheet.paste(x, first + number * step + row * (height + GAP), drawn)
        _draw_legend(sheet, maps, span, x, first + len(block.shown.images) * step - APART + GAP, width)


def _heading(maps: TaskMaps) -> str:
    if maps.form == "probability":
        return f"{maps.task}: p({maps.classes[0]})"
    return maps.task if maps.channels == 1 else f"{maps.task}: max of {maps.channels}"


def legend_classes(maps: TaskMaps) -> tuple[list[int], bool]:
    """Return the positions of the classes of a legend, and whether some of the pixels have no label.

    Args:
        maps: the task.

    Returns:
        All classes if they are few; otherwise the most frequent of those that occur, in their order.
    """
    counts = np.zeros(len(maps.classes), np.int64)
    for values in (maps.target, maps.prediction):
        counts += np.bincount(values[values >= 0].ravel(), minlength=len(counts))
    unlabelled = bool(missing_pixels(maps, maps.target).any())
    if len(counts) <= MOST_NAMES:
        return list(range(len(counts))), unlabelled
    frequent = np.argsort(-counts, kind="stable")[:MOST_NAMES]
    return sorted(frequent[counts[frequent] > 0].tolist()), unlabelled


def _legend_height(maps: TaskMaps) -> int:
    if maps.form != "classes":
        return KEY + GAP if maps.form == "normals" else BAR + 2 * GAP + LINE
    classes, unlabelled = legend_classes(maps)
    return LINE * -(-(len(classes) + unlabelled + (len(classes) < len(maps.classes))) // 2)


def _draw_legend(sheet: _Sheet, maps: TaskMaps, span: tuple[float, float], x: int, y: int, width: int) -> None:
    if maps.form == "classes":
        _draw_classes(sheet, maps, x, y, width)
    elif maps.form == "normals":
        sheet.paste(x, y, draw_sphere(KEY))
        sheet.write(x + KEY + GAP, y + KEY / 2, "of a sphere", width - KEY, va="center", fontsize="x-small")
    else:
        ramp = np.broadcast_to(np.linspace(0, 1, width), (BAR, width))
        sheet.paste(x, y, number_colors(maps.form, ramp))
        for share, align in ((0.0, "left"), (0.5, "center"), (1.0, "right")):
            text = format_number(span[0] + share * (span[1] - span[0]), 3, zeros=False)
            sheet.write(x + share * width, y + BAR + GAP / 2, text, ha=align, fontsize="x-small")


def _draw_classes(sheet: _Sheet, maps: TaskMaps, x: int, y: int, width: int) -> None:
    classes, unlabelled = legend_classes(maps)
    colors = class_colors(len(maps.classes))
    entries = [(maps.classes[at], np.broadcast_to(colors[at], (SWATCH, SWATCH, 3))) for at in classes]
    if unlabelled:
        entries.append(("no label", draw_stripes(SWATCH, SWATCH)))
    rows = _legend_height(maps) // LINE
    for number, (name, swatch) in enumerate(entries):
        at = x + number // rows * (width // 2), y + number % rows * LINE
        sheet.paste(*at, swatch)
        sheet.write(at[0] + SWATCH + 4, at[1], name, width / 2 - SWATCH - 4, fontsize="x-small")
    if (others := len(maps.classes) - len(classes)) > 0:
        number = len(entries)
        sheet.write(
            x + number // rows * (width // 2),
            y + number % rows * LINE - 1,
            f"{others} more",
            width / 2,
            fontsize="x-small",
        )
