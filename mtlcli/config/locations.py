"""Values of an experiment file with their locations, and collection of problems at them.

A path is the tuple of keys and list indices that leads to a value: `("tasks", "digit", "head", "hidden", 0)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from mtlcli.error_origin import describe_error, plugin_location
from mtlcli.errors import ConfigError, Mark, MtlError, OptionError, Problem
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


EXPECTED = (ValueError, TypeError, RuntimeError, ArithmeticError, AssertionError)  # of our components, or torch's


class HasLocations(Protocol):
    """An experiment, which knows the locations of its values."""

    def problem(self, path: str, message: str) -> Problem:
        """Return a problem with the location of a key path."""
        ...


class Problems:
    """Collector of the problems that the components of an experiment raise.

    Args:
        experiment: the experiment.

    Attributes:
        collected: the problems so far.
    """

    def __init__(self, experiment: HasLocations) -> None:
        self.experiment = experiment
        self.collected: list[Problem] = []

    @contextmanager
    def at(self, path: str) -> Iterator[None]:
        """Return a context that collects the problem that the component at a key path raises in it."""
        try:
            yield
        except ConfigError as error:
            self.collected += [self._placed(problem, path) for problem in error.problems]
        except OptionError as error:
            self.collected += [
                self.experiment.problem(f"{path}.{key}", reason) for key, reason in error.refused.items()
            ]
        except MtlError:
            raise
        except (Exception, SystemExit) as error:
            if not isinstance(error, EXPECTED) and plugin_location(error) is None:
                raise
            self.collected.append(self.experiment.problem(path, describe_error(error)))

    def _placed(self, problem: Problem, path: str) -> Problem:
        """Return the problem with the place of `path`, if it has none."""
        place = self.experiment.problem(path, "").message.strip()  # " (set by the override …)", or nothing
        has_place = bool(place) and problem.message.endswith(place)
        if problem.mark or has_place or problem.path not in ("", path):
            return problem
        return self.experiment.problem(path, problem.message)

    @contextmanager
    def now(self, path: str) -> Iterator[None]:
        """Return a context that raises ConfigError for the problem that the component at a key path raises in it."""
        problems = Problems(self.experiment)
        with problems.at(path):
            yield
        problems.check()

    def check(self) -> None:
        """Check that no problem was collected.

        Raises:
            ConfigError: if there are problems; the message lists them.
        """
        if self.collected:
            raise ConfigError(self.collected)
