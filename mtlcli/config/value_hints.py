"""Hints for values of the wrong type: a list of one, a number without quotes, another name of a choice."""

from __future__ import annotations

import json
import re
import typing
from typing import Any, Literal

from mtlcli.config.lookup import bare_type, fields_of, fits, is_model
from mtlcli.config.scalars import resolve

# Words of other tools for the choices there are.
CHOICES = {
    "fp32": "float32 float full 32 32-true single", "fp16": "float16 half 16 16-mixed fp16-mixed mixed amp",
    "bf16": "bfloat16 bf16-mixed", "step": "steps batch iteration", "epoch": "epochs",
    "val": "valid validation", "test": "testing", "train": "training", "auto": "none default",
}  # fmt: skip
TRUE, FALSE = ("yes", "on", "y"), ("no", "off", "n")


def value_hint(value: Any, annotation: Any) -> str:
    """A hint for a value of the wrong type: "; write …", or ""."""
    if isinstance(value, str) and (variable := re.match(r"\$([A-Za-z_][A-Za-z0-9_]*)", value)):
        return f"; an environment variable is written ${{{variable[1]}}}"
    if is_model(annotation) and isinstance(value, str) and re.match(r"\w+:\S", value):
        return "; is a space missing after the colon?"
    if is_model(annotation) and not isinstance(value, dict) and value is not None:
        return f"; its keys are {', '.join(fields_of(annotation))}"
    if value is not None and not isinstance(value, list) and fits([value], annotation):
        return "; write it as a list of one" if isinstance(value, dict) else f"; write [{_spelled(value)}]"
    if isinstance(value, int | float) and not isinstance(value, bool) and fits(str(value), annotation):
        return "; write it in quotes"
    if isinstance(value, float) and value.is_integer() and fits(int(value), annotation):
        return f"; write {int(value)}"
    return _meant(value, annotation) if isinstance(value, str) else ""


def _spelled(value: Any) -> str:
    """The value as YAML has to spell it: a string that looks like something else in quotes."""
    try:
        return json.dumps(value) if isinstance(value, str) and not isinstance(resolve(value), str) else str(value)
    except ValueError:
        return json.dumps(value)


def _meant(text: str, annotation: Any) -> str:
    """The same of a string."""
    word = text.strip().lower()
    if bare_type(annotation) is bool and word in (*TRUE, *FALSE):
        return f"; write {'true' if word in TRUE else 'false'}"
    choices = [one for one in _choices(annotation) if word in CHOICES.get(one, "").split() or word == one.lower()]
    if choices:
        return f"; write {choices[0]}"
    try:
        value = resolve(text.strip())
    except ValueError:
        return ""
    return f"; write {text.strip()} without quotes" if not isinstance(value, str) and fits(value, annotation) else ""


def _choices(annotation: Any) -> list[str]:
    """The strings that a type takes by name."""
    if typing.get_origin(annotation) is Literal:
        return [one for one in typing.get_args(annotation) if isinstance(one, str)]
    return [choice for one in typing.get_args(annotation) for choice in _choices(one)]
