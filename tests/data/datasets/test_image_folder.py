from __future__ import annotations

import errno
import json
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
import torchvision
from PIL import Image

from mtlcli.cli import main
from mtlcli.data.base import Examples
from mtlcli.data.datasets.digits import Digits
from mtlcli.data.datasets.image_folder import ImageFolder
from mtlcli.data.formats.image_decoding import SUFFIXES, ImagePreparation, supported_formats
from mtlcli.data.formats.images import ImageFiles
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
    """Two classes of 6×5 pixels with 5 and 3 training images, and one image of each in `test`."""
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


def test_images_equal_those_read_by_torchvision(root: Path) -> None:
    dataset = folder(root, val=0.0)
    spec, train = dataset.describe(), dataset.examples("train", 0)
    theirs = torchvision.datasets.ImageFolder(root / "train")
    assert spec.input_shape == (3, 6, 5) and spec.targets["class"].classes == tuple(theirs.classes) == ("cat", "dog")
    assert spec.splits == ("train", "test") and spec.mean == (127.5,)
    assert train.targets["class"].tolist() == theirs.targets
    for ours, (image, _) in zip(images(train), theirs, strict=True):
        assert torch.equal(ours, torch.from_numpy(np.array(image)).permute(2, 0, 1))
        assert ours.is_contiguous() and ours.dtype == torch.uint8


def test_a_share_becomes_test_without_split_folders(root: Path) -> None:
    dataset = folder(root / "train", test=0.25, val=0.2)
    sizes = {split: len(dataset.examples(split, 0)) for split in dataset.describe().splits}
    assert sum(sizes.values()) == 8 and list(sizes) == ["train", "val", "test"] and all(sizes.values())
    again = folder(root / "train", test=0.25, val=0.0)
    assert again.examples("test", 5).targets["class"].equal(dataset.examples("test", 0).targets["class"])
    assert folder(root / "train", test=0.0).describe().splits == ("train", "val")


def test_the_preparation_of_an_image(root: Path) -> None:
    preparation = folder(root, size=8).preparation()
    assert (
        preparation
        == "upright by its EXIF tag, converted to RGB, resized to 8 x 8 (bilinear, by Pillow); channels first"
    )
    assert "grey" in folder(root, channels=1).preparation() and "resized" not in folder(root).preparation()


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
    files = ImageFiles([root / "train/cat/turned.png"], ImagePreparation(3, None))
    assert torch.equal(files[0], torch.from_numpy(np.rot90(np.array(image), -1).copy()).permute(2, 0, 1))


def test_both_routes_give_the_same_inputs(root: Path) -> None:
    parts = {"pets": folder(root).examples("train", 0)}
    routes = [
        torch.cat([b.inputs["pets"] for b in evaluation_batches(parts, {}, Placement(CPU, loading, workers), 3)])
        for loading, workers in (("resident", 0), ("stream", 0), ("stream", 1))  # type: ignore[arg-type]
    ]
    assert torch.equal(routes[0], routes[1]) and torch.equal(routes[0], routes[2])


def test_the_classes_of_a_checkpoint_are_used(root: Path, tmp_path: Path) -> None:
    dataset = folder(root)
    spec = dataset.describe()
    other = tmp_path / "other"
    draw(other / "test/dog/x.png", 0)
    only = folder(other)
    adopted = only.restore(spec)
    assert adopted.targets == spec.targets and adopted.splits == ("test",)
    assert only.examples("test", 0).targets["class"].tolist() == [1]
    draw(other / "test/dogs/x.png", 0)
    with pytest.raises(ConfigError, match=r"class 'dogs' is not a class of .*: cat, dog. Did you mean 'dog'"):
        folder(other).restore(spec)


def test_images_that_do_not_fit_the_checkpoint(root: Path) -> None:
    spec = folder(root).describe()
    with pytest.raises(ConfigError, match="trained on inputs 3×6×5, but these are 1×8×8"):
        folder(root, size=8, channels=1).restore(spec)
    with pytest.raises(ConfigError, match="the data has no target 'digit'"):
        folder(root).restore(Digits().describe())
    assert folder(root, normalize="imagenet").restore(spec).mean == spec.mean


