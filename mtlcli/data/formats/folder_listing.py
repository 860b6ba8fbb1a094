"""Recursive listing of a folder's images and other files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtlcli.text import join_names, name_problem, quote

# Files and folders of operating systems and tools, in lower case. Names with a leading dot are ignored too.
IGNORED = {
    "__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found",
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r",
}  # fmt: skip

RelativePath = tuple[str, ...]  # the names of a path below the root


@dataclass
class Listing:
    """Contents of a folder, recursively, as relative paths, without ignored files.

    Attributes:
        images: files with the suffix of an image.
        others: all other files.
        folders: folders below the root.
        broken: links without a target, and pipes or devices with an image's suffix.
    """

    images: list[RelativePath] = field(default_factory=list)
    others: list[RelativePath] = field(default_factory=list)
    folders: list[RelativePath] = field(default_factory=list)
    broken: list[RelativePath] = field(default_factory=list)


def list_folder(root: Path, suffixes: frozenset[str]) -> Listing:
    """List the contents of a folder recursively. Links are followed, except to a folder that contains them.

    Raises an OSError if a folder can't be read.

    Args:
        root: the folder.
        suffixes: suffixes of images, in lower case.

    Returns:
        The listing.
    """
    listing = Listing()
    linked: set[tuple[tuple[int, int], RelativePath]] = set()
    stack: list[tuple[RelativePath, frozenset[tuple[int, int]]]] = [((), frozenset([_get_identity(root)]))]
    while stack:
        folder, ancestors = stack.pop()
        with os.scandir(str(root.joinpath(*folder))) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in IGNORED:
                    continue
                path, link = (*folder, entry.name), entry.is_symlink()
                is_image = Path(entry.name).suffix.lower() in suffixes
                # Unlike the entry's own methods, these return False for a loop of links.
                if os.path.isdir(entry.path) if link else entry.is_dir():  # noqa: PTH112
                    identity = _get_identity(entry.path)
                    if link:
                        # Skip loops, and folders that the same class already contains through another link.
                        if identity in ancestors or (identity, path[:2]) in linked:
                            continue
                        linked.add((identity, path[:2]))
                    listing.folders.append(path)
                    stack.append((path, ancestors | {identity}))
                elif os.path.isfile(entry.path) if link else entry.is_file():  # noqa: PTH113
                    (listing.images if is_image else listing.others).append(path)
                elif link or is_image:
                    listing.broken.append(path)
    return listing


def _get_identity(path: str | Path) -> tuple[int, int]:
    state = os.stat(path)  # noqa: PTH116  (twice as fast as Path.stat)
    return state.st_dev, state.st_ino


def count_suffixes(files: Sequence[RelativePath]) -> str:
    """Count files by suffix, for messages, e.g. "3 .txt, 1 .heic".

    Args:
        files: at least one file.

    Returns:
        The counts in decreasing order.
    """
    counts = Counter(Path(path[-1]).suffix.lower() or "without a suffix" for path in files)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    counted = [f"{count} {quote(suffix)[1:-1] if name_problem(suffix) else suffix}" for suffix, count in ordered]
    return join_names(counted) if len(counted) > 1 else counted[0]
