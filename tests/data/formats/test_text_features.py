"""Hashed TF-IDF, compared with its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlcli.data.formats import text_features
from mtlcli.data.formats.text_features import TextEncoding, describe_texts, fit_text, group_texts
from mtlcli.models.inputs import make_column_encoder
from mtlcli.specs import Column, DatasetSpec
from tests.data.formats.encoded_texts import encode_text
from tests.oracles import hashed_tfidf

TEXTS = ["The cat sat.", "the CAT, the dog", "Ein schöner Tag", "", "!!!", "a b a", "漢字 и кириллица"]
WORDS = st.lists(st.sampled_from(["the", "cat", "Dog", "día", "7", "...", "x_y", "I"]), max_size=8).map(" ".join)


def test_the_hash_of_the_oracle_has_published_values() -> None:
    """Values of the reference implementation (smhasher)."""
    assert [hashed_tfidf.murmur3(data) & hashed_tfidf.MASK for data in (b"", b"hello", b"hello, world")] == [
        0x0, 0x248BFA47, 0x149BBB7F,
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(WORDS | st.text(max_size=20), min_size=1, max_size=12),
    features=st.integers(1, 40),
    ngrams=st.integers(1, 3),
)
def test_features_are_those_of_the_definition(texts: list[str], features: int, ngrams: int) -> None:
    encoding = fit_text(texts, features, ngrams)
    counted = [text for text in texts if text.strip()]
    idf = hashed_tfidf.inverse_document_frequencies(counted, features, ngrams)
    assert np.allclose(encoding.idf, np.broadcast_to(idf, (features,)), rtol=1e-14, atol=0)
    expected = np.stack([hashed_tfidf.encode(text, np.array(encoding.idf), ngrams) for text in texts])
    assert np.allclose(encode_text(texts, encoding), expected, rtol=1e-6, atol=1e-7)


def test_the_encoding_does_not_change_between_versions() -> None:
    """A checkpoint stores idf only, so that the hash must stay what it is."""
    encoded = encode_text(["The cat sat on the mat."], TextEncoding(2, (1.0,) * 32))[0]
    values = {1: 1, 2: 1, 6: 1, 7: 1, 8: -1, 11: -1, 14: -1, 20: 1, 23: -1, 30: -2}  # "the" occurs twice
    expected = np.zeros(32)
    expected[list(values)] = list(values.values())
    assert encoded.tolist() == pytest.approx((expected / math.sqrt(13)).tolist(), rel=1e-6)


def test_missing_and_blank_texts_are_zero_and_not_counted() -> None:
    encoding = fit_text(["one two", None, "", " ", "one"], 64)
    assert encoding == fit_text(["one two", "one"], 64)
    assert not encode_text([None, "", "?!"], encoding).any()


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*TEXTS, None] * 3
    encoding = fit_text(texts, 32, 2)
    encoded = encode_text(texts, encoding)
    monkeypatch.setattr(text_features, "CHUNK", 2)
    assert fit_text(texts, 32, 2) == encoding
    assert np.array_equal(encode_text(texts, encoding), encoded)


def test_columns_hold_the_encoding_and_keep_the_proportions_of_the_features() -> None:
    encoding = fit_text(TEXTS, 16, 2)
    columns = (Column("age", None, 30.0, 10.0), *encoding.columns("title"), *fit_text(TEXTS, 4).columns("body"))
    spec = DatasetSpec((21,), {}, None, (), (), (), {}, columns)
    stored = DatasetSpec.from_dict({**spec.to_dict(), "targets": {"y": {"type": "binary"}}}).columns
    assert stored == columns
    groups = group_texts(stored)
    assert groups["title"] == (list(range(1, 17)), encoding) and groups["body"][0] == [17, 18, 19, 20]
    assert columns[1].name == "title[0]" and columns[1].source == "title" and columns[0].source == "age"
    assert [(text["name"], text["position"], text["features"]) for text in describe_texts(columns)] == [
        ("title", 1, 16), ("body", 17, 4),
    ]  # fmt: skip
    encoded = torch.from_numpy(encode_text(TEXTS, encoding))
    prepared = make_column_encoder(encoding.columns("title"))(encoded)
    assert torch.allclose(prepared, 4 * encoded)  # √16
