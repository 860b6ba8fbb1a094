"""Loading of experiments from YAML and from plain data, with all problems reported at once."""

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
from mtlcli.config.locations import MOST_PROBLEMS, Document, KeyPath, Reading, Source, dotted, in_order
from mtlcli.config.overrides import settle
from mtlcli.config.scalars import expand, resolve
from mtlcli.config.schema import MAX_NAME, Experiment
from mtlcli.config.type_names import format_value
from mtlcli.config.yaml import MAX_DEPTH, read
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
    stem = re.sub(r"^[^A-Za-z0-9_]|[^A-Za-z0-9_.-]", "_", file.stem)  # a valid name of a folder
    return _experiment(read(file), overrides, Source(), stem[:MAX_NAME], allowed, in_memory)


def experiment_from_dict(
    plain: dict[str, Any], overrides: Sequence[str] = (), source: str = "checkpoint.pt"
) -> Experiment:
    """Create an experiment from plain data, such as that of a checkpoint.

    Args:
        plain: the experiment as a dict.
        overrides: `KEY=VALUE` strings, applied in order.
        source: origin of the data, for error messages.

    Returns:
        The validated experiment. If it is invalid, ConfigError is raised, with all problems.
    """
    where = Source(f"in the experiment of {source}")
    return _experiment(Document(bounded(plain, where)), overrides, where, "experiment")


def _import_plugins(plugins: Any, source: Source, allowed: bool) -> None:
    """Import the plugins that a file names. Raise ConfigError if that isn't allowed or fails."""
    named = plugins if isinstance(plugins, list) and all(isinstance(plugin, str) for plugin in plugins) else []
    missing = [plugin for plugin in named if not is_loaded(plugin)]
    if missing and not allowed:
        raise ConfigError(
            source.problem(
                ("plugins",),
                f"plugins run code, so those named in a file are imported only with --allow-plugins or "
                f"{ALLOW_PLUGINS}=1 in the environment (review first: {', '.join(missing)})",
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
        message = "the file is empty: an experiment needs at least datasets, tasks and a trunk"
        raise ConfigError(source.problem((), message))
    if not isinstance(document.data, dict):
        message = f"expected an experiment (a mapping), found {format_value(document.data)}"
        raise ConfigError(source.problem((), message))
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
        # a value that can't be expanded or parsed is null, which isn't a second problem
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
    """Convert a dict of the form of a YAML file to a document, with its environment variables expanded."""
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


MAX_VALUES = 250_000  # including all defaults and task relations
MAX_INTEGER = 2**32 - 1  # the largest seed; all other integers are smaller


def bounded(data: Any, source: Source) -> Any:
    """Copy plain data and check its size.

    Args:
        data: dicts with string keys, lists, strings, numbers, booleans and None.
        source: locations of its values.

    Returns:
        The copy.

    Raises:
        ConfigError: the data contains other types, more than `MAX_VALUES` values, more than `MAX_DEPTH` levels, or
            integers beyond `MAX_INTEGER`.
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
            raise ConfigError(self.source.problem((), f"more than {MAX_VALUES} values, which is the maximum"))
        if type(value) in (dict, list):
            if len(path) >= MAX_DEPTH:
                raise ConfigError(self.source.problem(path[:4], f"nested deeper than {MAX_DEPTH} levels"))
            if isinstance(value, list):
                return [self.copied(item, (*path, index)) for index, item in enumerate(value)]
            return {self._key(key, path): self.copied(item, (*path, str(key))) for key, item in value.items()}
        if type(value) is int and abs(value) > MAX_INTEGER:
            self._refuse(path, f"the integer is too large: the maximum is {MAX_INTEGER}")
        if value is not None and type(value) not in (bool, int, float, str):
            self._refuse(path, f"expected plain data, found an object of type {type(value).__name__}")
        return value

    def _key(self, key: Any, path: KeyPath) -> Any:
        if type(key) is not str:
            self._refuse(path, f"expected a string as key, found an object of type {type(key).__name__}")
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
