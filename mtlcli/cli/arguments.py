"""Arguments and options of several verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtlcli.plugins import load_plugin


def _load(plugins: list[str] | None) -> list[str] | None:
    for plugin in plugins or []:
        load_plugin(plugin)
    return plugins


Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="MODULE_OR_FILE",
        callback=_load,
        help="Import your own components first, from a module or a .py file. Repeatable.",
    ),
]
"""Plugins, which are imported before the verb runs."""

AllowPlugins = Annotated[
    bool, typer.Option("--allow-plugins", help="Import the plugins that the experiment file names. They run code.")
]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]

ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG", help="Experiment file (YAML).")]
CheckpointFile = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint (.pt), or a run folder for its best checkpoint.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Keys of the experiment to set: training.epochs=5 weighting=pcgrad"),
]
Requirements = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK.METRIC>=X",
        help="Exit with code 3 unless the final metrics satisfy the condition. Repeatable.",
    ),
]
