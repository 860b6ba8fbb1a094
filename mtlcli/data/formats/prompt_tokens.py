"""Prompts and their answers as tokens, the examples of a language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.prompts import Prompt
from mtlcli.data.formats.token_rows import PADDING, TokenRows, join_tokens
from mtlcli.specs import IGNORE_INDEX

BLOCK = 4096  # prompts that are encoded at once
CONTEXT = "x"  # text before an answer that follows a word, whose first token depends on the space before it


@dataclass(frozen=True)
class PromptLimits:
    """Numbers of tokens of prompts and answers.

    Attributes:
        length: tokens of an example: of prompt and answer, or of the prompt alone if `encoded`.
        answer: tokens of an answer, with the one that ends it.
        end: id of the token that ends an answer.
        encoded: whether an encoder reads the prompt and a decoder has the answer; otherwise a decoder reads the prompt
            followed by the answer.
    """

    length: int
    answer: int
    end: int
    encoded: bool = False

    @property
    def prompt(self) -> int:
        """Tokens of a prompt, which don't depend on its answer."""
        return self.length if self.encoded else self.length - self.answer


@dataclass(frozen=True)
class PromptExamples:
    """Examples of a language model.

    Attributes:
        inputs: tokens. In a batch [B, 2, L], the first plane has those of the prompt, followed by those of the answer
            unless an encoder reads the prompt. The second is 1 for the tokens of the answer and 0 for others; if an
            encoder reads the prompt, it has the tokens of the answer. Both are −1 at the end.
        labels: tokens of the answers, int64 [N, A]; IGNORE_INDEX after the end, and where there is no answer.
        shortened: number of prompts that were too long.
        cut: number of answers that were too long.
    """

    inputs: TokenRows
    labels: Tensor
    shortened: int
    cut: int


def tokenize_prompts(
    tokenizer: Any, prompts: Sequence[Prompt], answers: Sequence[str | None] | None, limits: PromptLimits
) -> PromptExamples:
    """Encode prompts and their answers.

    A prompt that is too long loses tokens at the end of its longest cell, so that the words of the template remain. An
    answer that is too long loses its last tokens, and the one that ends it. Both are encoded on their own; an answer
    after a prompt that doesn't end with white space is encoded as if it followed a space.

    Args:
        tokenizer: a `tokenizers.Tokenizer` without truncation and padding.
        prompts: the prompts.
        answers: their answers, None for a missing one; None to encode prompts only.
        limits: numbers of tokens.

    Returns:
        The examples.
    """
    of_prompts, shortened = _encode_prompts(tokenizer, prompts, limits)
    of_answers: list[list[int]] = [[] for _ in prompts]
    cut = 0
    if answers is not None:
        encode = _AnswerEncoder(tokenizer, limits)
        spaced = [not limits.encoded and not prompt.text[-1:].isspace() for prompt in prompts]
        pairs = [encode(answer, space) for answer, space in zip(answers, spaced, strict=True)]
        of_answers, cut = [tokens for tokens, _ in pairs], sum(is_cut for _, is_cut in pairs)
    labels = np.full((len(prompts), max(1, *map(len, of_answers)) if prompts else 1), IGNORE_INDEX, np.int64)
    for row, tokens in enumerate(of_answers):
        labels[row, : len(tokens)] = tokens
    if limits.encoded:
        inputs: TokenRows = PairedRows(join_tokens(of_prompts, None), join_tokens(of_answers, None))
    else:
        joined = [prompt + answer for prompt, answer in zip(of_prompts, of_answers, strict=True)]
        types = [[0] * len(p) + [1] * len(a) for p, a in zip(of_prompts, of_answers, strict=True)]
        inputs = join_tokens(joined, types)
    inputs.truncated = shortened
    return PromptExamples(inputs, torch.from_numpy(labels), int(shortened.sum()), cut)


