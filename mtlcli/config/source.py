"""Where each value of an experiment came from, so that every problem can say so.

A path is the tuple of keys and list indices that leads to a value: `("tasks", "digit", "head", "hidden", 0)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mtlcli.errors import Mark, Problem

Path = tuple[str | int, ...]


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
    places: dict[Path, Place] = field(default_factory=dict)

    def problem(self, path: Path, message: str, *, at_key: bool = False) -> Problem:
        """A problem with the value at `path` (or its key), placed at the nearest parent if it has no place itself."""
        place: Mark | str | None = self.where
        below = [found.value for at, found in self.places.items() if at[: len(path)] == path and at != path]
        if path not in self.places and below and isinstance(below[0], str):
            return Problem(f"{message} ({below[0]})", ".".join(map(str, path)))  # an override made this part
        for length in range(len(path), -1, -1):
            found = self.places.get(path[:length])
            if found is not None:
                whole = length == len(path) and not at_key
                place = found.value if whole or found.key is None else found.key
                break
        dotted = ".".join(map(str, path))
        if isinstance(place, Mark):
            return Problem(message, dotted, place)
        return Problem(f"{message} ({place})" if place else message, dotted)

    def replace(self, path: Path, places: Mapping[Path, Place]) -> None:
        """Forget the places at and under `path`, and take over these, whose paths start at `path`."""
        for old in [p for p in self.places if p[: len(path)] == path]:
            del self.places[old]
        self.places |= {path + below: place for below, place in places.items()}


def in_order(problems: list[Problem]) -> list[Problem]:
    """By their place in the file, those without one last; only the first of several about the same value."""
    once = {(p.path, p.mark) if p.path or p.mark else p: p for p in reversed(problems)}.values()
    return sorted(once, key=lambda p: (p.mark.line, p.mark.column, p.path) if p.mark else (2**31, 0, p.path))
