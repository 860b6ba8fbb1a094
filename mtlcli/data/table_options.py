"""Types and defaults of the options of a table."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mtlcli.config.describe import Words

# What pandas reads as missing, and the other usual marks.
ABSENT = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null", "none", "-", "--", "?",
]  # fmt: skip


def _delimiter(text: str) -> str:
    """The character; a backslash and a t, as a shell passes them on, are a tab."""
    if text == "\\t":
        return "\t"
    if len(text) != 1 or text in '"\r\n\0':
        raise ValueError("no delimiter")
    return text


Delimiter = Annotated[
    str,
    Field(min_length=1, max_length=2),
    AfterValidator(_delimiter),
    Words("one character, not a quote or a line break (`\\t` is a tab)", "characters"),
]
Names = Annotated[list[str], Field(min_length=1)]
Targets = Names | dict[str, Literal["classes", "binary", "real"] | Names]
