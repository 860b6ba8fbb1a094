"""Descriptions of types and values, for error messages and `mtl show`."""

from __future__ import annotations

import collections.abc
import json
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import annotated_types
from pydantic.fields import FieldInfo

MAX_VALUE = 60  # characters of a value in a message
SINGULAR = {int: "an integer", float: "a number", bool: "true or false", str: "a string", Path: "a path"}
PLURAL = {int: "integers", float: "numbers", bool: "true or false", str: "strings", Path: "paths"}


class TypeDescription:
    """Annotation that replaces the generated description of a type.

    Args:
        expected: description of one value, such as "a name of at most 100 letters".
        plural: description of several values, such as "names".
    """

    def __init__(self, expected: str, plural: str) -> None:
        self.expected, self.plural = expected, plural


def format_value(value: Any) -> str:
    """Return a value from a YAML file as JSON, shortened if it is long; of a string, `the string '…'`."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"the string {_short(repr(value))}"
    return _short(json.dumps(value, default=str, ensure_ascii=False))


def describe_type(annotation: Any, *, plural: bool = False) -> str:
    """Describe the values of a type: `list[PositiveInt]` → "a list of integers > 0".

    Args:
        annotation: the type, as annotated in a signature or a model.
        plural: describe several values instead of one.

    Returns:
        The description, without a final period.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _constrained(arguments[0], arguments[1:], plural)
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(branch, plural=plural) for branch in arguments)
    if origin is Literal:
        return ", ".join(map(_literal, arguments[:-1])) + (" or " if arguments[1:] else "") + _literal(arguments[-1])
    if origin is tuple and arguments[-1:] != (...,):
        return f"[{', '.join(map(describe_type, arguments))}]"
    if origin in (list, tuple, collections.abc.Sequence):
        return f"{'lists' if plural else 'a list'} of {describe_type(arguments[0], plural=True)}"
    if origin in (dict, collections.abc.Mapping):
        return f"{'mappings' if plural else 'a mapping'} of names to {describe_type(arguments[1], plural=True)}"
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
    for item in _flat(metadata):
        if isinstance(item, TypeDescription):
            return item.plural if plural else item.expected
        match item:
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
    return " ".join([describe_type(annotation, plural=plural), *[" and ".join(rules)][: len(rules)]])


def _flat(metadata: tuple[Any, ...]) -> list[Any]:
    """Return the single constraints: a `Field(...)` or an `Interval` contains several."""
    single: list[Any] = []
    for item in metadata:
        if isinstance(item, FieldInfo):
            single += [item, *_flat(tuple(item.metadata))]
        elif isinstance(item, annotated_types.GroupedMetadata):
            single += list(item)
        else:
            single.append(item)
    return single


def _literal(value: Any) -> str:
    return repr(value) if isinstance(value, str) else json.dumps(value)


def _short(text: str) -> str:
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 1] + "…"
