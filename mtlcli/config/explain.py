"""pydantic's validation errors as problems in our voice: where, what was expected, what was found, the nearest name."""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any, NamedTuple, Union

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mtlcli.config.describe import described, found
from mtlcli.config.entries import Chosen
from mtlcli.config.source import MOST_PROBLEMS, Path, Source
from mtlcli.errors import Problem, nearest
from mtlcli.registry import Component


class _Spot(NamedTuple):
    """Where an error's location leads, as far as it can be followed in the schema: type and value found there.

    component: the innermost component whose entry holds it.
    """

    path: Path
    annotation: Any
    value: Any
    component: Component | None


def problems(error: ValidationError, model: type[BaseModel], data: Any, source: Source) -> list[Problem]:
    """What is wrong with `data`, which was to be an instance of `model`: all, but of many only the first."""
    some = error.errors(include_url=False)[: MOST_PROBLEMS + 1]  # one over, so that it is said that there are more
    return [_problem(one, model, data, source) for one in some]


def _problem(error: ErrorDetails, model: type[BaseModel], data: Any, source: Source) -> Problem:
    loc: Path = error["loc"]
    if error["type"] == "mtl":
        return source.problem(loc, error["msg"])
    parent = _follow(loc[:-1], model, data)
    if error["type"] in ("extra_forbidden", "missing") and _is_model(parent.annotation):
        fields = _fields(parent.annotation)
        if error["type"] == "missing":
            expected = described(fields[str(loc[-1])])
            return source.problem(loc, f"missing; expected {expected}", at_key=True)
        return source.problem(loc, _unknown(str(loc[-1]), fields, parent.component), at_key=True)
    if loc[-1:] == ("[key]",):
        parent = _follow(loc[:-2], model, data)
        key_type = typing.get_args(_bare(parent.annotation))[0]
        return source.problem(loc[:-1], f"expected {described(key_type)}, found {found(loc[-2])}", at_key=True)
    spot = _follow(loc, model, data)
    return source.problem(spot.path, f"expected {described(spot.annotation)}, found {found(spot.value)}")


def _unknown(key: str, fields: dict[str, Any], component: Component | None) -> str:
    if component is None:
        return f"unknown key.{nearest(key, fields)} Keys: {', '.join(fields)}"
    options = sorted(fields.keys() - {"name"})
    known = f"Options: {', '.join(options)}" if options else "It has no options"
    return f"unknown option of {component.kind} {component.name!r}.{nearest(key, options)} {known}"


def _follow(loc: Path, annotation: Any, value: Any) -> _Spot:
    """Walk down from a type and its value; stops at a union, whose branches pydantic puts into the location."""
    path: Path = ()
    component: Component | None = None
    for step in loc:
        annotation, component = _entered(annotation, value, component)
        below = _below(_bare(annotation), step)
        if below is None or not _has(value, step):
            break
        annotation, value, path = below, value[step], (*path, step)
    annotation, component = _entered(annotation, value, component)
    return _Spot(path, annotation, value, component)


def _entered(annotation: Any, value: Any, component: Component | None) -> tuple[Any, Component | None]:
    """For the type of a component entry: the model of the component that the value names."""
    while isinstance(bare := _optional(annotation), type(Annotated[int, 0])):
        chosen = next((m for m in typing.get_args(bare)[1:] if isinstance(m, Chosen)), None)
        if chosen is None:
            break
        named = chosen.component(value)
        return (annotation, component) if named is None else (chosen.model(named), named)
    return annotation, component


def _below(annotation: Any, step: str | int) -> Any:
    """The type of what `step` leads to in a value of this type; None where it can't be told."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if _is_model(annotation):
        return _fields(annotation).get(str(step))
    if origin is tuple and arguments[-1] is not ... and isinstance(step, int) and step < len(arguments):
        return arguments[step]
    if origin in (list, tuple) and isinstance(step, int):
        return arguments[0]
    return arguments[1] if origin is dict and step != "[key]" else None


def _fields(annotation: Any) -> dict[str, Any]:
    """The keys of a model, as the YAML has them, with their types."""
    model: type[BaseModel] = _bare(annotation)
    return {
        field.alias or name: Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        for name, field in model.model_fields.items()
    }


def _is_model(annotation: Any) -> bool:
    bare = _bare(annotation)
    return isinstance(bare, type) and issubclass(bare, BaseModel)


def _has(value: Any, step: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and step in value


def _optional(annotation: Any) -> Any:
    """X of `X | None`."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        others = [one for one in typing.get_args(annotation) if one is not type(None)]
        if len(others) == 1:
            return others[0]
    return annotation


def _bare(annotation: Any) -> Any:
    """Without `| None` and without the constraints of `Annotated`."""
    annotation = _optional(annotation)
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation
