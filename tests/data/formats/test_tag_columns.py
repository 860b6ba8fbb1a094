"""Tags of words in tables: every format, stated tags, missing ones, and errors with their rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mtlcli.data.datasets.table import TableDataset
from mtlcli.data.formats.word_lists import show_words, spell_words, split_words
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_INDEX, TargetSpec

WORDS = [["New York", "is", "big", "."], ["I", "go", "!"], ["Yes"], ["5", "of", "6"]] * 6
TAGS = [["NOUN", "VERB", "ADJ", "."], ["PRON", "VERB", "."], ["X"], ["NUM", "ADP", "NUM"]] * 6
N = IGNORE_INDEX
EXPECTED = [[3, 6, 0, 1], [5, 6, 1, N], [7, N, N, N], [4, 2, 4, N]]  # of "ADJ", ".", "ADP", NOUN, NUM, … in order
NAMES = (".", "ADJ", "ADP", "NOUN", "NUM", "PRON", "VERB", "X")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def make(folder: Path, form: str, words: list[Any] = WORDS, tags: list[Any] = TAGS) -> str:
    rows = [{"id": f"r{at}", "words": w, "pos": t} for at, (w, t) in enumerate(zip(words, tags, strict=True))]
    if form == "jsonl":
        return write_jsonl(folder / "t.jsonl", rows)
    if form == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "t.parquet")
        return str(folder / "t.parquet")
    lines = [
        f"{row['id']}\t{' '.join(w.replace(' ', '_') for w in row['words'])}\t{' '.join(row['pos'])}" for row in rows
    ]
    (folder / "t.tsv").write_text("\n".join(["id\twords\tpos", *lines]))
    return str(folder / "t.tsv")


def dataset(path: str, **options: Any) -> TableDataset:
    return TableDataset(path=path, **{"targets": {"pos": "tags"}, "text": ["words"], **options})


@pytest.mark.parametrize("form", ["jsonl", "parquet", "tsv"])
def test_tags_of_every_format(tmp_path: Path, form: str) -> None:
    data = dataset(make(tmp_path, form))
    assert data.describe().targets["pos"] == TargetSpec("tags", 8, NAMES)
    expected = [[N if k == N else NAMES.index(t) for k, t in zip(row, [*tags, "", "", ""], strict=False)]
                for row, tags in zip(EXPECTED, TAGS, strict=False)]  # fmt: skip
    assert data.whole().targets["pos"][:4].tolist() == expected


def test_missing_tags_and_rows(tmp_path: Path) -> None:
    tags: list[Any] = [["NOUN", None, "ADJ", "."], None, *TAGS[2:]]
    target = dataset(make(tmp_path, "jsonl", tags=tags))
    spec = target.describe().targets["pos"]
    labels = target.whole().targets["pos"]
    assert spec.missing and labels[0].tolist() == [NAMES.index("NOUN"), N, NAMES.index("ADJ"), 0]
    assert labels[1].tolist() == [N] * 4


def test_stated_tags(tmp_path: Path) -> None:
    path = make(tmp_path, "jsonl")
    stated = {"type": "tags", "classes": ["VERB", "NOUN"], "others": "missing"}
    data = dataset(path, targets={"pos": stated})
    assert data.describe().targets["pos"] == TargetSpec("tags", 2, ("VERB", "NOUN"), True)
    assert torch.equal(data.whole().targets["pos"][0], torch.tensor([1, 0, N, N]))
    with pytest.raises(ConfigError, match=r"t\.jsonl:1: target 'pos' has the tag 'ADJ', which is not among its tags"):
        dataset(path, targets={"pos": {**stated, "others": "error"}}).describe()


def test_lists_without_a_declaration_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"declare `targets: \{pos: tags\}` for a label of each word"):
        dataset(make(tmp_path, "jsonl"), targets=["pos"]).describe()
    with pytest.raises(ConfigError, match="'deep' has an entry that is an object or a list"):
        dataset(write_jsonl(tmp_path / "d.jsonl", [{"words": "a", "deep": [[1]]}]), targets={"deep": "tags"}).describe()


def test_a_target_with_one_tag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="target 'pos' has only the tag 'X'"):
        dataset(make(tmp_path, "tsv", [["a"]] * 4, [["X"]] * 4)).describe()


@pytest.mark.parametrize("words", [[], [""], ["a"], ["a b", "", "c"]])
def test_lists_are_spelled_and_split_again(words: list[str]) -> None:
    assert split_words(spell_words(words)) == words
    assert show_words(spell_words(words)) == " ".join(words)


def test_entries_are_spelled_as_texts() -> None:
    assert split_words(spell_words([1, None, True, "x\ue000y"])) == ["1", "", "1", "x\ufffdy"]
    assert split_words("  a  b\u00a0c ") == ["a", "b", "c"] and split_words(None) == []
