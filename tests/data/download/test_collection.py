from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mtlcli.data.download import collection as downloads
from mtlcli.data.download.collection import Collection, data_root, fetch_files
from mtlcli.data.formats import compressed
from mtlcli.errors import ConfigError, MtlError
from tests.data.download.collections import FakeSource, collection, mnist_files, place

FILES = mnist_files()
NAMES = list(FILES)


def contents(root: Path, folder: str = "MNIST") -> dict[str, bytes]:
    """Return all files in the folder, including hidden ones."""
    return {path.name: path.read_bytes() for path in (root / folder / "raw").iterdir()}


@pytest.mark.parametrize("compressed", [False, True])
def test_files_are_installed(tmp_path: Path, compressed: bool) -> None:
    source = FakeSource(FILES, compressed=compressed)
    assert fetch_files("mnist", collection(source), tmp_path) == dict.fromkeys(NAMES, "the fake source")
    assert contents(tmp_path) == FILES
    assert set(collection().check(tmp_path).values()) == {"ok"}


@pytest.mark.parametrize("compressed", [False, True])
def test_existing_files_are_kept(tmp_path: Path, compressed: bool) -> None:
    place(tmp_path / "MNIST/raw", FILES, compressed)
    source = FakeSource(FILES)
    assert fetch_files("mnist", collection(source), tmp_path) == dict.fromkeys(NAMES, "already there")
    assert source.asked == []


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_is_downloaded_again(tmp_path: Path, compressed: bool) -> None:
    place(tmp_path / "MNIST/raw", {**FILES, NAMES[0]: FILES[NAMES[0]][:-1] + b"x"}, compressed)
    assert collection().check(tmp_path)[NAMES[0]] == "damaged"
    source = FakeSource(FILES)
    origins = fetch_files("mnist", collection(source), tmp_path)
    assert source.asked == [[NAMES[0]]]
    assert origins == {**dict.fromkeys(NAMES, "already there"), NAMES[0]: "the fake source"}
    assert set(collection().check(tmp_path).values()) == {"ok"}


def test_sources_are_tried_in_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    away = FakeSource(None, "the first")
    partial = FakeSource({NAMES[1]: FILES[NAMES[1]]}, "the second")
    whole, unasked = FakeSource(FILES, "the third"), FakeSource(FILES, "the fourth")
    with caplog.at_level(logging.INFO, "mtl"):
        origins = fetch_files("mnist", collection(away, partial, whole, unasked), tmp_path)
    assert origins == {**dict.fromkeys(NAMES, "the third"), NAMES[1]: "the second"}
    assert whole.asked == [[NAMES[0], *NAMES[2:]]] and unasked.asked == []
    assert caplog.messages == [
        "mnist: the first: nobody at home",
        "mnist: 1 files from the second",
        "mnist: 3 files from the third",
    ]


def test_a_wrong_checksum_is_never_installed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong = FakeSource({**FILES, NAMES[2]: b"wrong"}, "the liar")
    fetch_files("mnist", collection(wrong, FakeSource(FILES)), tmp_path)
    assert contents(tmp_path) == FILES
    assert f"the liar: {NAMES[2]} has the wrong checksum" in caplog.text


def test_a_truncated_file_is_never_installed(tmp_path: Path) -> None:
    class CutOff(FakeSource):
        def collect(self, names: object, work: Path) -> dict[str, Path]:
            files = super().collect(NAMES, work)
            files[NAMES[0]].write_bytes(files[NAMES[0]].read_bytes()[:-20])
            return files

    with pytest.raises(MtlError, match="is not a complete gzip file"):
        fetch_files("mnist", collection(CutOff(FILES, compressed=True)), tmp_path)
    assert contents(tmp_path) == {}


def test_the_error_when_all_sources_fail_gives_the_remedy(tmp_path: Path) -> None:
    place(tmp_path / "MNIST/raw", {NAMES[0]: FILES[NAMES[0]]})
    sources = FakeSource(None, "the first"), FakeSource({}, "the second")
    with pytest.raises(MtlError) as caught:
        fetch_files("mnist", collection(*sources), tmp_path)
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert f"can't download {', '.join(NAMES[1:])}. Sources tried:" in message
    assert "the first: nobody at home" in message and "the second: has none of the files" in message
    assert str(tmp_path / "MNIST" / "raw") in message and "`mtl data fetch mnist`" in message


def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    (tmp_path / "MNIST").write_text("a file in the way")
    with pytest.raises(MtlError, match="can't write the data to"):
        fetch_files("mnist", collection(FakeSource(FILES)), tmp_path)


def test_one_thread_downloads_and_the_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Semaphore(0)
    monkeypatch.setattr(downloads.log, "warning", lambda *arguments: waiting.release())

    class Slow(FakeSource):
        def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
            started.set()
            assert waiting.acquire(timeout=30) and waiting.acquire(timeout=30)  # both others
            return super().collect(names, work)

    started, sources = threading.Event(), [Slow(FILES), FakeSource(FILES), FakeSource(FILES)]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(fetch_files, "mnist", collection(sources[0]), tmp_path)
        assert started.wait(timeout=30)
        others = [pool.submit(fetch_files, "mnist", collection(source), tmp_path) for source in sources[1:]]
        assert first.result(timeout=30) == dict.fromkeys(NAMES, "the fake source")
        assert [other_fetch.result(timeout=30) for other_fetch in others] == [dict.fromkeys(NAMES, "already there")] * 2
    assert [len(source.asked) for source in sources] == [1, 0, 0]
    assert contents(tmp_path) == FILES


