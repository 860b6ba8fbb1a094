"""Size limits of experiments from files and checkpoints."""

from collections import OrderedDict
from typing import Any

import pytest
import torch

from mtlcli.config import load
from mtlcli.config.load import MAX_INTEGER, bounded
from mtlcli.config.locations import MOST_PROBLEMS, Source
from mtlcli.config.yaml import MAX_DEPTH
from mtlcli.errors import ConfigError


def refused(data: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        bounded(data, Source("in the experiment of x.pt"))
    return [str(problem) for problem in caught.value.problems]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_plain_data_is_copied() -> None:
    data = {"a": [1, 2.5, "x", None, True], "b": {"c": MAX_INTEGER, "d": -MAX_INTEGER, "e": float("inf")}}
    copy = bounded(data, Source())
    assert copy == data
    copy["a"].append(1)
    copy["b"]["c"] = 0
    assert data == {"a": [1, 2.5, "x", None, True], "b": {"c": MAX_INTEGER, "d": -MAX_INTEGER, "e": float("inf")}}


def test_invalid_values_are_reported_with_their_paths() -> None:
    data = {
        "a": {"b": [0, MAX_INTEGER + 1]},
        "c": -(10**5000),
        "t": torch.zeros(2),
        "o": OrderedDict(),
        "k": {1: 2},
        "s": (1,),
    }
    assert refused(data) == [
        "a.b.1: the integer is too large: the maximum is 4294967295 (in the experiment of x.pt)",
        "c: the integer is too large: the maximum is 4294967295 (in the experiment of x.pt)",
        "k: expected a string as key, found an object of type int (in the experiment of x.pt)",
        "o: expected plain data, found an object of type OrderedDict (in the experiment of x.pt)",
        "s: expected plain data, found an object of type tuple (in the experiment of x.pt)",
        "t: expected plain data, found an object of type Tensor (in the experiment of x.pt)",
    ]


def test_depth() -> None:
    assert bounded(nested(MAX_DEPTH), Source()) == nested(MAX_DEPTH)
    (problem,) = refused(nested(100_000))
    assert problem == f"0.0.0.0: nested deeper than {MAX_DEPTH} levels (in the experiment of x.pt)"


def test_self_referential_data() -> None:
    bomb: list[Any] = [1]
    for _ in range(MAX_DEPTH - 1):
        bomb = [bomb, bomb]
    cycle: list[Any] = []
    cycle.append(cycle)
    assert refused(bomb)[0].startswith("more than 250000 values")
    assert "nested deeper" in refused(cycle)[0]


def test_number_of_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "MAX_VALUES", 11)
    assert bounded([0] * 10, Source()) == [0] * 10
    assert refused([0] * 11) == ["more than 11 values, which is the maximum (in the experiment of x.pt)"]


def test_only_the_first_of_many_problems_are_reported() -> None:
    problems = refused([2**40] * 1000)
    assert problems[:2] == [
        f"{at}: the integer is too large: the maximum is 4294967295 (in the experiment of x.pt)" for at in (0, 1)
    ]
    assert problems[MOST_PROBLEMS:] == [f"further problems are omitted: these are the first {MOST_PROBLEMS}"]
