"""Setup of the processes that train a study's runs: the components they import, and what they don't."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError
from mtlcli.plugins import load_plugin, loaded_plugins
from mtlcli.training.checkpoint.experiment import plugins_of


@contextmanager
def hide_main_module() -> Iterator[None]:
    """Keep multiprocessing from importing the main script in the processes that are started in the block.

    It would run a script that calls `mtlcli.compare` without `if __name__ == "__main__":` again in every process.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def plugins_to_import(experiment: Experiment) -> tuple[str, ...]:
    """Return the plugins that a process has to import to train an experiment.

    Args:
        experiment: The experiment.

    Returns:
        The plugins that were loaded, then the modules of components that were registered by importing them.

    Raises:
        ConfigError: A component is defined in the main script or a notebook, which no other process can import.
    """
    origins = plugins_of(experiment)
    if unreachable := [component for component, plugin in origins.items() if plugin == "__main__"]:
        raise ConfigError(
            f"{unreachable[0]} is defined in the main script, and each run of a study is trained in a process of its "
            "own, which can't import it: move it to a module"
        )
    for module in dict.fromkeys(plugin for plugin in origins.values() if plugin in sys.modules):
        load_plugin(module, "plugin")  # which only notes it, as it is imported
    return tuple(loaded_plugins())
