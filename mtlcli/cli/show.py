"""`mtl show`: the documentation and options of a component."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from mtlcli.cli import table
from mtlcli.cli.arguments import Plugins, examples
from mtlcli.component import ARGS, Component, Option
from mtlcli.errors import ConfigError, MtlError, suggest
from mtlcli.metric_names import metrics_to_choose
from mtlcli.registry import REGISTRIES, trunks

RAISES = re.compile(r"^Raises:\n((?:[ \t]+.*\n?|\n)+)", re.MULTILINE)


@examples("mtl show pcgrad", "mtl show dataset.digits")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a component in `mtl list`, or KIND.NAME.")],
    plugin: Plugins = None,
) -> None:
    """Show a component and its options.

    The options have types and defaults. For a dataset, the targets are listed too; for a kind of task, its metrics.
    """
    for number, component in enumerate(_find(name)):
        if number:
            print()
        for line in _described(component):
            print(line)


def _find(name: str) -> list[Component[Any]]:
    """Return the components of that name, of which several kinds may have one."""
    kind, _, bare = re.sub(":", ".", name, count=1).rpartition(".")
    pairs = [
        (registry, other) for registry in REGISTRIES.values() for other in (*registry.names(), *registry.aliases())
    ]
    components = [registry[other] for registry, other in pairs if other == bare and kind in ("", registry.group)]
    if not components:
        if (registry := REGISTRIES.get(name) or REGISTRIES.get(name.removesuffix("s"))) is not None:
            raise ConfigError(
                f"{name!r} is a kind of component, not a component; `mtl list {registry.group}` lists them"
            )
        from mtlcli.config.component_hints import component_hint

        names = [other for _, other in pairs] + [f"{registry.group}.{other}" for registry, other in pairs]
        hint = suggest(name, names) or component_hint(trunks, name)
        raise ConfigError(f"no component {name!r}.{hint} `mtl list` lists them all")
    return components


def _described(component: Component[Any]) -> Iterator[str]:
    from mtlcli.config.components import reserved_options
    from mtlcli.config.options import options_of
    from mtlcli.config.type_names import describe_type

    yield f"{component.group} {component.name}"
    # torch's docstrings are pages of reStructuredText
    doc = component.doc if component.keyword_only else f"{component.summary}\n\n{_origin(component)}"
    yield "\n\n".join(_wrap_paragraphs(RAISES.sub("", ARGS.sub("", doc)).strip()))
    options = options_of(component)
    shown = [*options.values(), *reserved_options(component)]
    if shown:
        rows = [["option", "default", "type", "description"]]
        rows += [[o.name, _default(o), describe_type(o.annotation), o.description] for o in shown]
        yield ""
        yield from (f"  {line}" for line in table.align_text(rows))
    if component.group == "dataset" and not any(option.required for option in options.values()):
        yield from _targets(component)
    if component.group == "kind":
        yield from _metrics(component)


def _wrap_paragraphs(doc: str) -> Iterator[str]:
    """Indent the paragraphs of a docstring, and on a terminal wrap them, except indented blocks such as equations."""
    width = table.terminal_width()
    for paragraph in doc.split("\n\n"):
        lines = paragraph.splitlines()
        if width is not None and not any(line.startswith(" ") for line in lines):
            lines = textwrap.wrap(" ".join(lines), max(40, width - 2), break_long_words=False, break_on_hyphens=False)
        yield textwrap.indent("\n".join(lines), "  ")


def _origin(component: Component[Any]) -> str:
    return f"Class of torch: {REGISTRIES[component.group].package}.{component.name}"


def _default(option: Option) -> str:
    return "required" if option.required else json.dumps(option.default, ensure_ascii=False, default=str)


def _metrics(component: Component[Any]) -> Iterator[str]:
    """List the metrics that a task of a kind can report."""
    kind = component.target
    option = component.options.get("primary")
    primary = kind.primary if option is None else option.default
    rows = [["metric", "better", "reported"]]
    for name, direction in metrics_to_choose(kind).items():
        reported = "by default" if name in kind.directions else "if the task's `metrics` contain it"
        suffix = ", the primary metric" if name == primary else ""
        rows.append([name, "higher" if direction == "max" else "lower", reported + suffix])
    yield ""
    yield from (f"  {line}" for line in table.align_text(rows))


def _targets(component: Component[Any]) -> Iterator[str]:
    """Describe the targets that a dataset has with its default options, unless it has to be downloaded first."""
    try:
        spec = component.target().describe()
    except MtlError as error:
        yield f"\n  targets: not available yet: {error}"
        return
    rows = [["target", "type", "size", "classes"]]
    for name, target in spec.targets.items():
        main = " (main)" if name == spec.main_target else ""
        rows.append([name + main, target.type, str(target.size), ", ".join(target.classes or ())])
    inputs = "×".join(map(str, spec.input_shape))
    if spec.columns:
        texts = sum(column.text is not None for column in spec.columns)
        numeric = sum(column.levels is None for column in spec.columns) - texts
        inputs += f" columns, {numeric} numeric, {len(spec.columns) - texts - numeric} categorical"
        inputs += f", {texts} of texts" if texts else ""
    yield f"\n  inputs: {inputs}; splits: {', '.join(spec.splits)}\n"
    yield from (f"  {line}" for line in table.align_text(rows))
