"""What every experiment keeps to, wherever it comes from: found out before anything else is made of it.

A checkpoint's experiment is as little to be trusted as a file of someone else's. Bounds that are a component's own
(layers, experts) stand in its signature.
"""

from __future__ import annotations

from typing import Any

from mtlcli.config.source import MOST_PROBLEMS, Path, Source, in_order
from mtlcli.config.yaml import MAX_DEPTH
from mtlcli.errors import ConfigError, Problem

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

    def copied(self, value: Any, path: Path) -> Any:
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

    def _key(self, key: Any, path: Path) -> Any:
        if type(key) is not str:
            self._refuse(path, f"a key that is no string but a {type(key).__name__}")
        return key

    def _refuse(self, path: Path, message: str) -> None:
        self.problems.append(self.source.problem(path, message))
        if len(self.problems) > MOST_PROBLEMS:
            raise ConfigError(in_order(self.problems))
