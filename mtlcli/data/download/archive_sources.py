"""Sources that are archives: on the web, or inside a file of another source."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from mtlcli.data.download.archives import extract_members, extract_zipped
from mtlcli.data.download.collection import DownloadSource, SourceUnavailable
from mtlcli.data.download.sources import LOCAL_ERRORS, download
from mtlcli.data.formats.compressed import open_decompressed


@dataclass(frozen=True)
class WebArchive:
    """Archive on the web, .zip or .tar.gz.

    Args:
        url: its address.
        paths: name of a file → its path in the archive.
    """

    url: str
    paths: Mapping[str, str]

    @property
    def label(self) -> str:
        """Name of the source in messages."""
        return self.url

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        """Download the archive and extract files, see `DownloadSource.collect`."""
        archive = work / self.url.rpartition("/")[2]
        try:
            download(self.url, archive)
        except (OSError, HTTPException) as error:  # URLError and TimeoutError are OSErrors
            if getattr(error, "errno", None) in LOCAL_ERRORS:
                raise
            raise SourceUnavailable(str(getattr(error, "reason", None) or error)) from error
        return extract_files(archive, {self.paths[name]: name for name in names if name in self.paths}, work)


@dataclass(frozen=True)
class ArchiveInside:
    """Archive, .zip or .tar.gz, that is itself a file of another source.

    Args:
        source: the other source.
        archive: name of the archive there.
        paths: name of a file → its path in the archive.
    """

    source: DownloadSource
    archive: str
    paths: Mapping[str, str]

    @property
    def label(self) -> str:
        """Name of the source in messages."""
        return self.source.label

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        """Collect the archive and extract files, see `DownloadSource.collect`."""
        archive = self.source.collect([self.archive], work).get(self.archive)
        if archive is None:
            raise SourceUnavailable(f"has no {self.archive}")
        return extract_files(archive, {self.paths[name]: name for name in names if name in self.paths}, work)


def extract_files(archive: Path, members: Mapping[str, str], work: Path) -> dict[str, Path]:
    """Extract files from a .zip or a .tar.gz.

    Raises a SourceUnavailable if the archive is damaged.

    Args:
        archive: the archive.
        members: path in the archive → name of the file in `work`.
        work: folder for the files.

    Returns:
        Name → path in `work`, without files that the archive lacks.
    """
    if zipfile.is_zipfile(archive):
        return extract_zipped(archive, members, work)
    with open_decompressed(archive) as packed:
        return extract_members(packed, archive.name, members, work)
