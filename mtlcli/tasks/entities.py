"""Entities in sequences of tags such as B-PER, I-PER and O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FORM = re.compile(r"O|[BIES](-.+)?")
OUTSIDE, BEGIN, INSIDE, END, SINGLE = range(5)
PREFIXES = {"O": OUTSIDE, "B": BEGIN, "I": INSIDE, "E": END, "S": SINGLE}
UNNAMED = "_"  # type of the entities of tags without one, as in seqeval


@dataclass(frozen=True)
class TagScheme:
    """Prefixes and types of tags.

    Attributes:
        types: names of the types of entities, sorted.
        prefix: prefix of each tag, int64 [tags + 1]; the last entry, at position −1, is `OUTSIDE`.
        type: position in `types` of the type of each tag, −1 for O, int64 [tags + 1].
    """

    types: tuple[str, ...]
    prefix: Tensor
    type: Tensor

    @classmethod
    def of(cls, tags: Sequence[str]) -> TagScheme | None:
        """Return the scheme of tags of the form IOB1, IOB2, IOE1, IOE2 or IOBES.

        Args:
            tags: names of the tags.

        Returns:
            The scheme; None if a tag is neither O nor has one of the prefixes B, I, E and S.
        """
        if not all(map(FORM.fullmatch, tags)) or all(tag == "O" for tag in tags):
            return None
        names = [None if tag == "O" else tag[2:] or UNNAMED for tag in tags]
        types = tuple(sorted({name for name in names if name is not None}))
        positions = [-1 if name is None else types.index(name) for name in names]
        prefixes = [PREFIXES[tag[0]] for tag in tags]
        return cls(types, torch.tensor([*prefixes, OUTSIDE]), torch.tensor([*positions, -1]))


def find_entities(scheme: TagScheme, tags: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the entities in sentences, by the rules of seqeval's default mode, which are those of conlleval.

    An entity begins at a tag B or S, at any other tag after O, E or S, and where the type changes; it ends before the
    next entity, before O, and at E and S. I and E without a tag B before them therefore begin an entity.

    Args:
        scheme: the scheme of the tags.
        tags: tags of all sentences, one after the other, int64 [words]; −1 counts as O.
        starts: whether a word is the first of its sentence, bool [words].

    Returns:
        Positions of the first word and of the last word of each entity, and its type, int64 [entities] each.
    """
    prefix, kind = scheme.prefix[tags], scheme.type[tags]
    before = torch.cat([prefix.new_tensor([OUTSIDE]), prefix[:-1]]).masked_fill(starts, OUTSIDE)
    kind_before = torch.cat([kind.new_tensor([-1]), kind[:-1]]).masked_fill(starts, -1)
    inside = prefix != OUTSIDE
    closed = (before == OUTSIDE) | (before == END) | (before == SINGLE)
    begins = inside & ((prefix == BEGIN) | (prefix == SINGLE) | closed | (kind != kind_before))
    breaks = torch.cat([(~inside | begins | starts)[1:], starts.new_tensor([True])])  # the next word is in no entity
    first, last = begins.nonzero().flatten(), (inside & breaks).nonzero().flatten()
    return first, last, kind[first]


def count_entities(
    scheme: TagScheme, labels: Tensor, predicted: Tensor, starts: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Count the entities by type; a predicted entity is right if the labels have one with the same words and type.

    Args:
        scheme: the scheme of the tags.
        labels: true tags of all sentences, one after the other, int64 [words].
        predicted: predicted tags, int64 [words]; −1 counts as O.
        starts: whether a word is the first of its sentence, bool [words].
        weight: weight of each word's sentence, float64 [words]; None for equal weights.

    Returns:
        Numbers of right, predicted and true entities, or sums of their weights, float64 [types] each.
    """
    first, last, kind = find_entities(scheme, predicted, starts)
    true_first, true_last, true_kind = find_entities(scheme, labels, starts)
    ends, kinds = torch.full_like(labels, -1), torch.full_like(labels, -1)
    ends[true_first], kinds[true_first] = true_last, true_kind
    right = (ends[first] == last) & (kinds[first] == kind)

    def count(at: Tensor, of: Tensor) -> Tensor:
        weights = None if weight is None else weight[at]
        return torch.bincount(of, weights, minlength=len(scheme.types)).double()

    return count(first[right], kind[right]), count(first, kind), count(true_first, true_kind)
