"""The folder of one study."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtlcli.errors import ConfigError
from mtlcli.files import atomic_write, given_path, lock_folder, remove_unfinished, write_text
from mtlcli.training.run_folder import run_root, to_json


class StudyFolder:
    """`runs/<name>/<verb>/`, or the folder the user names: the runs it has trained, and what they gave."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def named(cls, path: str | Path | None, name: str, verb: str) -> StudyFolder:
        """The folder the user names, or the default one of an experiment and a verb; not made yet."""
        if path is None:
            return cls(run_root() / name / verb)
        if str(path) in ("", "."):
            raise ConfigError(f"study folder {str(path)!r}: name a folder of its own")
        return cls(given_path(path, "study folder"))

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Make the folder, and keep every other process out of it. ConfigError where one is in it, or it can't be made.

        Unfinished files of a process that was killed while it wrote are removed.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ConfigError(f"study folder {self.path}: can't be written to: {error.strerror or error}") from error
        with lock_folder(self.path, f"study folder {self.path}: another process is working in it"):
            remove_unfinished(self.path, *(part for part in self.path.iterdir() if part.is_dir()))
            yield

    def of(self, measure: str) -> StudyFolder:
        """The part of the folder that holds one measure."""
        part = StudyFolder(self.path / measure)
        part.path.mkdir(exist_ok=True)
        return part

    def write(self, name: str, text: str) -> None:
        """Write one of the folder's text files, whole."""
        write_text(self.path / name, text)

    def copy(self, file: Path) -> None:
        """Copy a file into the folder, whole."""
        with atomic_write(self.path / file.name) as temporary:
            temporary.write_bytes(file.read_bytes())

    def write_json(self, name: str, document: Any) -> None:
        self.write(name, to_json(document))
