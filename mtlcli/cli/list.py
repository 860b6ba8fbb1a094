"""`mtl list`: all registered components."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mtlcli.cli import table
from mtlcli.cli.arguments import Json, Plugins, examples
from mtlcli.errors import ConfigError, suggest
from mtlcli.registry import REGISTRIES, TorchRegistry
from mtlcli.text import format_markdown


@examples("mtl list weighting", "mtl list --json")
def list_components(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help=f"Choose from: {', '.join(REGISTRIES)}. Default: all.")
    ] = None,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    plugin: Plugins = None,
) -> None:
    """List the available components.

    Components are the datasets, trunks, heads, weightings, … that an experiment refers to by name. `mtl show NAME`
    describes one.
    """
    registries = [registry for name, registry in REGISTRIES.items() if kind in (None, name, f"{name}s")]
    if not registries:
        hint = suggest(str(kind), REGISTRIES)
        raise ConfigError(f"no kind of component {kind!r}.{hint} Choose from: {', '.join(REGISTRIES)}")
    if as_json:
        components = [registry[name] for registry in registries for name in registry.names()]
        print(json.dumps([{"kind": c.group, "name": c.name, "summary": c.summary} for c in components], indent=2))
        return
    rows = [["kind", "name", "description"]]
    for registry in registries:
        names = registry.names()
        if markdown and isinstance(registry, TorchRegistry):
            of_torch = [name for name in names if not registry[name].keyword_only]
            rows.append([registry.group, ", ".join(f"`{name}`" for name in of_torch), f"`{registry.package}`"])
            names = [name for name in names if name not in of_torch]
        code = "`" if markdown else ""
        rows += [[registry.group, f"{code}{name}{code}", registry[name].summary] for name in names]
    for line in format_markdown(rows) if markdown else table.align_text(rows):
        print(line)
