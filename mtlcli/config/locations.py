"""Values of an experiment file with their locations, for error messages.

A path is the tuple of keys and list indices that leads to a value: `("tasks", "digit", "head", "hidden", 0)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mtlcli.errors import Mark, Problem
from mtlcli.text import printable

KeyPath = tuple[str | int, ...]
MOST_PROBLEMS = 50  # reported at once: a file of another format may have one in every line


def dotted(path: KeyPath) -> str:
    """Return a path as text, with control characters escaped: a line break in a key would start another message."""
    return ".".join(printable(str(step)) for step in path)


class Place(NamedTuple):
    """Location of a value.

    Args:
        value: place in a file, or a description of what set the value.
        key: the same for its key; None if it has none.
    """

    value: Mark | str
    key: Mark | str | None = None


@dataclass
class Source:
    """Locations of all values of an experiment.

    Args:
        where: origin of the values without a location, such as "in the experiment of last.pt".
        places: path → location.
    """

    where: str = ""
    places: dict[KeyPath, Place] = field(default_factory=dict)

    def problem(self, path: KeyPath, message: str, *, at_key: bool = False) -> Problem:
        """Describe a problem with a value.

        Args:
            path: path of the value.
            message: the problem.
            at_key: locate the problem at the value's key.

        Returns:
            The problem, with the location of the value or of its nearest parent that has one.
        """
        place: Mark | str | None = self.where
        if path not in self.places:
            below = next((other.value for at, other in self.places.items() if at[: len(path)] == path), None)
            if isinstance(below, str):
                return Problem(_with_origin(message, below), dotted(path))  # an override created this mapping
        for length in range(len(path), -1, -1):
            nearest = self.places.get(path[:length])
            if nearest is not None:
                whole = length == len(path) and not at_key
                place = nearest.value if whole or nearest.key is None else nearest.key
                break
        if isinstance(place, Mark):
            return Problem(message, dotted(path), place)
        return Problem(_with_origin(message, place) if place else message, dotted(path))

    def replace(self, path: KeyPath, places: Mapping[KeyPath, Place]) -> None:
        """Replace the locations at and below `path` by others, whose paths are relative to `path`."""
        for old in [p for p in self.places if p[: len(path)] == path]:
            del self.places[old]
        self.places |= {path + below: place for below, place in places.items()}


def _with_origin(message: str, origin: str) -> str:
    """Append the origin of the value, unless the message ends with it already."""
    return message if message.endswith(f"({origin})") else f"{message} ({origin})"


def in_order(problems: list[Problem]) -> list[Problem]:
    """Sort problems by their location in the file.

    Args:
        problems: the problems, in any order.

    Returns:
        The first problem of each value, those without a location last; at most `MOST_PROBLEMS`, and one that mentions
        the omitted ones.
    """
    once = {(p.path, p.mark) if p.path or p.mark else p: p for p in reversed(problems)}.values()
    ordered = sorted(once, key=lambda p: (p.mark.line, p.mark.column, p.path) if p.mark else (2**31, 0, p.path))
    if len(ordered) > MOST_PROBLEMS:
        ordered[MOST_PROBLEMS:] = [Problem(f"further problems are omitted: these are the first {MOST_PROBLEMS}")]
    return ordered


@dataclass(frozen=True)
class Reading:
    """Two readings of a value from the environment or the command line.

    Args:
        text: the value as a string.
        value: the value by the rules of YAML.
        quoted: the value is in quotes, so that the string is preferred.
        error: the reason why it isn't valid YAML; it is valid only if its key accepts a string.
    """

    text: str
    value: Any
    quoted: bool = False
    error: str | None = None


@dataclass
class Document:
    """A YAML document.

    Args:
        data: the parsed data.
        places: path → location of each value.
        unexpanded: path → problem of a value whose variables can't be expanded. Reported later, as an override may
            replace the value.
        readings: path → value that may be text or YAML; `overrides.settle` decides by the type of the key.
    """

    data: Any
    places: dict[KeyPath, Place] = field(default_factory=dict)
    unexpanded: dict[KeyPath, str] = field(default_factory=dict)
    readings: dict[KeyPath, Reading] = field(default_factory=dict)

    def forget(self, path: KeyPath) -> None:
        """Remove the notes about the values at and below `path`, which are replaced."""
        self.unexpanded = {at: message for at, message in self.unexpanded.items() if at[: len(path)] != path}
        self.readings = {at: reading for at, reading in self.readings.items() if at[: len(path)] != path}
