from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.data.formats.tokenization import TextTokenizer, load_tokenizer
from mtlcli.data.formats.tokenizer_training import SPECIAL, train_word_pieces
from mtlcli.errors import ConfigError
from mtlcli.text_spec import TextSpec
from tests.data.formats.text_tokenizers import TEXTS, small_tokenizer

CONFIG = {"vocab_size": 120, "type_vocab_size": 2}
SINGLE, PAIR = TextSpec(("text",), 12), TextSpec(("title", "text"), 12)


def tokenizer() -> TextTokenizer:
    return TextTokenizer(small_tokenizer(), CONFIG)


def expected(texts: list[tuple[str, ...]], length: int) -> list[tuple[list[int], list[int]]]:
    """Ids and types of each example, one at a time and without the batch functions of the library."""
    plain = load_tokenizer(small_tokenizer())
    plain.enable_truncation(length)
    encodings = [plain.encode(*text) for text in texts]
    return [(encoding.ids, encoding.type_ids) for encoding in encodings]


@pytest.mark.parametrize("pair", [False, True])
def test_a_batch_has_the_tokens_of_each_example_and_padding(pair: bool) -> None:
    titles = [*TEXTS[3:], *TEXTS[:3]]
    columns = [titles, TEXTS] if pair else [TEXTS]
    tokens = tokenizer().tokenize(TextRows(columns), PAIR if pair else SINGLE)
    wanted = expected(list(zip(*columns, strict=True)), 12)
    assert tokens.lengths.tolist() == [len(ids) for ids, _ in wanted]
    rows = np.array([5, 0, 3, 0])
    batch = tokens.batch(rows)
    assert batch.dtype == torch.int32 and batch.shape == (4, 2, max(tokens.lengths[rows]))
    for example, row in zip(batch.tolist(), rows.tolist(), strict=True):
        ids, types = wanted[row]
        padding = [-1] * (batch.shape[2] - len(ids))
        assert example == [[*ids, *padding], [*types, *padding]]
    assert tokens[5].tolist() == list(map(list, wanted[5]))


def test_truncated_examples_are_counted() -> None:
    tokens = tokenizer().tokenize(TextRows([TEXTS]), SINGLE)
    plain = load_tokenizer(small_tokenizer())
    assert tokens.truncated.tolist() == [len(plain.encode(text).ids) > 12 for text in TEXTS]
    assert tokens.truncated.any() and not tokens.truncated.all()


def test_the_longer_text_of_a_pair_is_truncated_first() -> None:
    tokens = tokenizer().tokenize(TextRows([["lovely"], [TEXTS[5]]]), PAIR)
    ids, types = tokens[0].tolist()
    lovely = load_tokenizer(small_tokenizer()).encode("lovely").ids
    assert len(ids) == 12 and ids[: len(lovely)] == lovely and types == [0] * len(lovely) + [1] * (12 - len(lovely))


def test_a_missing_text_is_an_empty_one() -> None:
    single = tokenizer().tokenize(TextRows([[None, ""]]), SINGLE)
    assert single[0].tolist() == single[1].tolist() and single.lengths.tolist() == [2, 2]  # [CLS] [SEP]
    pair = tokenizer().tokenize(TextRows([["lovely", "lovely"], [None, ""]]), PAIR)
    assert pair[0].tolist() == pair[1].tolist()


def test_an_example_without_tokens_gets_the_end_of_text() -> None:
    bare = json.loads(small_tokenizer())
    bare["post_processor"] = None
    tokens = TextTokenizer(json.dumps(bare), {"eos_token_id": 3}).tokenize(TextRows([["", "lovely"]]), SINGLE)
    assert tokens[0].tolist() == [[3], [0]]


def test_texts_encoded_one_by_one() -> None:
    spec = TextSpec(("a", "b"), 12, separate=True)
    tokens = tokenizer().tokenize(TextRows([TEXTS, TEXTS[::-1]]), spec)
    single = tokenizer().tokenize(TextRows([TEXTS]), SINGLE)
    batch = tokens.batch(np.array([1, 5]))
    assert batch.shape == (2, 2, 2, 12) and len(tokens) == len(TEXTS)
    for at, (first, second) in enumerate([(1, 5), (5, 1)]):
        for text, row in enumerate((first, second)):
            length = single.lengths[row]
            assert batch[at, text, :, :length].tolist() == single[row].tolist()
            assert (batch[at, text, :, length:] == -1).all()


