"""PNG plots of a run's history."""

from __future__ import annotations

from pathlib import Path

from mtlcli.training.files import atomic
from mtlcli.training.history import History


def plot_history(history: History, split: str, folder: Path) -> None:
    """`losses.png`, `weights.png`, `metrics.png`, for gradient weightings `conflict.png`: a line for each task."""
    losses = {f"{task} ({where})": line for where in dict.fromkeys(["train", split])
              for task, line in history.series(where, "loss").items()}  # fmt: skip
    _plot(folder / "losses.png", {"loss": losses})
    _plot(folder / "weights.png", {"task weight": history.series("train", "weight")})
    if conflict := {name: line for name in ("cosine", "conflict") for line in history.series("train", name).values()}:
        titles = {"cosine": "mean cosine of the tasks' gradients", "conflict": "share of opposed pairs"}
        _plot(folder / "conflict.png", {titles[name]: {"": line} for name, line in conflict.items()})
    names = dict.fromkeys(row[4] for row in history.rows if row[2] == split and row[4] not in ("loss", "weight"))
    if names:
        _plot(folder / "metrics.png", {f"{name} ({split})": history.series(split, name) for name in names})


def _plot(path: Path, panels: dict[str, dict[str, tuple[list[int], list[float]]]]) -> None:
    """One panel for each entry: title → line's label → (epochs, values)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5 * len(panels), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for label, (epochs, values) in lines.items():
            axes.plot(epochs, values, marker="o" if len(epochs) < 30 else "", markersize=3, label=label)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if any(lines):  # a lone line needs no name
            axes.legend(fontsize="small")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120)
