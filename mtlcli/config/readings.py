"""Text or YAML? A value from the environment or the command line is read as the type of its key wants it."""

from __future__ import annotations

import types
import typing
from pathlib import Path as FilePath
from typing import Annotated, Any, Union

from pydantic import BaseModel

from mtlcli.config.lookup import fits, follow
from mtlcli.config.source import Path
from mtlcli.config.yaml import Document, Reading
from mtlcli.errors import Problem


def settle(document: Document, model: type[BaseModel]) -> tuple[list[Problem], set[Path]]:
    """Put the right reading of each ambiguous value into the document, whose data is a mapping.

    Returns the problems of values that can't be read, and their paths; the values there are None.
    """
    problems, unreadable, texts = list[Problem](), set[Path](), set[Path]()
    for path, reading in document.readings.items():
        if any(path[:length] in texts for length in range(len(path))):
            continue  # a part of what turned out to be text
        spot = follow(path, model, document.data)
        annotation = spot.annotation if spot.path == path else None
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
    """The reading that fits the type; None for a type that isn't known."""
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
    """Return whether the type takes any string or a path."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _takes_text(arguments[0])
    if origin in (Union, types.UnionType):
        return any(map(_takes_text, arguments))
    return annotation in (str, FilePath)


def _put(data: Any, path: Path, value: Any) -> None:
    *parents, last = path
    for step in parents:
        data = data[step]
    data[last] = value
