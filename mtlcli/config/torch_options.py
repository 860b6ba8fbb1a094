"""What of the signatures of torch's own optimizers and schedulers a YAML file may set."""

from __future__ import annotations

import collections.abc
import inspect
import re
import typing
from typing import Annotated, Any

from pydantic import Field

from mtlcli.registry import Component, Option

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


def torch_options(component: Component) -> dict[str, Option]:
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


def reason_against(component: Component, name: str) -> str | None:
    """Why a parameter of torch's optimizer or scheduler is no option; None where it may be one."""
    if component.keyword_only or (name == "mode" and component.name != "ReduceLROnPlateau"):
        return None
    return BUILDERS.get(name)


def _descriptions(doc: str) -> dict[str, str]:
    """The first sentence of each entry `name (type): description` of a torch docstring."""
    entries = re.findall(r"^ {4}(\w+) \([^:]*\): *(.*(?:\n {6,}.*)*)", doc, re.MULTILINE)
    sentences = {name: " ".join(text.split()).split(". ")[0] for name, text in entries}
    return {name: re.sub(r" ?\(?[Dd]efault:.*", "", text).rstrip(".") + "." for name, text in sentences.items()}
