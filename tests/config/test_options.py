"""Options of components from their signatures."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, PositiveInt
from torch import Tensor

from mtlcli.component import Component
from mtlcli.config.components import ComponentField
from mtlcli.config.options import options_of
from mtlcli.config.type_names import describe_type, format_value
from mtlcli.errors import ConfigError
from mtlcli.registry import Registry, optimizers, schedulers


def everything(
    supplied: int,
    *,
    width: PositiveInt = 3,
    share: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    copy: bool = False,
    model_kind: Literal["a", "b"] = "a",
    sizes: Sequence[int] = (1, 2),
    milestones: Iterable[int] = (),
    pair: tuple[float, float | Tensor] = (0.0, 1.0),
    rate: float | Tensor = 0.1,
    folder: Path = Path(),
    names: dict[str, str] | None = None,
    scale: Callable[[int], float] | None = None,
    weights: Tensor | None = None,
    anything: Any = None,
) -> None:
    """All kinds of types.

    Options:
        width: of the thing,
            in metres.
    """


def reserved_name(*, name: str = "x") -> None:
    """Component with an option of a reserved name."""


EVERYTHING = Component("thing", "everything", everything)


@pytest.fixture
def chosen() -> ComponentField:
    things = Registry("thing", "tests.config.nothing_there")
    things._loaded = True
    things.register("everything")(everything)
    things.register("reserved_name")(reserved_name)
    return ComponentField(things)


def test_options_are_parameters_that_yaml_can_represent() -> None:
    options = options_of(EVERYTHING)
    assert "supplied" not in options and "scale" not in options and "weights" not in options
    assert {name: describe_type(option.annotation) for name, option in options.items()} == {
        "width": "an integer > 0",
        "share": "a number ≥ 0 and < 1",
        "copy": "true or false",
        "model_kind": "'a' or 'b'",
        "sizes": "a list of integers",
        "milestones": "a list of integers",
        "pair": "[a number, a number]",
        "rate": "a number",
        "folder": "a path",
        "names": "a mapping of names to strings or null",
        "anything": "anything",
    }
    assert options["width"].description == "Of the thing, in metres."


def test_values_get_the_types_of_the_signature(chosen: ComponentField) -> None:
    given = {"copy": True, "pair": [1, 2], "sizes": [3], "folder": "a/b", "model_kind": "b"}
    entry = chosen.validate({"name": "everything", **given})
    assert entry.options["pair"] == (1.0, 2.0)
    assert entry.options["folder"] == Path("a/b")
    assert entry.options["width"] == 3
    assert entry.plain() == {
        "name": "everything", "width": 3, "share": 0.5, "copy": True, "model_kind": "b", "sizes": [3], "milestones": [],
        "pair": [1.0, 2.0], "rate": 0.1, "folder": "a/b", "names": None, "anything": None,
    }  # fmt: skip


def test_an_option_called_name_is_rejected(chosen: ComponentField) -> None:
    with pytest.raises(ConfigError, match="thing 'reserved_name' can't have an option 'name'"):
        chosen.validate("reserved_name")


@pytest.mark.parametrize("registry", [optimizers, schedulers], ids=lambda registry: registry.group)
def test_the_type_of_every_option_of_torch_is_described(registry: Registry) -> None:
    for name in registry.names():
        options = options_of(registry[name])
        assert options.keys().isdisjoint({"params", "optimizer", "last_epoch", "scale_fn"})
        assert all(describe_type(option.annotation) for option in options.values())
    assert describe_type(options_of(optimizers["Adam"])["betas"].annotation) == "[a number, a number]"
    assert options_of(optimizers["Adam"])["lr"].description == "Learning rate."


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (list[PositiveInt] | None, "a list of integers > 0 or null"),
        (list[str | dict[str, Any]], "a list of strings or mappings of names to anything"),
        (Annotated[list[int], Field(min_length=1)], "a list of integers that isn't empty"),
        (Literal["a", 1, None], "'a', 1 or null"),
        (list[list[float]], "a list of lists of numbers"),
        (dict, "a mapping"),
    ],
)
def test_descriptions_of_types(annotation: Any, words: str) -> None:
    assert describe_type(annotation) == words


def test_descriptions_of_values() -> None:
    assert format_value(None) == "null"
    assert format_value("a") == "the string 'a'"
    assert format_value({"a": [1, True]}) == '{"a": [1, true]}'
    assert len(format_value(list(range(1000)))) == 60
