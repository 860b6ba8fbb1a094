"""Folder of a study."""

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
    """Folder with the runs and the results of a study.

    Args:
        path: the folder, which may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def locate(cls, path: str | Path | None, name: str, verb: str) -> StudyFolder:
        """Return the folder of a study, without creating it.

        Args:
            path: the folder that the user names; None for the default, `NAME/VERB` under `$MTL_RUNS` or `runs/`.
            name: name of the experiment.
            verb: `compare` or `relate`.

        Returns:
            The folder.

        Raises:
            ConfigError: If the path is empty or the current folder.
        """
        if path is None:
            return cls(run_root() / name / verb)
        if str(path) in ("", "."):
            raise ConfigError(f"study folder {str(path)!r}: the current folder can't be used; name another one")
        return cls(given_path(path, "study folder"))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Create the folder and lock it, and remove the unfinished files of a process that was killed.

        Yields:
            Nothing; the lock is held in the context.

        Raises:
            ConfigError: If the folder can't be created or written, or another process has locked it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ConfigError(f"study folder {self.path}: can't be written to: {error.strerror or error}") from error
        with lock_folder(self.path, f"study folder {self.path}: another process is working in it"):
            remove_unfinished(self.path, *(folder for folder in self.path.iterdir() if folder.is_dir()))
            yield

    def subfolder(self, name: str) -> StudyFolder:
        """Create a folder in this one.

        Args:
            name: its name.

        Returns:
            The folder.
        """
        folder = StudyFolder(self.path / name)
        folder.path.mkdir(exist_ok=True)
        return folder

    def write(self, name: str, text: str) -> None:
        """Write a text file, atomically.

        Args:
            name: name of the file in the folder.
            text: its content.
        """
        write_text(self.path / name, text)

    def write_json(self, name: str, document: Any) -> None:
        """Write a JSON file, atomically.

        Args:
            name: name of the file in the folder.
            document: its content.
        """
        self.write(name, to_json(document))

    def copy(self, file: Path) -> None:
        """Copy a file into the folder, atomically.

        Args:
            file: the file.
        """
        with atomic_write(self.path / file.name) as temporary:
            temporary.write_bytes(file.read_bytes())
