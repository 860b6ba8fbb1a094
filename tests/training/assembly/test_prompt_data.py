"""The token that ends answers, and the prompts of tasks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mtlcli.models.pretrained.base import Base
from mtlcli.specs import TargetSpec
from mtlcli.training.assembly.prompt_data import end_token
from tests.tasks.labels import kind
from tests.tokenizers import byte_pairs, unigrams, word_pieces


@pytest.mark.parametrize(
    ("make", "config", "source", "expected"),
    [
        (byte_pairs, {"eos_token_id": 7}, "folder", 7),  # that of the model's own files
        (byte_pairs, {"eos_token_id": [8, 9]}, "folder", 8),
        (byte_pairs, {}, "", 0),  # <|endoftext|>
        (byte_pairs, {"eos_token_id": 50256}, "", 0),  # the default of the class, outside the vocabulary
        (word_pieces, {"eos_token_id": 1}, "", 3),  # [SEP], rather than [UNK]
        (unigrams, {"eos_token_id": 1}, "", 1),  # </s>
    ],
)
def test_end_of_answers(make: Any, config: dict[str, Any], source: str, expected: int) -> None:
    assert end_token(make(), Base(config, source=source)) == expected


def test_model_without_an_end() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(ValueError, match="the model has no token that ends a text"):
        end_token(tokenizer, Base({}))


def test_answers_for_classes_keep_their_spelling() -> None:
    """A tokenizer in lower case decodes `Tops` as `tops`, which is the class `Tops`."""
    task = kind("generation", TargetSpec("classes", 2, ("Tops", "Bottoms")), prompt="{x}")
    tokenizer = word_pieces()
    task.use_tokenizer(tokenizer)  # type: ignore[attr-defined]
    rows = [tokenizer.encode(text, add_special_tokens=False).ids for text in ("tops", "bottoms", "dress")]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [-1] * (width - len(row)) for row in rows])
    assert task.decode(tokens).labels == ["Tops", "Bottoms", "dress"]
