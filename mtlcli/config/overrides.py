"""Overrides: `KEY=VALUE` arguments with a dotted key and a value that is YAML or plain text, applied in order."""

from __future__ import annotations

import re
import shlex
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import BaseModel

from mtlcli.config.locations import Document, KeyPath, Place, Reading, Source, dotted
from mtlcli.config.lookup import fits, follow
from mtlcli.config.scalars import NULL, expand
from mtlcli.config.schema import Experiment
from mtlcli.config.yaml import MAX_DEPTH, parse
from mtlcli.errors import ConfigError, Problem, suggest

MAX_OVERRIDE = 200  # characters of an override in a message
NAMED_BY_USER = (("tasks",), ("datasets",))  # mappings whose keys the user chooses


def apply(document: Document, overrides: Sequence[str], source: Source) -> list[Problem]:
    """Apply overrides to a document.

    Args:
        document: the document, which is modified.
        overrides: `KEY=VALUE` strings.
        source: locations of its values, to which those of the overrides are added.

    Returns:
        The problems of the overrides themselves; their values are validated with the rest of the document.
    """
    problems: list[Problem] = []
    for override in overrides:
        try:
            _apply(document, override, source)
        except ConfigError as error:
            problems += [Problem(f"override {_quoted(override)}: {problem.message}") for problem in error.problems]
    return problems


def _apply(document: Document, override: str, source: Source) -> None:
    key, equals, text = override.partition("=")
    if key != (key := key.strip()):  # 'training.epochs = 3'
        text = text.strip()
    if not equals or not all(key.split(".")):
        raise ConfigError(f"expected KEY=VALUE with a dotted key, such as training.epochs=5{_hint(override)}")
    if key.count(".") >= MAX_DEPTH:
        raise ConfigError(f"nested deeper than {MAX_DEPTH} levels")
    if not text:
        raise ConfigError(f"no value after '='; write {key}=null for null, {key}='\"\"' for an empty string")
    value = _parsed(text, override)
    if value.unexpanded:
        raise ConfigError([Problem(message) for message in value.unexpanded.values()])
    *parents, last = key.split(".")
    parent: Any = document.data
    path: KeyPath = ()
    for step in parents:
        parent, path = _enter(parent, path, step)
        reading = document.readings.get(path)
        if reading is not None and not isinstance(reading.value, dict | list):  # a component's name
            document.readings[*path, "name"] = document.readings.pop(path)
    place = f"set by the override {_quoted(override)}"
    changed = _index(parent, path, last) if isinstance(parent, list) else last
    if _renames(parent, path, last, value.data):
        _drop_options(document, parent, path, source)
    parent[changed] = value.data
    path = (*path, changed)
    source.replace(path, {below: Place(place) for below in value.places or {(): Place(place)}})
    document.forget(path)
    document.readings |= {path + below: reading for below, reading in value.readings.items()}


def _parsed(text: str, override: str) -> Document:
    """Parse the value as YAML; unless it is a quoted string, its plain text is another possible reading."""
    try:
        document = parse(text, override)
    except ConfigError as error:
        message = f"override {_quoted(override)}: {error.problems[0].message}"
        return Document(text, readings={(): Reading(_expanded(text), text, error=message)})
    if document.unexpanded or (isinstance(document.data, str) and text.lstrip()[:1] in ("'", '"')):
        return document
    if document.data is None and not NULL.fullmatch(text.strip()):
        message = f"override {_quoted(override)}: as YAML the value is empty (' #' starts a comment)"
        return Document(text, readings={(): Reading(text, text, error=message)})
    document.readings = {(): Reading(_expanded(text), document.data), **document.readings}
    return document


def _expanded(text: str) -> str:
    try:
        return expand(text)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _quoted(override: str) -> str:
    """Return an override in quotes, shortened if it is long."""
    quoted = repr(override)
    return quoted if len(quoted) <= MAX_OVERRIDE else quoted[: MAX_OVERRIDE - 1] + "…"


