"""Content of a YAML file with the location of every value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mtlcli.config.locations import KeyPath, Place


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
