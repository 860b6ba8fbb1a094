"""Base of the sections of an experiment, and pydantic models of components' options, created from signatures."""

from __future__ import annotations

import collections.abc
import inspect
import re
import types
import typing
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, Strict, create_model

from mtlcli.component import Component, Option, capitalize
from mtlcli.errors import ConfigError

_NOTHING = object()


class Section(BaseModel):
    """Base of the sections: strict types, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    location: ClassVar[str] = ""  # key path of the section, with a trailing dot

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a private attribute; for others, raise AttributeError with the override that makes the change."""
        if not name.startswith("_"):
            text = str(value) if isinstance(value, str | int | float) else "VALUE"
            raise AttributeError(
                f"an experiment can't be changed; pass the override '{self.location}{name}={text}' to "
                "load_experiment, build or train instead"
            )
        super().__setattr__(name, value)


class Options(BaseModel):
    """Base of the models: strict types, no unknown options, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class FreeOptions(Options):
    """Base of the models of components that check the names of their options themselves."""

    model_config = ConfigDict(extra="allow")


@cache
def options_of(component: Component[Any]) -> dict[str, Option]:
    """Return the options that a YAML file may set, by name, with types reduced to those that YAML can represent."""
    options = component.options if component.keyword_only else torch_options(component)
    return {
        name: Option(name, plain, option.default, option.description)
        for name, option in options.items()
        if (plain := _plain(option.annotation)) is not _NOTHING
    }


def options_model(component: Component[Any], reserved: dict[str, Option], default: str | None) -> type[Options]:
    """Create the pydantic model of a component's entry.

    Args:
        component: the component.
        reserved: the keys that aren't options of the component itself, by name.
        default: name of the component of an entry without `name`; None if `name` is required.

    Returns:
        The model, with the fields `option_name`, one for each reserved key and one for each option.

    Raises:
        ConfigError: the component has an option with the name of a reserved key.
    """
    options = options_of(component)
    if taken := sorted({"name", *reserved} & options.keys()):
        raise ConfigError(
            f"{component.group} {component.name!r} can't have an option {taken[0]!r}: the name is reserved"
        )
    fields: dict[str, Any] = {
        # The prefix separates names such as `copy` and `model_x` from those of pydantic.
        f"option_{option.name}": (
            option.annotation,
            Field(
                ... if option.required else option.default, alias=option.name, description=option.description or None
            ),
        )
        for option in [*reserved.values(), *options.values()]
    }
    name: Any = Literal[(component.name, *component.aliases)]
    named = Field(component.name if component.name == default else ..., alias="name", description=component.summary)
    return create_model(
        f"{component.group}.{component.name}",
        __base__=FreeOptions if component.takes_any_option else Options,
        __doc__=component.doc if component.keyword_only else component.summary,  # torch's are pages long
        option_name=(name, named),
        **fields,
    )


def _plain(annotation: Any) -> Any:
    """Reduce a type to the values that YAML can represent; _NOTHING if it can represent none."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        inner = _plain(arguments[0])
        return inner if inner is _NOTHING else Annotated[inner, *arguments[1:]]
    if origin in (Union, types.UnionType):
        branches = [plain for branch in arguments if (plain := _plain(branch)) is not _NOTHING]
        return Union[tuple(branches)] if [b for b in branches if b is not type(None)] else _NOTHING  # noqa: UP007
    if origin is Literal or annotation in (Any, object, None, type(None)):
        return annotation
    if origin in (collections.abc.Iterable, collections.abc.Sequence, list):
        item = _plain(arguments[0])
        return item if item is _NOTHING else types.GenericAlias(list, (item,))
    if origin is tuple:
        items = [... if item is ... else _plain(item) for item in arguments]
        return _NOTHING if _NOTHING in items else Annotated[types.GenericAlias(tuple, tuple(items)), Strict(False)]
    if origin in (dict, collections.abc.Mapping):
        key, value = map(_plain, arguments)
        return _NOTHING if _NOTHING in (key, value) else types.GenericAlias(dict, (key, value))
    if annotation is Path:
        return Annotated[Path, Strict(False)]
    if annotation in (int, float, bool, str, list, dict):
        return annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else _NOTHING


# Options whose default is computed from the number of steps of the run.
SUPPLIED = {("CosineAnnealingLR", "T_max"), ("OneCycleLR", "total_steps"), ("PolynomialLR", "total_iters")}
PER_STEP = {"OneCycleLR", "CyclicLR"}
# Counts of steps or epochs → their minimum. torch accepts negative ones, with which StepLR increases the rate.
COUNTS = {
    **dict.fromkeys(["T_0", "T_max", "step_size", "step_size_up", "step_size_down", "total_steps", "epochs"], 1),
    **dict.fromkeys(["steps_per_epoch"], 1), **dict.fromkeys(["total_iters", "patience", "cooldown"], 0),
}  # fmt: skip
EXCLUDED = {  # parameters of torch's classes that are no options → the reason
    "last_epoch": "To resume a run and its schedule, use --run-dir FOLDER --resume auto.",
    "mode": "It is derived from the monitored metric.",  # of ReduceLROnPlateau
    "capturable": "It has no effect in a run: it serves programs that call the optimizer themselves.",
    "differentiable": "It has no effect in a run: it serves programs that call the optimizer themselves.",
}


def torch_options(component: Component[Any]) -> dict[str, Option]:
    """Return the options of one of torch's optimizers or schedulers: all parameters but the first."""
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
    """Return the reason why a parameter of torch's optimizer or scheduler is no option; None for an option."""
    if component.keyword_only or (name == "mode" and component.name != "ReduceLROnPlateau"):
        return None
    return EXCLUDED.get(name)


def _descriptions(doc: str) -> dict[str, str]:
    """Return the first sentence of each entry `name (type): description` of a docstring of torch."""
    entries = re.findall(r"^ {4}(\w+) \([^:]*\): *(.*(?:\n {6,}.*)*)", doc, re.MULTILINE)
    sentences = {name: " ".join(text.split()).split(". ")[0] for name, text in entries}
    sentences = {name: re.sub(r" ?\(?[Dd]efault:.*", "", text).rstrip(".") + "." for name, text in sentences.items()}
    return {name: capitalize(text) for name, text in sentences.items()}


Width = Annotated[int, Field(gt=0, le=2**20)]
"""Number of features or channels of a layer."""

Widths = Annotated[list[Width], Field(max_length=100)]
"""Widths of consecutive layers."""

Copies = Annotated[int, Field(gt=0, le=100)]
"""Number of networks of the same architecture."""
