"""`mtl merge`: merging of trained models into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mtlcli.cli.arguments import Json, Plugins, examples
from mtlcli.errors import ConfigError

if TYPE_CHECKING:
    from mtlcli.api.run_merging import MergedModel


@examples(
    "mtl merge runs/digit runs/parity --method ties --out merged.pt",
    "mtl merge runs/digit runs/parity --coefficient 0.3 --out merged.pt",
)
def merge(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Run folders or checkpoints, two or more; after them, keys of data and evaluation to set: "
            "datasets.ALIAS.path=new.csv evaluation.batch_size=512",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Checkpoint to write, such as merged.pt.")],
    method: Annotated[
        Literal["mean", "task_arithmetic", "ties", "dare", "dare_ties"],
        typer.Option(metavar="METHOD", help="mean, task_arithmetic, ties, dare or dare_ties."),
    ] = "task_arithmetic",
    coefficient: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="Coefficient of all task vectors, or one per task: digit=0.4,parity=0.6. Default: chosen on the "
            "evaluated split, val.",
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Coefficients to try, separated by commas. Default: 0.1 to 1 in steps of 0.1; for ties and dare_ties "
            "0.25 to 2.5 in steps of 0.25.",
        ),
    ] = None,
    by_task: Annotated[
        bool, typer.Option("--by-task", help="Choose a coefficient for each run, instead of a common one.")
    ] = False,
    density: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of each task vector that ties and dare_ties keep.")
    ] = 0.2,
    drop: Annotated[
        float, typer.Option(metavar="SHARE", help="Probability with which dare and dare_ties drop an entry.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the entries that dare drops.")] = 0,
    batch_norm: Annotated[
        Literal["average", "recompute"],
        typer.Option(
            "--batch-norm",
            metavar="average|recompute",
            help="Average the running statistics of batch norm, or recompute them on training examples.",
        ),
    ] = "average",
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Checkpoint, or folder of a pretrained model, that the runs started from. Default: trunk.init_from or "
            "trunk.model of the runs.",
        ),
    ] = None,
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Merge trained models into one model with all of their tasks, without training.

    The trunks are merged relative to the weights that all runs started from, and each task keeps its head. The result
    is a checkpoint for eval, predict, export and trunk.init_from. `docs/merging.md` defines the methods.
    """
    paths = [run for run in runs if not _is_override(run)]
    overrides = [run for run in runs if _is_override(run)]
    coefficients, values = _parse_coefficient(coefficient), _parse_numbers(grid, "--grid")
    from mtlcli.api.run_merging import merge as merge_runs
    from mtlcli.cli.output import print_json
    from mtlcli.cli.progress import watch

    watch()
    merged = merge_runs(
        paths, out=out, method=method, coefficient=coefficients, grid=values, by_task=by_task, density=density,
        drop=drop, seed=seed, batch_norm=batch_norm, base=base, overrides=overrides,
    )  # fmt: skip
    print_json(merged) if json else _print(merged)


def _is_override(text: str) -> bool:
    """Return whether an argument is `KEY=VALUE`; a folder of a study may have `=` in its name."""
    return "=" in text and not Path(text).exists()


def _parse_coefficient(text: str | None) -> float | dict[str, float] | None:
    """Parse `0.3`, or `digit=0.4,parity=0.6`."""
    if text is None:
        return None
    if "=" not in text:
        values = _parse_numbers(text, "--coefficient")
        if len(values) != 1:
            raise ConfigError(f"--coefficient {text}: several numbers; give those to try to --grid")
        return values[0]
    pairs = [pair.partition("=") for pair in text.split(",")]
    return {task.strip(): _parse_numbers(value, "--coefficient")[0] for task, _, value in pairs}


def _parse_numbers(text: str | None, option: str) -> list[float]:
    """Parse numbers that are separated by commas."""
    try:
        return [] if text is None else [float(number) for number in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} {text}: expected numbers, separated by commas") from None


def _print(merged: MergedModel) -> None:
    """Print the search as a table, the first row for the models that are merged, and the chosen coefficients."""
    import shlex
    import sys

    from mtlcli.cli import table
    from mtlcli.text import format_markdown, format_number, printable

    if merged.trials:
        rows = _rows(merged)
        lines = table.align_numbers(rows) if sys.stdout.isatty() else format_markdown(rows, texts=1)
        print("\n".join([f"{merged['split']}:", *lines, ""]))
    chosen = merged.coefficients
    if len(set(chosen.values())) == 1:
        print(f"coefficient: {next(iter(chosen.values())):g}")
    elif chosen:
        print("coefficients: " + ", ".join(f"{printable(name)} {value:g}" for name, value in chosen.items()))
    if merged.trials:
        print(f"Δm relative to the single models: {format_number(merged['delta_m'])}")
    print(f"checkpoint: {printable(str(merged.checkpoint))}")
    if not merged.trials:
        print(f"evaluate it: mtl eval {printable(shlex.quote(str(merged.checkpoint)))}")


def _rows(merged: MergedModel) -> list[list[str]]:
    from mtlcli.text import format_number

    names = {task: next(name for name in metrics if name != "loss") for task, metrics in merged["own"].items()}

    def cells(metrics: dict[str, Any]) -> list[str]:
        return [format_number(metrics[task][name]) for task, name in names.items()]

    head = ["coefficient", *(f"{task} {name}" for task, name in names.items()), "Δm ↓"]
    rows = [head, ["single models", *cells(merged["own"]), ""]]
    for trial in merged.trials:
        values = trial["coefficients"].values()
        label = f"{next(iter(values)):g}" if len(set(values)) == 1 else ", ".join(f"{value:g}" for value in values)
        best = " ← best" if trial["coefficients"] == merged.coefficients else ""
        rows.append([label + best, *cells(trial["metrics"]), format_number(trial["delta_m"])])
    return rows