def test_a_waiting_thread_downloads_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, started = threading.Event(), threading.Event()
    monkeypatch.setattr(downloads.log, "warning", lambda text, *arguments: "waiting" in text and waiting.set())

    class Failing(FakeSource):
        def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
            started.set()
            assert waiting.wait(timeout=30)
            return super().collect(names, work)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(fetch_files, "mnist", collection(Failing(None)), tmp_path)
        assert started.wait(timeout=30)
        second = pool.submit(fetch_files, "mnist", collection(FakeSource(FILES)), tmp_path)
        with pytest.raises(MtlError, match="nobody at home"):
            first.result(timeout=30)
        assert second.result(timeout=30) == dict.fromkeys(NAMES, "the fake source")


def killed_while(fetching_it: Callable[[], object]) -> None:
    """Run in a separate process that must end by SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            fetching_it()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_a_killed_download_leaves_no_files(tmp_path: Path) -> None:
    class Killed(FakeSource):
        def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
            place(work, {name: FILES[name][:10] for name in names})
            os.kill(os.getpid(), signal.SIGKILL)
            return {}

    killed_while(lambda: fetch_files("mnist", collection(Killed(FILES)), tmp_path))
    (left,) = (tmp_path / "MNIST/raw").iterdir()
    assert left.is_dir() and not collection().complete(tmp_path)
    assert fetch_files("mnist", collection(FakeSource(FILES)), tmp_path) == dict.fromkeys(NAMES, "the fake source")
    assert contents(tmp_path) == FILES


def test_a_download_killed_between_two_files(tmp_path: Path) -> None:
    def dying() -> None:
        replace, calls = Path.replace, []

        def once(path: Path, target: Path) -> Path:
            if calls:
                os.kill(os.getpid(), signal.SIGKILL)
            calls.append(path)
            return replace(path, target)

        Path.replace = once  # type: ignore[method-assign,assignment]
        fetch_files("mnist", collection(FakeSource(FILES)), tmp_path)

    killed_while(dying)
    source = FakeSource(FILES)
    origins = fetch_files("mnist", collection(source), tmp_path)
    assert origins == {NAMES[0]: "already there"} | dict.fromkeys(NAMES[1:], "the fake source")
    assert source.asked == [NAMES[1:]] and contents(tmp_path) == FILES


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*anything: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(MtlError, match=r"^mnist: can't write the data to .*raw: No space left on device$") as caught:
        fetch_files("mnist", collection(FakeSource(FILES)), tmp_path)
    assert caught.value.exit_code == 1
    assert contents(tmp_path) == {}


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all writing fail. Simulated, because root ignores permissions."""

    def refused(*anything: object, **more: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("mkdir", "open", "replace"):
        monkeypatch.setattr(Path, name, refused)


def test_a_read_only_root(tmp_path: Path, read_only: None) -> None:
    with pytest.raises(MtlError, match=r"^mnist: can't write the data to .*raw: Read-only file system$"):
        fetch_files("mnist", collection(FakeSource(FILES)), tmp_path)


def test_a_read_only_root_with_all_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    place(tmp_path / "MNIST/raw", FILES, compressed=True)  # read by way of gzip, not of Path.open
    request.getfixturevalue("read_only")
    assert fetch_files("mnist", collection(FakeSource(FILES)), tmp_path) == dict.fromkeys(NAMES, "already there")


@pytest.mark.parametrize("root", ["file", "file/deeper", "n" * 300])
def test_a_root_that_is_not_a_folder(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_text("in the way")
    assert set(collection().check(tmp_path / root).values()) == {"missing"}
    with pytest.raises(MtlError, match=r"^mnist: can't write the data to .*: (Not a directory|File name too long)$"):
        fetch_files("mnist", collection(FakeSource(FILES)), tmp_path / root)


@pytest.mark.parametrize("root", ["~nobody-of-that-name/data", "a\0b"])
def test_an_invalid_path_of_the_root(root: str) -> None:
    with pytest.raises(ConfigError, match=r"^data root "):
        data_root(root)


def test_an_extremely_compressed_file_is_never_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "ALWAYS_ALLOWED", 2**20)
    bomb = FakeSource({NAMES[0]: bytes(2**24)}, "the liar", compressed=True)
    with pytest.raises(MtlError, match=r"the liar: .* becomes more than 1 MiB when it is unpacked"):
        fetch_files("mnist", collection(bomb), tmp_path)
    assert contents(tmp_path) == {}


def test_the_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MTL_DATA", raising=False)
    assert data_root(None) == Path("data")
    monkeypatch.setenv("MTL_DATA", "/somewhere")
    assert data_root(None) == Path("/somewhere")
    assert data_root("elsewhere") == Path("elsewhere")


def test_complete_requires_regular_files(tmp_path: Path) -> None:
    whole: Collection = collection()
    assert not whole.complete(tmp_path)
    place(tmp_path / "MNIST/raw", dict.fromkeys(NAMES, b"anything"), compressed=True)
    assert whole.complete(tmp_path)
    assert set(whole.check(tmp_path).values()) == {"damaged"}
