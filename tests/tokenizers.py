"""Small tokenizers, trained on a few texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

TEXTS = [
    "the red dress is a great fit and the fabric feels soft",
    "great shirt, but the blue color is not what i expected",
    "Summarize the text in a word: department rating sentiment answer",
    "positive negative neutral dresses tops bottoms yes no good bad 0 1 2 3 4 5 6 7 8 9",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z . , : ! ?",
] * 3


def word_pieces(texts: Sequence[str] = TEXTS, size: int = 200) -> Any:
    """Return a tokenizer like BERT's: [CLS] text [SEP]."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def byte_pairs(texts: Sequence[str] = TEXTS, size: int = 300) -> Any:
    """Return a tokenizer like GPT-2's: no special tokens around a text; `<|endoftext|>` is 0."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def unigrams(texts: Sequence[str] = TEXTS, size: int = 120) -> Any:
    """Return a tokenizer like T5's: text `</s>`; `<pad>` is 0, `</s>` is 1."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=size, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return tokenizer
