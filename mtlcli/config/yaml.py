"""Strict YAML: plain data, with the line and column of every key and value.

PyYAML parses the syntax to events, without creating objects. Scalars follow YAML 1.2, and `${ENV:default}` is expanded.
Constructs that make a file ambiguous are errors: duplicate keys, anchors and aliases, tags, several documents. Keys are
strings, as written.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml import events

from mtlcli.config.locations import MOST_PROBLEMS, Document, KeyPath, Place, Reading, dotted, in_order
from mtlcli.config.scalars import MAX_EXPANDED, Scalar, expand, resolve
from mtlcli.errors import ConfigError, Mark, Problem, suggest
from mtlcli.files import quote_path, user_path

MAX_BYTES = 512 * 1024
MAX_DEPTH = 32
MAX_VALUES = 15_000  # PyYAML needs two seconds for them; a relation matrix of a hundred tasks has ten thousand
ARCHIVE = b"PK\x03\x04"  # first bytes of a zip file, such as a checkpoint of torch
MAX_KEY = 256  # characters
# without U+DC80 … U+DCFF, by which Python represents bytes of file names that aren't UTF-8; `dump_yaml` escapes them
LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def read(file: Path) -> Document:
    """Read a YAML file.

    Args:
        file: its path.

    Returns:
        The document.

    Raises:
        ConfigError: the file can't be read, isn't a regular file, is too large, or isn't strict YAML in UTF-8.
    """
    name = quote_path(file)
    try:
        with open(user_path(file), "rb", opener=_without_waiting) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ConfigError(f"{name}: not a regular file")
            content = stream.read(MAX_BYTES + 1) or b""  # None if no data is available yet, as for some files in /proc
    except (OSError, ValueError) as error:  # ValueError: the name contains NUL
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{name}: can't be read: {reason}{_meant(file, error)}") from error
    if content.startswith(ARCHIVE):
        raise ConfigError(
            f"{name}: a checkpoint or another archive, not an experiment file; use `mtl eval {name}` to evaluate a "
            f"checkpoint, and trunk.init_from={name} to start from the weights of its trunk"
        )
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{name}: the file is larger than {MAX_BYTES // 1024} KiB, which is the maximum")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        mark = Mark(name, before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1)
        raise ConfigError(Problem("not a text file in UTF-8", mark=mark)) from error
    return parse(text, name)


def _meant(file: Path, error: Exception) -> str:
    """Return a hint for a path that can't be read as an experiment."""
    if isinstance(error, IsADirectoryError) and (file / "config.yaml").is_file():
        return f": this is a run folder; its experiment is {quote_path(file / 'config.yaml')}, and --run-dir resumes it"
    if isinstance(error, FileNotFoundError) and file.parent.is_dir():
        stems = {path.stem: path.name for pattern in ("*.yml", "*.yaml") for path in file.parent.glob(pattern)}
        if file.name in stems:
            return f". Did you mean {stems[file.name]!r}?"
        hint = suggest(file.stem, stems)
        return next((f". Did you mean {name!r}?" for stem, name in stems.items() if repr(stem) in hint), "")
    return ""


def _without_waiting(path: str, flags: int) -> int:
    """Open without blocking, so that a pipe without a writer is recognized as such (an opener for `open`)."""
    return os.open(path, flags | os.O_NONBLOCK)


def parse(text: str, name: str) -> Document:
    """Parse YAML.

    Args:
        text: the YAML.
        name: its name in error messages.

    Returns:
        The document.

    Raises:
        ConfigError: it isn't strict YAML; contains the first syntax error, or all other problems.
    """
    builder = _Builder(text, name)
    document = builder.document()
    if builder.problems:
        raise ConfigError(builder.problems)
    return document


