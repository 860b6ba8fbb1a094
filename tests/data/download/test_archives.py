"""Malicious archives: only requested files are created, in the given folder, and memory stays bounded."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from mtlcli.data.download import archives
from mtlcli.data.download.archives import extract_members, extract_zipped
from mtlcli.data.download.collection import SourceUnavailable

MEMBERS = {"package/data/train": "train", "package/data/test": "test"}
Member = tuple[str, bytes, bytes | str]  # path, type, content or target of a link


def archive(*members: Member) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, type_, content in members:
            info = tarfile.TarInfo(path)
            info.type = type_
            if isinstance(content, str):
                info.linkname = content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def file(path: str, content: bytes = b"1") -> Member:
    return path, tarfile.REGTYPE, content


def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def everything(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.rglob("*") if not path.is_dir()}


def test_only_requested_members_are_extracted(tmp_path: Path) -> None:
    content = archive(
        file("../escaped"),
        file("/absolute"),
        file("package/data/../../../escaped"),
        ("package/link", tarfile.SYMTYPE, "/"),
        file("package/link/escaped"),
        ("package/device", tarfile.CHRTYPE, b""),
        file("./package/data/train", b"training"),
        file("package/data/test", b"testing"),
    )
    extracted = extract_members(io.BytesIO(content), "a.tar", MEMBERS, work(tmp_path))
    assert {name: path.read_bytes() for name, path in extracted.items()} == {"train": b"training", "test": b"testing"}
    assert everything(tmp_path) == {"train", "test"}


def test_members_that_the_archive_lacks_are_omitted(tmp_path: Path) -> None:
    content = archive(file("package/data/test"))
    assert list(extract_members(io.BytesIO(content), "a.tar", MEMBERS, work(tmp_path))) == ["test"]


@pytest.mark.parametrize(
    ("type_", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "../secret"),
        (tarfile.LNKTYPE, "package/data/test"),
        (tarfile.CHRTYPE, b""),
        (tarfile.FIFOTYPE, b""),
        (tarfile.DIRTYPE, b""),
    ],
)
def test_links_and_devices_are_not_extracted(tmp_path: Path, type_: bytes, target: bytes | str) -> None:
    (tmp_path / "secret").write_text("of somebody")
    content = archive(("package/data/train", type_, target))
    with pytest.raises(SourceUnavailable, match=r"a.tar: package/data/train is a link, a folder or a device"):
        extract_members(io.BytesIO(content), "a.tar", MEMBERS, work(tmp_path))
    assert everything(tmp_path) == {"secret"}


def test_a_link_instead_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    content = archive(("package/data", tarfile.SYMTYPE, str(tmp_path / "elsewhere")), file("package/data/train"))
    extracted = extract_members(io.BytesIO(content), "a.tar", MEMBERS, work(tmp_path))
    assert list(extracted) == ["train"] and not list((tmp_path / "elsewhere").iterdir())


def header(size: int, type_: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo("package/data/train")
    info.size, info.type = size, type_
    return info.tobuf(tarfile.GNU_FORMAT)


class Endless(io.RawIOBase):
    """A given content followed by endless zeros."""

    def __init__(self, start: bytes) -> None:
        self.start = start

    def read(self, size: int = -1) -> bytes:
        given, self.start = self.start[:size], self.start[size:]
        return given or bytes(size)


@pytest.mark.parametrize(
    "start",
    [header(2**60), header(2**60, tarfile.GNUTYPE_LONGNAME), header(2**60, tarfile.XHDTYPE)],
    ids=["member", "long name", "pax header"],
)
def test_an_endless_archive(tmp_path: Path, start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 2**21)
    with pytest.raises(SourceUnavailable, match=r"a.tar: expands to more than 2 MiB"):
        extract_members(Endless(start), "a.tar", MEMBERS, work(tmp_path))  # type: ignore[arg-type]


def test_an_archive_with_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 100)
    content = archive(*[file(str(number)) for number in range(101)])
    with pytest.raises(SourceUnavailable, match=r"a.tar: has more than 100 members"):
        extract_members(io.BytesIO(content), "a.tar", MEMBERS, work(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive" * 100,
        archive(file("package/data/train", b"x" * 2000))[:1000],
        (header(3, tarfile.GNUTYPE_LONGNAME) + b"abc".ljust(512, b"\0")) * 2000,
    ],
    ids=["empty", "no archive", "cut off", "names of names"],
)
def test_a_damaged_archive(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceUnavailable, match=r"^a.tar: "):
        extract_members(io.BytesIO(content), "a.tar", MEMBERS, work(tmp_path))


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


def test_only_requested_members_of_a_zip_archive_are_extracted(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"../escaped": b"1", "package/data/train": b"training", "package/other": b"1"})
    extracted = extract_zipped(path, MEMBERS, work(tmp_path))
    assert {name: file.read_bytes() for name, file in extracted.items()} == {"train": b"training"}
    assert everything(tmp_path) == {"a.zip", "train"}


def test_a_zip_archive_that_expands_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.zip", {"package/data/train": bytes(2**22)})
    monkeypatch.setattr(archives, "MAX_BYTES", 2**21)
    with pytest.raises(SourceUnavailable, match=r"a.zip: expands to more than 2 MiB"):
        extract_zipped(path, MEMBERS, work(tmp_path))


def test_a_damaged_zip_archive(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"package/data/train": bytes(range(256)) * 64})
    content = bytearray(path.read_bytes())
    content[60] ^= 255
    path.write_bytes(content)
    with pytest.raises(SourceUnavailable, match=r"a.zip: "):
        extract_zipped(path, MEMBERS, work(tmp_path))
    path.write_bytes(b"nonsense")
    with pytest.raises(SourceUnavailable, match=r"a.zip: File is not a zip file"):
        extract_zipped(path, MEMBERS, tmp_path / "work")
