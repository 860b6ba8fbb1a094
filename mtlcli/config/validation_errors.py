"""Conversion of pydantic's validation errors to problems with the location, the expected and the given value."""

from __future__ import annotations

import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mtlcli.component import Component
from mtlcli.config.components import NAME_KEYS
from mtlcli.config.locations import MOST_PROBLEMS, KeyPath, Source
from mtlcli.config.lookup import bare_type, fields_of, follow, is_model
from mtlcli.config.options import options_of, reason_against
from mtlcli.config.suggestions import key_hint, value_hint
from mtlcli.config.type_names import describe_type, format_value
from mtlcli.errors import Problem
from mtlcli.registry import REGISTRIES


def problems(error: ValidationError, model: type[BaseModel], data: Any, source: Source) -> list[Problem]:
    """Convert pydantic's error to problems.

    Args:
        error: the error.
        model: the model that rejected the data.
        data: the data.
        source: locations of its values.

    Returns:
        The problems, at most `MOST_PROBLEMS` + 1.
    """
    details = error.errors(include_url=False)[: MOST_PROBLEMS + 1]  # one more, so that the report mentions further ones
    return [_problem(detail, model, data, source) for detail in details]


def _problem(error: ErrorDetails, model: type[BaseModel], data: Any, source: Source) -> Problem:
    loc: KeyPath = error["loc"]
    if error["type"] == "mtl":
        return source.problem(loc, error["msg"])
    parent = follow(loc[:-1], model, data)
    if error["type"] in ("extra_forbidden", "missing") and is_model(parent.annotation):
        fields = fields_of(parent.annotation)
        if error["type"] == "missing":
            expected = describe_type(fields[str(loc[-1])])
            return source.problem(loc, f"missing; expected {expected}", at_key=True)
        return source.problem(loc, _unknown(loc, fields, parent.component, data), at_key=True)
    if loc[-1:] == ("[key]",):
        parent = follow(loc[:-2], model, data)
        key_type = typing.get_args(bare_type(parent.annotation))[0]
        message = f"expected {describe_type(key_type)}, found {format_value(loc[-2])}"
        return source.problem(loc[:-1], message, at_key=True)
    position = follow(loc, model, data)
    hint = value_hint(position.value, position.annotation)
    message = f"expected {describe_type(position.annotation)}, found {format_value(position.value)}{hint}"
    return source.problem(position.path, message)


def _unknown(loc: KeyPath, fields: dict[str, Any], component: Component[Any] | None, data: Any) -> str:
    key, parent = str(loc[-1]), loc[:-1]
    if component is None:
        return f"unknown key.{key_hint(key, parent, fields, data)} Keys: {', '.join(fields)}"
    options = sorted(fields.keys() - {"name"})
    if key in NAME_KEYS and key not in options:
        hint = " Did you mean 'name'?"
    elif (reason := reason_against(component, key)) is not None:
        hint = f" {reason}"
    else:
        hint = key_hint(key, parent, dict.fromkeys(options), data) or _others_with(key, component)
    choices = f"Options: {', '.join(options)}" if options else "It has no options"
    return f"unknown option of {component.group} {component.name!r}.{hint} {choices}"


def _others_with(option: str, component: Component[Any]) -> str:
    """Return a hint that lists the components of the same group with that option."""
    registry = REGISTRIES[component.group]
    having = [name for name in registry.names() if name != component.name and option in options_of(registry[name])]
    return f" {', '.join(having)} {'has' if len(having) == 1 else 'have'} it." if having else ""
