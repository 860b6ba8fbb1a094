"""`--epochs 3`: what to write for an option that is a key of the experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from mtlcli.errors import ConfigError, alike


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
