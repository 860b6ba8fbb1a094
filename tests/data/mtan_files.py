"""Small files in the layout of MTAN's release of NYUv2 and Cityscapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FOLDERS = {"nyuv2": ("image", "label", "depth", "normal"), "cityscapes": ("image", "label_7", "depth")}
CLASSES = {"nyuv2": 13, "cityscapes": 7}


def write_mtan_files(root: Path, size: tuple[int, int] = (32, 64), train: int = 20, test: int = 2) -> Path:
    """Write images with random maps.

    Args:
        root: data root, which gets the folders `nyuv2` and `cityscapes`.
        size: height and width of the images.
        train: number of training images of each.
        test: number of test images of each.

    Returns:
        The data root.
    """
    rng = np.random.default_rng(0)
    for dataset, folders in FOLDERS.items():
        for split, amount in {"train": train, "val": test}.items():
            for folder in folders:
                (root / dataset / split / folder).mkdir(parents=True)
            for at in range(amount):
                normals = rng.normal(size=(*size, 3))
                maps = {
                    "image": rng.uniform(size=(*size, 3)),
                    "label": rng.integers(-1, CLASSES[dataset], size),
                    "depth": rng.uniform(0.1, 0.5, (*size, 1)),
                    "normal": normals / np.linalg.norm(normals, axis=2, keepdims=True),
                }
                for folder in folders:
                    values = maps[folder.removesuffix("_7")].astype(np.float32)
                    np.save(root / dataset / split / folder / f"{at}.npy", values)
    return root
