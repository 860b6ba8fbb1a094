"""Look-up of the type of a value by its path in the data, through the components that the data names."""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any, NamedTuple, Union

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from mtlcli.component import Component
from mtlcli.config.components import ComponentField
from mtlcli.config.locations import KeyPath


class Position(NamedTuple):
    """The last step of a path that the schema knows.

    Args:
        path: the path up to that step.
        annotation: the type there.
        value: the value there.
        component: the innermost component whose entry contains it.
    """

    path: KeyPath
    annotation: Any
    value: Any
    component: Component[Any] | None


def follow(loc: KeyPath, annotation: Any, value: Any) -> Position:
    """Follow a path from a type and its value, as far as the types are known and the value has the steps."""
    path: KeyPath = ()
    component: Component[Any] | None = None
    for step in loc:
        annotation, component = _entered(annotation, value, component)
        below = _below(bare_type(annotation), step)
        if below is None or not _has(value, step):
            break
        annotation, value, path = below, value[step], (*path, step)
    annotation, component = _entered(annotation, value, component)
    return Position(path, annotation, value, component)


def _entered(annotation: Any, value: Any, component: Component[Any] | None) -> tuple[Any, Component[Any] | None]:
    """Replace the type of a component's entry by the model of the component that the value names."""
    while isinstance(bare := _optional(annotation), type(Annotated[int, 0])):
        entry = next((m for m in typing.get_args(bare)[1:] if isinstance(m, ComponentField)), None)
        if entry is None:
            break
        named = entry.component(value)
        return (annotation, component) if named is None else (entry.model(named), named)
    return annotation, component


def _below(annotation: Any, step: str | int) -> Any:
    """Return the type of the item or key `step` of a value of this type; None if it is unknown."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        branches = (_below(bare_type(branch), step) for branch in arguments)
        return next((below for below in branches if below is not None), None)
    if is_model(annotation):
        return fields_of(annotation).get(str(step))
    if origin is tuple and arguments[-1] is not ... and isinstance(step, int) and step < len(arguments):
        return arguments[step]
    if origin in (list, tuple) and isinstance(step, int):
        return arguments[0]
    return arguments[1] if origin is dict and step != "[key]" else None


def fields_of(annotation: Any) -> dict[str, Any]:
    """Return the keys of a model, as written in YAML, with their types."""
    model: type[BaseModel] = bare_type(annotation)
    return {
        field.alias or name: Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        for name, field in model.model_fields.items()
    }


def is_model(annotation: Any) -> bool:
    """Return whether a type is a pydantic model, or one or None."""
    bare = bare_type(annotation)
    return isinstance(bare, type) and issubclass(bare, BaseModel)


def _has(value: Any, step: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and step in value


def _optional(annotation: Any) -> Any:
    """Return X for `X | None`."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        others = [branch for branch in typing.get_args(annotation) if branch is not type(None)]
        if len(others) == 1:
            return others[0]
    return annotation


def bare_type(annotation: Any) -> Any:
    """Return a type without `| None` and without the constraints of `Annotated`."""
    annotation = _optional(annotation)
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a type accepts a value under the strict rules of experiments."""
    model = create_model("Value", __config__=ConfigDict(strict=True, allow_inf_nan=False), value=(annotation, ...))
    try:
        model(value=value)
    except ValidationError:
        return False
    return True
