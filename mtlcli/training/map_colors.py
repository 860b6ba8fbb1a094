"""Colors of the values that a figure shows for the pixels of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlcli.plotting import class_colors, normal_colors
from mtlcli.training.prediction_examples import TaskMaps

Pixels = NDArray[np.uint8]
GREY, STRIPE = 222, 150  # of pixels without a label
COLORMAPS = {"numbers": "viridis", "probability": "gray"}
TAILS = (0.01, 0.99)  # quantiles of the labels that the colors span


def color_span(maps: TaskMaps) -> tuple[float, float]:
    """Return the numbers of the first and the last color, for targets and predictions alike.

    Args:
        maps: the task.

    Returns:
        0 and 1 for a probability; otherwise the 1 % and 99 % quantiles of the labels, or of the predictions if there
        are no labels.
    """
    if maps.form != "numbers":
        return 0.0, 1.0
    for values in (maps.target, maps.prediction):
        if len(finite := values[np.isfinite(values)]):
            low, high = np.quantile(finite, TAILS)
            return float(low), float(max(high, low + abs(low) * 1e-6 + 1e-12))
    return 0.0, 1.0


def map_colors(maps: TaskMaps, values: NDArray[Any], span: tuple[float, float]) -> Pixels:
    """Return the colors of maps; those of missing pixels don't matter.

    Args:
        maps: the task.
        values: its targets or its predictions.
        span: the numbers of the first and the last color.

    Returns:
        uint8 [n, H, W, 3].
    """
    if maps.form == "classes":
        of_classes: Pixels = class_colors(len(maps.classes))[values.clip(min=0)]
        return of_classes
    if maps.form == "normals":
        return normal_colors(values.swapaxes(0, 1))
    scaled = (np.nan_to_num(values, nan=span[0]).clip(*span) - span[0]) / (span[1] - span[0])
    return number_colors(maps.form, scaled)


def number_colors(form: str, scaled: NDArray[Any]) -> Pixels:
    """Return the colors of numbers from 0 to 1.

    Args:
        form: `numbers` or `probability`.
        scaled: the numbers.

    Returns:
        uint8, with a last dimension for red, green and blue.
    """
    from matplotlib import colormaps

    table = (colormaps[COLORMAPS[form]](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    colors: Pixels = table[(scaled * 255).round().astype(np.intp)]
    return colors


def resize_pixels(pixels: Pixels, height: int, width: int, smooth: bool = False) -> Pixels:
    """Resize an image or a mask: a larger one is averaged, the pixels of a smaller one are repeated.

    Args:
        pixels: uint8 [H, W, 3] or [H, W].
        height: height of the result.
        width: width of the result.
        smooth: interpolate a smaller one (bicubic).

    Returns:
        The result.
    """
    from PIL import Image

    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    if pixels.shape[0] > height or pixels.shape[1] > width:
        method = Image.Resampling.BOX
    return np.array(Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), method))


def draw_stripes(height: int, width: int) -> Pixels:
    """Return grey pixels with diagonal lines.

    Args:
        height: number of rows.
        width: number of columns.

    Returns:
        uint8 [height, width, 3].
    """
    lines = (np.arange(height)[:, None] + np.arange(width)) % 9 < 2
    return np.repeat(np.where(lines, STRIPE, GREY).astype(np.uint8)[..., None], 3, -1)


def draw_sphere(size: int) -> Pixels:
    """Return the colors of the normals of a sphere that the camera sees.

    Args:
        size: its diameter in pixels.

    Returns:
        uint8 [size, size, 3].
    """
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis, axis)
    square = x * x + y * y
    colors = normal_colors(np.stack([x, y, -np.sqrt((1 - square).clip(min=0))]))
    colors[square > 1] = 255
    return colors
