"""A small tokenizer and texts for tests."""

from __future__ import annotations

from functools import cache

from mtlcli.data.formats.tokenizer_training import train_word_pieces

TEXTS = [
    "the dress runs large", "a lovely colour, but thin fabric", "returned it", "", "perfect fit; I love this fabric!",
    "the sleeves are too long for me and the waist is too wide", "lovely",
]  # fmt: skip


@cache
def small_tokenizer(size: int = 120) -> str:
    """Return the JSON of a tokenizer that is trained on `TEXTS`."""
    return train_word_pieces(TEXTS, size)
