"""Command line of `mtl`, with one file per verb. No other package prints."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from mtlcli.cli.app import app
from mtlcli.cli.streams import safe_streams
from mtlcli.error_origin import describe_error, plugin_location
from mtlcli.errors import ConfigError, MtlError
from mtlcli.text import printable

TRACEBACK = "MTL_TRACEBACK"  # environment variable that enables tracebacks
SPINS = "10000"
"""Iterations for which a waiting thread of OpenMP spins before it sleeps: a thirtieth of the default, with which a step
takes 80 times as long if another process uses the same cores."""


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


__all__ = ["app", "main"]
