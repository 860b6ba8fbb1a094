"""Assignment of images in class folders to splits and classes."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtlcli.data.formats.folder_listing import Listing, RelativePath, count_suffixes, list_folder
from mtlcli.data.formats.split_names import ALSO_CLASS_NAMES, SPLITS, find_split_like, match_split, suggest_split
from mtlcli.errors import ConfigError, Problem
from mtlcli.text import join_names, name_problem, quote

MAX_PROBLEMS = 10  # listed one by one


@dataclass(frozen=True)
class ClassFolders:
    """Images of each split with their classes, sorted by class and path.

    Attributes:
        splits: split → (paths, class names in NFC), for splits that have images. Without split folders, all images
            are in `train`.
        has_splits: whether the root has split folders.
        notes: files left out and decisions made by name, one sentence each.
    """

    splits: dict[str, tuple[list[Path], list[str]]]
    has_splits: bool
    notes: list[str]


def find_class_folders(root: Path, suffixes: Iterable[str]) -> ClassFolders:
    """Find the images in `root/<split>/<class>/…` or `root/<class>/…`.

    A split folder is one whose name denotes a split (see `match_split`) and that holds folders of images. If there are
    split folders, any other folder of images next to them is an error, because it would be ignored. Otherwise the
    folders are the classes; this includes a folder named `train` or `valid` that holds images directly and is the only
    one whose name denotes a split. The class of an image is the first folder below the split, however deep the image
    is nested. Names that are equal in Unicode's form NFC are one class. Links are followed, except to a folder that
    contains them.

    Raises an OSError if a folder can't be read.

    Args:
        root: folder of the images.
        suffixes: suffixes of images, in lower case.

    Returns:
        The images by split and class.

    Raises:
        ConfigError: the layout is ambiguous, or has empty classes or broken links; lists all problems.
    """
    listing = list_folder(root, frozenset(suffixes))
    flat = {path[0] for path in listing.images if len(path) == 2}
    nested = {path[0] for path in listing.images if len(path) > 2}
    named = {name: split for name in sorted(flat | nested) if (split := match_split(name))}
    split_folders = {name: split for name, split in named.items() if name in nested}
    if split_folders:
        _check_split_folders(root, split_folders, sorted((flat | nested) - set(named)))
    elif named and (len(named) > 1 or named.keys() == flat | nested or min(named).lower() not in ALSO_CLASS_NAMES):
        raise ConfigError(
            f"{root}: {_quote_names(named)}, which name splits, hold images directly. A folder for each class is "
            f"expected in them, as in {root / min(named) / '<class>' / 'image.png'}. If they are classes, rename them"
        )
    _check_classes(root, listing, split_folders)
    splits: dict[str, list[tuple[str, RelativePath]]] = {}
    depth = 1 if split_folders else 0
    for path in listing.images:
        split = split_folders.get(path[0]) if split_folders else "train"
        if split is not None and len(path) > depth + 1:
            splits.setdefault(split, []).append((to_nfc(path[depth]), path))
    return ClassFolders(
        splits={
            split: ([root.joinpath(*path) for _, path in images], [name for name, _ in images])
            for split in SPLITS
            if (images := sorted(splits.get(split, [])))
        },
        has_splits=bool(split_folders),
        notes=_list_notes(listing, split_folders, set(named)),
    )


def to_nfc(name: str) -> str:
    """Normalize a name to Unicode's form NFC, in which `é` is one code point whatever the file system stores."""
    return unicodedata.normalize("NFC", name)


def _check_split_folders(root: Path, split_folders: dict[str, str], others: list[str]) -> None:
    """ConfigError for two folders of one split, and for folders of images next to the split folders."""
    problems = []
    for split in SPLITS:
        same = sorted(name for name, of in split_folders.items() if of == split)
        if len(same) > 1:
            problems.append(
                f"{root}: {_quote_names(same)} are all the split `{split}`. Keep one of them, or merge them into one"
            )
    problems += [
        f"{root / name}: a folder of images next to the split folders {_quote_names(sorted(split_folders))}, so it is "
        f"neither a split nor a class.{suggest_split(name)} Rename it to train, val or test if it is a split, "
        f"move it into one if it is a class, or move it out of {root}"
        for name in others
    ]
    _raise_problems(problems)


def _check_classes(root: Path, listing: Listing, split_folders: dict[str, str]) -> None:
    """ConfigError for classes without images or with invalid names, nested splits, and broken links."""
    depth = 1 if split_folders else 0
    with_images = {path[: depth + 1] for path in listing.images if len(path) > depth + 1}
    problems = []
    for path in sorted(listing.folders):
        if len(path) != depth + 1 or (split_folders and path[0] not in split_folders):
            continue
        folder = root.joinpath(*path)
        if why := name_problem(path[-1]):
            problems.append(
                f"{folder.parent}: the folder {quote(path[-1])} names a class, and {why}; give it another name"
            )
        elif path not in with_images:
            files = [other for other in listing.others if other[: depth + 1] == path]
            others = f" (but {count_suffixes(files)})" if files else ""
            problems.append(f"{folder}: the folder has no images{others}, so it can't be a class")
    if not problems:
        for parent in sorted({path[:depth] for path in with_images}):
            names = sorted(path[-1] for path in with_images if path[:depth] == parent)
            problems += _check_nesting(root, parent, names, listing.images)
    problems += [
        f"{root.joinpath(*path)}: is a broken link, a pipe or a device, and an image or a folder of images is expected"
        for path in sorted(listing.broken)
        if not split_folders or path[0] in split_folders
    ]
    _raise_problems(problems)


