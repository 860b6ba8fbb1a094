"""Plugins: modules and files of users that register components.

A plugin is imported if the user gives it to `--plugin`, if an experiment file names it and the user allows that (see
`config.load`), or if an installed package declares it as an entry point of the group `mtlcli.plugins`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mtlcli.error_origin import add_plugin, error_reason, plugin_location
from mtlcli.errors import ConfigError
from mtlcli.files import user_path

PLUGIN_GROUP = "mtlcli.plugins"
_loaded_plugins: dict[str, str] = {}  # name given by the user → name recorded in components
_importing: str | None = None  # recorded name of the plugin that is being imported


@contextmanager
def import_of(plugin: str) -> Iterator[None]:
    """Return a context in which the components that are registered belong to a plugin, by its recorded name."""
    global _importing
    before, _importing = _importing, plugin
    try:
        yield
    finally:
        _importing = before


def origin_of(module: str) -> str:
    """Return the recorded name of the plugin that a module belongs to, and register its package as plugin code.

    Args:
        module: dotted name of the module.

    Returns:
        The plugin that is being imported, or the module itself.
    """
    package = sys.modules.get(module.partition(".")[0])
    file = getattr(package, "__file__", None)
    if file is not None:
        add_plugin(str(Path(file).parent) if hasattr(package, "__path__") else file)
    return _importing or module


def load_plugin(plugin: str, source: str = "--plugin") -> None:
    """Import a plugin that the user has given or allowed.

    Args:
        plugin: a module, or a file ending in .py.
        source: origin of the name, for the error message.

    Raises:
        ConfigError: it doesn't exist or its import fails.
    """
    try:
        if plugin.endswith(".py"):
            path = user_path(plugin).resolve(strict=True)
            add_plugin(str(path))
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(path.stem, module)
            with import_of(_recorded(plugin)):
                spec.loader.exec_module(module)
        else:
            with import_of(plugin):
                importlib.import_module(plugin)
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == plugin
        # unlike Path.is_file, returns False for a name that is too long
        is_file = missing and os.path.isfile(f"{plugin}.py")  # noqa: PTH113
        hint = f". Did you mean the file {plugin}.py?" if is_file else ""
        raise ConfigError(f"{source} {plugin}: can't be imported: {import_error(error)}{hint}") from error
    _loaded_plugins.setdefault(plugin, _recorded(plugin))


def loaded_plugins(recorded: Iterable[str] | None = None) -> list[str]:
    """Return the imported plugins by their given names.

    Args:
        recorded: only plugins with these recorded names. Default: all.

    Returns:
        The names.
    """
    wanted = None if recorded is None else set(recorded)
    return [plugin for plugin, name in _loaded_plugins.items() if wanted is None or name in wanted]


def is_loaded(plugin: str) -> bool:
    """Return whether a module, or a file by any of its paths, was imported as a plugin."""
    return any(_located(plugin) == _located(other) for other in _loaded_plugins)


def _located(plugin: str) -> str:
    return str(user_path(plugin).resolve()) if plugin.endswith(".py") else plugin


def _recorded(plugin: str) -> str:
    """Return the name recorded in components: of a file, its name without the folder."""
    return Path(plugin).name if plugin.endswith(".py") else plugin


def import_error(error: BaseException) -> str:
    """Describe the error of an import, with its line in a plugin."""
    location = plugin_location(error)
    text = error_reason(error)
    named = text if text.startswith((type(error).__name__, "calls ")) else f"{type(error).__name__}: {text}"
    return f"{location.file}:{location.line}: {named}" if location else named
