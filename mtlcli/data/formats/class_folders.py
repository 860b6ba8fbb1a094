"""Images below class folders: which folders are splits, which are classes, and which files are left out."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from mtlcli.errors import ConfigError, Problem
from mtlcli.text import fault, listed, shown

SPLITS = ("train", "val", "test")
LISTED = 10  # problems of one kind that are listed one by one
# Left behind by operating systems and tools, in lower case. Names with a leading dot are ignored too.
IGNORED = {
    "__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found",
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r",
}  # fmt: skip
SPELLINGS = {
    **dict.fromkeys(["train", "training"], "train"),
    **dict.fromkeys(["val", "valid", "validation", "dev"], "val"),
    **dict.fromkeys(["test", "testing"], "test"),
}
CLASSES_TOO = {"train", "valid"}  # beside `car` and `bus`, beside `invalid`
LIKE_SPLITS = {*SPELLINGS, "trn", "tst", "eval", "evaluation", "holdout"}
GROUPS = {"fold", "split"}  # like splits where they hold folders; else somebody's classes

Parts = tuple[str, ...]  # a path below the root


@dataclass
class Listing:
    """Everything below a folder, as paths below it, without what is ignored.

    broken: links to nothing, and files with an image's suffix that are pipes or devices.
    """

    images: list[Parts] = field(default_factory=list)
    others: list[Parts] = field(default_factory=list)
    folders: list[Parts] = field(default_factory=list)
    broken: list[Parts] = field(default_factory=list)


@dataclass(frozen=True)
class ClassFolders:
    """The images of each split with the class of each, sorted by class and path.

    splits: split → (paths, class names in NFC); only those that have images. Without split folders all are in `train`.
    has_splits: whether the root has split folders.
    notes: what was left out, in sentences.
    """

    splits: dict[str, tuple[list[Path], list[str]]]
    has_splits: bool
    notes: list[str]


def find_class_folders(root: Path, suffixes: Iterable[str]) -> ClassFolders:
    """Find the images in `root/<split>/<class>/…` or `root/<class>/…`.

    A split folder is one that spells a split (see `split_of`) and holds folders of images. Where there is one, every
    other folder of images beside it is an error, for it would be ignored; otherwise the folders are the classes (also
    one named `train` or `valid`, where it holds images directly and is the only one that spells a split). The class of
    an image is the first folder below the split; images in folders nested deeper belong to it. Names that are equal in
    Unicode's form NFC are one class. Links are followed, except to a folder that contains them.

    Raises ConfigError, with all that is wrong, for a layout that is ambiguous or has empty classes or broken links, and
    OSError for a folder that can't be read.
    """
    listing = list_folder(root, frozenset(suffixes))
    flat = {parts[0] for parts in listing.images if len(parts) == 2}
    nested = {parts[0] for parts in listing.images if len(parts) > 2}
    spelled = {name: split for name in sorted(flat | nested) if (split := split_of(name))}
    split_folders = {name: split for name, split in spelled.items() if name in nested}
    if split_folders:
        _check_mix(root, split_folders, sorted((flat | nested) - set(spelled)))
    elif spelled and (len(spelled) > 1 or spelled.keys() == flat | nested or min(spelled).lower() not in CLASSES_TOO):
        raise ConfigError(
            f"{root}: images lie directly in {_quoted(spelled)}, which name splits. A folder for each class is "
            f"expected in them, as in {root / min(spelled) / '<class>' / 'image.png'}. If they are classes, give them "
            f"other names"
        )
    _check_classes(root, listing, split_folders)
    splits: dict[str, list[tuple[str, Parts]]] = {}
    depth = 1 if split_folders else 0
    for parts in listing.images:
        split = split_folders.get(parts[0]) if split_folders else "train"
        if split is not None and len(parts) > depth + 1:
            splits.setdefault(split, []).append((nfc(parts[depth]), parts))
    return ClassFolders(
        splits={
            split: ([root.joinpath(*parts) for _, parts in images], [name for name, _ in images])
            for split in SPLITS
            if (images := sorted(splits.get(split, [])))
        },
        has_splits=bool(split_folders),
        notes=_notes(listing, split_folders, set(spelled)),
    )


def split_of(name: str) -> str | None:
    """The split that a folder's name spells, in any case: `Training`, `valid`, `test_set`, `Dev-Images`."""
    return SPELLINGS.get(re.sub("(set|data|images|imgs|split)$", "", _letters(name)))