def _check_nesting(root: Path, parent: RelativePath, names: list[str], images: Sequence[RelativePath]) -> list[str]:
    """List problems of folders `names` in `parent` that hold splits, repeat their siblings or look like splits."""
    folder, depth = root.joinpath(*parent), len(parent)
    below: dict[str, set[str]] = {name: set() for name in names}
    direct = set()
    for path in images:
        if path[:depth] == parent and len(path) > depth + 1:
            if len(path) > depth + 2:
                below[path[depth]].add(path[depth + 1])
            else:
                direct.add(path[depth])
    problems = []
    for name in names:
        splits = sorted(inner for inner in below[name] if match_split(inner))
        if len({match_split(inner) for inner in splits}) > 1:
            advice = (
                f"set `root: {folder / name}`"
                if len(names) == 1
                else f"splits come first, as in {folder / splits[0] / name}"
            )
            problems.append(
                f"{folder / name}: holds the split folders {_quote_names(splits)}, so it is no class; {advice}"
            )
        elif name not in direct and len(below[name]) > 1 and below[name] <= set(names) - {name}:
            problems.append(
                f"{folder / name}: repeats the classes next to it ({join_names(sorted(below[name]))}), so it is no "
                "class. "
                f"If it is a split, name the splits' folders train, val and test, with a folder for each class in each"
            )
    if not problems and (similar := find_split_like(names, direct)):
        problems.append(
            f"{folder}: {_quote_names(similar)} look like splits, not like classes. Name split folders train, val and "
            f"test, with a folder for each class in each; if they are classes, rename them"
        )
    return problems


def _list_notes(listing: Listing, split_folders: dict[str, str], named: set[str]) -> list[str]:
    """List files left out of the folders that are used, and decisions made by name."""
    depth = 1 if split_folders else 0
    loose = [path for path in listing.images if len(path) == depth + 1]
    others = [path for path in listing.others if len(path) > 1 and (not split_folders or path[0] in named)]
    notes = []
    if named and not split_folders:
        notes.append(
            f"the folder `{min(named)}` holds images directly, next to other folders, so it is read as a class"
        )
    if others:
        notes.append(f"files left out, as they are not images of a supported format: {count_suffixes(others)}")
    if loose:
        notes.append(f"images left out, as they are in no class folder: {count_suffixes(loose)}")
    notes += _note_repeated_folders(listing.images, depth)
    spellings: dict[RelativePath, set[str]] = {}
    for path in listing.images:
        if len(path) > depth + 1:
            spellings.setdefault((*path[:depth], to_nfc(path[depth])), set()).add(path[depth])
    if merged := sorted({path[-1] for path, names in spellings.items() if len(names) > 1}):
        notes.append(f"folders whose names are equal in Unicode's form NFC are one class: {join_names(merged)}")
    return notes


def _note_repeated_folders(images: Sequence[RelativePath], depth: int) -> list[str]:
    """Note classes that hold the same folders of images, which may be meant to be the classes."""
    direct = {path[: depth + 1] for path in images if len(path) == depth + 2}
    nested = {path[: depth + 2] for path in images if len(path) > depth + 2}
    notes = []
    for parent in sorted({path[:depth] for path in nested}):
        pairs = [path[depth:] for path in nested if path[:depth] == parent and path[:-1] not in direct]
        amounts = Counter(inner for _, inner in pairs)
        repeated = [(outer, inner) for outer, inner in pairs if amounts[inner] > 1]
        outer = sorted(name for name, amount in Counter(name for name, _ in repeated).items() if amount > 1)
        if len(outer) > 1:
            inner = sorted({name for holder, name in repeated if holder in outer})
            notes.append(
                f"the folders {_quote_names(outer)} are read as classes, and hold the same folders "
                f"{_quote_names(inner)}. If the inner ones are the classes, rename the outer ones to train, val or "
                f"test, or set `root` to one of them"
            )
    return list(dict.fromkeys(notes))


def _quote_names(names: Iterable[str]) -> str:
    return join_names([quote(name) for name in names])


def _raise_problems(problems: Sequence[str]) -> None:
    if problems:
        more = [f"… and {len(problems) - MAX_PROBLEMS} more such problems"] if len(problems) > MAX_PROBLEMS else []
        raise ConfigError(map(Problem, [*problems[:MAX_PROBLEMS], *more]))
