"""Procedural textures of a rendered scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Pattern = Literal["plain", "checker", "stripes", "waves"]
PATTERNS: tuple[Pattern, ...] = ("checker", "stripes", "waves")


@dataclass(frozen=True)
class Texture:
    """A pattern of two colors that fills space, of which a surface shows a section.

    Args:
        pattern: `plain` has the first color only.
        colors: the two colors, float64 [2, 3] in 0…1.
        frequency: local coordinates → coordinates of the pattern, whose period is 1 or 2, float64 [3, 3].
        phase: offset of the pattern, float64 [3].
    """

    pattern: Pattern
    colors: Array
    frequency: Array
    phase: Array

    def color(self, local: Array) -> Array:
        """Return the color of points.

        Args:
            local: local coordinates in metres, [3, n].

        Returns:
            [3, n] in 0…1.
        """
        first, second = self.colors[0][:, None], self.colors[1][:, None]
        if self.pattern == "plain":
            return np.broadcast_to(first, local.shape)
        places = self.frequency @ local + self.phase[:, None]
        if self.pattern == "waves":
            share = 0.5 + 0.5 * np.sin(2 * np.pi * places[0]) * np.sin(2 * np.pi * places[1])
        elif self.pattern == "stripes":
            share = np.floor(places[0]) % 2
        else:
            share = np.floor(places).sum(0) % 2
        color: Array = first + (second - first) * share
        return color
