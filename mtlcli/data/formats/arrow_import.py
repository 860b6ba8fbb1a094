"""Import of pyarrow, an optional dependency that takes time and memory to import."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from mtlcli.errors import ConfigError


def import_arrow(what: str, module: str = "pyarrow") -> Any:
    """Import pyarrow, which is an optional dependency.

    Args:
        what: file or format that needs it, for the message.
        module: `pyarrow` or one of its submodules.

    Returns:
        The module.

    Raises:
        ConfigError: it isn't installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{what} is read by the package pyarrow, which is not installed: pip install 'mtlcli[data]'"
        ) from error


def has_arrow() -> bool:
    """Return whether pyarrow is installed, without importing it."""
    return importlib.util.find_spec("pyarrow") is not None
