"""A component's options as a pydantic model, made from its signature: what validates them and describes them."""

from __future__ import annotations

import collections.abc
import inspect
import re
import types
import typing
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, Strict, create_model

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
def options_of(component: Component[Any]) -> dict[str, Option]:
    """The options a YAML file may set, by name, their annotations reduced to what YAML can give."""
    found = component.options if component.keyword_only else torch_options(component)
    return {
        name: Option(name, plain, option.default, option.description)
        for name, option in found.items()
        if (plain := _plain(option.annotation)) is not _NOTHING
    }


def options_model(component: Component[Any], reserved: dict[str, Option], default: str | None) -> type[Options]:
    """The model of an entry: `name`, the reserved keys its kind has in common, and the component's options.

    default: name of the component an entry has that gives none.
    """
    options = options_of(component)
    if taken := sorted({"name", *reserved} & options.keys()):
        raise ConfigError(
            f"{component.group} {component.name!r} can't have an option called {taken[0]!r}: it is reserved"
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
        f"{component.group}.{component.name}",
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


# Left to the builder, which knows how many steps the run has, where the YAML doesn't set them.
SUPPLIED = {("CosineAnnealingLR", "T_max"), ("OneCycleLR", "total_steps"), ("PolynomialLR", "total_iters")}
PER_STEP = {"OneCycleLR", "CyclicLR"}
# Counts of steps or epochs, which torch takes of any sign: a negative one makes StepLR raise the rate → the least.
COUNTS = {
    **dict.fromkeys(["T_0", "T_max", "step_size", "step_size_up", "step_size_down", "total_steps", "epochs"], 1),
    **dict.fromkeys(["steps_per_epoch"], 1), **dict.fromkeys(["total_iters", "patience", "cooldown"], 0),
}  # fmt: skip
BUILDERS = {  # parameters that are no options → what there is in their place
    "last_epoch": "A run is resumed, and its schedule with it, by --run-dir FOLDER --resume auto.",
    "mode": "The monitored metric says whether more or less of it is better.",  # of ReduceLROnPlateau
    "capturable": "It is for programs around an optimizer, not for a run.",
    "differentiable": "It is for programs around an optimizer, not for a run.",
}


def torch_options(component: Component[Any]) -> dict[str, Option]:
    """The options of an optimizer or scheduler; the first parameter is what it works on, and no option."""
    function = component.target.__init__
    # torch imports some names of its annotations for type checkers only.
    names = {**vars(typing), **vars(collections.abc), **function.__globals__}
    hints = typing.get_type_hints(function, globalns=names)
    descriptions = _descriptions(component.doc)
    options = {}
    for parameter in list(inspect.signature(component.target).parameters.values())[1:]:
        if reason_against(component, parameter.name) or parameter.kind not in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            continue
        annotation, default = hints.get(parameter.name, Any), parameter.default
        if parameter.name in COUNTS and annotation in (int, int | None):
            counted: Any = Annotated[int, Field(ge=COUNTS[parameter.name])]
            annotation = counted if annotation is int else counted | None
        if (component.name, parameter.name) in SUPPLIED:
            annotation, default = annotation | None, None
        options[parameter.name] = Option(parameter.name, annotation, default, descriptions.get(parameter.name, ""))
    return options


def reason_against(component: Component[Any], name: str) -> str | None:
    """Why a parameter of torch's optimizer or scheduler is no option; None where it may be one."""
    if component.keyword_only or (name == "mode" and component.name != "ReduceLROnPlateau"):
        return None
    return BUILDERS.get(name)


def _descriptions(doc: str) -> dict[str, str]:
    """The first sentence of each entry `name (type): description` of a torch docstring."""
    entries = re.findall(r"^ {4}(\w+) \([^:]*\): *(.*(?:\n {6,}.*)*)", doc, re.MULTILINE)
    sentences = {name: " ".join(text.split()).split(". ")[0] for name, text in entries}
    return {name: re.sub(r" ?\(?[Dd]efault:.*", "", text).rstrip(".") + "." for name, text in sentences.items()}


Width = Annotated[int, Field(gt=0, le=2**20)]
"""Features of a layer, or channels."""

Widths = Annotated[list[Width], Field(max_length=100)]
"""Those of layers that follow each other."""

Copies = Annotated[int, Field(gt=0, le=100)]
"""How many networks of the same form."""
