"""Training of a tokenizer for a model without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mtlcli.errors import ConfigError

UNKNOWN = "[UNK]"
SPECIAL = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
PREFIX = "##"  # of a piece that continues a word
MOST_CHARACTERS = 1000  # the most frequent ones, which are pieces of their own; others are unknown


def train_word_pieces(texts: Sequence[str], size: int) -> str:
    """Train a WordPiece tokenizer as BERT's: lowercased, without accents, split at punctuation.

    The vocabulary is a function of the texts. The library assigns numbers to continued characters in the order of a
    hash table, which differs between processes; they are listed as special tokens during the training, which fixes
    their order, and are ordinary pieces of the result.

    Args:
        texts: the training texts.
        size: maximum number of pieces, the five special tokens included.

    Returns:
        JSON of the `tokenizers.Tokenizer`.

    Raises:
        ConfigError: the library `tokenizers` is missing, no text has a word, or the characters alone exceed `size`.
    """
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    except ImportError as error:
        raise ConfigError("texts need the package tokenizers: pip install 'mtlcli[text]'") from error
    normalizer = normalizers.BertNormalizer(lowercase=True)
    counts = Counter[str]()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    for blank in [character for character in counts if character.isspace()]:
        del counts[blank]
    if not counts:
        raise ConfigError("no training text has a word, on which a tokenizer could be trained")
    frequent = sorted(counts, key=lambda character: (-counts[character], character))[:MOST_CHARACTERS]
    characters = sorted(frequent)
    fixed = [*SPECIAL, *characters, *(PREFIX + character for character in characters)]
    if len(fixed) > size:
        raise ConfigError(
            f"`vocab_size: {size}` is too small for a tokenizer of these texts, whose characters and special tokens "
            f"alone are {len(fixed)} pieces"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=fixed,
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        continuing_subword_prefix=PREFIX,
        show_progress=False,
    )
    trained = Tokenizer(models.WordPiece({UNKNOWN: 0}, unk_token=UNKNOWN))
    trained.normalizer, trained.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    trained.train_from_iterator(texts, trainer)
    return _finish(trained.get_vocab(with_added_tokens=True), trained)


def _finish(vocabulary: dict[str, int], trained: Any) -> str:
    """Return the JSON of a tokenizer with the trained vocabulary, whose special tokens are only those of BERT."""
    from tokenizers import Tokenizer, models, processors

    finished = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN, continuing_subword_prefix=PREFIX))
    finished.normalizer, finished.pre_tokenizer = trained.normalizer, trained.pre_tokenizer
    finished.add_special_tokens(list(SPECIAL))
    finished.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    source: str = finished.to_str()
    return source
