from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets.mnist import read_image_file

from mtlcli.data.datasets._idx_images import read_idx
from mtlcli.data.formats import compressed
from mtlcli.errors import MtlError
from tests.data.download.collections import idx

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)


def test_images_equal_those_read_by_torchvision(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(idx(IMAGES))
    assert read_idx(path, (4, 3), "").equal(read_image_file(str(path)))


def test_reads_gz(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx(IMAGES)))
    np.testing.assert_array_equal(read_idx(path, (4, 3), "").numpy(), IMAGES)


DAMAGED = {
    "empty": b"",
    "cut in the header": idx(IMAGES)[:9],
    "cut": idx(IMAGES)[:-1],
    "too long": idx(IMAGES) + b"x",
    "other magic": b"\x00\x00\x0d" + idx(IMAGES)[3:],
    "other shape": idx(IMAGES.reshape(5, 3, 4)),
    "labels": idx(IMAGES[:, 0, 0]),
    "terabytes announced": idx(IMAGES)[:4] + b"\xff" + idx(IMAGES)[5:],
    "gigabytes announced": idx(IMAGES)[:4] + b"\x0f" + idx(IMAGES)[5:],
    "one more announced": idx(IMAGES)[:7] + b"\x06" + idx(IMAGES)[8:],
    "float32": IMAGES.shape[0].to_bytes(4, "big").join([b"\0\0\x0d\x03", idx(IMAGES)[8:]]),
    "no idx at all": b"<html>404</html>" * 20,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_damaged_file_is_reported_with_the_remedy(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(MtlError, match=r"images.*Fetch it again$"):
        read_idx(path, (4, 3), "Fetch it again")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_no_more_memory_is_allocated_than_the_file_can_fill(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda size, **more: asked.append(size) or empty(size, **more))
    for name in ("terabytes announced", "gigabytes announced"):
        path = tmp_path / f"images{suffix}"
        path.write_bytes(gzip.compress(DAMAGED[name]) if suffix else DAMAGED[name])
        with pytest.raises(MtlError, match=r"its header gives \d+ examples, \d+ bytes; it has at most \d+"):
            read_idx(path, (4, 3), "")
    assert asked == []


def test_a_gz_that_expands_extremely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "ALWAYS_ALLOWED", 2**10)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx(IMAGES) + bytes(2**20)))
    with pytest.raises(MtlError, match=r"images.gz: its header gives 5 examples, 60 bytes; it has more\. Fetch"):
        read_idx(path, (4, 3), "Fetch it again")


def test_the_first_bytes_of_another_format_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(DAMAGED["labels"])
    with pytest.raises(
        MtlError, match=r"it begins with 0x0000080100000005\w{5,}, not with 0x00000803…0000000400000003"
    ):
        read_idx(path, (4, 3), "")


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(idx(IMAGES))[:-30] + b"\xff" * 30, gzip.compress(idx(IMAGES))[:-12]],
    ids=["empty", "other", "damaged", "cut"],
)
def test_a_damaged_gz(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(MtlError, match=r"images.gz: .*Fetch it again$"):
        read_idx(path, (4, 3), "Fetch it again")
