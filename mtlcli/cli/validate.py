"""`mtl validate`: is this experiment going to run?"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mtlcli.cli.arguments import AllowPlugins, Json, Plugins
from mtlcli.errors import ConfigError, Problem
from mtlcli.text import printable


def validate(
    configs: Annotated[
        list[str], typer.Argument(metavar="CONFIG|KEY=VALUE", help="Experiment files, and overrides for all of them.")
    ],
    as_json: Json = False,
    plugin: Plugins = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Check experiments without training.

    Keys, types, values and names, and whether data, trunk, heads and tasks fit together; of image files, the headers
    of up to 1,000 of each dataset. Prints all problems of all files, each with its place, and exits 2 if there are any.
    """
    files, overrides = split(configs)
    found = {file: _checked(file, overrides, allow_plugins) for file in files}
    wrong = [problem for problems, _ in found.values() for problem in problems]
    if as_json:
        print(json.dumps([_plain(file, *both) for file, both in found.items()], indent=2))
        if wrong:
            raise typer.Exit(ConfigError.exit_code)
        return
    for file, (problems, notes) in found.items():
        for note in notes:
            print(f"warning: {file}: {printable(note)}", file=sys.stderr)
        if not problems:
            print(f"{file}: ok")
    if wrong:
        raise ConfigError(wrong)


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The files and the KEY=VALUE overrides among the arguments. ConfigError where there is no file."""
    overrides = [one for one in arguments if _is_override(one) and not _exists(one)]
    files = [one for one in arguments if one not in overrides]
    if not files:
        raise ConfigError("no experiment file given: mtl validate CONFIG... [KEY=VALUE...]")
    return files, overrides


def _is_override(argument: str) -> bool:
    """Return whether it is KEY=VALUE, or begins with a key of the experiment; what is missing is then reported."""
    from mtlcli.config import Experiment

    key = re.match(r"[\w-]+(?=[.:]|$)", argument)
    begins = key is not None and key[0] in Experiment.model_fields and not argument.endswith((".yaml", ".yml"))
    return bool(re.match(r"[\w.-]*\s*=", argument)) or begins


def _exists(argument: str) -> bool:
    try:
        return Path(argument).exists()
    except (OSError, ValueError):  # too long for a file's name, or with a NUL
        return False


def _checked(file: str, overrides: list[str], allow_plugins: bool) -> tuple[list[Problem], list[str]]:
    """The problems of a file, and what the user should know of one without problems."""
    from mtlcli.config import load_experiment

    try:
        # before torch is imported, which takes seconds
        experiment = load_experiment(file, overrides, allow_plugins)
        from mtlcli.training.assembly.check import check_experiment

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
