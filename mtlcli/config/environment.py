"""`${NAME}` and `${NAME:default}` in the strings of an experiment file; nothing else is evaluated."""

from __future__ import annotations

import os
import re

MAX_EXPANDED = 512 * 1024  # characters that all variables of a document together may hold
EXPRESSION = re.compile(r"\$(\$+\{)|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::([^}]*))?\})?")


def expand(text: str, limit: int = MAX_EXPANDED) -> str:
    """The text with its variables' values in place. `$${` stands for a literal `${`.

    limit: the most characters that all the values together may have.
    Raises ValueError for a variable that isn't set and has no default, for a `${` that starts no expression, and for
    more characters than `limit`.
    """
    room = limit

    def value(match: re.Match[str]) -> str:
        nonlocal room
        literal, name, default = match.groups()
        if literal is not None:
            return str(literal)
        if name is None:
            raise ValueError(f"expected ${{NAME}} or ${{NAME:default}} in {text!r}; a literal '${{' is written '$${{'")
        found = os.environ.get(name, default)
        if found is None:
            raise ValueError(
                f"the environment variable {name} is not set; set it, or give a default: ${{{name}:default}}"
            )
        room -= len(found)
        if room < 0:
            raise ValueError(f"the variables hold too much: {limit} characters are the most there is room for")
        return found

    return EXPRESSION.sub(value, text)


def escape(text: str) -> str:
    """The text that `expand` turns into `text`."""
    return text.replace("${", "$${")
