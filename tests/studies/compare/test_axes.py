"""Parsing of `--vary` and `--tune`."""

import pytest

from mtlcli.errors import ConfigError
from mtlcli.studies.compare.axes import grid_points, parse_axes, split_values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a,b", ["a", "b"]),
        ("a", ["a"]),
        ("{name: cagrad, c: 0.2},mgda", ["{name: cagrad, c: 0.2}", "mgda"]),
        ("[1, 2],[[3], 4]", ["[1, 2]", "[[3], 4]"]),
        ("'a,b', \"c]\"", ["'a,b'", '"c]"']),
        ("1e-3, 1e-2", ["1e-3", "1e-2"]),
    ],
)
def test_values_are_split_at_outer_commas(text: str, values: list[str]) -> None:
    assert split_values(text) == values


def labels(*vary: str) -> list[str]:
    axes, _ = parse_axes(vary, [])
    return [point.label for point in grid_points(axes)]


def test_combinations_and_their_labels() -> None:
    assert labels() == [""]
    assert labels("weighting=uniform,mgda", "sharing=hard,mmoe") == [
        "uniform + hard", "uniform + mmoe", "mgda + hard", "mgda + mmoe",
    ]  # fmt: skip
    assert labels("weighting={name: cagrad, c: 0.2, normalize: true},{name: mgda}") == [
        "cagrad c=0.2 normalize=true", "mgda",
    ]  # fmt: skip
    assert labels("optimizer.lr=1e-3,0.1", "weighting.name=mgda") == ["lr=1e-3 + mgda", "lr=0.1 + mgda"]
    assert labels("tasks.a.weight=1", "tasks.b.weight=2") == ["tasks.a.weight=1 + tasks.b.weight=2"]
    axes, tuned = parse_axes(["trunk.hidden=[64],[64, 64]"], ["optimizer.lr=1,2"])
    assert [point.overrides for point in grid_points(axes)] == [("trunk.hidden=[64]",), ("trunk.hidden=[64, 64]",)]
    assert grid_points(tuned)[1].settings == {"optimizer.lr": "2"}


def test_all_errors_are_reported_together() -> None:
    wrong = {
        "weighting": "expected KEY=VALUE",
        "=uniform": "expected KEY=VALUE",
        "weighting=uniform,,mgda": "found an empty one",
        "weighting=": "found an empty one",
        "sharing=hard,hard": "hard is given twice",
        "trunk.hidden=[1": "unbalanced brackets",
        "name='a": "name can't be varied",
        "seed=1,2": "--seeds N",
        "head='a": "unbalanced quotes",
    }
    with pytest.raises(ConfigError) as caught:
        parse_axes(list(wrong), ["optimizer.lr=1,2", "optimizer.lr=3"])
    lines = str(caught.value).splitlines()
    assert len(lines) == len(wrong) + 1
    for line, (text, message) in zip(lines, wrong.items(), strict=False):
        assert line.startswith(f"--vary {text!r}: ")
        assert message in line
    assert "optimizer.lr is given twice" in lines[-1]
    with pytest.raises(ConfigError, match="lr is given twice"):
        parse_axes(["optimizer.lr=1,2"], ["optimizer.lr=3,4"])
