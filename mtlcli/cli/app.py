"""The app: every verb, from its own file. None of them imports torch before it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mtlcli import __version__
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

SHORT_HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
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
                from mtlcli.cli.unknown_option import refuse

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