def test_an_image_of_another_size(root: Path) -> None:
    draw(root / "train/dog/9.png", 0, (7, 7))
    with pytest.raises(MtlError, match=r"9.png: has 7×7 pixels, but the first image has 5×6. Set the dataset's `size`"):
        images(folder(root).examples("train", 0))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
NO_IMAGES = {
    "empty": b"",
    "text": b"nonsense",
    "head of a png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    "head of a bmp": b"BM" + b"\xff" * 80,
    "head of a tiff": b"II*\0\x08\0\0\0" + b"\xff" * 60,
    "head of a webp": b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\xff" * 60,
    "head of a ppm": b"P6 99999999999 1 255\n",
    "postscript, that would be run": EPS,
}


@pytest.mark.parametrize("content", NO_IMAGES.values(), ids=NO_IMAGES)
def test_a_file_that_is_not_an_image(root: Path, content: bytes) -> None:
    (root / "train/dog/9.png").write_bytes(content)
    with pytest.raises(
        MtlError, match=r"9.png: (can't be read as an image: |is not an image of the formats BMP, GIF, ).+"
    ):
        images(folder(root).examples("train", 0))


def png(width: int, height: int) -> bytes:
    """Return the beginning of a PNG whose header gives a size, without pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**5)))


@pytest.mark.parametrize("size", [7100, 12_000, 10**6], ids=["ours", "pillow would warn", "pillow refuses"])
@pytest.mark.parametrize("name", ["train/dog/9.png", "train/cat/0.png"], ids=["some", "the first"])
def test_an_image_with_too_many_pixels(root: Path, size: int, name: str) -> None:
    (root / name).write_bytes(png(size, size))
    with pytest.raises(MtlError, match=rf"{name}: can't be read as an image: .*({size}×{size}|{size**2}) pixels"):
        images(folder(root).examples("train", 0))


PILLOW = int(PIL.__version__.partition(".")[0])
unreadable = pytest.mark.skipif(PILLOW < 13, reason="before version 13, Pillow cannot read the TIFF that it writes")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", pytest.param("YCbCr", marks=unreadable), "LAB"])
def test_images_of_8_bits_in_any_mode_are_converted(root: Path, mode: str) -> None:
    Image.new(mode, (5, 6)).save(root / f"train/dog/9.{'tiff' if mode in {'CMYK', 'YCbCr', 'LAB'} else 'png'}")
    assert {tuple(image.shape) for image in images(folder(root, val=0.0).examples("train", 0))} == {(3, 6, 5)}


@pytest.mark.parametrize(
    ("suffix", "format_"),
    [(suffix, name) for name in supported_formats() for suffix in SUFFIXES[name] if suffix != ".avifs"],
)
def test_every_format_is_found_and_read(root: Path, suffix: str, format_: str) -> None:
    flat = Image.new("RGB", (5, 6), (200, 100, 50))
    flat.save(root / f"train/dog/9{suffix.upper()}", format=format_)
    images_ = images(folder(root, val=0.0).examples("train", 0))
    assert len(images_) == 9
    assert (images_[-1].float().mean((1, 2)) - torch.tensor([200.0, 100, 50])).abs().max() < 8  # some are lossy


def test_the_first_frame_of_an_animation(root: Path) -> None:
    frames = [Image.new("P", (5, 6), number) for number in (7, 9)]
    for frame in frames:
        frame.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
    frames[0].save(root / "train/dog/9.gif", save_all=True, append_images=frames[1:])
    assert images(folder(root, val=0.0).examples("train", 0))[-1].unique().tolist() == [7]


def test_ignored_files_are_reported_by_summary_and_train(
    root: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "train/cat/1.heic").touch()
    config = tmp_path_factory.mktemp("config") / "c.yaml"
    config.write_text(
        f"datasets: {{pets: {{name: image_folder, root: {root}}}}}\ntasks: {{t: {{dataset: pets, "
        "kind: classification}}\ntrunk: mlp\ntraining: {device: cpu, threads: 1}\n"
    )
    note = "datasets.pets: files left out, as they are not images of a supported format: 1 .heic, 1 .txt"
    assert main(["summary", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [note]
    assert main(["summary", str(config)]) == 0 and note in capsys.readouterr().out
    assert main(["train", str(config), "--dry-run"]) == 0 and note in capsys.readouterr().err


def test_a_class_without_training_images_is_reported_by_describe(root: Path) -> None:
    draw(root / "test/bird/1.png", 0)
    draw(root / "val/Dog/1.png", 0)
    with pytest.raises(ConfigError, match=r"val/Dog: class 'Dog' .* Did you mean 'dog'") as caught:
        folder(root).describe()
    assert "test/bird: class 'bird' is not a class of the training images: cat, dog." in str(caught.value)


def test_classes_are_compared_in_nfc(root: Path) -> None:
    (root / "train/cat").rename(root / "train/caf\u00e9")
    (root / "test/cat").rename(root / "test/cafe\u0301")
    dataset = folder(root)
    spec = dataset.describe()
    assert spec.targets["class"].classes == ("caf\u00e9", "dog")
    assert dataset.examples("test", 0).targets["class"].tolist() == [0, 1]
    older = replace(spec, targets={"class": replace(spec.targets["class"], classes=("cafe\u0301", "dog"))})
    again = folder(root)
    assert again.restore(older).targets == older.targets and len(again.examples("test", 0)) == 2


def test_a_palette_with_transparency_is_converted_without_warning(root: Path) -> None:
    image = Image.new("P", (5, 6), 7)
    image.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
    image.save(root / "train/dog/9.png", transparency=bytes(range(256)))
    (only,) = ImageFiles([root / "train/dog/9.png"], ImagePreparation(3, None))
    assert only.unique().tolist() == [7]


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm", "jp2"])
def test_the_upper_8_of_16_bits_are_kept(root: Path, suffix: str) -> None:
    if suffix == "jp2" and "JPEG2000" not in supported_formats():
        pytest.skip("this Pillow can't write JPEG 2000")
    values = np.random.default_rng(0).integers(0, 2**16, (6, 5)).astype(np.uint16)
    values[0, :2] = 0, 2**16 - 1
    path = root / f"train/dog/9.{suffix}"
    Image.fromarray(values).save(path, **({"irreversible": False} if suffix == "jp2" else {}))
    (grey,) = ImageFiles([path], ImagePreparation(1, None))
    (color,) = ImageFiles([path], ImagePreparation(3, None))
    assert np.array_equal(grey[0], values >> 8) and all(torch.equal(channel, grey[0]) for channel in color)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_images_of_32_bits_are_not_clipped(root: Path, mode: str) -> None:
    Image.new(mode, (5, 6), 300).save(root / "train/dog/9.tiff")
    with pytest.raises(MtlError, match=rf"9.tiff: .*its pixels have 32 bits \(mode {mode}\), but 8 or 16 are expected"):
        images(folder(root).examples("train", 0))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(path)], ids=["pipe", "loop of links"])
def test_pipes_and_broken_links_with_the_name_of_an_image(root: Path, make: Callable[[Path], None]) -> None:
    make(root / "train/dog/9.png")
    with pytest.raises(ConfigError, match=r"train/dog/9.png: is a broken link, a pipe or a device, and an image or"):
        folder(root).describe()


def test_links_to_folders(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (root / "train/dog/up").symlink_to(root)  # not followed: it would never end
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    draw(elsewhere / "1.png", 0)
    (root / "train/bird").symlink_to(elsewhere)  # a class may be kept elsewhere
    spec = folder(root).describe()
    assert spec.targets["class"].classes == ("bird", "cat", "dog")
    assert len(folder(root, val=0.0).examples("train", 0)) == 9
    (root / "train/fish").symlink_to(root / "nowhere")
    with pytest.raises(ConfigError, match=r"train/fish: is a broken link, a pipe or a device, and an image or a fold"):
        folder(root).describe()


@pytest.mark.parametrize("name", [b"\x1b[31mdog", b"do\ng", b"d\xffg", "d\u202eog".encode()])
def test_class_names_are_printable(root: Path, name: bytes) -> None:
    (root / "train/dog").rename(os.fsdecode(bytes(root / "train") + b"/" + name))
    with pytest.raises(
        ConfigError, match=r"train: the folder '.*' names a class, and contains the character U\+"
    ) as caught:
        folder(root).describe()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [b"\x1b[31m.png", b"a\nb.png", b"\xff.png"])
def test_any_file_name_is_read_and_printed_on_one_line(root: Path, name: bytes) -> None:
    path = Path(os.fsdecode(bytes(root / "train/dog") + b"/" + name))
    draw(path, 0)
    assert len(images(folder(root, val=0.0).examples("train", 0))) == 9
    path.write_bytes(b"no image")
    with pytest.raises(MtlError, match=r"\.png: is not an image") as caught:
        images(folder(root).examples("train", 0))
    assert str(caught.value).isprintable()


def test_folders_without_read_permission(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated in `scandir`, because root ignores permissions."""
    scandir = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("dog"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(ConfigError, match=r"train/dog: Permission denied$"):
        folder(root).describe()


def test_an_invalid_path_of_the_root() -> None:
    with pytest.raises(ValueError, match="has 300 bytes; the maximum is 255"):
        folder(Path("n" * 300)).describe()


def test_a_truncated_image(root: Path) -> None:
    path = root / "train/dog/9.png"
    draw(path, 0, (60, 60))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(MtlError, match=r"9.png: can't be read as an image"):
        images(folder(root, size=8).examples("train", 0))


def test_folders_of_another_layout(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the folder doesn't exist"):
        folder(root / "nowhere").describe()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="its folders have no images"):
        folder(tmp_path / "empty").describe()
    draw(tmp_path / "empty/cat/1.png", 0)
    with pytest.raises(ConfigError, match="all training images are of one class, 'cat'"):
        folder(tmp_path / "empty", test=0.0).describe()
    (tmp_path / "empty").rename(tmp_path.parent / f"{tmp_path.name}-one")
    (root / "train/bird").mkdir()
    with pytest.raises(ConfigError, match=r"train/bird: the folder has no images"):
        folder(root).describe()


def names(dataset: ImageFolder, seed: int = 0) -> dict[str, set[str]]:
    """Return split → its files, relative to the root."""
    files = {}
    for split in dataset.describe().splits:
        examples = dataset.examples(split, seed)
        assert isinstance(examples.inputs, ImageFiles)
        rows = range(len(examples)) if examples.rows is None else examples.rows.tolist()
        files[split] = {str(examples.inputs.paths[row].relative_to(dataset.root)) for row in rows}
    return files


def test_no_image_moves_when_others_are_added_or_removed(tmp_path: Path) -> None:
    for i in range(60):
        draw(tmp_path / f"a/{'cat' if i % 2 else 'dog'}/{i:02d}.png", i)
    before = names(folder(tmp_path / "a", val=0.2))
    (tmp_path / "a/dog/00.png").unlink()
    for i in range(40):
        draw(tmp_path / f"a/{'cat' if i % 2 else 'dog'}/-{i}.png", i)  # before the others, in order
    draw(tmp_path / "a/cat/01.png", 99, (9, 9))  # the same file, compressed anew
    (tmp_path / "a").rename(tmp_path / "b")
    after = names(folder(tmp_path / "b", val=0.2, size=8))
    for split, files in before.items():
        assert files - {"dog/00.png"} == after[split] & set.union(*before.values())


def test_a_class_of_one_image_is_in_train(root: Path) -> None:
    draw(root / "train/emu/only.png", 5)
    for seed in range(10):
        dataset = folder(root / "train", seed=seed, test=0.4, val=0.4)
        assert dataset.describe().targets["class"].classes == ("cat", "dog", "emu")
        assert "emu/only.png" in names(dataset, seed)["train"]