def list_folder(root: Path, suffixes: frozenset[str]) -> Listing:
    """List everything below `root`. OSError for a folder that can't be read."""
    listing = Listing()
    linked: set[tuple[tuple[int, int], Parts]] = set()
    stack: list[tuple[Parts, frozenset[tuple[int, int]]]] = [((), frozenset([_identity(root)]))]
    while stack:
        folder, above = stack.pop()
        with os.scandir(str(root.joinpath(*folder))) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in IGNORED:
                    continue
                parts, link = (*folder, entry.name), entry.is_symlink()
                is_image = Path(entry.name).suffix.lower() in suffixes
                # unlike the entry's own methods, these take a loop of links for nothing
                if os.path.isdir(entry.path) if link else entry.is_dir():  # noqa: PTH112
                    identity = _identity(entry.path)
                    if link:
                        # neither a loop, nor a folder that this class has by another link
                        if identity in above or (identity, parts[:2]) in linked:
                            continue
                        linked.add((identity, parts[:2]))
                    listing.folders.append(parts)
                    stack.append((parts, above | {identity}))
                elif os.path.isfile(entry.path) if link else entry.is_file():  # noqa: PTH113
                    (listing.images if is_image else listing.others).append(parts)
                elif link or is_image:
                    listing.broken.append(parts)
    return listing


def _identity(path: str | Path) -> tuple[int, int]:
    state = os.stat(path)  # noqa: PTH116  (a string is half as slow)
    return state.st_dev, state.st_ino


def _check_mix(root: Path, split_folders: dict[str, str], others: list[str]) -> None:
    """ConfigError for two folders of one split, and for folders of images beside the split folders."""
    problems = []
    for split in SPLITS:
        same = sorted(name for name, of in split_folders.items() if of == split)
        if len(same) > 1:
            problems.append(
                f"{root}: {_quoted(same)} are all the split `{split}`. Keep one of them, or put all images in one"
            )
    problems += [
        f"{root / name}: a folder of images beside the split folders {_quoted(sorted(split_folders))}, so it is "
        f"neither a split nor a class.{_near(name)} Rename it to train, val or test if it is a split, "
        f"move it into one if it is a class, or out of {root}"
        for name in others
    ]
    _raise(problems)


def _near(name: str) -> str:
    close = get_close_matches(_letters(name), SPELLINGS, n=1, cutoff=0.75)
    return f" Did you mean {close[0]!r}?" if close else ""


def _check_classes(root: Path, listing: Listing, split_folders: dict[str, str]) -> None:
    """ConfigError for class folders without images or with unusable names, for layers of splits, for broken links."""
    depth = 1 if split_folders else 0
    filled = {parts[: depth + 1] for parts in listing.images if len(parts) > depth + 1}
    problems = []
    for parts in sorted(listing.folders):
        if len(parts) != depth + 1 or (split_folders and parts[0] not in split_folders):
            continue
        path = root.joinpath(*parts)
        if why := fault(parts[-1]):
            problems.append(
                f"{path.parent}: the folder {shown(parts[-1])} names a class, and {why}; give it another name"
            )
        elif parts not in filled:
            there = [other for other in listing.others if other[: depth + 1] == parts]
            but = f" (but {_by_suffix(there)})" if there else ""
            problems.append(f"{path}: there are no images in this folder{but}, so it can't be a class")
    if not problems:
        for above in sorted({parts[:depth] for parts in filled}):
            names = sorted(parts[-1] for parts in filled if parts[:depth] == above)
            problems += _layers(root.joinpath(*above), len(above), names, listing.images, above)
    problems += [
        f"{root.joinpath(*parts)}: is a broken link, a pipe or a device, and an image or a folder of images is expected"
        for parts in sorted(listing.broken)
        if not split_folders or parts[0] in split_folders
    ]
    _raise(problems)


def _layers(folder: Path, depth: int, names: list[str], images: Sequence[Parts], above: Parts) -> list[str]:
    """Problems of `names`, folders in `folder`, that are no classes, or that hold splits."""
    below: dict[str, set[str]] = {name: set() for name in names}
    direct = set()
    for parts in images:
        if parts[:depth] == above and len(parts) > depth + 1:
            if len(parts) > depth + 2:
                below[parts[depth]].add(parts[depth + 1])
            else:
                direct.add(parts[depth])
    problems = []
    for name in names:
        splits = sorted(inner for inner in below[name] if split_of(inner))
        if len({split_of(inner) for inner in splits}) > 1:
            advice = (
                f"set `root: {folder / name}`"
                if len(names) == 1
                else f"splits come first, as in {folder / splits[0] / name}"
            )
            problems.append(f"{folder / name}: holds the split folders {_quoted(splits)}, so it is no class; {advice}")
        elif name not in direct and len(below[name]) > 1 and below[name] <= set(names) - {name}:
            problems.append(
                f"{folder / name}: repeats the classes beside it ({listed(sorted(below[name]))}), so it is no class. "
                f"If it is a split, name the splits' folders train, val and test, with a folder for each class in each"
            )
    words = {_word(name) for name in names}
    alike = len(names) > 1 and (words <= LIKE_SPLITS or (words <= LIKE_SPLITS | GROUPS and not direct))
    if not problems and (splits := names if alike else _named_by_split(names)):
        problems.append(
            f"{folder}: {_quoted(splits)} look like splits, not like classes. Name split folders train, val and test, "
            f"with a folder for each class in each; if they are classes, give them other names"
        )
    return problems


