"""Files that a checkpoint refers to instead of holding their weights, with their SHA-256.

A checkpoint may come from anyone, so a path in it is only a place to look: a regular file there is read if its name is
that of a weight file and its size is the recorded one, and only its SHA-256 is computed. Only a file with the recorded
SHA-256 is loaded, by a reader that runs no code.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mtlcli.errors import ConfigError
from mtlcli.files import data_root, given_path, quote_path
from mtlcli.models.pretrained.folders import TOKENIZER, find_cached_model

Role = Literal["model", "pretrained", "init_from"]
NAMES: dict[Role, re.Pattern[str]] = {
    "model": re.compile(r"[\w.-]{1,200}\.safetensors", re.ASCII),
    "pretrained": re.compile(r"[\w.-]{1,200}\.(safetensors|pth|pt)", re.ASCII),
    "init_from": re.compile(r"[\w.-]{1,200}\.pt", re.ASCII),
}
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_FILES, MOST_VALUES = 1000, 100_000
CHUNK = 2**20


@dataclass(frozen=True)
class BaseFile:
    """A file of a base.

    Attributes:
        name: its name.
        bytes: its size.
        sha256: SHA-256 of its content, in hexadecimal.
    """

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class BaseReference:
    """The base that a checkpoint refers to.

    Attributes:
        role: option of the trunk that names the base.
        option: the value of that option: a path, a name of fetched weights or a hub id.
        folder: the folder that held the files when the run was trained.
        files: the files.
        values: key of the model's state dict → SHA-256 of its value.
        tokenizer: SHA-256 of the tokenizer in the folder of the model; None if the checkpoint holds it, or the
            model has none.
    """

    role: Role
    option: str
    folder: str
    files: tuple[BaseFile, ...]
    values: Mapping[str, str]
    tokenizer: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the reference as plain data, for a checkpoint."""
        files = [[file.name, file.bytes, file.sha256] for file in self.files]
        return {
            "role": self.role, "option": self.option, "folder": self.folder, "files": files,
            "values": dict(self.values), "tokenizer": self.tokenizer,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, plain: Any, source: str) -> BaseReference:
        """Restore a reference from the result of `to_dict`.

        Args:
            plain: the plain data.
            source: the checkpoint, for messages.

        Returns:
            The reference.

        Raises:
            ConfigError: if the data has another form, or names other files than those of weights.
        """
        try:
            role, option, folder, files = (plain[key] for key in ("role", "option", "folder", "files"))
            values, tokenizer = plain["values"], plain["tokenizer"]
            if role not in NAMES or not all(isinstance(text, str) and len(text) < 4096 for text in (option, folder)):
                raise TypeError
            if not isinstance(values, dict) or not 0 < len(values) <= MOST_VALUES or not 0 < len(files) <= MOST_FILES:
                raise TypeError
            digests = [*values.values(), *([] if tokenizer is None else [tokenizer])]
            if role == "init_from" and len(files) != 1:
                raise TypeError
            checked = []
            for name, size, sha256 in files:
                if not NAMES[role].fullmatch(name) or type(size) is not int or size < 0:
                    raise TypeError
                digests.append(sha256)
                checked.append(BaseFile(name, size, sha256))
            if not all(isinstance(digest, str) and SHA256.fullmatch(digest) for digest in digests):
                raise TypeError
            if not all(isinstance(key, str) for key in values):
                raise TypeError
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{source}: its reference to a base has another form than mtl writes") from error
        return cls(role, option, folder, tuple(checked), values, tokenizer)

    def describe(self) -> str:
        """Return the files in words."""
        first, *others = self.files
        more = f" and {len(others)} more" if others else ""
        return f"{first.name} ({first.bytes:,} bytes, SHA-256 {first.sha256[:12]}…){more} of {self.option!r}"


def describe_files(paths: Sequence[Path]) -> tuple[BaseFile, ...]:
    """Describe files by name, size and SHA-256.

    Args:
        paths: the files.

    Returns:
        Their descriptions.

    Raises:
        ConfigError: if a file can't be read.
    """
    described = []
    for path in paths:
        digest = hash_file(path)
        if digest is None:
            raise ConfigError(f"{quote_path(path)}: can't be read")
        described.append(BaseFile(path.name, *digest))
    return tuple(described)


