"""What a sharing does with its examples: means of its gates, stitches and masks."""

from __future__ import annotations

from torch import Tensor


class Watch:
    """Means over examples, summed up on their device; read once, at the end.

    A sharing whose `watch` is set adds to it, in `representations`, what each task makes of the shared network.
    """

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, Tensor]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, task: str, name: str, value: Tensor, examples: int) -> None:
        """Take in `value`, 0-d, the mean over so many examples of a figure of the task: such as `expert0`."""
        figures = self._sums.setdefault(task, {})
        part = value.detach().float() * examples
        figures[name] = figures[name] + part if name in figures else part
        self._counts[task, name] = self._counts.get((task, name), 0) + examples

    def means(self) -> dict[str, dict[str, float]]:
        """task → name → mean over all examples."""
        return {
            task: {name: float(total) / self._counts[task, name] for name, total in figures.items()}
            for task, figures in self._sums.items()
        }