def _named_by_split(names: Sequence[str]) -> list[str]:
    """The names that differ in nothing but the split they begin or end with: `seg_train`, `seg_test`, but not `seg`."""
    splits: dict[Parts, dict[str, str]] = {}  # the other words of a name → name → its split
    for name in names:
        spaced = re.sub("(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
        words = tuple(re.findall(r"[^\W\d_]+|\d+", spaced.casefold()))
        for first, rest in ((words[:1], words[1:]), (words[-1:], words[:-1])):
            if rest and first[0] in SPELLINGS:
                splits.setdefault(rest, {})[name] = SPELLINGS[first[0]]
    return sorted({name for alike in splits.values() if len(set(alike.values())) > 1 for name in alike})


def _word(name: str) -> str:
    """A folder's name without digits, punctuation and a plural s: `Train_2` → `train`."""
    return re.sub(r"\d+", "", _letters(name)).removesuffix("s")


def _notes(listing: Listing, split_folders: dict[str, str], spelled: set[str]) -> list[str]:
    """Notes on the files left out of the folders that are used, and on what was decided by their names."""
    depth = 1 if split_folders else 0
    loose = [parts for parts in listing.images if len(parts) == depth + 1]
    others = [parts for parts in listing.others if len(parts) > 1 and (not split_folders or parts[0] in spelled)]
    notes = []
    if spelled and not split_folders:
        notes.append(
            f"the folder `{min(spelled)}` holds images directly, beside other folders, so it counts as a class"
        )
    if others:
        notes.append(f"files left out, as they are not images of a known format: {_by_suffix(others)}")
    if loose:
        notes.append(f"images left out, as they are in no class folder: {_by_suffix(loose)}")
    notes += _same_inside(listing.images, depth)
    named: dict[Parts, set[str]] = {}
    for parts in listing.images:
        if len(parts) > depth + 1:
            named.setdefault((*parts[:depth], nfc(parts[depth])), set()).add(parts[depth])
    if twice := sorted({parts[-1] for parts, names in named.items() if len(names) > 1}):
        notes.append(f"folders whose names are equal in Unicode's form NFC are one class: {listed(twice)}")
    return notes


def _same_inside(images: Sequence[Parts], depth: int) -> list[str]:
    """Notes on classes that hold the same folders of images, so that these may be meant to be the classes."""
    direct = {parts[: depth + 1] for parts in images if len(parts) == depth + 2}
    nested = {parts[: depth + 2] for parts in images if len(parts) > depth + 2}
    notes = []
    for above in sorted({parts[:depth] for parts in nested}):
        pairs = [parts[depth:] for parts in nested if parts[:depth] == above and parts[:-1] not in direct]
        amounts = Counter(inner for _, inner in pairs)
        twice = [(outer, inner) for outer, inner in pairs if amounts[inner] > 1]
        outer = sorted(name for name, amount in Counter(name for name, _ in twice).items() if amount > 1)
        if len(outer) > 1:
            inner = sorted({name for holder, name in twice if holder in outer})
            notes.append(
                f"the folders {_quoted(outer)} count as classes, and hold the same folders {_quoted(inner)}. If the "
                f"inner ones are the classes, rename the outer ones to train, val or test, or set `root` to one of them"
            )
    return list(dict.fromkeys(notes))


def _by_suffix(files: Sequence[Parts]) -> str:
    counts = Counter(Path(parts[-1]).suffix.lower() or "without a suffix" for parts in files)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    counted = [f"{count} {shown(suffix)[1:-1] if fault(suffix) else suffix}" for suffix, count in ordered]
    return listed(counted) if len(counted) > 1 else counted[0]


def _quoted(names: Iterable[str]) -> str:
    return listed([shown(name) for name in names])


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def nfc(name: str) -> str:
    """The name in Unicode's form NFC: `é` is one code point, however the file system spells it."""
    return unicodedata.normalize("NFC", name)


def _raise(problems: Sequence[str]) -> None:
    if problems:
        more = [f"… and {len(problems) - LISTED} more such problems"] if len(problems) > LISTED else []
        raise ConfigError(map(Problem, [*problems[:LISTED], *more]))
