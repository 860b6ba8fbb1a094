"""Strict YAML: plain data, with the line and column of every key and value.

PyYAML reads the syntax (its event stream builds no objects); what the events mean is decided here: scalars follow
YAML 1.2, `${ENV:default}` is expanded, and whatever makes a file mean something other than it seems to is an error:
duplicate keys, anchors and aliases, tags, several documents. Keys are strings, as written.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml import events

from mtlcli.config.locations import MOST_PROBLEMS, KeyPath, Place, dotted, in_order
from mtlcli.config.scalars import MAX_EXPANDED, Scalar, expand, resolve
from mtlcli.errors import ConfigError, Mark, Problem, nearest
from mtlcli.files import shown_path, user_path

MAX_BYTES = 512 * 1024
MAX_DEPTH = 32
MAX_VALUES = 15_000  # PyYAML takes two seconds for them; the relations of a hundred tasks are ten thousand
ARCHIVE = b"PK\x03\x04"  # how a zip file begins, as torch's files do
MAX_KEY = 256  # characters
# Python holds a byte of a file name that isn't UTF-8 as one of U+DC80 … U+DCFF, which `dump_yaml` writes as an escape
HALF_A_PAIR = re.compile("[\ud800-\udc7f\udd00-\udfff]")


@dataclass(frozen=True)
class Reading:
    """The two readings of a value that came from the environment or the command line.

    text: as it is, a string. value: by the rules of YAML. quoted: whether quotes say that text is preferred.
    error: why `value` can't be had; the key has to take text then.
    """

    text: str
    value: Any
    quoted: bool = False
    error: str | None = None


@dataclass
class Document:
    """The data of one YAML document.

    places: where each value stands, by path.
    unexpanded: what is wrong with the `${…}` of a value, by path. Kept apart: an override may replace the value.
    readings: values that may be meant as text or as YAML, by path; `readings.settle` decides by the key's type.
    """

    data: Any
    places: dict[KeyPath, Place] = field(default_factory=dict)
    unexpanded: dict[KeyPath, str] = field(default_factory=dict)
    readings: dict[KeyPath, Reading] = field(default_factory=dict)

    def forget(self, path: KeyPath) -> None:
        """Drop what is noted of the values at and under `path`, which are replaced."""
        self.unexpanded = {at: message for at, message in self.unexpanded.items() if at[: len(path)] != path}
        self.readings = {at: reading for at, reading in self.readings.items() if at[: len(path)] != path}


def read(file: Path) -> Document:
    """The document in `file`. ConfigError where it can't be read, is no file, isn't UTF-8, or isn't strict YAML."""
    name = shown_path(file)
    try:
        with open(user_path(file), "rb", opener=_without_waiting) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ConfigError(f"{name}: not a file: an experiment is read from nothing else")
            content = stream.read(MAX_BYTES + 1) or b""  # None where there is nothing yet, as in some of /proc
    except (OSError, ValueError) as error:  # ValueError: of a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{name}: can't be read: {reason}{_meant(file, error)}") from error
    if content.startswith(ARCHIVE):
        raise ConfigError(
            f"{name}: a checkpoint or another archive, not an experiment file; `mtl eval {name}` evaluates a "
            f"checkpoint, and trunk.init_from={name} starts from the weights of its trunk"
        )
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{name}: larger than {MAX_BYTES // 1024} KiB, the most an experiment file may have")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        mark = Mark(name, before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1)
        raise ConfigError(Problem("not a text file in UTF-8", mark=mark)) from error
    return parse(text, name)


def _meant(file: Path, error: Exception) -> str:
    """A hint for a path that can't be read as an experiment, or ""."""
    if isinstance(error, IsADirectoryError) and (file / "config.yaml").is_file():
        return f": a run folder; its experiment is {shown_path(file / 'config.yaml')}, and --run-dir resumes it"
    if isinstance(error, FileNotFoundError) and file.parent.is_dir():
        there = {one.stem: one.name for pattern in ("*.yml", "*.yaml") for one in file.parent.glob(pattern)}
        if file.name in there:
            return f". Did you mean {there[file.name]!r}?"
        hint = nearest(file.stem, there)
        return next((f". Did you mean {name!r}?" for stem, name in there.items() if repr(stem) in hint), "")
    return ""


def _without_waiting(path: str, flags: int) -> int:
    """For `open`: a pipe that nobody writes to is opened at once, as a file is, so that it can be told from one."""
    return os.open(path, flags | os.O_NONBLOCK)


def parse(text: str, name: str) -> Document:
    """The document in `text`; ConfigError, with all problems but those of the syntax at once, where it isn't strict."""
    builder = _Builder(text, name)
    document = builder.document()
    if builder.problems:
        raise ConfigError(builder.problems)
    return document


class _Builder:
    """Makes a document of PyYAML's events."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self.problems: list[Problem] = []
        self.values = 0
        self.room = MAX_EXPANDED  # of it, what is left
        self.built = Document(None, {(): Place(Mark(name, 1, 1))})
        self.events = self._events()

    def document(self) -> Document:
        documents = 0
        for event in self.events:
            if isinstance(event, events.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise ConfigError(Problem("a second document; there must be one", mark=self._mark(event)))
                self.built.data = self._value(next(self.events), (), None)
        return self.built

    def _value(self, event: events.Event, path: KeyPath, key: Mark | None) -> Any:
        mark = self._mark(event)
        self.values += 1
        if self.values > MAX_VALUES:
            raise ConfigError(Problem(f"more than {MAX_VALUES} values, the most there may be", mark=mark))
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
                expanded = expand(text, self.room)
            except ValueError as error:
                self.built.unexpanded[path] = str(error)
                return None
            self.room -= max(0, len(expanded) - len(text))
            return self._expanded(expanded, event.style is not None, path, mark)
        self._require_text(text, path, mark)
        try:
            return resolve(text) if event.style is None else text
        except ValueError as error:
            self._refuse(str(error), path, mark)
            return None

    def _expanded(self, text: str, quoted: bool, path: KeyPath, mark: Mark) -> Scalar:
        """A string that held variables. Its key may want another reading of it than its quotes say."""
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
        made: dict[str, Any] = {}
        while not isinstance(event := next(self.events), events.MappingEndEvent):
            mark = self._mark(event)
            if not isinstance(event, events.ScalarEvent):
                raise ConfigError(Problem("a key must be a plain string", dotted(path), mark))
            key = event.value
            if len(key) > MAX_KEY:
                message = f"a key of {len(key)} characters; {MAX_KEY} are the most"
                raise ConfigError(Problem(message, dotted(path), mark))
            below = (*path, key)
            self._require_text(key, below, mark)
            if event.anchor is not None or event.tag is not None:
                self._refuse("a key can't have an anchor or a tag", below, mark)
            if key in made:
                first = self.built.places[below].key
                line = first.line if isinstance(first, Mark) else 0
                self._refuse(f"duplicate key, first given in line {line}", below, mark)
                # The first one stays; the second is read for its own problems only.
                kept = dict(self.built.places)
                self._value(next(self.events), below, mark)
                self.built.places = kept
            else:
                made[key] = self._value(next(self.events), below, mark)
        return made

    def _sequence(self, path: KeyPath) -> list[Any]:
        made: list[Any] = []
        while not isinstance(event := next(self.events), events.SequenceEndEvent):
            made.append(self._value(event, (*path, len(made)), None))
        return made

    def _require_text(self, text: str, path: KeyPath, mark: Mark) -> None:
        """Refuse what can't be written down again: half of a surrogate pair, from an escape or the environment."""
        if HALF_A_PAIR.search(text):
            self._refuse("not text: it has half of a surrogate pair", path, mark)

    def _refuse(self, message: str, path: KeyPath, mark: Mark) -> None:
        self.problems.append(Problem(message, dotted(path), mark))
        if len(self.problems) > MOST_PROBLEMS:
            raise ConfigError(in_order(self.problems))

    def _mark(self, event: events.Event) -> Mark:
        assert event.start_mark is not None
        return Mark(self.name, event.start_mark.line + 1, event.start_mark.column + 1)

    def _events(self) -> Iterator[events.Event]:
        """PyYAML's events; its errors become a ConfigError with the place and the reason."""
        try:
            yield from yaml.parse(self.text, Loader=yaml.SafeLoader)
        except yaml.reader.ReaderError as error:
            before = self.text[: error.position]
            mark = Mark(self.name, before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1)
            message = f"not a text file: it has the character U+{ord(self.text[error.position]):04X}"
            raise ConfigError([*self.problems, Problem(message, mark=mark)]) from error
        except yaml.MarkedYAMLError as error:
            raise ConfigError([*self.problems, self._syntax(error)]) from error
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # ValueError and OverflowError: escapes such as "\UFFFFFFFF", which PyYAML hands to chr() unchecked.
            raise ConfigError([*self.problems, Problem(f"not YAML: {error}", mark=Mark(self.name, 1, 1))]) from error

    def _syntax(self, error: yaml.MarkedYAMLError) -> Problem:
        at = error.problem_mark or error.context_mark
        mark = Mark(self.name, at.line + 1, at.column + 1) if at else Mark(self.name, 1, 1)
        lines = self.text.splitlines()
        line = lines[mark.line - 1] if mark.line <= len(lines) else ""
        if "\\t" in str(error.problem) or line[: mark.column].strip(" ").startswith("\t"):
            return Problem("a tab; YAML is indented with spaces", mark=mark)
        reason = ", ".join(filter(None, (error.context, error.problem)))
        hint = '; write "${…}" in quotes here: a number stays a number' if "${" in line else ""
        return Problem(f"not YAML: {reason}{hint or _advice(str(error.problem), line, self.text)}", mark=mark)


def _advice(problem: str, line: str, text: str) -> str:
    """A hint for a line that PyYAML can't read, or ""."""
    if re.search(r"^\[[\w.]+\]\s*$", text, re.MULTILINE):
        return "; this looks like TOML or INI"
    if "mapping values are not allowed" in problem:
        if re.search(r"\w:[\w\[{]", line):
            return "; is a space missing after a colon?"
        return "; a value that has ': ' in it is written in quotes"
    if "expected <block end>" in problem:
        return "; the indentation, or the dash, does not go with the lines above"
    if "cannot start any token" in problem:
        return "; a value that begins with this character is written in quotes"
    return ""
