"""`mtl validate`: checks of experiment files."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mtlcli.cli.arguments import AllowPlugins, Json, Plugins, examples
from mtlcli.errors import ConfigError, Problem
from mtlcli.text import printable


@examples(
    "mtl validate configs/digits.yaml",
    "mtl validate configs/digits.yaml weighting=uncertainty training.batch_size=32",
)
def validate(
    configs: Annotated[
        list[str], typer.Argument(metavar="CONFIG|KEY=VALUE", help="Experiment files, and keys to set in all of them.")
    ],
    as_json: Json = False,
    plugin: Plugins = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Check experiments without training them.

    Checks keys, types, values and names, and that data, trunk, heads and tasks are compatible; for image files, the
    headers of up to 1,000 files of each dataset. Prints all problems of all files with their locations. The exit code
    is 2 if there are any.
    """
    files, overrides = split(configs)
    results = {file: _checked(file, overrides, allow_plugins) for file in files}
    wrong = [problem for problems, _ in results.values() for problem in problems]
    if as_json:
        print(json.dumps([_plain(file, *both) for file, both in results.items()], indent=2))
        if wrong:
            raise typer.Exit(ConfigError.exit_code)
        return
    for file, (problems, notes) in results.items():
        for note in notes:
            print(f"warning: {file}: {printable(note)}", file=sys.stderr)
        if not problems:
            print(f"{file}: ok")
    if wrong:
        raise ConfigError(wrong)


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Separate experiment files from overrides.

    Args:
        arguments: the command-line arguments.

    Returns:
        The files and the `KEY=VALUE` overrides.

    Raises:
        ConfigError: there is no file among the arguments.
    """
    overrides = [text for text in arguments if _is_override(text) and not _exists(text)]
    files = [text for text in arguments if text not in overrides]
    if not files:
        raise ConfigError("no experiment file given: mtl validate CONFIG... [KEY=VALUE...]")
    return files, overrides


def _is_override(argument: str) -> bool:
    """Return whether an argument is KEY=VALUE or starts with a key of the experiment (VALUE may be missing)."""
    from mtlcli.config import Experiment

    key = re.match(r"[\w-]+(?=[.:]|$)", argument)
    begins = key is not None and key[0] in Experiment.model_fields and not argument.endswith((".yaml", ".yml"))
    return bool(re.match(r"[\w.-]*\s*=", argument)) or begins


def _exists(argument: str) -> bool:
    try:
        return Path(argument).exists()
    except (OSError, ValueError):  # too long for a file name, or with NUL
        return False


def _checked(file: str, overrides: list[str], allow_plugins: bool) -> tuple[list[Problem], list[str]]:
    """Return the problems of a file, and notes about a valid one."""
    from mtlcli.config import load_experiment

    try:
        # before the import of torch, which takes seconds
        experiment = load_experiment(file, overrides, allow_plugins)
        from mtlcli.training.assembly.build import check_experiment

        return [], check_experiment(experiment)
    except ConfigError as error:
        return error.problems, []


def _plain(file: str, problems: list[Problem], notes: list[str]) -> dict[str, Any]:
    return {
        "config": file,
        "valid": not problems,
        "problems": [
            {
                "path": problem.path,
                "message": problem.message,
                "line": problem.mark.line if problem.mark else None,
                "column": problem.mark.column if problem.mark else None,
            }
            for problem in problems
        ],
        "warnings": notes,
    }
