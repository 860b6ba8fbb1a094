"""`KEY=VALUE,VALUE,…` of `--vary` and `--tune`: what of an experiment differs, and how."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mtlcli.config.yaml import parse
from mtlcli.errors import ConfigError, Problem

OPENING, CLOSING, QUOTES = "[{", "]}", "\"'"
REFUSED = {"seed": "--seeds N trains each of them with N seeds", "name": "it makes no difference to a run"}


@dataclass(frozen=True)
class Axis:
    """A key of the experiment, and the values it gets: YAML, as written."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One value of each axis. label: in few words; overrides: `KEY=VALUE`, as `load_experiment` takes them."""

    label: str
    overrides: tuple[str, ...]

    @property
    def settings(self) -> dict[str, str]:
        """Key → value, as written."""
        return {key: value for key, _, value in (one.partition("=") for one in self.overrides)}


def parse_axes(vary: Sequence[str], tune: Sequence[str]) -> tuple[list[Axis], list[Axis]]:
    """The axes of `--vary` and of `--tune`. ConfigError with all that can't be read, or are there twice."""
    problems: list[Problem] = []
    found: dict[str, list[Axis]] = {}
    for option, texts in (("--vary", vary), ("--tune", tune)):
        axes = found.setdefault(option, [])
        for text in texts:
            try:
                axis = _axis(text)
                if any(axis.key == other.key for others in found.values() for other in others):
                    raise ValueError(f"{axis.key} is there twice: give all its values at once")
                axes.append(axis)
            except ValueError as error:
                problems.append(Problem(f"{option} {text!r}: {error}"))
    if problems:
        raise ConfigError(problems)
    return found["--vary"], found["--tune"]


def points(axes: Sequence[Axis], separator: str = " + ") -> list[Point]:
    """All combinations, the first axis' values varying slowest; one point without overrides where there is no axis."""
    names = _short_names([axis.key for axis in axes])
    made = []
    for values in itertools.product(*(axis.values for axis in axes)):
        label = separator.join(_label(name, value) for name, value in zip(names, values, strict=True))
        overrides = tuple(f"{axis.key}={value}" for axis, value in zip(axes, values, strict=True))
        made.append(Point(label, overrides))
    return made


def split_values(text: str) -> list[str]:
    """The parts between the commas that stand in no bracket and no quotes. ValueError for an unclosed one."""
    return [part.strip() for part in _parts(text)]


def _parts(text: str) -> Iterator[str]:
    start, depth, quote = 0, 0, ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in QUOTES:
            quote = letter
        elif letter in OPENING:
            depth += 1
        elif letter in CLOSING:
            depth -= 1
        elif letter == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    if depth or quote:
        raise ValueError(f"{'a bracket' if depth else 'a quote'} without its counterpart in {text!r}")
    yield text[start:]


def _axis(text: str) -> Axis:
    key, equals, rest = text.partition("=")
    if not equals or not key:
        raise ValueError("expected KEY=VALUE,VALUE,…, such as weighting=uniform,mgda")
    if key in REFUSED:
        raise ValueError(f"{key} can't be varied: {REFUSED[key]}")
    values = split_values(rest)
    if "" in values:
        raise ValueError("expected values between commas, and one is empty")
    if twice := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
        raise ValueError(f"{', '.join(twice)} is there twice")
    return Axis(key, tuple(values))


def _short_names(keys: Sequence[str]) -> list[str]:
    """What to call each key: nothing for a component, or its name; else its last part, or all of it to be unmistakable.

    `weighting` and `weighting.name` have values that speak for themselves.
    """
    lasts = [key.rpartition(".")[2] for key in keys]
    return [
        "" if "." not in key or last == "name" else last if lasts.count(last) == 1 else key
        for key, last in zip(keys, lasts, strict=True)
    ]


def _label(name: str, value: str) -> str:
    """Such as `lr=0.01`, `mgda`, or `cagrad c=0.2` for `{name: cagrad, c: 0.2}`."""
    if name:
        return f"{name}={value}"
    try:
        entry = parse(value, value).data
    except ConfigError:  # which the experiment will complain of, with its place
        return value
    if isinstance(entry, dict) and isinstance(entry.get("name"), str):
        return " ".join([entry["name"], *(f"{key}={_plain(one)}" for key, one in entry.items() if key != "name")])
    return value


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
