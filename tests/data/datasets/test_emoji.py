"""Emoji: made-up images in the layout of the npm package, and the real ones if they are available."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from mtlcli.data.datasets.emoji import IMAGES, LIST, SIDE, Emoji, JoinedImages
from mtlcli.data.download.collection import SourceUnavailable, data_root
from mtlcli.data.download.sources import NpmPackage
from mtlcli.data.formats.text_inputs import ask_for_texts
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.errors import ConfigError, MtlError
from mtlcli.text_spec import TextSpec
from tests.data.download.test_sources import command, commands, packed

__all__ = ["commands"]

TONES = ["1F3FB", "1F3FF", "1F3FB-1F3FB", "1F3FB-1F3FF"]


def listed() -> list[dict[str, Any]]:
    """List 12 emoji, of which the odd ones have variations with one or two skin tones."""
    emoji = []
    for number in range(12):
        code = f"1F6{number:02}"
        kind = ("Flags", "country-flag") if number % 2 == 0 else ("People & Body", "hand-prop")
        entry: dict[str, Any] = {"unified": code, "image": f"{code}.png", "category": kind[0], "subcategory": kind[1]}
        entry["name"] = f"EMOJI {number}"
        if number % 2:
            entry["skin_variations"] = {tone: {"image": f"{code}-{tone}.png"} for tone in TONES}
        emoji.append(entry)
    return [*emoji, {"unified": "1F3FD", "image": "tone.png", "category": "Component", "subcategory": "skin-tone"}]


def names() -> list[str]:
    return [
        image for entry in listed()
        for image in (entry["image"], *(v["image"] for v in entry.get("skin_variations", {}).values()))
    ]  # fmt: skip


def png(number: int, size: int = SIDE) -> bytes:
    """Return an image whose left half is transparent, and whose right half has the color (number, 0, 200)."""
    image = Image.new("RGBA", (size, size), (9, 9, 9, 0))
    image.paste((number, 0, 200, 255), (size // 2, 0, size, size))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def package(commands: Path, size: int = SIDE, without: str = "") -> JoinedImages:
    files = {f"package/img/google/64/{name}": png(number, size) for number, name in enumerate(names())}
    files.pop(f"package/img/google/64/{without}", None)
    # the images come first, as they may in a package
    (commands / "packed").write_bytes(packed({**files, f"package/{LIST}": json.dumps(listed()).encode()}))
    command(commands, "npm", f"cp {commands}/packed emoji-1.0.tgz")
    return JoinedImages(NpmPackage("emoji@1.0"))


def place(tmp_path: Path, commands: Path, size: int = SIDE) -> Path:
    raw = tmp_path / "root/emoji/raw"
    raw.mkdir(parents=True)
    work = tmp_path / "work"
    work.mkdir()
    for name, path in package(commands, size).collect([LIST, IMAGES], work).items():
        path.replace(raw / name)
    return tmp_path / "root"


def test_names_are_texts(tmp_path: Path, commands: Path) -> None:
    root = place(tmp_path, commands)
    images, dataset = (Emoji(root=str(root), download=False, val=0.2) for _ in range(2))
    ask_for_texts(dataset, 9)
    assert dataset.describe().text == TextSpec(("name",), 9) and dataset.describe().input_shape == (2, 9)
    for split in ("train", "val", "test"):
        examples, expected = dataset.examples(split, 0), images.examples(split, 0)
        assert isinstance(examples.inputs, TextRows) and torch.equal(examples.rows, expected.rows)  # type: ignore[arg-type]
        assert list(examples.inputs.columns[0])[:3] == ["emoji 0", "emoji 1", "emoji 1"]
        assert examples.inputs.columns[0][-1] is None
    with pytest.raises(ConfigError, match="`augment` transforms images, but the trunk reads text"):
        ask_for_texts(Emoji(root=str(root), augment=["RandomHorizontalFlip"]), 9)


def test_images_labels_and_masks(tmp_path: Path, commands: Path) -> None:
    root = place(tmp_path, commands)
    dataset = Emoji(root=str(root), download=False, val=0.2)
    whole = dataset.whole()
    spec = dataset.describe()
    assert len(whole) == 12 + 6 * 4 + 1 == len(names())
    inputs, masks = dataset.examples("train", 0).inputs, dataset.masks()
    assert isinstance(inputs, Tensor) and inputs.dtype == torch.uint8 and inputs.shape == (37, 3, SIDE, SIDE)
    for number in range(37):
        assert inputs[number, :, 0, 0].tolist() == [255, 255, 255]  # transparent
        assert inputs[number, :, 0, -1].tolist() == [number, 0, 200]
    assert masks.shape == (37, SIDE, SIDE) and masks[5, 0].unique().tolist() == [0, 255]
    targets = dataset.examples("train", 0).targets
    assert targets["coverage"].tolist() == [0.5] * 37
    tones = [spec.targets["skin_tone"].class_names[tone] if tone >= 0 else None for tone in targets["skin_tone"]]
    assert tones[:6] == ["none", "none", "light", "dark", "light", None] and tones[-1] == "medium"
    categories = [spec.targets["category"].class_names[category] for category in targets["category"]]
    assert categories[:3] == ["Flags", "People & Body", "People & Body"] and categories[-1] == "Component"
    with_alpha = Emoji(root=str(root), download=False, alpha=True).whole().inputs
    assert isinstance(with_alpha, Tensor)
    assert with_alpha.shape == (37, 4, SIDE, SIDE) and with_alpha[0, :, 0, 0].tolist() == [255, 255, 255, 0]


def test_variations_of_an_emoji_are_in_one_split(tmp_path: Path, commands: Path) -> None:
    dataset = Emoji(root=str(place(tmp_path, commands)), download=False, val=0.3)
    emoji = [name.partition("-")[0].removesuffix(".png") for name in names()]
    splits = {}
    for split in ("train", "val", "test"):
        rows = dataset.examples(split, 0).rows
        assert rows is not None and len(rows)
        splits[split] = {emoji[row] for row in rows.tolist()}
        assert len(rows) == sum(code in splits[split] for code in emoji)
    assert sum(map(len, splits.values())) == 13


def test_damaged_files(tmp_path: Path, commands: Path) -> None:
    root = place(tmp_path, commands)
    file = root / "emoji/raw" / IMAGES
    content = file.read_bytes()
    for damaged in (content[:-9], content + b"x", content[:4] + b"no" + content[6:], b""):
        file.write_bytes(damaged)
        with pytest.raises(MtlError, match=r"raw: .*Run `mtl data fetch emoji"):
            Emoji(root=str(root), download=False).whole()
    file.write_bytes(content)
    (root / "emoji/raw" / LIST).write_text('[{"image": "a.png"}]')
    with pytest.raises(MtlError, match=r"damaged: 'unified'. Run"):
        Emoji(root=str(root), download=False).whole()


def test_images_of_another_size(tmp_path: Path, commands: Path) -> None:
    with pytest.raises(MtlError, match=r"image 0 of emoji-64.bin is 32×32\. Run"):
        Emoji(root=str(place(tmp_path, commands, size=32)), download=False).whole()


def test_a_package_without_an_image(tmp_path: Path, commands: Path) -> None:
    with pytest.raises(SourceUnavailable, match="has 36 of 37 images"):
        package(commands, without="1F601.png").collect([LIST, IMAGES], tmp_path)


def test_the_real_files_match_the_description() -> None:
    if not Emoji.collection.complete(data_root(None)):
        pytest.skip("the data isn't here: mtl data fetch emoji")
    dataset = Emoji(val=0.0, alpha=True)
    train, test = dataset.examples("train", 0), dataset.examples("test", 0)
    spec = dataset.describe()
    assert (len(train), len(test)) == (3111, 675) and isinstance(train.inputs, Tensor)
    counts = torch.stack([torch.bincount(train.inputs[train.rows, k].flatten(), minlength=256) for k in range(4)])
    shares, values = counts.double() / counts.sum(1, keepdim=True), torch.arange(256.0, dtype=torch.float64)
    means = shares @ values
    torch.testing.assert_close(means, torch.tensor(spec.mean).double(), atol=0.01, rtol=0)
    stds = (shares @ values.square() - means.square()).sqrt()
    torch.testing.assert_close(stds, torch.tensor(spec.std).double(), atol=0.01, rtol=0)
    coverage, target = train.labels("coverage").double(), spec.targets["coverage"]
    assert (coverage.mean().item(), coverage.std().item()) == pytest.approx((target.mean, target.std), abs=1e-3)
    for name in ("category", "subcategory", "skin_tone"):
        labels = train.labels(name)
        assert labels[labels >= 0].unique().tolist() == list(range(spec.targets[name].size))
    assert int((train.targets["skin_tone"] < 0).sum()) == 260
