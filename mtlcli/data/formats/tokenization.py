"""Tokenization of texts by the fast tokenizer of a model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.cells import Mask
from mtlcli.data.formats.tag_alignment import align_tags
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.token_cache import read_tokens, write_tokens
from mtlcli.data.formats.token_rows import TokenRows, TokenWords
from mtlcli.errors import ConfigError
from mtlcli.text_spec import TextSpec

BLOCK = 4096  # examples tokenized at once, in parallel threads
CACHED = 100_000  # characters from which on tokens are kept on disk; fewer are tokenized in a fraction of a second
PARALLEL = "TOKENIZERS_PARALLELISM"  # environment variable of the library
END_TOKENS = ("eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id")  # keys of a model's `config`


class TextTokenizer:
    """Tokenizer of a model.

    The text is tokenized as `transformers` does it: two texts become one sequence with the special tokens of a pair,
    and one that is longer than `max_length` is truncated, the longer text of a pair first. Padding in the tokenizer's
    file is ignored. A missing text is an empty one. An example without any token gets the end-of-text token of the
    model, so that it has a position to compute on.

    Args:
        source: JSON of a `tokenizers.Tokenizer`.
        config: configuration of the model, for the size of its vocabulary and its special tokens.

    Attributes:
        encode_prompts: encodes the cells of prompts, for a language model; None for other models.

    Raises:
        ConfigError: the library `tokenizers` is missing, or `source` is no tokenizer.
    """

    def __init__(self, source: str, config: Mapping[str, Any]) -> None:
        self.source = source
        self._tokenizer = load_tokenizer(source)
        self._tokenizer.no_padding()
        truncation = self._tokenizer.truncation or {}
        self._direction = truncation.get("direction", "right")
        size = config.get("vocab_size")
        self._size = size if isinstance(size, int) else None
        types = config.get("type_vocab_size")
        self._typed = isinstance(types, int) and types > 1
        ends = [config.get(key) for key in END_TOKENS]
        self._end = next((end for end in ends if isinstance(end, int) and end >= 0), 0)
        self._done: dict[int, tuple[TextRows, TokenRows]] = {}
        self.encode_prompts: Callable[[TextRows, TextSpec], TokenRows] | None = None
        self._aligned: dict[tuple[int, int], tuple[Tensor, TokenRows, Tensor]] = {}

    def encode(self, rows: TextRows, spec: TextSpec, cache: Path | None = None) -> TokenRows:
        """Tokenize texts. Those that were tokenized before are returned again.

        Args:
            rows: the texts of N examples.
            spec: their description.
            cache: folder of tokens that other runs have stored; None for no such folder.

        Returns:
            The examples as tokens, on the CPU.

        Raises:
            ConfigError: `max_length` leaves no token of a text, or the tokenizer has a token that the model lacks.
        """
        if id(rows) not in self._done:  # keep the texts too, so that their id is not reused
            self._done[id(rows)] = (rows, self._read_or_encode(rows, spec, cache))
        return self._done[id(rows)][1]

    def align(self, tags: Tensor, tokens: TokenRows) -> Tensor:
        """Return the tags of tokens, see `align_tags`; those that were aligned before are returned again."""
        key = (id(tags), id(tokens))
        if key not in self._aligned:  # keep both, so that their ids are not reused
            self._aligned[key] = (tags, tokens, align_tags(tags, tokens))
        return self._aligned[key][2]

    def _read_or_encode(self, rows: TextRows, spec: TextSpec, cache: Path | None) -> TokenRows:
        path = None if cache is None else self._place(rows, spec, cache)
        tokens = None if path is None else read_tokens(path)
        if tokens is None:
            tokens = self.tokenize(rows, spec)
            if path is not None:
                write_tokens(path, tokens)
        return self._checked(tokens)

    def _checked(self, tokens: TokenRows) -> TokenRows:
        if self._size is not None and len(tokens.ids) and (largest := int(tokens.ids.max())) >= self._size:
            raise ConfigError(
                f"the tokenizer has the token {largest}, but the model's vocabulary ends at {self._size - 1} "
                f"(`vocab_size`): they don't belong together"
            )
        return tokens

    def tokenize(self, rows: TextRows, spec: TextSpec) -> TokenRows:
        """Tokenize texts as `encode` does, without reading or keeping their tokens."""
        if spec.prompt is not None:
            assert self.encode_prompts is not None
            return self.encode_prompts(rows, spec)
        pair = len(rows.columns) == 2 and not spec.separate
        special = self._tokenizer.num_special_tokens_to_add(pair)
        if spec.max_length <= special:
            raise ConfigError(
                f"`max_length: {spec.max_length}` leaves no token of the text: the tokenizer adds {special} special "
                f"tokens"
            )
        self._tokenizer.enable_truncation(spec.max_length, strategy="longest_first", direction=self._direction)
        os.environ.setdefault(PARALLEL, "true")  # otherwise the library warns in every process that is forked later
        ids: list[Any] = [np.empty(0, np.int32)]
        types: list[Any] = [np.empty(0, np.uint8)]
        words: list[Any] = [np.empty(0, np.int32)]
        counts: list[int] = []
        lengths: list[int] = []
        truncated: list[bool] = []
        for block in rows.blocks(BLOCK):
            texts = list(chain.from_iterable(block)) if spec.separate or len(rows.columns) == 1 else block
            encodings = self._encode(texts, spec.words)
            sequences = [encoding.ids or [self._end] for encoding in encodings]
            ids.append(np.fromiter(chain.from_iterable(sequences), np.int32))
            lengths += map(len, sequences)
            truncated += [
                len(sequence) >= spec.max_length and bool(encoding.overflowing)
                for sequence, encoding in zip(sequences, encodings, strict=True)
            ]
            if self._typed and pair:
                kinds = (encoding.type_ids or [0] for encoding in encodings)
                types.append(np.fromiter(chain.from_iterable(kinds), np.uint8))
            if spec.words:
                words.append(np.fromiter(chain.from_iterable(map(_word_numbers, encodings)), np.int32))
                counts += [len(text or ()) for text in texts]
        number = len(rows.columns) if spec.separate else 1
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        cut: Mask = np.logical_or.reduce(np.array(truncated, bool).reshape(-1, number), axis=1)
        tokens = TokenRows(
            torch.from_numpy(np.concatenate(ids)),
            torch.from_numpy(np.concatenate(types)) if self._typed and pair else None,
            torch.from_numpy(starts.astype(np.int64)),
            cut,
            number,
            TokenWords(np.concatenate(words), np.array(counts, np.int64)) if spec.words else None,
        )
        return self._checked(tokens)

    def _encode(self, texts: Sequence[Any], words: bool) -> list[Any]:
        filled = [_fill(text, words) for text in texts]
        encode = self._tokenizer.encode_batch if words else self._tokenizer.encode_batch_fast  # lacks numbers of words
        try:
            encodings: list[Any] = encode(filled, is_pretokenized=words)
        except TypeError:  # surrogates, which are no Unicode characters
            replaced = json.loads(json.dumps(filled, ensure_ascii=False).encode("utf-8", "replace"))
            filled = [text if isinstance(text, str) or words else tuple(text) for text in replaced]
            encodings = encode(filled, is_pretokenized=words)
        return encodings

    def _place(self, rows: TextRows, spec: TextSpec, cache: Path) -> Path | None:
        """Return the file of the tokens, named by the content; None for texts that are tokenized quickly."""
        import tokenizers

        settings = [tokenizers.__version__, self.source, spec.max_length, spec.words, spec.separate]
        digest = blake2b(json.dumps([*settings, self._typed, self._end]).encode(), digest_size=16)
        size = 0
        for block in rows.blocks():
            content = json.dumps(block, ensure_ascii=False).encode("utf-8", "surrogatepass")
            size += len(content)
            digest.update(content)
        return None if size < CACHED else cache / f"{digest.hexdigest()}.npz"


def load_tokenizer(source: str) -> Any:
    """Load a fast tokenizer.

    Args:
        source: its JSON.

    Returns:
        The `tokenizers.Tokenizer`.

    Raises:
        ConfigError: the library is missing, or the JSON describes no tokenizer.
        BaseException: another error than one of the library, unchanged.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError("texts need the package tokenizers: pip install 'mtlcli[text]'") from error
    try:
        return Tokenizer.from_str(source)
    except BaseException as error:  # the library raises bare Exceptions, and for a panic a BaseException
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ConfigError(f"the tokenizer can't be read: {' '.join(str(error).split())[:200]}") from error


def _word_numbers(encoding: Any) -> list[int]:
    """Return the number of each token's word, -1 for a special token, of an example without tokens for one token."""
    return [-1 if word is None else word for word in encoding.word_ids] or [-1]


def _fill(text: Any, words: bool) -> Any:
    """Replace missing texts by empty ones."""
    if isinstance(text, tuple) and not words:
        return tuple(part or "" for part in text)
    return list(text or ()) if words else text or ""
