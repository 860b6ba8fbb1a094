"""Tags of words as tags of tokens, against a loop over the words of each example."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mtlcli.data.datasets.table import TableDataset
from mtlcli.data.formats.tag_alignment import align_tags, gather_words
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.token_cache import read_tokens, write_tokens
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.data.formats.tokenization import TextTokenizer, load_tokenizer
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_INDEX
from mtlcli.text_spec import TextSpec
from tests.data.formats.text_tokenizers import small_tokenizer

pytest.importorskip("tokenizers")
ROWS = [
    ["the", "sleeves", "runs", "largest", "!"], ["lovely"], [], ["\u200b", "fabric", "", "long"],
    ["too", "wide", "for", "me", "and", "the", "waist", "is", "perfect"],
]  # fmt: skip
LENGTH = 9


@pytest.fixture(scope="module")
def tokens() -> TokenRows:
    return TextTokenizer(small_tokenizer(), {}).tokenize(TextRows([ROWS]), TextSpec(("words",), LENGTH, words=True))


def places() -> list[dict[int, int]]:
    """Position of the first token of each word, of one example after the other."""
    tokenizer = load_tokenizer(small_tokenizer())
    tokenizer.enable_truncation(LENGTH)
    result = []
    for words in ROWS:
        first: dict[int, int] = {}
        for position, word in enumerate(tokenizer.encode(words, is_pretokenized=True).word_ids):
            if word is not None:
                first.setdefault(word, position)
        result.append(first)
    return result


def test_only_first_tokens_have_tags(tokens: TokenRows) -> None:
    tags = torch.arange(5 * 9).view(5, 9)
    tags[1, 0] = IGNORE_INDEX
    aligned = align_tags(tags, tokens)
    assert aligned.shape == (5, LENGTH)
    for row, first in enumerate(places()):
        expected = {position: int(tags[row, word]) for word, position in first.items()}
        assert aligned[row].tolist() == [expected.get(at, IGNORE_INDEX) for at in range(LENGTH)]
    assert len(places()[4]) < len(ROWS[4])  # truncated
    assert set(places()[3]) == {1, 3}  # words without tokens


def test_outputs_of_words(tokens: TokenRows) -> None:
    outputs = torch.randn(5, LENGTH, 2, generator=torch.Generator().manual_seed(0))
    words = gather_words(outputs, tokens)
    assert words.shape == (5, 9, 2)
    for row, first in enumerate(places()):
        for word in range(9):
            if word in first:
                assert torch.equal(words[row, word], outputs[row, first[word]])
            else:
                assert words[row, word].isnan().all()


def test_words_are_stored_with_the_tokens(tokens: TokenRows, tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens.npz", tokens)
    again = read_tokens(tmp_path / "tokens.npz")
    assert again is not None and again.words is not None and tokens.words is not None
    assert again.words.numbers.tolist() == tokens.words.numbers.tolist()
    assert again.words.counts.tolist() == [5, 1, 0, 4, 9]


def test_wrong_numbers_of_tags_are_listed_with_their_rows(tmp_path: Path) -> None:
    lines = ["text,pos", "a dress,X Y", "a dress,X", "lovely,X Y Z", "lovely,"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    dataset = TableDataset(path=str(tmp_path / "t.csv"), targets={"pos": "tags"}, text=["text"], test=0.0)
    dataset.keep_texts(16, False)
    with pytest.raises(ConfigError) as caught:
        dataset.describe()
    assert [str(problem) for problem in caught.value.problems] == [
        f"{tmp_path}/t.csv:3: target 'pos' has 1 tags for 2 words of 'text': 'a dress'",
        f"{tmp_path}/t.csv:4: target 'pos' has 3 tags for 1 words of 'text': 'lovely'",
    ]


def test_tags_of_two_texts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,pos\nx,y,X")
    dataset = TableDataset(path=str(tmp_path / "t.csv"), targets={"pos": "tags"}, text=["a", "b"])
    with pytest.raises(ConfigError, match="the tags of pos are those of the words of one text, but `text` lists two"):
        dataset.keep_texts(16, False)