def test_lists_of_words() -> None:
    words = TextSpec(("words",), 12, words=True)
    tokens = tokenizer().tokenize(TextRows([[["lovely", "dress"], None]]), words)
    plain = load_tokenizer(small_tokenizer())
    assert tokens[0][0].tolist() == plain.encode(["lovely", "dress"], is_pretokenized=True).ids
    assert tokens.lengths[1] == 2


def test_lone_surrogates_are_replaced() -> None:
    tokens = tokenizer().tokenize(TextRows([["lovely \ud800", "lovely"]]), SINGLE)
    assert tokens.lengths[0] > tokens.lengths[1]


def test_stored_tokens_are_read_again_and_damaged_ones_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtlcli.data.formats.tokenization.CACHED", 0)
    first = tokenizer().encode(TextRows([TEXTS, TEXTS]), PAIR, tmp_path)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()

    def same(tokens: TokenRows) -> bool:
        assert first.types is not None and tokens.types is not None
        pairs = [(first.ids, tokens.ids), (first.types, tokens.types), (first.starts, tokens.starts)]
        return all(torch.equal(a, b) for a, b in pairs) and bool((first.truncated == tokens.truncated).all())

    with monkeypatch.context() as patched:
        patched.setattr(TextTokenizer, "tokenize", lambda *_: pytest.fail("the stored tokens were not read"))
        assert same(tokenizer().encode(TextRows([TEXTS, TEXTS]), PAIR, tmp_path))
    for damaged in (content[:200], content[:-400] + b"\0" * 400, content.replace(first.ids.numpy().tobytes(), b"x")):
        file.write_bytes(damaged)
        assert same(tokenizer().encode(TextRows([TEXTS, TEXTS]), PAIR, tmp_path))
        assert file.read_bytes() == content
    tokenizer().encode(TextRows([TEXTS[::-1], TEXTS]), PAIR, tmp_path)
    tokenizer().encode(TextRows([TEXTS, TEXTS]), TextSpec(("title", "text"), 13), tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_short_data_is_not_stored(tmp_path: Path) -> None:
    tokenizer().encode(TextRows([TEXTS]), SINGLE, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", ["", "no JSON", "{}", "[1, 2", '{"version": "1.0"}', "\0"])
def test_a_file_that_is_no_tokenizer(source: str) -> None:
    with pytest.raises(ConfigError, match="the tokenizer can't be read"):
        TextTokenizer(source, {})


def test_a_length_without_room_for_a_token() -> None:
    with pytest.raises(ConfigError, match="`max_length: 3` leaves no token of the text: the tokenizer adds 3 special"):
        tokenizer().tokenize(TextRows([TEXTS, TEXTS]), TextSpec(("a", "b"), 3))


def test_a_tokenizer_of_another_model() -> None:
    other = TextTokenizer(small_tokenizer(), {"vocab_size": 50})
    with pytest.raises(ConfigError, match=r"the tokenizer has the token \d+, but the model's vocabulary ends at 49"):
        other.tokenize(TextRows([TEXTS]), SINGLE)


def test_a_trained_tokenizer_is_a_function_of_the_texts() -> None:
    first, second = (train_word_pieces([*TEXTS, "naïve café"], 90) for _ in range(2))
    assert first == second
    vocabulary = json.loads(first)["model"]["vocab"]
    assert len(vocabulary) <= 90 and [vocabulary[name] for name in SPECIAL] == [0, 1, 2, 3, 4]
    trained = load_tokenizer(first)
    encoding = trained.encode("A lovely CAFÉ", "fabric!")
    assert encoding.tokens[0] == "[CLS]" and encoding.type_ids[-1] == 1 and "[UNK]" not in encoding.tokens
    assert trained.encode("犬").tokens == ["[CLS]", "[UNK]", "[SEP]"]


def test_texts_that_no_tokenizer_can_be_trained_on() -> None:
    with pytest.raises(ConfigError, match="no training text has a word"):
        train_word_pieces(["", "  "], 100)
    with pytest.raises(ConfigError, match="`vocab_size: 20` is too small"):
        train_word_pieces(TEXTS, 20)
