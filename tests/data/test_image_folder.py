from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from mtlcli.data.dataset import Examples
from mtlcli.data.datasets.digits import Digits
from mtlcli.data.datasets.image_folder import ImageFolder
from mtlcli.data.loader import evaluation_batches
from mtlcli.data.placement import Placement
from mtlcli.errors import ConfigError, MtlError
from tests.data.batches import CPU


def draw(path: Path, seed: int, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": 3, "L": 1, "RGBA": 4}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, channels)).astype(np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of 6×5 pixels with 5 and 3 training images, and one of each in `test`."""
    for number, (name, count) in enumerate((("dog", 5), ("cat", 3))):
        for i in range(count):
            draw(tmp_path / f"train/{name}/{i}.png", 10 * number + i)
        draw(tmp_path / f"test/{name}/a.png", 100 + number)
    (tmp_path / "train/dog/notes.txt").write_text("no image")
    return tmp_path


def folder(root: Path, **options: Any) -> ImageFolder:
    return ImageFolder(root=str(root), **options)


def images(examples: Examples) -> list[torch.Tensor]:
    rows = range(len(examples)) if examples.rows is None else examples.rows.tolist()
    return [examples.inputs[row] for row in rows]


def test_reads_what_torchvision_reads(root: Path) -> None:
    dataset = folder(root, val=0.0)
    spec, train = dataset.describe(), dataset.examples("train", 0)
    theirs = torchvision.datasets.ImageFolder(root / "train")
    assert spec.input_shape == (3, 6, 5) and spec.targets["class"].classes == tuple(theirs.classes) == ("cat", "dog")
    assert spec.splits == ("train", "test") and spec.mean == (127.5,)
    assert train.targets["class"].tolist() == theirs.targets
    for ours, (image, _) in zip(images(train), theirs, strict=True):
        assert torch.equal(ours, torch.from_numpy(np.array(image)).permute(2, 0, 1))
        assert ours.is_contiguous() and ours.dtype == torch.uint8


def test_a_share_becomes_test_where_there_are_no_splits(root: Path) -> None:
    dataset = folder(root / "train", test=0.25, val=0.2)
    sizes = {split: len(dataset.examples(split, 0)) for split in dataset.describe().splits}
    assert sizes == {"train": 5, "val": 1, "test": 2}
    again = folder(root / "train", test=0.25, val=0.0)
    assert again.examples("test", 5).targets["class"].equal(dataset.examples("test", 0).targets["class"])
    assert folder(root / "train", test=0.0).describe().splits == ("train", "val")


def test_size_channels_and_normalization(root: Path) -> None:
    draw(root / "train/dog/large.png", 7, (40, 50))
    draw(root / "train/dog/transparent.png", 8, mode="RGBA")
    draw(root / "train/dog/grey.png", 9, mode="L")
    for channels in (1, 3):
        dataset = folder(root, size=8, channels=channels)
        assert {tuple(image.shape) for image in images(dataset.examples("train", 0))} == {(channels, 8, 8)}
        assert dataset.describe().input_shape == (channels, 8, 8)
    spec = folder(root, size=8, normalize="imagenet").describe()
    assert spec.mean[0] == pytest.approx(123.675) and spec.std[2] == pytest.approx(57.375)
    with pytest.raises(ValueError, match="needs `channels: 3`"):
        folder(root, channels=1, normalize="imagenet")


def test_images_are_upright(root: Path) -> None:
    image = Image.fromarray(np.arange(90, dtype=np.uint8).reshape(6, 5, 3))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    image.save(root / "train/cat/turned.png", exif=exif)
    files = folder(root, size=None, val=0.0).examples("train", 0).inputs
    files = type(files)([root / "train/cat/turned.png"], 3, None)  # type: ignore[call-arg]
    assert torch.equal(files[0], torch.from_numpy(np.rot90(np.array(image), -1).copy()).permute(2, 0, 1))


def test_both_routes_give_the_same(root: Path) -> None:
    parts = {"pets": folder(root).examples("train", 0)}
    routes = [
        torch.cat([b.inputs["pets"] for b in evaluation_batches(parts, {}, Placement(CPU, loading, workers), 3)])
        for loading, workers in (("resident", 0), ("stream", 0), ("stream", 1))  # type: ignore[arg-type]
    ]
    assert torch.equal(routes[0], routes[1]) and torch.equal(routes[0], routes[2])


def test_a_checkpoint_s_classes_are_used(root: Path, tmp_path: Path) -> None:
    dataset = folder(root)
    spec = dataset.describe()
    other = tmp_path / "other"
    draw(other / "test/dog/x.png", 0)
    only = folder(other)
    adopted = only.restore(spec)
    assert adopted.targets == spec.targets and adopted.splits == ("test",)
    assert only.examples("test", 0).targets["class"].tolist() == [1]
    draw(other / "test/dogs/x.png", 0)
    with pytest.raises(ConfigError, match=r"class 'dogs' is not among .*: cat, dog. Did you mean 'dog'"):
        folder(other).restore(spec)


def test_images_that_do_not_fit_the_checkpoint(root: Path) -> None:
    spec = folder(root).describe()
    with pytest.raises(ConfigError, match="trained on inputs 3×6×5, and these are 1×8×8"):
        folder(root, size=8, channels=1).restore(spec)
    with pytest.raises(ConfigError, match="there is no target 'digit'"):
        folder(root).restore(Digits().describe())
    assert folder(root, normalize="imagenet").restore(spec).mean == spec.mean


def test_an_image_of_another_size(root: Path) -> None:
    draw(root / "train/dog/9.png", 0, (7, 7))
    with pytest.raises(
        MtlError, match=r"9.png: is 7×7 pixels, where the first image has 5×6. Set the dataset's `size`"
    ):
        images(folder(root).examples("train", 0))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_file_that_is_no_image(root: Path, content: bytes) -> None:
    (root / "train/dog/9.png").write_bytes(content)
    with pytest.raises(MtlError, match=r"9.png: can't be read as an image"):
        images(folder(root).examples("train", 0))


def test_a_cut_off_image(root: Path) -> None:
    path = root / "train/dog/9.png"
    draw(path, 0, (60, 60))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(MtlError, match=r"9.png: can't be read as an image"):
        images(folder(root, size=8).examples("train", 0))


def test_folders_that_are_not_so(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        folder(root / "nowhere").describe()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="there are no images in its folders"):
        folder(tmp_path / "empty").describe()
    draw(tmp_path / "one/cat/1.png", 0)
    with pytest.raises(ConfigError, match="all training images are of one class, 'cat'"):
        folder(tmp_path / "one", test=0.0).describe()
    (root / "train/bird").mkdir()
    with pytest.raises(ConfigError, match=r"train/bird: there are no images in this folder"):
        folder(root).describe()
