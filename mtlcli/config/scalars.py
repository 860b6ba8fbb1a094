"""Scalars of YAML 1.2, environment variables in them, and conversion of plain data back to YAML."""

from __future__ import annotations

import os
import re
from typing import Any

import yaml

Scalar = str | int | float | bool | None

MAX_DIGITS = 1000  # Python doesn't parse integers of more than 4300 digits
NULL = re.compile(r"null|Null|NULL|~|")
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INT = re.compile(r"[-+]?[0-9]+")
OCTAL = re.compile(r"0o[0-7]+")
HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
INFINITY = re.compile(r"[-+]?\.(?:inf|Inf|INF)")
NAN = re.compile(r"\.(?:nan|NaN|NAN)")


def resolve(text: str) -> Scalar:
    """Resolve a plain (unquoted) scalar.

    Args:
        text: the scalar.

    Returns:
        Its value; a string unless it matches another type.

    Raises:
        ValueError: an integer has more than `MAX_DIGITS` digits.
    """
    if NULL.fullmatch(text):
        return None
    if BOOL.fullmatch(text):
        return text.lower() == "true"
    for pattern, base in ((INT, 10), (OCTAL, 8), (HEXADECIMAL, 16)):
        if pattern.fullmatch(text):
            if len(text) > MAX_DIGITS:
                raise ValueError(f"a number has {len(text)} digits; the maximum is {MAX_DIGITS}")
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


MAX_EXPANDED = 512 * 1024  # characters of all variables of a document together
EXPRESSION = re.compile(r"\$(\$+\{)|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?:(:-?)([^}]*))?\})?")
SHELL_ONLY = "=?+"  # after the colon in the shell's forms ${NAME:=x}, ${NAME:?x} and ${NAME:+x}


def expand(text: str, limit: int = MAX_EXPANDED) -> str:
    """Replace the environment variables in a text by their values.

    `${NAME:default}` is the default if the variable is not set; `${NAME:-default}`, as in the shell, also if it is
    empty. A default that starts with a minus sign is therefore written `${NAME:--0.1}`. `$${` is a literal `${`.

    Args:
        text: the text.
        limit: maximum number of characters of all values together.

    Returns:
        The text with the values. ValueError is raised if a variable is not set and has no default, if a `${` starts no
        valid expression, if an expression contains another, or if the values have more than `limit` characters.
    """
    left = limit

    def value(match: re.Match[str]) -> str:
        nonlocal left
        literal, name, colon, default = match.groups()
        if literal is not None:
            return str(literal)
        if name is None:
            raise ValueError(_malformed(text, match.start()))
        if default is not None and "${" in default:
            raise ValueError(f"{text!r} contains nested expressions, which are not supported: write a plain default")
        if colon == ":" and default and default[0] in SHELL_ONLY:
            raise ValueError(
                f"${{{name}:{default[0]}…}} is not supported: write ${{{name}:default}} for a default, and "
                f"${{{name}:-{default}}} for one that starts with {default[0]!r}"
            )
        replacement = os.environ.get(name, default)
        if colon == ":-" and not replacement:
            replacement = default
        if replacement is None:
            raise ValueError(
                f"the environment variable {name} is not set; set it, or give a default: ${{{name}:default}}"
            )
        left -= len(replacement)
        if left < 0:
            raise ValueError(f"the values of the variables are too long: the maximum is {limit} characters together")
        return replacement

    return EXPRESSION.sub(value, text)


def _malformed(text: str, start: int) -> str:
    """Return the error message for a `${` that starts no expression."""
    message = f"expected ${{NAME}} or ${{NAME:default}} in {text!r}; write '$${{' for a literal '${{'"
    if shell := re.match(r"\$\{([A-Za-z_][A-Za-z0-9_]*)-([^}]*)\}", text[start:]):
        return f"{message}; for ${{{shell[1]}-{shell[2]}}} write ${{{shell[1]}:{shell[2]}}}"
    if "}" not in text[start:]:
        return f"{message}; the closing brace is missing (' #' starts a comment unless the value is in quotes)"
    return message


def escape(text: str) -> str:
    """Return the text that `expand` converts to `text`."""
    return text.replace("${", "$${")


class _Dumper(yaml.SafeDumper):
    """Dumper that quotes all strings that YAML 1.1 or 1.2 would resolve to another type, and writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: write every value in full."""
        return True


def _string(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # line breaks that PyYAML writes unescaped and folds on parsing
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _string)
for _tag, _patterns in {
    "int": (INT, OCTAL, HEXADECIMAL),
    "float": (FLOAT, INFINITY, NAN),
}.items():
    for _pattern in _patterns:
        _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
        _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, None)


def dump_yaml(plain: Any) -> str:
    """Convert plain data (dicts with string keys, lists, strings, numbers, booleans, None) to YAML."""
    text: str = yaml.dump(
        _escaped(plain), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
    )
    return text


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escape(value) if isinstance(value, str) else value
