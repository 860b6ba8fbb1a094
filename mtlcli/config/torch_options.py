"""What of the signatures of torch's own optimizers and schedulers a YAML file may set."""

from __future__ import annotations

import collections.abc
import inspect
import re
import typing
from typing import Any

from mtlcli.registry import Component, Option

# Left to the builder, which knows how many steps the run has, where the YAML doesn't set them.
SUPPLIED = {("CosineAnnealingLR", "T_max"), ("OneCycleLR", "total_steps"), ("PolynomialLR", "total_iters")}
PER_STEP = {"OneCycleLR", "CyclicLR"}
BUILDERS = {
    "last_epoch",  # where to start from is the checkpoint's to say
    "mode",  # of ReduceLROnPlateau: the monitored metric's direction
    "capturable", "differentiable",  # for programs around an optimizer, not for a run
}  # fmt: skip


def torch_options(component: Component) -> dict[str, Option]:
    """The options of an optimizer or scheduler; the first parameter is what it works on, and no option."""
    function = component.target.__init__
    # torch imports some names of its annotations for type checkers only.
    names = {**vars(typing), **vars(collections.abc), **function.__globals__}
    hints = typing.get_type_hints(function, globalns=names)
    descriptions = _descriptions(component.doc)
    options = {}
    for parameter in list(inspect.signature(component.target).parameters.values())[1:]:
        if _builders(component, parameter.name) or parameter.kind not in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            continue
        annotation, default = hints.get(parameter.name, Any), parameter.default
        if (component.name, parameter.name) in SUPPLIED:
            annotation, default = annotation | None, None
        options[parameter.name] = Option(parameter.name, annotation, default, descriptions.get(parameter.name, ""))
    return options


def _builders(component: Component, name: str) -> bool:
    return name in BUILDERS and (name != "mode" or component.name == "ReduceLROnPlateau")


def _descriptions(doc: str) -> dict[str, str]:
    """The first sentence of each entry `name (type): description` of a torch docstring."""
    entries = re.findall(r"^ {4}(\w+) \([^:]*\): *(.*(?:\n {6,}.*)*)", doc, re.MULTILINE)
    sentences = {name: " ".join(text.split()).split(". ")[0] for name, text in entries}
    return {name: re.sub(r" ?\(?[Dd]efault:.*", "", text).rstrip(".") + "." for name, text in sentences.items()}
