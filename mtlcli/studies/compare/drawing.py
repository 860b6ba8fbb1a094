"""What the pictures of a comparison have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.shown import missing
from mtlcli.studies.compare.statistics import FEWEST

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETTER, WORSE, ALONE = "#2a7f62", "#b5483a", "#555555"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that is drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def over_seeds(document: Document) -> str:
    """What the intervals in a picture are, in parentheses."""
    seeds = len(document["seeds"])
    return (
        f" ({document['confidence']:.0%} intervals, {seeds} seeds)"
        if seeds >= FEWEST
        else f" ({seeds} seed{'s' if seeds > 1 else ''})"
    )


def half(found: Mapping[str, Any]) -> float | None:
    """Half of an interval's width, where there is one."""
    return None if missing(found["low"]) else (found["high"] - found["low"]) / 2
