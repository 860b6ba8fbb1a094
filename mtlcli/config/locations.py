"""Where each value of an experiment came from, so that every problem can say so.

A path is the tuple of keys and list indices that leads to a value: `("tasks", "digit", "head", "hidden", 0)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mtlcli.errors import Mark, Problem
from mtlcli.text import printable

KeyPath = tuple[str | int, ...]
MOST_PROBLEMS = 50  # that are told at once: a file of another kind may have one in every line


def dotted(path: KeyPath) -> str:
    """A path as messages have it, escaped: a line break in a key would begin another message."""
    return ".".join(printable(str(step)) for step in path)


class Place(NamedTuple):
    """Where a value stands: in a file (its key, where it has one, and itself), or else what set it, in words."""

    value: Mark | str
    key: Mark | str | None = None


@dataclass
class Source:
    """The places of an experiment's values.

    where: what the values came from, in words, for those without a place: "in the experiment of last.pt".
    """

    where: str = ""
    places: dict[KeyPath, Place] = field(default_factory=dict)

    def problem(self, path: KeyPath, message: str, *, at_key: bool = False) -> Problem:
        """A problem with the value at `path` (or its key), placed at the nearest parent if it has no place itself."""
        place: Mark | str | None = self.where
        if path not in self.places:
            below = next((found.value for at, found in self.places.items() if at[: len(path)] == path), None)
            if isinstance(below, str):
                return Problem(_with_origin(message, below), dotted(path))  # an override made this part
        for length in range(len(path), -1, -1):
            found = self.places.get(path[:length])
            if found is not None:
                whole = length == len(path) and not at_key
                place = found.value if whole or found.key is None else found.key
                break
        if isinstance(place, Mark):
            return Problem(message, dotted(path), place)
        return Problem(_with_origin(message, place) if place else message, dotted(path))

    def replace(self, path: KeyPath, places: Mapping[KeyPath, Place]) -> None:
        """Forget the places at and under `path`, and take over these, whose paths start at `path`."""
        for old in [p for p in self.places if p[: len(path)] == path]:
            del self.places[old]
        self.places |= {path + below: place for below, place in places.items()}


def _with_origin(message: str, origin: str) -> str:
    """The message with what set the value, once: a problem may pass through several stages that place it."""
    return message if message.endswith(f"({origin})") else f"{message} ({origin})"


def in_order(problems: list[Problem]) -> list[Problem]:
    """By their place in the file, those without one last; only the first of several about the same value.

    Of many only the first, and a last one that says so.
    """
    once = {(p.path, p.mark) if p.path or p.mark else p: p for p in reversed(problems)}.values()
    ordered = sorted(once, key=lambda p: (p.mark.line, p.mark.column, p.path) if p.mark else (2**31, 0, p.path))
    if len(ordered) > MOST_PROBLEMS:
        ordered[MOST_PROBLEMS:] = [Problem(f"and more: these are the first {MOST_PROBLEMS} problems")]
    return ordered
