"""Types and defaults of the options of a table."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mtlcli.config.type_names import TypeDescription

# The values that pandas reads as missing, and other common ones.
MISSING_VALUES = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null", "none", "-", "--", "?",
]  # fmt: skip


def _check_delimiter(text: str) -> str:
    if text == "\\t":  # as a shell passes it
        return "\t"
    if len(text) != 1 or text in '"\r\n\0':
        raise ValueError("not a delimiter")
    return text


Delimiter = Annotated[
    str,
    Field(min_length=1, max_length=2),
    AfterValidator(_check_delimiter),
    TypeDescription("one character, not a quote or a line break (`\\t` is a tab)", "characters"),
]

TargetType = Literal["classes", "binary", "real"] | list[str]  # for `multilabel`: the columns of its labels
Names = Annotated[list[str], Field(min_length=1)]
Targets = Names | dict[str, Literal["classes", "binary", "real"] | Names]
