"""A small collection in the format of MNIST, and sources without network access."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mtlcli.data.download.collection import Collection, DownloadSource, SourceUnavailable

SIZES = {"train": 40, "t10k": 12}


def idx(array: np.ndarray) -> bytes:
    """Return the IDX file of a uint8 array."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def mnist_files() -> dict[str, bytes]:
    """Return random files in the format of MNIST, with fewer images."""
    generator = np.random.default_rng(0)
    files = {}
    for split, size in SIZES.items():
        files[f"{split}-images-idx3-ubyte"] = idx(generator.integers(0, 256, (size, 28, 28)))
        files[f"{split}-labels-idx1-ubyte"] = idx(np.arange(size) % 10)
    return files


def collection(*sources: DownloadSource, folder: str = "MNIST") -> Collection:
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in mnist_files().items()}
    return Collection(folder, checksums, sources)


def place(folder: Path, files: dict[str, bytes], compressed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)


@dataclass
class FakeSource:
    """Source that provides `files`, or is unavailable; records the requested names."""

    files: dict[str, bytes] | None
    label: str = "the fake source"
    compressed: bool = False
    asked: list[list[str]] = field(default_factory=list)

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        self.asked.append(list(names))
        if self.files is None:
            raise SourceUnavailable("nobody at home")
        files = {name: self.files[name] for name in self.asked[-1] if name in self.files}
        place(work, files, self.compressed)
        return {name: work / (f"{name}.gz" if self.compressed else name) for name in files}
