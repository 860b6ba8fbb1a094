"""Emoji images."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mtlcli.data.base import Dataset, Examples, add_val_split
from mtlcli.data.content_hash import Hashes, hash_texts
from mtlcli.data.download.archives import extract_members
from mtlcli.data.download.collection import Collection, SourceUnavailable, data_root, ensure_files, suggest_fetch
from mtlcli.data.download.sources import NpmPackage
from mtlcli.data.formats.compressed import describe_os_error, open_decompressed
from mtlcli.data.formats.text_inputs import with_texts
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.splitting import draw
from mtlcli.errors import ConfigError, MtlError
from mtlcli.registry import datasets
from mtlcli.specs import IGNORE_INDEX, DatasetSpec, TargetSpec
from mtlcli.text_spec import TextSpec

LIST, IMAGES = "emoji.json", "emoji-64.bin"
FOLDER = "package/img/google/64"
SIDE = 64
LENGTH = struct.Struct("<I")  # of a PNG file in IMAGES
TONES = {"1F3FB": "light", "1F3FC": "medium_light", "1F3FD": "medium", "1F3FE": "medium_dark", "1F3FF": "dark"}
TONE_CLASSES = ("none", *TONES.values())
CATEGORIES = (
    "Activities", "Animals & Nature", "Component", "Flags", "Food & Drink", "Objects", "People & Body",
    "Smileys & Emotion", "Symbols", "Travel & Places",
)  # fmt: skip
SUBCATEGORIES = (
    "alphanum", "animal-amphibian", "animal-bird", "animal-bug", "animal-mammal", "animal-marine", "animal-reptile",
    "arrow", "arts & crafts", "av-symbol", "award-medal", "body-parts", "book-paper", "cat-face", "clothing",
    "computer", "country-flag", "currency", "dishware", "drink", "emotion", "event", "face-affection",
    "face-concerned", "face-costume", "face-glasses", "face-hand", "face-hat", "face-negative",
    "face-neutral-skeptical", "face-sleepy", "face-smiling", "face-tongue", "face-unwell", "family", "flag",
    "food-asian", "food-fruit", "food-prepared", "food-sweet", "food-vegetable", "game", "gender", "geometric",
    "hand-fingers-closed", "hand-fingers-open", "hand-fingers-partial", "hand-prop", "hand-single-finger", "hands",
    "heart", "hotel", "household", "keycap", "light & video", "lock", "mail", "math", "medical", "money",
    "monkey-face", "music", "musical-instrument", "office", "other-object", "other-symbol", "person",
    "person-activity", "person-fantasy", "person-gesture", "person-resting", "person-role", "person-sport",
    "person-symbol", "phone", "place-building", "place-geographic", "place-map", "place-other", "place-religious",
    "plant-flower", "plant-other", "punctuation", "religion", "science", "skin-tone", "sky & weather", "sound",
    "sport", "subdivision-flag", "time", "tool", "transport-air", "transport-ground", "transport-sign",
    "transport-water", "warning", "writing", "zodiac",
)  # fmt: skip
TEST = 0.2  # share of the emoji in the split `test`
COVERAGE = (0.512, 0.174)  # mean and standard deviation over the training images
MEANS, STDS = (204.87, 192.74, 182.4, 130.55), (74.1, 75.47, 87.02, 123.48)  # of RGB and opacity, likewise


@dataclass(frozen=True)
class JoinedImages:
    """Source of the list of emoji and of their images in one file, extracted from an npm package.

    The file has the PNG files in the order of the list, each emoji followed by its variations with skin tones, and
    before each file its length, 4 bytes, little endian.

    Args:
        package: the package.
    """

    package: NpmPackage

    @property
    def label(self) -> str:
        """Name of the source in messages."""
        return self.package.label

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        """Download the package, and join the images, see `DownloadSource.collect`."""
        archive = self.package.download(work)
        with open_decompressed(archive) as packed:
            listed = extract_members(packed, archive.name, {f"package/{LIST}": LIST}, work).get(LIST)
        try:
            images = [entry.image for entry in _read_list(listed)] if listed is not None else []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceUnavailable(f"{LIST} is not a list of emoji: {error}") from error
        files = {f"{FOLDER}/{image}": str(number) for number, image in enumerate(images)}
        with open_decompressed(archive) as packed:
            extracted = extract_members(packed, archive.name, files, work)
        if len(extracted) < max(1, len(images)):
            raise SourceUnavailable(f"has {len(extracted)} of {len(images)} images")
        with (work / IMAGES).open("wb") as joined:
            for number in range(len(images)):
                content = extracted[str(number)].read_bytes()
                joined.write(LENGTH.pack(len(content)) + content)
        return {name: work / name for name in names}


@dataclass(frozen=True)
class _Entry:
    """An image: its file, the code of its emoji without skin tone, its classes and name, and its skin tones."""

    image: str
    emoji: str
    category: str
    subcategory: str
    name: str
    tones: tuple[str, ...]


@datasets.register("emoji")
class Emoji(Dataset):
    """Emoji: 3,786 color images of 64×64 of 1,911 emoji, with category, subcategory, skin tone and mask.

    Inputs: uint8 [3, 64, 64], RGB on white; with `alpha`, [4, 64, 64], with the opacity as a fourth channel. A trunk
    that reads text gets the names of the emoji, such as "red heart", which are the same for all skin tones.

    Targets: `category` (10 classes), `subcategory` (99 classes), `skin_tone` (`none` and five tones; missing for the
    260 images with two different tones) and `coverage` (real: share of the pixels that the emoji covers, the mean of
    its opacity).

    Masks: `masks()` of the class returns the opacity of every image, uint8 [3786, 64, 64], in the order of the inputs
    of its examples: 0 is background, 255 emoji.

    Splits: a fifth of the emoji is `test`, drawn by their code; `val` is drawn likewise. All variations of an emoji are
    in the same split.

    Files: `emoji.json` and the images of Google's font Noto Color Emoji (Apache License 2.0) at 64×64, one PNG file
    after the other in `emoji-64.bin`, in `<root>/emoji/raw`. They are extracted from the npm package
    emoji-datasource-google, in which the project emoji-data publishes them, and verified by checksum.

    Args:
        root: data root; default $MTL_DATA, else `data`.
        download: whether to download missing files.
        alpha: whether the opacity is an input.
        val: share of the training emoji whose images become the split `val`, drawn by the run's seed.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training image, such as
            `RandomHorizontalFlip` or `{name: RandomCrop, size: 64, padding: 4}`.
    """

    name = "emoji"
    origin = "npm (emoji-datasource-google)"
    collection = Collection(
        folder="emoji",
        files={
            LIST: "1d602e65be88772bf8cc368ce16b855d719eeddbafe128d471b80203f494d29f",
            IMAGES: "17b95f5ba1c2f9c4988163c447eb772715bf916aab465e4a7fae6f4a9d5957cd",
        },
        sources=(JoinedImages(NpmPackage("emoji-datasource-google@16.0.0")),),
    )
    value_range = (0, 255)

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = True,
        alpha: bool = False,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        augment: list[str | dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(val=val, augment=augment)
        data_root(root)  # reports an invalid path as an error of the configuration
        self.root, self.download, self.channels = root, download, 4 if alpha else 3
        self._texts: TextSpec | None = None
        self._names: TextRows | None = None
        self._loaded: tuple[Tensor, Tensor, dict[str, Tensor], list[_Entry]] | None = None

    def keep_texts(self, max_length: int, compared: bool) -> None:
        if self.augment:
            raise ConfigError("`augment` transforms images, but the trunk reads text")
        self._texts = TextSpec(("name",), max_length)

    def describe(self) -> DatasetSpec:
        """Return the constant specification, without reading a file."""
        spec = DatasetSpec(
            input_shape=(self.channels, SIDE, SIDE),
            targets={
                "category": TargetSpec("classes", len(CATEGORIES), CATEGORIES),
                "subcategory": TargetSpec("classes", len(SUBCATEGORIES), SUBCATEGORIES),
                "skin_tone": TargetSpec("classes", len(TONE_CLASSES), TONE_CLASSES, missing=True),
                "coverage": TargetSpec("real", mean=COVERAGE[0], std=COVERAGE[1]),
            },
            main_target="category",
            splits=add_val_split(self.own_splits(), self.val),
            mean=MEANS[: self.channels],
            std=STDS[: self.channels],
            state={},
        )
        return spec if self._texts is None else with_texts(spec, self._texts)

    def read(self, split: str) -> Examples:
        """Read a split, downloading missing files.

        Raises a ConfigError if files are missing and `download` is False. Raises an MtlError if a file is damaged, or
        can't be downloaded.

        Args:
            split: `train` or `test`.

        Returns:
            The examples, which share the inputs of both splits.
        """
        inputs, _, targets, entries = self._load()
        classes = [targets[name].numpy() for name in ("category", "subcategory")]
        drawn = draw(hash_texts([entry.emoji for entry in entries]), TEST, ("test",), classes).chosen
        rows = torch.from_numpy(np.flatnonzero(drawn if split == "test" else ~drawn))
        if self._texts is None:
            return Examples(inputs, targets, rows)
        self._names = self._names or TextRows([[entry.name or None for entry in entries]])  # shared by the splits
        return Examples(self._names, targets, rows)

    def masks(self) -> Tensor:
        """Return the opacity of every image, uint8 [N, 64, 64], in the order of the inputs of the examples."""
        return self._load()[1]

    def keys(self, split: str) -> Hashes:
        rows = self._read_split(split).rows
        assert rows is not None
        entries = self._load()[3]
        return hash_texts([entries[row].emoji for row in rows.tolist()])

    def _load(self) -> tuple[Tensor, Tensor, dict[str, Tensor], list[_Entry]]:
        """Return inputs, opacities, targets and entries of all images, which are read once."""
        if self._loaded is None:
            files = ensure_files(self.name, self.collection, self.root, self.download)
            try:
                entries = _read_list(files[LIST])
                pixels = torch.stack(list(_read_images(files[IMAGES], len(entries))))
                targets = _encode(entries)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
                reason = describe_os_error(error) if isinstance(error, OSError) else f"damaged: {error}"
                advice = suggest_fetch(self.name, self.root)
                raise MtlError(f"{files[IMAGES].parent}: {reason}. {advice}") from error
            opacity = pixels[:, 3]
            targets["coverage"] = opacity.float().mean((1, 2)) / 255
            self._loaded = _on_white(pixels, self.channels), opacity, targets, entries
        return self._loaded


def _read_list(path: Path) -> list[_Entry]:
    """Read the list of emoji: for each its image, and then those of its variations."""
    entries = []
    for emoji in json.loads(path.read_text(encoding="utf-8")):
        own = (TONES[emoji["unified"]],) if emoji["unified"] in TONES else ()
        classes = emoji["unified"], emoji["category"], emoji["subcategory"], (emoji.get("name") or "").lower()
        entries.append(_Entry(emoji["image"], *classes, own))
        for codes, variation in emoji.get("skin_variations", {}).items():
            tones = tuple(dict.fromkeys(TONES[code] for code in codes.split("-")))
            entries.append(_Entry(variation["image"], *classes, tones))
    return entries


def _encode(entries: list[_Entry]) -> dict[str, Tensor]:
    """Return the classes of the images."""
    return {
        "category": torch.tensor([CATEGORIES.index(entry.category) for entry in entries]),
        "subcategory": torch.tensor([SUBCATEGORIES.index(entry.subcategory) for entry in entries]),
        "skin_tone": torch.tensor([_encode_tone(entry.tones) for entry in entries]),
    }


def _encode_tone(tones: tuple[str, ...]) -> int:
    """Return the class of an image with these skin tones; it is missing if there are several."""
    if len(tones) > 1:
        return IGNORE_INDEX
    return TONE_CLASSES.index(tones[0] if tones else "none")


def _read_images(path: Path, amount: int) -> Iterator[Tensor]:
    """Yield the images of a file of PNG files, uint8 [4, 64, 64]: RGB and opacity; ValueError if it is damaged."""
    from PIL import Image

    with open_decompressed(path) as file:
        for number in range(amount):
            (length,) = LENGTH.unpack(file.read(LENGTH.size))
            content = file.read(length)
            if len(content) < length:
                raise ValueError(f"{path.name} ends within image {number}")
            with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
                if image.size != (SIDE, SIDE):
                    raise ValueError(f"image {number} of {path.name} is {image.size[0]}×{image.size[1]}")
                yield torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1).contiguous()
        if file.read(1):
            raise ValueError(f"{path.name} has more than {amount} images")


def _on_white(pixels: Tensor, channels: int) -> Tensor:
    """Put the colors of images, uint8 [N, 4, 64, 64], on white, and return so many of the channels."""
    opacity = pixels[:, 3:].to(torch.int32)
    colors = (pixels[:, :3].to(torch.int32) * opacity + 255 * (255 - opacity) + 127) // 255
    return torch.cat([colors.to(torch.uint8), pixels[:, 3:]], 1)[:, :channels].contiguous()
