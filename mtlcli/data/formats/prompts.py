"""Prompt templates: texts with placeholders for the columns of a dataset."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mtlcli.errors import suggest
from mtlcli.text import join_names, quote

PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")  # an escaped brace, a placeholder, or a brace without its other


@dataclass(frozen=True)
class Prompt:
    """The text of a prompt, and the places of the cells in it.

    Attributes:
        text: the text.
        spans: first and last character (exclusive) of each cell.
    """

    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PromptTemplate:
    """A text with placeholders such as `{title}`, each the name of a column. `{{` and `}}` are braces.

    Attributes:
        texts: the texts before, between and after the placeholders; one more than there are placeholders.
        columns: the column of each placeholder, in order.
    """

    texts: tuple[str, ...]
    columns: tuple[str, ...]

    @classmethod
    def parse(cls, template: str) -> PromptTemplate:
        """Parse a template.

        Args:
            template: the template.

        Returns:
            The template in pieces.

        Raises:
            ValueError: a brace has no counterpart, or the template has no placeholder.
        """
        texts, columns, end = [""], list[str](), 0
        for match in PIECE.finditer(template):
            texts[-1] += template[end : match.start()]
            end = match.end()
            if match[0] in ("{{", "}}"):
                texts[-1] += match[0][0]
            elif match[1] is not None:
                columns.append(match[1])
                texts.append("")
            else:
                raise ValueError(
                    f"the prompt {quote(template)} has a {match[0]!r} without its counterpart at character "
                    f"{match.start() + 1}; write {match[0] * 2!r} for the character itself"
                )
        texts[-1] += template[end:]
        if not columns:
            raise ValueError(
                f"the prompt {quote(template)} has no placeholder, so it would be the same for all examples; name a "
                "column in braces, as in 'Summarize: {text}'"
            )
        return cls(tuple(texts), tuple(columns))

    def render(self, cells: Mapping[str, str | None]) -> Prompt:
        """Fill in the cells of a row.

        Args:
            cells: column → cell; None for a missing one, which is left empty.

        Returns:
            The prompt.
        """
        text, spans = self.texts[0], list[tuple[int, int]]()
        for column, following in zip(self.columns, self.texts[1:], strict=True):
            cell = cells[column] or ""
            spans.append((len(text), len(text) + len(cell)))
            text += cell + following
        return Prompt(text, tuple(spans))

    def render_rows(self, columns: Mapping[str, Sequence[str | None]]) -> list[Prompt]:
        """Fill in the cells of all rows.

        Args:
            columns: column → its cells.

        Returns:
            A prompt for each row.
        """
        rows = zip(*(columns[name] for name in self.columns), strict=True)
        return [self.render(dict(zip(self.columns, row, strict=True))) for row in rows]


def check_placeholders(placeholders: Sequence[str], columns: Collection[str]) -> None:
    """Check that the placeholders of a prompt are columns of a dataset.

    Args:
        placeholders: the placeholders.
        columns: names of the columns.

    Raises:
        ValueError: a placeholder is not one of them.
    """
    for name in placeholders:
        if name not in columns:
            raise ValueError(
                f"the prompt has the placeholder {{{name}}}, which is no column of the dataset."
                f"{suggest(name, columns)} Its columns: {join_names(list(columns))}"
            )
