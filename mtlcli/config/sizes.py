"""Types of the options that say how large a network is, with bounds far beyond any use.

What goes beyond is a slip of the keyboard or a hostile file, and is told before anything is built. Whether all of a
network together is too large for the machine, `training.memory` finds out.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Width = Annotated[int, Field(gt=0, le=2**20)]
"""Features of a layer, or channels."""

Widths = Annotated[list[Width], Field(max_length=100)]
"""Those of layers that follow each other."""

Copies = Annotated[int, Field(gt=0, le=100)]
"""How many networks of the same form."""
