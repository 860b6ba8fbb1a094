"""Archives as sources: on the web, and inside a file of another source."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from mtlcli.data.download import archive_sources
from mtlcli.data.download.archive_sources import ArchiveInside, WebArchive
from mtlcli.data.download.collection import SourceUnavailable
from tests.data.download.collections import FakeSource

PATHS = {"a": "inside/a.txt", "b": "inside/b.txt"}
CONTENT = {"inside/a.txt": b"A", "inside/b.txt": b"B", "inside/c.txt": b"C"}


def tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, content in CONTENT.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in CONTENT.items():
            archive.writestr(path, content)
    return packed.getvalue()


ARCHIVES = {"data.zip": zipped(), "data.tar.gz": tar()}


@pytest.mark.parametrize("name", ARCHIVES)
def test_files_of_an_archive_on_the_web(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, path: Path) -> Path:
        assert url == f"https://example.org/{name}"
        path.write_bytes(ARCHIVES[name])
        return path

    monkeypatch.setattr(archive_sources, "download", download)
    source = WebArchive(f"https://example.org/{name}", PATHS)
    assert source.label == f"https://example.org/{name}"
    assert {file: path.read_bytes() for file, path in source.collect(["a"], tmp_path).items()} == {"a": b"A"}


def test_an_address_that_can_not_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, path: Path) -> Path:
        raise TimeoutError("no answer within 5 s")

    monkeypatch.setattr(archive_sources, "download", download)
    with pytest.raises(SourceUnavailable, match="no answer within 5 s"):
        WebArchive("https://example.org/data.zip", PATHS).collect(["a"], tmp_path)


@pytest.mark.parametrize("name", ARCHIVES)
def test_files_of_an_archive_inside_another_source(name: str, tmp_path: Path) -> None:
    source = ArchiveInside(FakeSource({name: ARCHIVES[name]}), name, PATHS)
    files = source.collect(["a", "b"], tmp_path)
    assert {file: path.read_bytes() for file, path in files.items()} == {"a": b"A", "b": b"B"}
    assert source.label == "the fake source"
    with pytest.raises(SourceUnavailable, match="has no other"):
        ArchiveInside(FakeSource({}), "other", PATHS).collect(["a"], tmp_path)
    damaged = FakeSource({name: gzip.compress(b"nonsense")})
    with pytest.raises(SourceUnavailable, match=name):
        ArchiveInside(damaged, name, PATHS).collect(["a"], tmp_path)
