"""Recognition of folder names that denote splits, such as `Training` or `test_set`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from difflib import get_close_matches

SPLITS = ("train", "val", "test")
SPELLINGS = {
    **dict.fromkeys(["train", "training"], "train"),
    **dict.fromkeys(["val", "valid", "validation", "dev"], "val"),
    **dict.fromkeys(["test", "testing"], "test"),
}
ALSO_CLASS_NAMES = {"train", "valid"}  # plausible classes, next to `car` and `bus` or next to `invalid`
SPLIT_LIKE = {*SPELLINGS, "trn", "tst", "eval", "evaluation", "holdout"}
GROUP_LIKE = {"fold", "split"}  # look like splits if they hold folders; otherwise they may be classes


def match_split(name: str) -> str | None:
    """Return the split that a folder's name denotes, in any case: `Training`, `valid`, `test_set`, `Dev-Images`."""
    return SPELLINGS.get(re.sub("(set|data|images|imgs|split)$", "", _keep_letters(name)))


def suggest_split(name: str) -> str:
    """Return " Did you mean …?" for a name that nearly denotes a split, else ""."""
    close = get_close_matches(_keep_letters(name), SPELLINGS, n=1, cutoff=0.75)
    return f" Did you mean {close[0]!r}?" if close else ""


def find_split_like(names: Sequence[str], direct: Collection[str]) -> Sequence[str]:
    """Find folder names that look like splits although none denotes one exactly.

    Args:
        names: names of the folders in one folder.
        direct: those that hold images directly.

    Returns:
        All names if each looks like a split (`fold1`, `fold2`); otherwise those that differ only in the split they
        begin or end with (`seg_train` and `seg_test`, but not `seg`).
    """
    words = {re.sub(r"\d+", "", _keep_letters(name)).removesuffix("s") for name in names}  # `Train_2` → `train`
    if len(names) > 1 and (words <= SPLIT_LIKE or (words <= SPLIT_LIKE | GROUP_LIKE and not direct)):
        return names
    splits: dict[tuple[str, ...], dict[str, str]] = {}  # the other words of a name → name → its split
    for name in names:
        spaced = re.sub("(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
        parts = tuple(re.findall(r"[^\W\d_]+|\d+", spaced.casefold()))
        for first, rest in ((parts[:1], parts[1:]), (parts[-1:], parts[:-1])):
            if rest and first[0] in SPELLINGS:
                splits.setdefault(rest, {})[name] = SPELLINGS[first[0]]
    return sorted({name for alike in splits.values() if len(set(alike.values())) > 1 for name in alike})


def _keep_letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())
