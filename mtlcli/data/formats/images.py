"""Images in files, read one at a time."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from mtlcli.cores import usable_cores
from mtlcli.data.formats.compressed import describe_error
from mtlcli.data.placement import READ_WHOLE
from mtlcli.errors import MtlError
from mtlcli.text import printable

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


# What a file may hold whatever its name says, and the names of such files. Left to itself, Pillow would try all it
# knows, hand PostScript to an interpreter, and take any bytes for a format that has no signature (TGA).
SUFFIXES = {
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx"),
}
OPTIONAL = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}  # as `PIL.features` calls them
MOST_PIXELS = 50_000_000  # 200 MB while it is decoded; a file of some kB can announce a thousand times as many
DEEP = ("I", "F")  # how the names begin of Pillow's modes of 16 and 32 bits; it would cut them off at 255


@dataclass(frozen=True)
class ImageFiles:
    """`files[i]` is image i as uint8 [channels, height, width], upright.

    shape: (height, width) that every image has, or None where `size` makes it so: the images are then resized to
    size × size (bilinear, their proportions are not kept). Of an animation or a file of several pages, the first is
    read. MtlError for a file that is no image, has more than MOST_PIXELS pixels or more than 8 bits in each, or is of
    another size.
    """

    paths: Sequence[Path]
    channels: Literal[1, 3]
    size: int | None
    shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        # They are about what is told here with the file's name, or what does no harm, and come without any.
        warnings.filterwarnings("ignore", module=r"PIL\.")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        from PIL import Image, ImageOps, UnidentifiedImageError

        mode = "L" if self.channels == 1 else "RGB"
        try:
            with Image.open(self.paths[row], formats=formats()) as file:
                _check_header(file)
                ImageOps.exif_transpose(file, in_place=True)
                image = file if file.mode == mode else file.convert(mode)
        except UnidentifiedImageError as error:
            raise self._error(row, f"is no image of the formats {', '.join(formats())}") from error
        except Exception as error:  # whatever Pillow stumbles over in a file that isn't as it should be
            raise self._error(row, f"can't be read as an image: {describe_error(error)}") from error
        if self.size is not None:
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
        if self.shape is not None and tuple(pixels.shape[:2]) != self.shape:
            height, width = self.shape
            raise self._error(
                row,
                f"is {pixels.shape[1]}×{pixels.shape[0]} pixels, where the first image has {width}×{height}. "
                f"Set the dataset's `size` to have all of them resized",
            )
        return pixels.unsqueeze(0) if self.channels == 1 else pixels.permute(2, 0, 1).contiguous()

    def fault(self, row: int, whole: bool) -> str | None:
        """Check image `row`, and return its fault, or None.

        whole: whether it is decoded; otherwise its header and the end of the file are read, and it is decoded only
        where they leave a doubt.
        """
        try:
            if whole or not self._plausible(row):
                self[row]
        except MtlError as error:
            return str(error)
        return None

    def _plausible(self, row: int) -> bool:
        from PIL import Image

        try:
            with Image.open(self.paths[row], formats=formats()) as file:
                _check_header(file)
                size = file.height, file.width
                # a PNG's is behind its pixels
                if file.format != "PNG" and file.getexif().get(0x0112, 1) > 4:  # turned by 90°
                    size = size[1], size[0]
                return self.shape in (None, size) and _is_complete(file, self.paths[row])
        except Exception:  # whatever it is, reading the file will say it
            return False

    def _error(self, row: int, message: str) -> MtlError:
        return MtlError(printable(f"{self.paths[row]}: {message}"))


def _check_header(file: PILImage) -> None:
    """ValueError for an image of too many pixels, or too many bits in each."""
    if file.width * file.height > MOST_PIXELS:
        raise ValueError(f"{file.width}×{file.height} pixels, and {MOST_PIXELS:,} are the most")
    if file.mode.startswith(DEEP):
        raise ValueError(f"its pixels are of 16 or 32 bits (mode {file.mode}), and 8 are expected")


def _is_complete(file: PILImage, path: Path) -> bool:
    """Check that the file is not cut off, as far as its format allows without decoding."""
    with path.open("rb") as raw:
        head = raw.read(8)
        size = raw.seek(0, os.SEEK_END)
        raw.seek(max(0, size - 512))
        end = raw.read()
    if file.format in ("JPEG", "MPO"):
        return b"\xff\xd9" in end  # cameras append to it
    if file.format == "PNG":
        return end.endswith(b"IEND\xaeB`\x82")
    if file.format == "GIF":
        return end.rstrip(b"\0").endswith(b";")
    if file.format == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= size
    if file.format == "TIFF":
        tags = file.tag_v2  # type: ignore[attr-defined]
        starts, lengths = (tags.get(strips) or tags[tiles] for strips, tiles in ((273, 324), (279, 325)))
        return all(start + length <= size for start, length in zip(starts, lengths, strict=True))
    return False


@cache
def formats() -> tuple[str, ...]:
    """The formats that are read, by Pillow's names: those of SUFFIXES that this Pillow was built with."""
    from PIL import features

    # `get_supported` lists what was built in, and doesn't warn of a name that an older Pillow doesn't know
    built = features.get_supported()
    return tuple(name for name in SUFFIXES if name not in OPTIONAL or OPTIONAL[name] in built)


