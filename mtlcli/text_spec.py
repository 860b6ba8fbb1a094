"""Description of texts that are the inputs of a trunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

PAIR = "pair"  # target that marks all pairs of texts which are encoded one by one
LONGEST = 2**16  # tokens of a text
MOST_COLUMNS = 1000  # of a prompt


@dataclass(frozen=True)
class TextSpec:
    """Texts that a trunk reads as tokens.

    The raw inputs of a batch are int32 [B, 2, L], where L is the number of tokens of its longest example: the ids of
    the tokens in the first plane, and their types in the second (0 for the first text of a pair, 1 for the second).
    Both are -1 after the last token. With `separate`, they are [B, texts, 2, L].

    Args:
        columns: names of the columns with the text, with the two texts of a pair, or with the cells of a prompt.
        max_length: maximum number of tokens of an example, special tokens included; longer ones are truncated.
        words: each cell is a list of words, with a label for each.
        separate: the texts of a pair are encoded one by one instead of in one sequence.
        prompt: template of the prompt of a language model; None for texts without a prompt.
        answer: maximum number of tokens of an answer to the prompt.
        answers: names of the columns with texts that are answers, of a dataset with labels.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_COLUMNS)]
    max_length: Annotated[int, Field(ge=1, le=LONGEST)]
    words: bool = False
    separate: bool = False
    prompt: str | None = None
    answer: Annotated[int, Field(ge=0, le=LONGEST)] = 0
    answers: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the longest possible example."""
        return (len(self.columns), 2, self.max_length) if self.separate else (2, self.max_length)
