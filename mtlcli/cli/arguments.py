"""Options that several verbs have."""

from __future__ import annotations

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
        help="Import components of your own first: a module, or a file ending in .py. May be given several times.",
    ),
]
"""The components to import before the verb runs; already imported when it does."""

AllowPlugins = Annotated[
    bool, typer.Option("--allow-plugins", help="Import the plugins that the experiment file names: they are code.")
]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]

ConfigFile = Annotated[str, typer.Argument(metavar="CONFIG", help="The experiment file (YAML).")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Set keys of the experiment: training.epochs=1 weighting=uncertainty"),
]
Requirements = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK.METRIC>=X",
        help="Exit with code 3 if this doesn't hold for the final metrics. May be given several times.",
    ),
]