def supported_suffixes() -> frozenset[str]:
    """The suffixes, in lower case, of files that are taken for images."""
    return frozenset(suffix for name in formats() for suffix in SUFFIXES[name])


log = logging.getLogger("mtl")
LISTED = 10  # files that are listed one by one
ENOUGH = 100  # damaged files after which no more are looked for
MANY = 2000  # files whose checking is worth a line in the log
DIGEST = 16  # bytes


def check_images(files: ImageFiles, bytes_each: int, most: int | None = None) -> list[str]:
    """Check image files, and return the faults: a line for each of the first, then the number of the others.

    Every file is decoded where all of them take up to 512 MiB, on the disk and decoded: those are read into memory as a
    run starts. Of larger sets, the header and the end of every file are read, which finds what is no image, is too
    large or too deep, or was cut off, but not pixels damaged in between.

    bytes_each: of a decoded image. most: look at no more files than that, evenly spaced, and decode none.

    What has passed is remembered in the user's cache folder, by path, size and time of change, and not looked at again.
    """
    rows: Sequence[int] = range(len(files))
    if most is not None and len(files) > most:
        rows = range(0, len(files), -(-len(files) // most))
    digests, size = _digests(files, rows)
    whole = most is None and max(size, len(rows) * bytes_each) <= READ_WHOLE
    with _open_cache(files, whole, replaced=most is None) as passed:
        new = [row for row in rows if digests[row] is None or digests[row] not in passed]
        if len(new) > MANY:
            log.info("checking %d image files", len(new))
        faults: list[str] = []
        checked = 0
        with ThreadPoolExecutor(usable_cores() if whole else min(32, 4 * usable_cores())) as pool:
            for row, wrong in zip(new, pool.map(partial(files.fault, whole=whole), new), strict=True):
                checked += 1
                if wrong is not None:
                    digests[row] = None
                    faults.append(wrong)
                if len(faults) == ENOUGH:
                    pool.shutdown(wait=False, cancel_futures=True)
                    break
        unchecked = set(new[checked:])
        passed.clear()
        passed.update(digest for row, digest in digests.items() if digest is not None and row not in unchecked)
    if len(faults) > LISTED:
        least = "at least " if unchecked else ""
        return [*faults[:LISTED], f"… and {least}{len(faults) - LISTED} more such files"]
    return faults


def _digests(files: ImageFiles, rows: Sequence[int]) -> tuple[dict[int, bytes | None], int]:
    """Return row → digest of the file as it is now (None where it can't be found), and the bytes of all files."""
    digests: dict[int, bytes | None] = {}
    total = 0
    for row in rows:
        path = os.path.abspath(files.paths[row])  # noqa: PTH100  (of a million files)
        try:
            state = os.stat(path)  # noqa: PTH116
        except OSError:
            digests[row] = None
            continue
        total += state.st_size
        text = f"{path}\0{state.st_size}\0{state.st_mtime_ns}"
        digests[row] = blake2b(os.fsencode(text), digest_size=DIGEST).digest()
    return digests, total


@contextmanager
def _open_cache(files: ImageFiles, whole: bool, replaced: bool) -> Iterator[set[bytes]]:
    """The digests of the files that have passed such a check before; to be changed to those that have passed now.

    replaced: whether they take the place of those before. A cache that can't be read or written is done without.
    """
    path = _cache_file(files, whole)
    passed: set[bytes] = set()
    if path is not None:
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        passed = {content[at : at + DIGEST] for at in range(0, len(content) - DIGEST + 1, DIGEST)}
    before = frozenset(passed)
    yield passed
    if path is None or passed == before or not replaced:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            temporary.write_bytes(b"".join(sorted(passed)))
            temporary.replace(path)
    except OSError as error:
        log.debug("the check of the images can't be remembered: %s", error)


def _cache_file(files: ImageFiles, whole: bool) -> Path | None:
    """Path of the digests of such a check; None without a home folder."""
    import PIL

    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mtlcli" / "images"
    except RuntimeError:  # there is no home
        return None
    if not len(files):
        return None
    first = os.path.commonpath([os.path.abspath(files.paths[0]), os.path.abspath(files.paths[-1])])  # noqa: PTH100
    # another decoder, another rule or another folder: another check
    rule = f"1\0{PIL.__version__}\0{first}\0{files.shape}\0{whole}"
    return folder / blake2b(os.fsencode(rule), digest_size=DIGEST).hexdigest()
