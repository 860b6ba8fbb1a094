"""Arguments that several commands share, and the class of commands: help with examples, hints for unknown options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from mtlcli.errors import ConfigError, match_spelling
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
BasePath = Annotated[
    Path | None,
    typer.Option(
        "--base",
        metavar="PATH",
        help="Folder or file of the pretrained model that the checkpoint refers to. Default: it is looked for.",
    ),
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


CONTEXT = {"help_option_names": ["-h", "--help"]}
Function = TypeVar("Function", bound=Callable[..., None])
_examples: dict[Callable[..., None], str] = {}


def examples(*commands: str) -> Callable[[Function], Function]:
    """Return a decorator that adds commands to copy to the end of a verb's help, one a line."""

    def add(function: Function) -> Function:
        _examples[function] = "\n".join(commands)
        return function

    return add


def add_verb(app: typer.Typer, name: str, function: Callable[..., None]) -> None:
    """Add a verb to an app, with its examples."""
    app.command(name, cls=Verb, context_settings=CONTEXT, epilog=_examples[function])(function)


def write_examples(epilog: str | None, formatter: Any) -> None:
    """Write the examples below the options, without wrapping their lines.

    Args:
        epilog: the commands, one a line.
        formatter: click's formatter of the help.
    """
    if epilog:
        with formatter.section("Examples"):
            for line in epilog.splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Verb(TyperCommand):
    """A command that ends its help with examples, and suggests an override for an option such as `--epochs 3`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line, without typer's braces around required arguments."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments by their metavars alone, and the options."""
        records = [(parameter, parameter.get_help_record(ctx)) for parameter in self.get_params(ctx)]
        for title, group in (("Arguments", "argument"), ("Options", "option")):
            rows = [record for parameter, record in records if record and parameter.param_type_name == group]
            if group == "argument":  # typer writes `CONFIG <str>`
                rows = [(name.partition(" <")[0], text) for name, text in rows]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        write_examples(self.epilog, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments as click does; ConfigError for an unknown option with the name of an experiment's key."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            flag = getattr(error, "option_name", None)  # click's NoSuchOption, of which typer may have a copy
            takes_overrides = any(parameter.metavar and "KEY=VALUE" in parameter.metavar for parameter in self.params)
            if type(error).__name__ == "NoSuchOption" and isinstance(flag, str) and takes_overrides:
                self._suggest_override(flag, given)
            raise

    def _suggest_override(self, flag: str, arguments: Sequence[str]) -> None:
        """Raise ConfigError with the override of an unknown option, if a key corresponds to it."""
        from mtlcli.config.suggestions import override_for, takes

        options = [name for parameter in self.params for name in getattr(parameter, "opts", ())]
        experiment = _experiment(arguments)
        key = None if match_spelling(flag, options) else override_for(flag, experiment)
        if key is None:
            return
        value = _value(flag, arguments)
        if value and key == "training.device" and value.isdecimal():
            value = f"cuda:{value}"
        elif value and not takes(key, value, experiment):
            value = None
        override = quote(f"{key}={value}") if value else f"{key}=VALUE"
        raise ConfigError(f"no option {flag}: set keys of the experiment as KEY=VALUE, without dashes: {override}")


def _value(flag: str, arguments: Sequence[str]) -> str | None:
    """Return the value of an option, from `--flag VALUE` or `--flag=VALUE`."""
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == flag:
            after = arguments[at + 1] if at + 1 < len(arguments) else ""
            return value if equals else None if after.startswith("-") or "=" in after else after
    return None


def _experiment(arguments: Sequence[str]) -> Any:
    """Return the data of the first argument that is a valid YAML file; an empty dict if there is none."""
    from mtlcli.config.yaml import read

    for argument in arguments:
        if argument.endswith((".yaml", ".yml")):
            try:
                return read(Path(argument)).data
            except ConfigError:
                continue
    return {}
