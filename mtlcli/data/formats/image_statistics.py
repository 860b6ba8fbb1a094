"""Mean and standard deviation of the channels of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np

from mtlcli.cores import usable_cores
from mtlcli.data.content_hash import Hashes
from mtlcli.data.examples import LazyInputs
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError, MtlError, Problem

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # means and standard deviations of the values 0…255
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,), (0.5,))
SAMPLED = 200  # images whose statistics are computed


def fixed_statistics(normalize: Literal["half", "imagenet"]) -> Statistics:
    """Return the statistics of a normalization that doesn't depend on the images.

    Args:
        normalize: `half` for half of the range each, `imagenet` for those of torchvision's pretrained models.

    Returns:
        Means and standard deviations of the values 0…255, one of each for `half`, three for `imagenet`.
    """
    mean, std = IMAGENET if normalize == "imagenet" else HALF
    return tuple(255 * value for value in mean), tuple(255 * value for value in std)


def sample_images(keys: Hashes) -> Rows:
    """Choose the images for `measure_channels`: at most SAMPLED, those with the smallest keys.

    The choice depends on the names of the images and not on their order.

    Args:
        keys: hashes of the names of the images, uint64 [N]; equal names are counted once.

    Returns:
        Positions in `keys`.
    """
    return np.unique(keys, return_index=True)[1][:SAMPLED]


def measure_channels(files: LazyInputs, rows: Sequence[int]) -> Statistics:
    """Compute mean and standard deviation of each channel over all pixels of some images.

    The sums are exact, so the result doesn't depend on the order of the images.

    Args:
        files: the images, uint8 [channels, height, width] each.
        rows: indices of at least one image.

    Returns:
        Means and (population) standard deviations of the values 0…255, one for each channel.

    Raises:
        ConfigError: images can't be read; lists them all.
    """
    with ThreadPoolExecutor(usable_cores()) as pool:
        counted = list(pool.map(lambda row: _count_values(files, row), rows))
    faults = [Problem(str(error)) for error in counted if isinstance(error, MtlError)]
    if faults:
        raise ConfigError(faults)
    counts = np.sum([count for count in counted if not isinstance(count, MtlError)], axis=0)
    mean, std = [], []
    for channel in counts.tolist():  # Python's integers, which don't overflow
        n = sum(channel)
        total = sum(value * count for value, count in enumerate(channel))
        squares = sum(value * value * count for value, count in enumerate(channel))
        mean.append(total / n)
        std.append(math.sqrt((n * squares - total * total) / (n * n)))
    return tuple(mean), tuple(std)


def _count_values(files: LazyInputs, row: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]] | MtlError:
    """Return the number of pixels with each value, [channels, 256], or the error of an image that can't be read."""
    try:
        image = files[row].numpy()
    except MtlError as error:
        return error
    return np.stack([np.bincount(channel.ravel(), minlength=256) for channel in image])
