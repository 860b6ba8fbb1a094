"""YAML → Experiment, or everything that is wrong with it at once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mtlcli.config import explain
from mtlcli.config import overrides as overriding
from mtlcli.config.bounds import bounded
from mtlcli.config.crosschecks import crosschecks
from mtlcli.config.describe import found
from mtlcli.config.readings import settle
from mtlcli.config.schema import MAX_NAME, Experiment
from mtlcli.config.source import Source, dotted, in_order
from mtlcli.config.yaml import Document, read
from mtlcli.errors import ConfigError
from mtlcli.plugins import is_loaded, load_plugin

ALLOW_PLUGINS = "MTL_ALLOW_PLUGINS"


def load_experiment(path: str | Path, overrides: Sequence[str] = (), allow_plugins: bool = False) -> Experiment:
    """The experiment in a YAML file, with `KEY=VALUE` overrides. Raises ConfigError with all problems, by line.

    allow_plugins: whether the plugins that the file names may be imported, as they may where $MTL_ALLOW_PLUGINS is 1.
    """
    file = Path(path)
    stem = re.sub(r"^[^A-Za-z0-9_]|[^A-Za-z0-9_.-]", "_", file.stem)  # fit for a folder's name
    allowed = allow_plugins or os.environ.get(ALLOW_PLUGINS, "").lower() in ("1", "true", "yes", "on")
    return _experiment(read(file), overrides, Source(), stem[:MAX_NAME], allowed)


def experiment_from_dict(
    plain: dict[str, Any], overrides: Sequence[str] = (), source: str = "checkpoint.pt"
) -> Experiment:
    """The experiment in plain data, such as a checkpoint's; `source` says in messages where that came from."""
    where = Source(f"in the experiment of {source}")
    return _experiment(Document(bounded(plain, where)), overrides, where, "experiment")


def _import_plugins(plugins: Any, source: Source, allowed: bool) -> None:
    """Import the plugins that a file names. ConfigError where that isn't allowed, or one can't be imported."""
    named = plugins if isinstance(plugins, list) and all(isinstance(one, str) for one in plugins) else []
    missing = [plugin for plugin in named if not is_loaded(plugin)]
    if missing and not allowed:
        raise ConfigError(
            source.problem(
                ("plugins",),
                f"a plugin is code, so what a file names is imported only where you allow it: --allow-plugins, or "
                f"{ALLOW_PLUGINS}=1 in the environment (after a look at: {', '.join(missing)})",
            )
        )
    for plugin in missing:
        try:
            load_plugin(plugin, "plugin")
        except ConfigError as error:
            raise ConfigError(source.problem(("plugins", named.index(plugin)), str(error))) from error


def _experiment(
    document: Document, overrides: Sequence[str], source: Source, stem: str, allow_plugins: bool = False
) -> Experiment:
    source.places = document.places
    if document.data is None:
        raise ConfigError(source.problem((), "nothing there: an experiment has at least datasets, tasks and a trunk"))
    if not isinstance(document.data, dict):
        raise ConfigError(source.problem((), f"expected an experiment (a mapping), found {found(document.data)}"))
    problems = overriding.apply(document, overrides, source)
    _import_plugins(document.data.get("plugins"), source, allow_plugins)
    undecided, unreadable = settle(document, Experiment)
    problems += undecided
    problems += [source.problem(path, message) for path, message in document.unexpanded.items()]
    data = {"name": stem, **bounded(document.data, source)}
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        # A value that can't be expanded or read is null so far, which is no problem of its own.
        invalid = explain.problems(error, Experiment, data, source)
        unset = {dotted(path) for path in [*document.unexpanded, *unreadable]}
        problems += [problem for problem in invalid if problem.path not in unset]
    problems += crosschecks(data, source)
    if problems:
        raise ConfigError(in_order(problems))
    experiment._source = source
    return experiment
