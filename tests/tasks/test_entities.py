"""Entities against seqeval."""

from __future__ import annotations

import warnings

import pytest
import torch
from seqeval.metrics.sequence_labeling import get_entities

from mtlcli.tasks.entities import TagScheme, find_entities

SCHEMES = {
    "IOB": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
    "IOE": ("I-PER", "E-PER", "I-LOC", "E-LOC", "O"),
    "IOBES": ("O", *(f"{prefix}-{name}" for prefix in "BIES" for name in ("PER", "LOC-CITY", "MISC"))),
    "without types": ("O", "B", "I", "E", "S"),
}


@pytest.mark.parametrize("tags", SCHEMES.values(), ids=SCHEMES)
def test_entities_of_random_sentences_are_those_of_seqeval(tags: tuple[str, ...]) -> None:
    scheme = TagScheme.of(tags)
    assert scheme is not None
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 8, (200,), generator=generator).tolist()
    indices = torch.randint(0, len(tags), (sum(lengths),), generator=generator)
    starts = torch.cat([torch.tensor([True] + [False] * (n - 1)) for n in lengths])
    first, last, kind = find_entities(scheme, indices, starts)
    expected, start = [], 0
    for length in lengths:
        sentence = [tags[at] for at in indices[start : start + length].tolist()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected += [(name, start + a, start + b) for name, a, b in get_entities(sentence)]
        start += length
    names = [scheme.types[at] for at in kind.tolist()]
    assert list(zip(names, first.tolist(), last.tolist(), strict=True)) == expected


def test_a_nan_prediction_is_outside() -> None:
    scheme = TagScheme.of(("O", "B-X", "I-X"))
    assert scheme is not None
    first, last, _ = find_entities(scheme, torch.tensor([1, -1, 2]), torch.tensor([True, False, False]))
    assert (first.tolist(), last.tolist()) == ([0, 2], [0, 2])


@pytest.mark.parametrize("tags", [("NOUN", "VERB", "."), ("O",), ("O", "B-X", "U-X"), ("B-", "O")])
def test_other_tags_have_no_scheme(tags: tuple[str, ...]) -> None:
    assert TagScheme.of(tags) is None
