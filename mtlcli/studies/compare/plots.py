"""The pictures of a comparison."""

from __future__ import annotations

from pathlib import Path

from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.plot_cost import plot_cost
from mtlcli.studies.compare.plot_delta import plot_delta
from mtlcli.studies.compare.plot_tasks import plot_tasks
from mtlcli.training.files import atomic

PICTURES = {"delta_m": plot_delta, "tasks": plot_tasks, "cost": plot_cost}


def draw(document: Document, folder: Path) -> None:
    """Write `delta_m.png`, `tasks.png` and `cost.png`."""
    for name, plot in PICTURES.items():
        figure = plot(document)
        with atomic(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, dpi=120)