def hash_file(path: Path, size: int | None = None) -> tuple[int, str] | None:
    """Return the size of a regular file and the SHA-256 of its content.

    Args:
        path: the file.
        size: the size that it must have; None for any.

    Returns:
        Size and SHA-256; None for a missing or unreadable file, for a device, pipe or folder, and for a file of another
        size, which is not read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or (size is not None and status.st_size != size):
        os.close(handle)
        return None
    with os.fdopen(handle, "rb") as file:
        digest = hashlib.sha256()
        try:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        except OSError:
            return None
    return status.st_size, digest.hexdigest()


def find_base(reference: BaseReference, given: Path | None, source: str) -> tuple[Path, ...]:
    """Find the files of a base, in the given place, or else where the run had them, in the data root or in the cache.

    Args:
        reference: the reference.
        given: the folder or the file of the base that the user gives; None to search.
        source: the checkpoint, for messages.

    Returns:
        The files, all with the recorded SHA-256.

    Raises:
        ConfigError: if they are not found, or differ from the recorded ones; the message says what to give.
    """
    tried: list[str] = []
    differing: list[str] = []
    for folder in [given] if given is not None else _places(reference):
        paths = _paths(folder, reference)
        hashes = [hash_file(path, file.bytes) for path, file in zip(paths, reference.files, strict=True)]
        if all(h is not None and h[1] == file.sha256 for h, file in zip(hashes, reference.files, strict=True)):
            return paths
        tried.append(quote_path(folder))
        existing = [path for path in paths if os.path.isfile(path)]  # noqa: PTH113 (never raises)
        if len(existing) == len(paths):
            differing.append(quote_path(folder))
    kind = "the checkpoint" if reference.role == "init_from" else "the folder or file of the model"
    needed = f"{source} refers to weights that it doesn't hold, {reference.describe()}"
    if given is not None:
        reason = "holds other weights: their SHA-256 differs" if differing else "does not have these files"
        raise ConfigError(f"--base {quote_path(given)}: {reason}; {needed}")
    places = f"; looked in {', '.join(tried)}" if tried else ""
    other = f"; those in {', '.join(differing)} have another SHA-256" if differing else ""
    raise ConfigError(f"{needed}{places}{other}. Give {kind}: --base PATH")


def read_base_tokenizer(reference: BaseReference, folder: Path, source: str) -> str:
    """Read the tokenizer of a base.

    Args:
        reference: the reference, with the SHA-256 of the tokenizer.
        folder: the folder of the model.
        source: the checkpoint, for messages.

    Returns:
        Its JSON.

    Raises:
        ConfigError: if it is missing, or differs from the recorded one.
    """
    path = folder / TOKENIZER
    try:
        text = path.read_text(encoding="utf-8") if hash_file(path) is not None else ""
    except (OSError, ValueError):
        text = ""
    if hash_text(text) != reference.tokenizer:
        raise ConfigError(
            f"{source}: {quote_path(path)} is missing, or another tokenizer than that of the run. Give the folder of "
            f"the model that the run was trained with: --base PATH"
        )
    return text


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def _places(reference: BaseReference) -> Iterator[Path]:
    """Yield the folders in which a base is looked for."""
    for text in (reference.folder, reference.option):
        try:
            yield given_path(text, "base")
        except ConfigError:
            continue
    if reference.role != "init_from" and re.fullmatch(r"[\w.-]+", reference.option) and ".." not in reference.option:
        yield data_root(None) / reference.option
    if reference.role == "model" and (cached := find_cached_model(reference.option)) is not None:
        yield cached


def _paths(place: Path, reference: BaseReference) -> tuple[Path, ...]:
    """Return the files in a folder; a place that is no folder is the only file of a base, if its name fits."""
    if len(reference.files) == 1 and NAMES[reference.role].fullmatch(place.name) and not _is_folder(place):
        return (place,)
    if reference.role == "init_from" and _is_folder(place / "checkpoints"):
        place = place / "checkpoints"
    return tuple(place / file.name for file in reference.files)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long; a NUL
        return False
