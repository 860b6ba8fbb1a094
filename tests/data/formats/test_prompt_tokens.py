"""Prompts and answers as tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mtlcli.data.formats.prompt_tokens import PromptExamples, PromptLimits, split_prompts, tokenize_prompts
from mtlcli.data.formats.prompts import PromptTemplate
from mtlcli.specs import IGNORE_INDEX
from tests.tokenizers import byte_pairs, unigrams, word_pieces

TEMPLATE = PromptTemplate.parse("Summarize: {text}\nanswer:")
LONG = "the red dress is a great fit and the fabric feels soft"


@pytest.fixture(scope="module")
def bytes_() -> Any:
    return byte_pairs()


@pytest.fixture(scope="module")
def pieces() -> Any:
    return word_pieces()


@pytest.fixture(scope="module")
def unigram() -> Any:
    return unigrams()


def encode(
    tokenizer: Any, texts: list[str], answers: list[str | None] | None, limits: PromptLimits, template: str = ""
) -> PromptExamples:
    parsed = PromptTemplate.parse(template) if template else TEMPLATE
    return tokenize_prompts(tokenizer, parsed.render_rows(dict.fromkeys(parsed.columns, texts)), answers, limits)


def batch(examples: PromptExamples) -> torch.Tensor:
    rows = examples.inputs
    return rows.gather(torch.arange(len(rows)), int(rows.lengths.max()))


def test_decoder_reads_the_prompt_followed_by_the_answer(bytes_: Any) -> None:
    examples = encode(bytes_, ["red", "blue shirt", "x"], ["positive", "no", None], PromptLimits(64, 8, end=0))
    for row, (text, answer) in enumerate([("red", " positive"), ("blue shirt", " no")]):
        prompt = bytes_.encode(f"Summarize: {text}\nanswer:").ids
        tokens = [*bytes_.encode(answer).ids, 0]
        ids, types = examples.inputs[row].tolist()
        assert ids == prompt + tokens and types == [0] * len(prompt) + [1] * len(tokens)
        labels = examples.labels[row]
        assert labels[labels != IGNORE_INDEX].tolist() == tokens and labels[: len(tokens)].tolist() == tokens
    assert (examples.labels[2] == IGNORE_INDEX).all() and not (examples.inputs[2][1] == 1).any()
    prompts = [bytes_.encode(f"Summarize: {text}\nanswer:").ids for text in ("red", "blue shirt", "x")]
    assert list(split_prompts(batch(examples))) == prompts
    assert (examples.shortened, examples.cut) == (0, 0)


def test_encoder_reads_the_prompt(unigram: Any) -> None:
    examples = encode(unigram, ["red", "blue shirt"], ["positive", None], PromptLimits(64, 8, end=1, encoded=True))
    inputs = batch(examples)
    prompt, answer = unigram.encode("Summarize: red\nanswer:").ids, unigram.encode("positive").ids
    assert prompt[-1] == answer[-1] == 1
    assert inputs[0, 0][inputs[0, 0] >= 0].tolist() == prompt
    assert inputs[0, 1][inputs[0, 1] >= 0].tolist() == answer == examples.labels[0].tolist()
    assert (inputs[1, 1] == -1).all() and (examples.labels[1] == IGNORE_INDEX).all()


def test_special_tokens_at_the_end_of_a_prompt_are_left_out_for_a_decoder(pieces: Any) -> None:
    examples = encode(pieces, ["red"], ["no"], PromptLimits(64, 8, end=3))
    ids = examples.inputs[0][0].tolist()
    assert ids[0] == 2 and ids.count(3) == 1 and ids[-1] == 3
    empty = encode(pieces, [""], ["no"], PromptLimits(64, 8, end=3), "{text}")
    assert empty.inputs[0].tolist() == [[2, pieces.token_to_id("no"), 3], [0, 1, 1]]


def test_an_empty_prompt_has_a_token(bytes_: Any) -> None:
    assert encode(bytes_, [""], None, PromptLimits(64, 8, end=0), "{text}").inputs[0].tolist() == [[0], [0]]


def test_answer_after_white_space_is_encoded_alone(bytes_: Any) -> None:
    examples = encode(bytes_, ["red"], ["good"], PromptLimits(64, 8, end=0), "{text}\n")
    assert examples.labels[0].tolist() == [*bytes_.encode("good").ids, 0]


@pytest.mark.parametrize("encoded", [False, True])
def test_prompt_that_is_too_long_loses_the_end_of_its_cell(
    encoded: bool, bytes_: Any, pieces: Any, unigram: Any
) -> None:
    for tokenizer, end in [(bytes_, 0), (pieces, 3), (unigram, 1)]:
        limits = PromptLimits(24 if encoded else 30, 6, end, encoded)
        examples = encode(tokenizer, [LONG * 3, "red"], ["no", "no"], limits)
        assert examples.shortened == 1 and examples.inputs.truncated.tolist() == [True, False]
        inputs = batch(examples)[0]
        prompt = inputs[0][(inputs[0] >= 0) & (encoded | (inputs[1] == 0))].tolist()
        assert len(prompt) == 24
        text = "".join(tokenizer.decode(prompt).lower().split())
        assert text.startswith("summarize:ther") and text.endswith("answer:")
        alone = encode(tokenizer, [LONG * 3], None, limits)
        assert batch(alone)[0, 0][batch(alone)[0, 0] >= 0].tolist() == prompt


def test_longest_cell_is_cut_first(bytes_: Any) -> None:
    template = PromptTemplate.parse("{a} and {b}")
    prompts = template.render_rows({"a": ["red"], "b": [LONG * 2]})
    tokens = tokenize_prompts(bytes_, prompts, None, PromptLimits(20, 4, 0)).inputs[0][0].tolist()
    assert len(tokens) == 16 and bytes_.decode(tokens).startswith("red and the red dress")
    both = template.render_rows({"a": [LONG], "b": [LONG]})
    words = bytes_.decode(tokenize_prompts(bytes_, both, None, PromptLimits(20, 4, 0)).inputs[0][0].tolist())
    first, second = words.split(" and ")
    assert abs(len(first) - len(second)) <= 8


def test_template_that_is_too_long_keeps_its_end(bytes_: Any) -> None:
    examples = encode(bytes_, ["red"], None, PromptLimits(9, 4, 0))
    assert bytes_.encode(TEMPLATE.texts[0] + TEMPLATE.texts[1]).ids[-5:] == examples.inputs[0][0].tolist()


def test_answer_that_is_too_long_is_cut_without_an_end(bytes_: Any) -> None:
    examples = encode(bytes_, ["red"] * 3, [LONG, "a", LONG], PromptLimits(64, 4, 0))
    assert examples.cut == 2 and examples.labels.shape[1] == 4
    assert examples.labels[0].tolist() == bytes_.encode(f" {LONG}").ids[:4]
    assert examples.labels[1].tolist()[:2] == [*bytes_.encode(" a").ids, 0]