class _Builder:
    """Builder of a document from PyYAML's events."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self.problems: list[Problem] = []
        self.values = 0
        self.left = MAX_EXPANDED  # characters
        self.built = Document(None, {(): Place(Mark(name, 1, 1))})
        self.events = self._events()

    def document(self) -> Document:
        documents = 0
        for event in self.events:
            if isinstance(event, events.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise ConfigError(
                        Problem("the file contains a second document; only one is allowed", mark=self._mark(event))
                    )
                self.built.data = self._value(next(self.events), (), None)
        return self.built

    def _value(self, event: events.Event, path: KeyPath, key: Mark | None) -> Any:
        mark = self._mark(event)
        self.values += 1
        if self.values > MAX_VALUES:
            raise ConfigError(Problem(f"more than {MAX_VALUES} values, which is the maximum", mark=mark))
        self.built.places[path] = Place(mark, key)
        if isinstance(event, events.AliasEvent):
            self._refuse(f"aliases (*{event.anchor}) are not allowed: write the value out", path, mark)
            return None
        assert isinstance(event, events.ScalarEvent | events.CollectionStartEvent)
        if event.anchor is not None:
            self._refuse(f"anchors (&{event.anchor}) are not allowed: write the value out where it is used", path, mark)
        if event.tag is not None:
            self._refuse(f"tags ({event.tag}) are not allowed", path, mark)
        if isinstance(event, events.ScalarEvent):
            return self._scalar(event, path, mark)
        if len(path) >= MAX_DEPTH:
            raise ConfigError(Problem(f"nested deeper than {MAX_DEPTH} levels", mark=mark))
        return self._mapping(path) if isinstance(event, events.MappingStartEvent) else self._sequence(path)

    def _scalar(self, event: events.ScalarEvent, path: KeyPath, mark: Mark) -> Scalar:
        text = event.value
        if "${" in text:
            try:
                expanded = expand(text, self.left)
            except ValueError as error:
                self.built.unexpanded[path] = str(error)
                return None
            self.left -= max(0, len(expanded) - len(text))
            return self._expanded(expanded, event.style is not None, path, mark)
        self._require_text(text, path, mark)
        try:
            return resolve(text) if event.style is None else text
        except ValueError as error:
            self._refuse(str(error), path, mark)
            return None

    def _expanded(self, text: str, quoted: bool, path: KeyPath, mark: Mark) -> Scalar:
        """Resolve a string with expanded variables. The type of its key decides between text and YAML later."""
        self._require_text(text, path, mark)
        text = text if quoted else text.strip()
        try:
            value = resolve(text.strip())
        except ValueError as error:
            if not quoted:
                self._refuse(str(error), path, mark)
                return None
            value = text
        if value != text:
            self.built.readings[path] = Reading(text, value, quoted)
        return text if quoted else value

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(self.events), events.MappingEndEvent):
            mark = self._mark(event)
            if not isinstance(event, events.ScalarEvent):
                raise ConfigError(Problem("a key must be a plain string", dotted(path), mark))
            key = event.value
            if len(key) > MAX_KEY:
                message = f"a key has {len(key)} characters; the maximum is {MAX_KEY}"
                raise ConfigError(Problem(message, dotted(path), mark))
            below = (*path, key)
            self._require_text(key, below, mark)
            if event.anchor is not None or event.tag is not None:
                self._refuse("a key can't have an anchor or a tag", below, mark)
            if key in mapping:
                first = self.built.places[below].key
                line = first.line if isinstance(first, Mark) else 0
                self._refuse(f"duplicate key, first given in line {line}", below, mark)
                # the first value is kept; the second is parsed only to find its problems
                kept = dict(self.built.places)
                self._value(next(self.events), below, mark)
                self.built.places = kept
            else:
                mapping[key] = self._value(next(self.events), below, mark)
        return mapping

    def _sequence(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), events.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items)), None))
        return items

    def _require_text(self, text: str, path: KeyPath, mark: Mark) -> None:
        """Reject unpaired surrogates, from an escape or the environment, which can't be encoded again."""
        if LONE_SURROGATE.search(text):
            self._refuse("invalid Unicode: unpaired surrogate", path, mark)

    def _refuse(self, message: str, path: KeyPath, mark: Mark) -> None:
        self.problems.append(Problem(message, dotted(path), mark))
        if len(self.problems) > MOST_PROBLEMS:
            raise ConfigError(in_order(self.problems))

    def _mark(self, event: events.Event) -> Mark:
        assert event.start_mark is not None
        return Mark(self.name, event.start_mark.line + 1, event.start_mark.column + 1)

    def _events(self) -> Iterator[events.Event]:
        """Yield PyYAML's events; convert its errors to a ConfigError with the location and the reason."""
        try:
            yield from yaml.parse(self.text, Loader=yaml.SafeLoader)
        except yaml.reader.ReaderError as error:
            before = self.text[: error.position]
            mark = Mark(self.name, before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1)
            message = f"not a text file: it contains the character U+{ord(self.text[error.position]):04X}"
            raise ConfigError([*self.problems, Problem(message, mark=mark)]) from error
        except yaml.MarkedYAMLError as error:
            raise ConfigError([*self.problems, self._syntax(error)]) from error
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # ValueError and OverflowError: escapes such as "\UFFFFFFFF", which PyYAML passes to chr() unchecked
            raise ConfigError([*self.problems, Problem(f"not YAML: {error}", mark=Mark(self.name, 1, 1))]) from error

    def _syntax(self, error: yaml.MarkedYAMLError) -> Problem:
        at = error.problem_mark or error.context_mark
        mark = Mark(self.name, at.line + 1, at.column + 1) if at else Mark(self.name, 1, 1)
        lines = self.text.splitlines()
        line = lines[mark.line - 1] if mark.line <= len(lines) else ""
        if "\\t" in str(error.problem) or line[: mark.column].strip(" ").startswith("\t"):
            return Problem("tab character: YAML is indented with spaces", mark=mark)
        reason = ", ".join(filter(None, (error.context, error.problem)))
        hint = '; put "${…}" in quotes here: a number stays a number' if "${" in line else ""
        return Problem(f"not YAML: {reason}{hint or _advice(str(error.problem), line, self.text)}", mark=mark)


def _advice(problem: str, line: str, text: str) -> str:
    """Return a hint for a line that PyYAML can't parse."""
    if re.search(r"^\[[\w.]+\]\s*$", text, re.MULTILINE):
        return "; this looks like TOML or INI"
    if "mapping values are not allowed" in problem:
        if re.search(r"\w:[\w\[{]", line):
            return "; is a space missing after a colon?"
        return "; put a value that contains ': ' in quotes"
    if "expected <block end>" in problem:
        return "; the indentation, or the dash, does not match the lines above"
    if "cannot start any token" in problem:
        return "; put a value that starts with this character in quotes"
    return ""