def _encode_prompts(tokenizer: Any, prompts: Sequence[Prompt], limits: PromptLimits) -> tuple[list[list[int]], Any]:
    """Return the tokens of each prompt, at least one, and whether it was too long, bool [N]."""
    encoded, shortened = [], np.zeros(len(prompts), bool)
    for start in range(0, len(prompts), BLOCK):
        block = prompts[start : start + BLOCK]
        for row, encoding in enumerate(tokenizer.encode_batch([prompt.text for prompt in block])):
            special = np.asarray(encoding.special_tokens_mask, bool)
            kept = np.ones(len(special), bool) if limits.encoded else _before_end(special)
            if kept.sum() > limits.prompt:
                shortened[start + row] = True
                kept = _shorten(kept, special, encoding.offsets, block[row].spans, limits.prompt)
            tokens = np.asarray(encoding.ids, np.int64)[kept].tolist()
            encoded.append(tokens or [limits.end])
    return encoded, shortened


def _before_end(special: Any) -> Any:
    """Return the mask without the special tokens at the end, which would separate the answer from the prompt."""
    words = np.flatnonzero(~special)
    return np.arange(len(special)) < (words[-1] + 1 if len(words) else 1)


def _shorten(
    kept: Any, special: Any, offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]], length: int
) -> Any:
    """Return the mask of the tokens that remain, bool [tokens]."""
    centers = np.asarray([(start + stop) / 2 for start, stop in offsets])
    cells = [np.flatnonzero(kept & ~special & (start < centers) & (centers < stop)) for start, stop in spans]
    kept = kept.copy()
    while (excess := int(kept.sum()) - length) > 0 and any(map(len, cells)):
        at = max(range(len(cells)), key=lambda cell: len(cells[cell]))
        others = max((len(cell) for i, cell in enumerate(cells) if i != at), default=0)
        amount = min(excess, max(1, len(cells[at]) - others))
        kept[cells[at][-amount:]] = False
        cells[at] = cells[at][:-amount]
    if (excess := int(kept.sum()) - length) > 0:  # the template alone is too long: its end remains
        order = [*np.flatnonzero(kept & ~special), *np.flatnonzero(kept & special)]
        kept[order[:excess]] = False
    return kept


class _AnswerEncoder:
    """Encodes answers; each distinct one once."""

    def __init__(self, tokenizer: Any, limits: PromptLimits) -> None:
        self.tokenizer, self.limits = tokenizer, limits
        self.context = self._encode(CONTEXT)
        self.cache: dict[tuple[str, bool], tuple[list[int], bool]] = {}

    def __call__(self, answer: str | None, spaced: bool) -> tuple[list[int], bool]:
        """Return the tokens of an answer, and whether some are left out. There are none for a missing answer."""
        if answer is None:
            return [], False
        key = (answer, spaced)
        if key not in self.cache:
            tokens = [*(self._after_space(answer) if spaced else self._encode(answer)), self.limits.end]
            self.cache[key] = tokens[: self.limits.answer], len(tokens) > self.limits.answer
        return self.cache[key]

    def _after_space(self, answer: str) -> list[int]:
        joint, length = self._encode(f"{CONTEXT} {answer}"), len(self.context)
        return joint[length:] if joint[:length] == self.context else self._encode(answer)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


class PairedRows(TokenRows):
    """N pairs of token sequences in the two planes of a batch.

    Args:
        first: tokens of the first plane.
        second: tokens of the second plane.
    """

    def __init__(self, first: TokenRows, second: TokenRows) -> None:
        super().__init__(first.ids, None, first.starts, first.truncated)
        self.second = second
        self.lengths = np.maximum(first.lengths, second.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return super().nbytes + self.second.nbytes

    def gather(self, rows: Tensor, length: int) -> Tensor:
        """Gather a batch, see `TokenRows.gather`."""
        planes = super().gather(rows, length)
        planes[:, 1] = self.second.gather(rows, length)[:, 0] if len(self.second.ids) else PADDING
        return planes

    def to(self, device: torch.device) -> PairedRows:
        """Return the pairs on a device."""
        if self.ids.device == device:
            return self
        first = TokenRows(self.ids, self.types, self.starts, self.truncated).to(device)
        return PairedRows(first, self.second.to(device))


def split_prompts(inputs: Tensor) -> Iterator[list[int]]:
    """Yield the tokens of the prompt of each example of a batch for a decoder, [B, 2, L]."""
    for ids, types in zip(*(plane.tolist() for plane in inputs.unbind(1)), strict=True):
        yield [token for token, type_ in zip(ids, types, strict=True) if type_ == 0 and token != PADDING]
