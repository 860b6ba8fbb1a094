"""Style of all plots: figures without a display, written as PNG files, and the colors of classes and normals."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mtlcli.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120
COMPRESSION = 1  # of PNG files: a third larger than with the default, in a third of the time
GRID = 0.3  # opacity of grid lines
FIRST_COLORS = (  # of classes; those of Tableau without grey, in another order, and some that differ from them
    "4e79a7", "f28e2b", "59a14f", "e15759", "76b7b2", "edc948", "b07aa1", "9c755f", "ff9da7", "1b3a5c", "a0cbe8",
    "2d6a2e", "ffbe7d", "8c1d2f", "8cd17d", "5d3a8e", "d7b5a6", "b6992d", "d4a6c8", "086e6b",
)  # fmt: skip
FEWEST_COLORS = 0.02  # squared difference of the largest and the smallest of red, green and blue: grey has less


def new_figure(width: float, height: float, fit: bool = True) -> Figure:
    """Create an empty figure that is drawn without a display.

    Args:
        width: its width, in inches.
        height: its height, in inches.
        fit: whether the layout leaves space for titles and legends, which takes half of the time of drawing.

    Returns:
        The figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained" if fit else None)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to a PNG file, atomically. MtlError is raised if the file can't be written.

    Args:
        figure: the figure.
        path: the file, ending in `.png`; an existing one is replaced.
    """
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=DPI, pil_kwargs={"compress_level": COMPRESSION})


@cache
def class_colors(size: int) -> NDArray[np.uint8]:
    """Return distinct colors for classes, none of them grey. The first ones don't depend on their number.

    Each color after the first 20 is, of 4,096 candidates, the one whose smallest difference from those before is the
    largest.

    Args:
        size: number of classes.

    Returns:
        Red, green and blue, uint8 [size, 3].
    """
    colors = [tuple(bytes.fromhex(color)) for color in FIRST_COLORS[:size]]
    if size > len(colors):
        levels = np.arange(8, 256, 16)
        candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
        candidates = candidates[np.square(np.ptp(candidates / 255, 1)) > FEWEST_COLORS]
        places = _perceived(candidates)
        nearest = np.full(len(candidates), np.iinfo(np.int64).max)
        for color in colors:
            nearest = np.minimum(nearest, np.square(places - _perceived(np.array([color]))).sum(1))
        while len(colors) < size:
            farthest = int(nearest.argmax())
            colors.append(tuple(candidates[farthest].tolist()))
            nearest = np.minimum(nearest, np.square(places - places[farthest]).sum(1))
    return np.array(colors, np.uint8)


def _perceived(colors: NDArray[Any]) -> NDArray[np.int64]:
    """Convert sRGB, [n, 3], to Oklab in thousandths; differences of integers are the same on all machines.

    Source: Ottosson, A perceptual color space for image processing, 2020.
    """
    linear = ((colors / 255 + 0.055) / 1.055) ** 2.4
    cones = linear @ np.array([[0.4122, 0.2119, 0.0883], [0.5363, 0.6807, 0.2817], [0.0514, 0.1074, 0.6300]])
    to_lab = np.array([[0.2105, 1.9780, 0.0259], [0.7936, -2.4286, 0.7828], [-0.0041, 0.4506, -0.8087]])
    perceived: NDArray[np.int64] = np.rint(np.cbrt(cones) @ to_lab * 1000).astype(np.int64)
    return perceived


def normal_colors(normals: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return the colors of unit vectors: (n + 1) / 2 as red, green and blue; black for NaN.

    Args:
        normals: components x, y, z, [3, ...].

    Returns:
        uint8 [..., 3].
    """
    channels = np.moveaxis(normals, 0, -1)
    colors: NDArray[np.uint8] = np.rint((np.nan_to_num(channels, nan=-1.0).clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return colors
