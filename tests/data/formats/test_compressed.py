from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from mtlcli.data.formats import compressed
from mtlcli.data.formats.compressed import max_size, open_decompressed


def test_plain_and_compressed_files_are_read_alike(tmp_path: Path) -> None:
    content = os.urandom(200_000)
    (tmp_path / "plain").write_bytes(content)
    for name in ("packed.gz", "packed.tgz"):
        (tmp_path / name).write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))  # two members
    for name in ("plain", "packed.gz", "packed.tgz"):
        with open_decompressed(tmp_path / name) as file:
            assert file.read() == content


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_pipes_and_devices_are_not_opened(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "endless")
    with pytest.raises(OSError, match="is a pipe or a device, not a file"):
        open_decompressed(tmp_path / "endless")


@pytest.mark.parametrize("change", [lambda b: b[:-9], lambda b: b[:40] + b"\xff" * 8 + b[48:], lambda b: b + b"junk"])
def test_all_damage_of_a_gz_is_a_bad_gzip_file(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.gz"
    path.write_bytes(change(gzip.compress(os.urandom(500))))
    with pytest.raises(gzip.BadGzipFile), open_decompressed(path) as file:
        file.read()


@pytest.mark.parametrize("name", ["missing", "missing.gz"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        open_decompressed(tmp_path / name)


def test_an_extremely_compressed_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "ALWAYS_ALLOWED", 2**20)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(2**21)))
    assert max_size(path) == 2**20
    taken: list[bytes] = []
    with pytest.raises(gzip.BadGzipFile, match="more than 1 MiB when it is unpacked"), open_decompressed(path) as file:
        taken.extend(iter(lambda: file.read(2**16), b""))
    assert sum(map(len, taken)) <= 2**20
