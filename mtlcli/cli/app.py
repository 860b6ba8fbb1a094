"""The app: every verb, from its own file. None of them imports torch before it is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mtlcli.cli.compare import compare
from mtlcli.cli.data import data
from mtlcli.cli.doctor import doctor
from mtlcli.cli.eval import evaluate
from mtlcli.cli.export import export
from mtlcli.cli.init import init
from mtlcli.cli.list import list_components
from mtlcli.cli.relate import relate
from mtlcli.cli.schema import schema
from mtlcli.cli.show import show
from mtlcli.cli.summary import summary
from mtlcli.cli.train import train
from mtlcli.cli.validate import validate
from mtlcli.errors import ConfigError, alike
from mtlcli.version import __version__

SHORT_HELP = {"help_option_names": ["-h", "--help"]}

# Verbs as other tools have them → ours.
OTHER_NAMES = {
    "train": "fit run start resume", "eval": "evaluate evaluation test score", "validate": "check lint verify",
    "compare": "benchmark sweep tune", "list": "ls", "show": "info describe", "init": "new create",
    "data fetch": "fetch download", "--help": "help",
}  # fmt: skip


class Verbs(TyperGroup):
    """The verbs, with a hint for one that does not exist only where it is clear what is meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See click."""
        try:
            return super().resolve_command(ctx, args)
        except Exception as error:  # click's UsageError, which typer may have a copy of
            if args and str(getattr(error, "message", "")).startswith("No such command"):
                other = [ours for ours, names in OTHER_NAMES.items() if args[0] in names.split()]
                close = other or get_close_matches(args[0], self.commands, n=1, cutoff=0.75)
                hint = f" Did you mean {close[0]!r}?" if close else f" Choose from: {', '.join(self.commands)}"
                error.message = f"No such command {args[0]!r}.{hint}"  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    cls=Verbs,
    help="Train multi-task models from a YAML file, and see with evidence which tasks should share a network.",
    context_settings=SHORT_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mtl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


class Verb(TyperCommand):
    """A command that answers `--epochs 3` with the override that sets that key."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click. ConfigError for an unknown option that is a key of the experiment."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            flag = getattr(error, "option_name", None)  # click's NoSuchOption, which typer may have a copy of
            takes_overrides = any(parameter.metavar and "KEY=VALUE" in parameter.metavar for parameter in self.params)
            if type(error).__name__ == "NoSuchOption" and isinstance(flag, str) and takes_overrides:
                from mtlcli.cli.app import refuse

                refuse(flag, given, self)
            raise


_VERBS: dict[str, Callable[..., None]] = {
    "init": init,
    "validate": validate,
    "summary": summary,
    "train": train,
    "eval": evaluate,
    "compare": compare,
    "relate": relate,
    "export": export,
    "list": list_components,
    "show": show,
    "schema": schema,
    "doctor": doctor,
}
for _name, _verb in _VERBS.items():
    app.command(_name, cls=Verb, context_settings=SHORT_HELP)(_verb)
app.add_typer(data, name="data")


def refuse(flag: str, arguments: Sequence[str], command: Any) -> None:
    """ConfigError that names the override for an unknown option; nothing where it stands for no key.

    command: the click command, whose own options come first.
    """
    from mtlcli.config.suggestions import override_for, takes

    own = [name for parameter in command.params for name in getattr(parameter, "opts", ())]
    experiment = _experiment(arguments)
    key = None if alike(flag, own) else override_for(flag, experiment)
    if key is not None:
        value = _value(flag, arguments)
        if value and key == "training.device" and value.isdecimal():
            value = f"cuda:{value}"
        elif value and not takes(key, value, experiment):
            value = None
        raise ConfigError(
            f"no option {flag}: the keys of an experiment are set as KEY=VALUE, without dashes: "
            f"{quote(f'{key}={value}') if value else f'{key}=VALUE'}"
        )


def _value(flag: str, arguments: Sequence[str]) -> str | None:
    """The value given for the flag, as `--flag VALUE` or `--flag=VALUE`."""
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == flag:
            after = arguments[at + 1] if at + 1 < len(arguments) else ""
            return value if equals else None if after.startswith("-") or "=" in after else after
    return None


def _experiment(arguments: Sequence[str]) -> Any:
    """The data of the first argument that is a readable experiment file; nothing where there is none."""
    from mtlcli.config.yaml import read

    for argument in arguments:
        if argument.endswith((".yaml", ".yml")):
            try:
                return read(Path(argument)).data
            except ConfigError:
                continue
    return {}
