"""A component's options as a pydantic model, made from its signature: what validates them and describes them."""

from __future__ import annotations

import collections.abc
import types
import typing
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, Strict, create_model

from mtlcli.config.torch_options import torch_options
from mtlcli.errors import ConfigError
from mtlcli.registry import Component, Option

_NOTHING = object()


class Options(BaseModel):
    """Base of the models made here: strict types, unknown options are errors, no NaN and no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class FreeOptions(Options):
    """Base of the model of a component that checks options of any name itself."""

    model_config = ConfigDict(extra="allow")


@cache
def options_of(component: Component) -> dict[str, Option]:
    """The options a YAML file may set, by name, their annotations reduced to what YAML can give."""
    found = component.options if component.keyword_only else torch_options(component)
    return {
        name: Option(name, plain, option.default, option.description)
        for name, option in found.items()
        if (plain := _plain(option.annotation)) is not _NOTHING
    }


def options_model(component: Component, reserved: dict[str, Option], default: str | None) -> type[Options]:
    """The model of an entry: `name`, the reserved keys its kind has in common, and the component's options.

    default: name of the component an entry has that gives none.
    """
    options = options_of(component)
    if taken := sorted({"name", *reserved} & options.keys()):
        raise ConfigError(
            f"{component.kind} {component.name!r} can't have an option called {taken[0]!r}: it is reserved"
        )
    fields: dict[str, Any] = {
        # The prefix keeps names such as `copy` and `model_x` apart from pydantic's own.
        f"option_{option.name}": (
            option.annotation,
            Field(
                ... if option.required else option.default, alias=option.name, description=option.description or None
            ),
        )
        for option in [*reserved.values(), *options.values()]
    }
    name: Any = Literal[component.name]
    named = Field(component.name if component.name == default else ..., alias="name", description=component.summary)
    return create_model(
        f"{component.kind}.{component.name}",
        __base__=FreeOptions if component.takes_any_option else Options,
        __doc__=component.doc if component.keyword_only else component.summary,  # torch's run to pages
        option_name=(name, named),
        **fields,
    )


def _plain(annotation: Any) -> Any:
    """The part of a type that YAML can give; lists for tuples, strings for paths; _NOTHING where there is none."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        inner = _plain(arguments[0])
        return inner if inner is _NOTHING else Annotated[inner, *arguments[1:]]
    if origin in (Union, types.UnionType):
        parts = [part for one in arguments if (part := _plain(one)) is not _NOTHING]
        return Union[tuple(parts)] if [p for p in parts if p is not type(None)] else _NOTHING  # noqa: UP007
    if origin is Literal or annotation in (Any, object, None, type(None)):
        return annotation
    if origin in (collections.abc.Iterable, collections.abc.Sequence, list):
        item = _plain(arguments[0])
        return item if item is _NOTHING else types.GenericAlias(list, (item,))
    if origin is tuple:
        items = [... if one is ... else _plain(one) for one in arguments]
        return _NOTHING if _NOTHING in items else Annotated[types.GenericAlias(tuple, tuple(items)), Strict(False)]
    if origin in (dict, collections.abc.Mapping):
        key, value = map(_plain, arguments)
        return _NOTHING if _NOTHING in (key, value) else types.GenericAlias(dict, (key, value))
    if annotation is Path:
        return Annotated[Path, Strict(False)]
    if annotation in (int, float, bool, str, list, dict):
        return annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else _NOTHING
