"""Axes of a study's grid: `KEY=VALUE,VALUE,…` of `--vary` and `--tune`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mtlcli.config.yaml import parse
from mtlcli.errors import ConfigError, Problem

OPENING, CLOSING, QUOTES = "[{", "]}", "\"'"
REFUSED_KEYS = {"seed": "--seeds N trains each of them with N seeds", "name": "it makes no difference to a run"}


@dataclass(frozen=True)
class Axis:
    """An axis of a grid.

    Attributes:
        key: the key of the experiment that differs.
        values: its values, in YAML, as written.
    """

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """A point of a grid: one value of each axis.

    Attributes:
        label: short description, such as `mgda` or `lr=0.01`.
        overrides: `KEY=VALUE`, as `load_experiment` accepts them.
    """

    label: str
    overrides: tuple[str, ...]

    @property
    def settings(self) -> dict[str, str]:
        """Key → value, as written."""
        return {key: value for key, _, value in (override.partition("=") for override in self.overrides)}


def parse_axes(vary: Sequence[str], tune: Sequence[str]) -> tuple[list[Axis], list[Axis]]:
    """Parse the axes of `--vary` and of `--tune`.

    Args:
        vary: arguments of `--vary`, `KEY=VALUE,VALUE,…`.
        tune: arguments of `--tune`.

    Returns:
        The axes of each.

    Raises:
        ConfigError: Lists the arguments that can't be parsed, and the keys that are repeated.
    """
    problems: list[Problem] = []
    axes: dict[str, list[Axis]] = {"--vary": [], "--tune": []}
    for option, texts in (("--vary", vary), ("--tune", tune)):
        for text in texts:
            try:
                axes[option].append(_parse_axis(text, [axis.key for parsed in axes.values() for axis in parsed]))
            except ValueError as error:
                problems.append(Problem(f"{option} {text!r}: {error}"))
    if problems:
        raise ConfigError(problems)
    return axes["--vary"], axes["--tune"]


def grid_points(axes: Sequence[Axis], separator: str = " + ") -> list[Point]:
    """List all combinations of the values of the axes.

    Args:
        axes: the axes; the values of the first one vary slowest.
        separator: text between the values in the labels.

    Returns:
        The points; without axes, a single one without overrides.
    """
    names = _short_names([axis.key for axis in axes])
    points = []
    for values in itertools.product(*(axis.values for axis in axes)):
        label = separator.join(_label(name, value) for name, value in zip(names, values, strict=True))
        overrides = tuple(f"{axis.key}={value}" for axis, value in zip(axes, values, strict=True))
        points.append(Point(label, overrides))
    return points


def split_values(text: str) -> list[str]:
    """Split a text at the commas outside brackets and quotes; ValueError if one of them is not closed.

    Args:
        text: values in YAML.

    Returns:
        The values, without surrounding spaces.
    """
    return [value.strip() for value in _split(text)]


def _split(text: str) -> Iterator[str]:
    start, depth, quote = 0, 0, ""
    for index, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in QUOTES:
            quote = character
        elif character in OPENING:
            depth += 1
        elif character in CLOSING:
            depth -= 1
        elif character == "," and depth == 0:
            yield text[start:index]
            start = index + 1
    if depth or quote:
        raise ValueError(f"unbalanced {'brackets' if depth else 'quotes'} in {text!r}")
    yield text[start:]


def _parse_axis(text: str, earlier: Sequence[str]) -> Axis:
    """Parse an axis; ValueError if it is invalid, or its key is one of the earlier ones."""
    key, equals, rest = text.partition("=")
    if not equals or not key:
        raise ValueError("expected KEY=VALUE,VALUE,…, such as weighting=uniform,mgda")
    if key in REFUSED_KEYS:
        raise ValueError(f"{key} can't be varied: {REFUSED_KEYS[key]}")
    values = split_values(rest)
    if "" in values:
        raise ValueError("expected values separated by commas, found an empty one")
    if repeated := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
        raise ValueError(f"{', '.join(repeated)} is given twice")
    if key in earlier:
        raise ValueError(f"{key} is given twice: give all its values at once")
    return Axis(key, tuple(values))


def _short_names(keys: Sequence[str]) -> list[str]:
    """Shorten keys for labels: to nothing for a component or its name, else to the last part if that is unique."""
    last_parts = [key.rpartition(".")[2] for key in keys]
    return [
        "" if "." not in key or last == "name" else last if last_parts.count(last) == 1 else key
        for key, last in zip(keys, last_parts, strict=True)
    ]


def _label(name: str, value: str) -> str:
    """Format a value: `lr=0.01`, `mgda`, or `cagrad c=0.2` for `{name: cagrad, c: 0.2}`."""
    if name:
        return f"{name}={value}"
    try:
        entry = parse(value, value).data
    except ConfigError:  # the validation of the experiment reports it, with its location
        return value
    if isinstance(entry, dict) and isinstance(entry.get("name"), str):
        options = (f"{key}={_format_option(option)}" for key, option in entry.items() if key != "name")
        return " ".join([entry["name"], *options])
    return value


def _format_option(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
