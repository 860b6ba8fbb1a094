"""Plugins: modules and files of the user's that register components.

A plugin is imported because the user names it (`--plugin`), because an experiment file names it and the user allows
that (see `config.load`), or because an installed package announces it in the entry-point group `mtlcli.plugins`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mtlcli.error_origin import add_plugin, plugin_spot, reason
from mtlcli.errors import ConfigError
from mtlcli.files import user_path

PLUGIN_GROUP = "mtlcli.plugins"
_entry_points_loaded = False
_loaded_plugins: dict[str, str] = {}  # as the user named them → as their components record them
_importing: str | None = None  # the plugin that is being imported, as it is recorded


@contextmanager
def _import_of(plugin: str) -> Iterator[None]:
    global _importing
    before, _importing = _importing, plugin
    try:
        yield
    finally:
        _importing = before


def load_entry_points() -> None:
    """Import the plugins that installed packages announce in the entry-point group `mtlcli.plugins`, once."""
    global _entry_points_loaded
    if not _entry_points_loaded:
        _entry_points_loaded = True
        for entry in importlib.metadata.entry_points(group=PLUGIN_GROUP):
            try:
                with _import_of(entry.module):
                    entry.load()
            except (Exception, SystemExit) as error:
                message = f"plugin {entry.name!r} ({entry.value}) can't be loaded: {_import_error(error)}"
                raise ConfigError(message) from error


def origin_of(module: str) -> str:
    """Return the plugin that a module belongs to, as components record it: the one being imported, or the module.

    The code of the module, and of the package it is in, counts as a plugin's from then on.
    """
    package = sys.modules.get(module.partition(".")[0])
    file = getattr(package, "__file__", None)
    if file is not None:
        add_plugin(str(Path(file).parent) if hasattr(package, "__path__") else file)
    return _importing or module


def load_plugin(plugin: str, source: str = "--plugin") -> None:
    """Import a plugin that the user has named or allowed: a file ending in .py, or a module.

    source: where it was named, for messages. Raises ConfigError where it doesn't exist or fails to import.
    """
    try:
        if plugin.endswith(".py"):
            path = user_path(plugin).resolve(strict=True)
            add_plugin(str(path))
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(path.stem, module)
            with _import_of(_recorded(plugin)):
                spec.loader.exec_module(module)
        else:
            with _import_of(plugin):
                importlib.import_module(plugin)
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == plugin
        # unlike Path.is_file, it takes a name that is too long for no file
        meant = missing and os.path.isfile(f"{plugin}.py")  # noqa: PTH113
        hint = f". Did you mean the file {plugin}.py?" if meant else ""
        raise ConfigError(f"{source} {plugin}: can't be imported: {_import_error(error)}{hint}") from error
    _loaded_plugins.setdefault(plugin, _recorded(plugin))


def loaded_plugins(recorded: Iterable[str] | None = None) -> list[str]:
    """The plugins that `load_plugin` has imported, as they were named; only those with these recorded names."""
    wanted = None if recorded is None else set(recorded)
    return [plugin for plugin, name in _loaded_plugins.items() if wanted is None or name in wanted]


def is_loaded(plugin: str) -> bool:
    """Return whether `load_plugin` has imported this module, or this file by whatever path."""
    return any(_located(plugin) == _located(other) for other in _loaded_plugins)


def _located(plugin: str) -> str:
    return str(user_path(plugin).resolve()) if plugin.endswith(".py") else plugin


def _recorded(plugin: str) -> str:
    """The name by which components remember a plugin: of a file its last part."""
    return Path(plugin).name if plugin.endswith(".py") else plugin


def _import_error(error: BaseException) -> str:
    spot = plugin_spot(error)
    text = reason(error)
    named = text if text.startswith((type(error).__name__, "calls ")) else f"{type(error).__name__}: {text}"
    return f"{spot.file}:{spot.line}: {named}" if spot else named
