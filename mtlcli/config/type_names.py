"""Types and values in words, for messages and for `mtl show`."""

from __future__ import annotations

import collections.abc
import json
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import annotated_types
from pydantic.fields import FieldInfo

SHOWN = 60  # characters of a value that a message shows
ARGUMENT = 200  # of an argument of the command line
SINGULAR = {int: "an integer", float: "a number", bool: "true or false", str: "a string", Path: "a path"}
PLURAL = {int: "integers", float: "numbers", bool: "true or false", str: "strings", Path: "paths"}


def quoted(argument: str) -> str:
    """An argument of the command line, as a message names it."""
    return _short(repr(argument), ARGUMENT)


class Words:
    """In an `Annotated` type: what it takes, one or many, in words that say it better than its parts would."""

    def __init__(self, expected: str, many: str) -> None:
        self.expected, self.many = expected, many


def found(value: Any) -> str:
    """A value from a YAML file, as a message names it."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"the string {_short(repr(value))}"
    return _short(json.dumps(value, default=str, ensure_ascii=False))


def described(annotation: Any, *, plural: bool = False) -> str:
    """What a type takes: `list[PositiveInt]` → "a list of integers > 0"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _constrained(arguments[0], arguments[1:], plural)
    if origin in (Union, types.UnionType):
        return " or ".join(described(one, plural=plural) for one in arguments)
    if origin is Literal:
        return ", ".join(map(_literal, arguments[:-1])) + (" or " if arguments[1:] else "") + _literal(arguments[-1])
    if origin is tuple and arguments[-1:] != (...,):
        return f"[{', '.join(map(described, arguments))}]"
    if origin in (list, tuple, collections.abc.Sequence):
        return f"{'lists' if plural else 'a list'} of {described(arguments[0], plural=True)}"
    if origin in (dict, collections.abc.Mapping):
        return f"{'mappings' if plural else 'a mapping'} of names to {described(arguments[1], plural=True)}"
    if annotation in (None, type(None)):
        return "null"
    if isinstance(annotation, type) and annotation in SINGULAR:
        return (PLURAL if plural else SINGULAR)[annotation]
    if annotation is Any or annotation is object:
        return "anything"
    if annotation is list:
        return "lists" if plural else "a list"
    return "mappings" if plural else "a mapping"


def _constrained(annotation: Any, metadata: tuple[Any, ...], plural: bool) -> str:
    rules: list[str] = []
    for one in _flat(metadata):
        if isinstance(one, Words):
            return one.many if plural else one.expected
        match one:
            case annotated_types.Gt(limit):
                rules.append(f"> {limit}")
            case annotated_types.Ge(limit):
                rules.append(f"≥ {limit}")
            case annotated_types.Lt(limit):
                rules.append(f"< {limit}")
            case annotated_types.Le(limit):
                rules.append(f"≤ {limit}")
            case annotated_types.MinLen(limit):
                rules.append("that isn't empty" if limit == 1 else f"of at least {limit}")
            case annotated_types.MaxLen(limit):
                rules.append(f"no longer than {limit}")
    return " ".join([described(annotation, plural=plural), *[" and ".join(rules)][: len(rules)]])


def _flat(metadata: tuple[Any, ...]) -> list[Any]:
    """The single constraints: a `Field(...)` holds several, an `Interval` too."""
    single: list[Any] = []
    for one in metadata:
        if isinstance(one, FieldInfo):
            single += [one, *_flat(tuple(one.metadata))]
        elif isinstance(one, annotated_types.GroupedMetadata):
            single += list(one)
        else:
            single.append(one)
    return single


def _literal(value: Any) -> str:
    return repr(value) if isinstance(value, str) else json.dumps(value)


def _short(text: str, length: int = SHOWN) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