def _hint(override: str) -> str:
    """Return a hint for an override without `=`."""
    if colon := re.fullmatch(r"([\w.-]+):\s*(\S.*)", override):
        return f": write {shlex.quote(f'{colon[1]}={colon[2]}')}"
    if override.endswith((".yaml", ".yml")):
        return "; only one experiment file is accepted"
    if re.fullmatch(r"[\w.-]+", override) and override.partition(".")[0] in Experiment.model_fields:
        return f": write {override}=VALUE, without spaces"
    return ""


def _enter(parent: Any, path: KeyPath, step: str) -> tuple[Any, KeyPath]:
    """Return the value at `step`, replaced by a mapping if it is missing, null or a component's name."""
    if isinstance(parent, list):
        index = _index(parent, path, step)
        key: str | int = index
        below = parent[index]
    else:
        if path in NAMED_BY_USER and step not in parent:
            choices = f"Choose from: {', '.join(parent)}" if parent else "None are defined"
            raise ConfigError(f"no {step!r} in {path[0]}.{suggest(step, parent)} {choices}")
        key, below = step, parent.get(step)
    if not isinstance(below, dict | list):
        empty: Any = [] if (*path, step) in (("regularizers",), ("callbacks",)) else {}
        below = empty if below is None else {"name": below}
        parent[key] = below
    return below, (*path, key)


def _index(parent: list[Any], path: KeyPath, step: str) -> int:
    if not (step.isascii() and step.isdecimal() and len(step) < 10 and int(step) < len(parent)):
        raise ConfigError(f"no item {step!r} in {dotted(path)}, which has {len(parent)} (counted from 0)")
    return int(step)


def _renames(parent: Any, path: KeyPath, last: str, value: Any) -> bool:
    """Return whether the override changes the component of an entry."""
    entry = isinstance(parent, dict) and path != () and path not in NAMED_BY_USER
    return entry and last == "name" and "name" in parent and parent["name"] != value


def _drop_options(document: Document, parent: dict[str, Any], path: KeyPath, source: Source) -> None:
    """Remove the options of the previous component, except those set by overrides."""
    for key in [key for key in parent if key != "name"]:
        place = source.places.get((*path, key))
        if place is None or not isinstance(place.value, str):
            del parent[key]
            source.replace((*path, key), {})
            document.forget((*path, key))


def settle(document: Document, model: type[BaseModel]) -> tuple[list[Problem], set[KeyPath]]:
    """Resolve each ambiguous value of a document by the type of its key.

    Args:
        document: the document, which is modified; its data is a mapping.
        model: the model of the whole document.

    Returns:
        The problems of values that can't be parsed, and their paths; these values become None.
    """
    problems, unreadable, texts = list[Problem](), set[KeyPath](), set[KeyPath]()
    for path, reading in document.readings.items():
        if any(path[:length] in texts for length in range(len(path))):
            continue  # inside a value that was resolved to text
        position = follow(path, model, document.data)
        annotation = position.annotation if position.path == path else None
        chosen = _chosen(reading, annotation)
        if reading.error is not None and not _takes_text(annotation):
            problems.append(Problem(reading.error))
            unreadable.add(path)
            chosen = None
        if chosen is reading.text:
            texts.add(path)
        _put(document.data, path, chosen)
    return problems, unreadable


def _chosen(reading: Reading, annotation: Any) -> Any:
    """Return the reading that fits the type, which is None if unknown."""
    if reading.error is not None:
        return reading.text
    if annotation is None:
        return reading.text if reading.quoted else reading.value
    if reading.quoted:
        better = not fits(reading.text, annotation) and fits(reading.value, annotation)
        return reading.value if better else reading.text
    if isinstance(reading.value, str) or not fits(reading.value, annotation):
        return reading.text if _takes_text(annotation) else reading.value
    return reading.value


def _takes_text(annotation: Any) -> bool:
    """Return whether the type accepts any string or a path."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _takes_text(arguments[0])
    if origin in (Union, types.UnionType):
        return any(map(_takes_text, arguments))
    return annotation in (str, Path)


def _put(data: Any, path: KeyPath, value: Any) -> None:
    *parents, last = path
    for step in parents:
        data = data[step]
    data[last] = value
