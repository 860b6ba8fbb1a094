"""The program `mtl`: its verbs, none of which imports torch before it is called, and its exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
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
from mtlcli.cli.merge import merge
from mtlcli.cli.predict import predict
from mtlcli.cli.relate import relate
from mtlcli.cli.schema import schema
from mtlcli.cli.show import show
from mtlcli.cli.streams import safe_streams
from mtlcli.cli.summary import summary
from mtlcli.cli.train import train
from mtlcli.cli.validate import validate
from mtlcli.error_origin import describe_error, plugin_location
from mtlcli.errors import ConfigError, MtlError
from mtlcli.text import printable
from mtlcli.version import __version__

TRACEBACK = "MTL_TRACEBACK"  # environment variable that enables tracebacks
SPINS = "10000"
"""Iterations for which a waiting thread of OpenMP spins before it sleeps: a thirtieth of the default, with which a step
takes 80 times as long if another process uses the same cores."""

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
    "merge": merge,
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the console script `mtl`.

    Args:
        arguments: the command-line arguments. Default: those of the process.

    Returns:
        The exit code (docs/reliability.md lists them).
    """
    if "OMP_WAIT_POLICY" not in os.environ:  # before the import of torch, when OpenMP reads it
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    with safe_streams() as streams:
        return streams.exit_code(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    given = sys.argv[1:] if arguments is None else [*arguments]
    try:
        app(args=given, prog_name="mtl", obj=given)
    except MtlError as error:
        _print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        _print_error(MtlError(_unexpected(error)))
        return MtlError.exit_code
    return 0


def _unexpected(error: Exception) -> str:
    """Return the message for an unexpected error."""
    if plugin_location(error) is not None:
        return f"{describe_error(error)}; {TRACEBACK}=1 in the environment shows the traceback"
    *_, last = traceback.extract_tb(error.__traceback__)
    where = f"{Path(last.filename).name}:{last.lineno}"
    return (
        f"internal error in mtl: {type(error).__name__}: {error} ({where}); {TRACEBACK}=1 shows the traceback to report"
    )


def _print_error(error: MtlError) -> None:
    """Print a line for each problem, with control characters escaped: quoted values may come from untrusted files."""
    lines = map(str, error.problems) if isinstance(error, ConfigError) else str(error).splitlines()
    for line in lines:
        print(f"error: {printable(' '.join(line.splitlines()))}", file=sys.stderr)
