"""What a plain YAML scalar means, by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema).

PyYAML alone follows YAML 1.1, where `1e-3` is a string, `012` is ten and `on` is true.
"""

from __future__ import annotations

import os
import re

Scalar = str | int | float | bool | None

MAX_DIGITS = 1000  # Python refuses to read integers of more than 4300 digits
NULL = re.compile(r"null|Null|NULL|~|")
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INT = re.compile(r"[-+]?[0-9]+")
OCTAL = re.compile(r"0o[0-7]+")
HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
INFINITY = re.compile(r"[-+]?\.(?:inf|Inf|INF)")
NAN = re.compile(r"\.(?:nan|NaN|NAN)")


def resolve(text: str) -> Scalar:
    """The value of a plain (unquoted) scalar. ValueError for an integer too long to be one."""
    if NULL.fullmatch(text):
        return None
    if BOOL.fullmatch(text):
        return text.lower() == "true"
    for pattern, base in ((INT, 10), (OCTAL, 8), (HEXADECIMAL, 16)):
        if pattern.fullmatch(text):
            if len(text) > MAX_DIGITS:
                raise ValueError(f"a number of {len(text)} digits; {MAX_DIGITS} are the most")
            return int(text, base)
    if FLOAT.fullmatch(text) or INFINITY.fullmatch(text) or NAN.fullmatch(text):
        return float(
            text.replace(".inf", "inf")
            .replace(".nan", "nan")
            .replace(".Inf", "inf")
            .replace(".NaN", "nan")
            .replace(".INF", "inf")
            .replace(".NAN", "nan")
        )
    return text


MAX_EXPANDED = 512 * 1024  # characters that all variables of a document together may hold
EXPRESSION = re.compile(r"\$(\$+\{)|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?:(:-?)([^}]*))?\})?")
SHELL_ONLY = "=?+"  # what follows the colon in the forms ${NAME:=x}, ${NAME:?x} and ${NAME:+x} of the shell


def expand(text: str, limit: int = MAX_EXPANDED) -> str:
    """The text with its variables' values in place. `$${` stands for a literal `${`.

    `${NAME:default}` gives the default where the variable is not set; `${NAME:-default}`, as in the shell, also where
    it is empty. A default that begins with a minus sign is therefore written `${NAME:--0.1}`.

    limit: the most characters that all the values together may have.
    Raises ValueError for a variable that isn't set and has no default, for a `${` that starts no expression, for an
    expression inside another, for the shell's other forms, and for more characters than `limit`.
    """
    room = limit

    def value(match: re.Match[str]) -> str:
        nonlocal room
        literal, name, colon, default = match.groups()
        if literal is not None:
            return str(literal)
        if name is None:
            raise ValueError(_malformed(text, match.start()))
        if default is not None and "${" in default:
            raise ValueError(
                f"{text!r} has an expression inside another, which is not supported: write a plain default"
            )
        if colon == ":" and default and default[0] in SHELL_ONLY:
            raise ValueError(
                f"${{{name}:{default[0]}…}} is not supported: a default is written ${{{name}:default}}, and one that "
                f"begins with {default[0]!r} ${{{name}:-{default}}}"
            )
        found = os.environ.get(name, default)
        if colon == ":-" and not found:
            found = default
        if found is None:
            raise ValueError(
                f"the environment variable {name} is not set; set it, or give a default: ${{{name}:default}}"
            )
        room -= len(found)
        if room < 0:
            raise ValueError(f"the variables hold too much: {limit} characters are the most there is room for")
        return found

    return EXPRESSION.sub(value, text)


def _malformed(text: str, start: int) -> str:
    """The message for a `${` that starts no expression."""
    message = f"expected ${{NAME}} or ${{NAME:default}} in {text!r}; a literal '${{' is written '$${{'"
    if shell := re.match(r"\$\{([A-Za-z_][A-Za-z0-9_]*)-([^}]*)\}", text[start:]):
        return f"{message}; for ${{{shell[1]}-{shell[2]}}} write ${{{shell[1]}:{shell[2]}}}"
    if "}" not in text[start:]:
        return f"{message}; the closing brace is missing (a ' #' begins a comment unless the value is in quotes)"
    return message


def escape(text: str) -> str:
    """The text that `expand` turns into `text`."""
    return text.replace("${", "$${")
