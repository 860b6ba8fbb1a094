"""YAML → Experiment, or everything that is wrong with it at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mtlcli.config import overrides as overriding
from mtlcli.config import validation_errors
from mtlcli.config.crosschecks import crosschecks
from mtlcli.config.locations import MOST_PROBLEMS, KeyPath, Source, dotted, in_order
from mtlcli.config.overrides import settle
from mtlcli.config.scalars import expand, resolve
from mtlcli.config.schema import MAX_NAME, Experiment
from mtlcli.config.type_names import found
from mtlcli.config.yaml import MAX_DEPTH, Document, Reading, read
from mtlcli.errors import ConfigError, Problem
from mtlcli.plugins import is_loaded, load_plugin

ALLOW_PLUGINS = "MTL_ALLOW_PLUGINS"


def load_experiment(
    config: str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str] = (),
    allow_plugins: bool = False,
    *,
    in_memory: Iterable[str] = (),
) -> Experiment:
    """Load and validate an experiment.

    A dict has the form of the YAML file and is validated in the same way: `${NAME:default}` is expanded, and every
    default is filled in. Tuples count as lists, paths as strings, and NumPy scalars as Python numbers.

    Args:
        config: Path of a YAML file, or a dict of the same form.
        overrides: `KEY=VALUE` strings such as `training.epochs=5`, applied in order.
        allow_plugins: Import the plugins that the configuration names. They are imported as well if
            `$MTL_ALLOW_PLUGINS` is 1.
        in_memory: Aliases of datasets whose data is passed from Python. The configuration may leave out their entries,
            or the `name` of an entry; `in_memory` is filled in.

    Returns:
        The validated experiment, which is immutable.

    Raises:
        ConfigError: The configuration is invalid. The message lists all problems, each with its key path and, for a
            file, its line and column.
    """
    overrides = [overrides] if isinstance(overrides, str) else list(overrides)
    allowed = allow_plugins or os.environ.get(ALLOW_PLUGINS, "").lower() in ("1", "true", "yes", "on")
    if isinstance(config, Mapping):
        source = Source("in the configuration")
        document = _document_of(config, source)
        return _experiment(document, overrides, source, "experiment", allowed, in_memory)
    try:
        file = Path(config)
    except TypeError as error:
        kind = type(config).__name__
        message = f"expected the path of an experiment file or a dict of the same form, got {kind}"
        raise ConfigError(message) from error
    stem = re.sub(r"^[^A-Za-z0-9_]|[^A-Za-z0-9_.-]", "_", file.stem)  # fit for a folder's name
    return _experiment(read(file), overrides, Source(), stem[:MAX_NAME], allowed, in_memory)


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
    document: Document,
    overrides: Sequence[str],
    source: Source,
    stem: str,
    allow_plugins: bool = False,
    in_memory: Iterable[str] = (),
) -> Experiment:
    source.places = document.places
    if document.data is None:
        raise ConfigError(source.problem((), "nothing there: an experiment has at least datasets, tasks and a trunk"))
    if not isinstance(document.data, dict):
        raise ConfigError(source.problem((), f"expected an experiment (a mapping), found {found(document.data)}"))
    _add_in_memory(document.data, in_memory)
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
        invalid = validation_errors.problems(error, Experiment, data, source)
        unset = {dotted(path) for path in [*document.unexpanded, *unreadable]}
        problems += [problem for problem in invalid if problem.path not in unset]
    problems += crosschecks(data, source)
    if problems:
        raise ConfigError(in_order(problems))
    experiment._source = source
    return experiment


def _add_in_memory(data: dict[str, Any], aliases: Iterable[str]) -> None:
    """Fill in the entries, or their names, of datasets whose data is passed from Python."""
    datasets = {} if data.get("datasets") is None else data["datasets"]
    for alias in aliases:
        if not isinstance(datasets, dict):
            return  # reported by the validation
        entry = datasets.get(alias)
        if entry is None:
            datasets[alias] = {"name": "in_memory"}
        elif isinstance(entry, dict):
            entry.setdefault("name", "in_memory")
        data["datasets"] = datasets


def _document_of(config: Mapping[str, Any], source: Source) -> Document:
    """The document of a dict that has the form of a YAML file, its environment variables expanded."""
    walk = _PythonWalk(source)
    document = Document(walk.copied(config, ()))
    if walk.problems:
        raise ConfigError(in_order(walk.problems))
    document.data = _expanded(document.data, (), document)
    return document


def _expanded(value: Any, path: KeyPath, document: Document) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, (*path, key), document) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, (*path, index), document) for index, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    try:
        text = expand(value)
        scalar = resolve(text.strip())
    except ValueError as error:
        document.unexpanded[path] = str(error)
        return None
    if scalar != text:
        document.readings[path] = Reading(text, scalar)
    return scalar


MAX_VALUES = 250_000  # with all defaults filled in, and the relations of the tasks
MAX_INTEGER = 2**32 - 1  # the largest seed; nothing that is counted comes near it


def bounded(data: Any, source: Source) -> Any:
    """A copy of the data, which is plain: dicts with strings for keys, lists, strings, numbers, booleans, None.

    Raises ConfigError for anything else in it, for more or deeper nested values than an experiment has, and for
    integers beyond any use.
    """
    walk = _Walk(source)
    copy = walk.copied(data, ())
    if walk.problems:
        raise ConfigError(in_order(walk.problems))
    return copy


class _Walk:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.values = 0
        self.problems: list[Problem] = []

    def copied(self, value: Any, path: KeyPath) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            raise ConfigError(self.source.problem((), f"more than {MAX_VALUES} values, the most there may be"))
        if type(value) in (dict, list):
            if len(path) >= MAX_DEPTH:
                raise ConfigError(self.source.problem(path[:4], f"nested deeper than {MAX_DEPTH} levels"))
            if isinstance(value, list):
                return [self.copied(item, (*path, index)) for index, item in enumerate(value)]
            return {self._key(key, path): self.copied(item, (*path, str(key))) for key, item in value.items()}
        if type(value) is int and abs(value) > MAX_INTEGER:
            self._refuse(path, f"too large an integer: they go up to {MAX_INTEGER}")
        if value is not None and type(value) not in (bool, int, float, str):
            self._refuse(path, f"a {type(value).__name__}, where there are only plain values")
        return value

    def _key(self, key: Any, path: KeyPath) -> Any:
        if type(key) is not str:
            self._refuse(path, f"a key that is no string but a {type(key).__name__}")
        return key

    def _refuse(self, path: KeyPath, message: str) -> None:
        self.problems.append(self.source.problem(path, message))
        if len(self.problems) > MOST_PROBLEMS:
            raise ConfigError(in_order(self.problems))


class _PythonWalk(_Walk):
    """A walk over data written in Python: tuples are lists, paths are strings, NumPy scalars are numbers."""

    def copied(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Mapping):
            value = dict(value)
        elif isinstance(value, os.PathLike):
            value = os.fspath(value)
        elif type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
            value = value.item()
        return super().copied(value, path)
