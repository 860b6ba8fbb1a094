"""The command-line app with all verbs. None of them imports torch before it is called."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mtlcli.cli.arguments import CONTEXT, add_verb, write_examples
from mtlcli.cli.compare import compare
from mtlcli.cli.data import data
from mtlcli.cli.doctor import doctor
from mtlcli.cli.eval import evaluate
from mtlcli.cli.export import export
from mtlcli.cli.init import init
from mtlcli.cli.list import list_components
from mtlcli.cli.predict import predict
from mtlcli.cli.relate import relate
from mtlcli.cli.schema import schema
from mtlcli.cli.show import show
from mtlcli.cli.summary import summary
from mtlcli.cli.train import train
from mtlcli.cli.validate import validate
from mtlcli.version import __version__

# our verb → names of the same command in other tools
OTHER_NAMES = {
    "train": "fit run start resume", "eval": "evaluate evaluation test score", "validate": "check lint verify",
    "predict": "infer inference apply",
    "compare": "benchmark sweep tune", "list": "ls", "show": "info describe", "init": "new create",
    "data fetch": "fetch download", "--help": "help",
}  # fmt: skip


class Verbs(TyperGroup):
    """The group of all verbs, which suggests a verb for an unknown one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb as click does; the error for an unknown one has a suggestion or lists all."""
        try:
            return super().resolve_command(ctx, args)
        except Exception as error:  # click's UsageError, of which typer may have a copy
            if args and str(getattr(error, "message", "")).startswith("No such command"):
                other = [ours for ours, names in OTHER_NAMES.items() if args[0] in names.split()]
                close = other or get_close_matches(args[0], self.commands, n=1, cutoff=0.75)
                hint = f" Did you mean {close[0]!r}?" if close else f" Choose from: {', '.join(self.commands)}"
                error.message = f"No such command {args[0]!r}.{hint}"  # type: ignore[attr-defined]
            raise

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        write_examples(self.epilog, formatter)


app = typer.Typer(
    cls=Verbs,
    help="Train multi-task models from a YAML file, and measure which tasks benefit from sharing a network.",
    epilog="mtl init\nmtl train experiment.yaml",
    context_settings=CONTEXT,
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


_VERBS: dict[str, Callable[..., None]] = {
    "init": init,
    "validate": validate,
    "summary": summary,
    "train": train,
    "eval": evaluate,
    "compare": compare,
    "relate": relate,
    "predict": predict,
    "export": export,
    "list": list_components,
    "show": show,
    "schema": schema,
    "doctor": doctor,
}
for _name, _verb in _VERBS.items():
    add_verb(app, _name, _verb)
app.add_typer(data, name="data")
