from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from mtlcli.data.fetching import Collection, data_root, fetch
from mtlcli.errors import MtlError
from tests.data.collections import FakeSource, collection, mnist_files, place

FILES = mnist_files()
NAMES = list(FILES)


def contents(root: Path, folder: str = "MNIST") -> dict[str, bytes]:
    """Everything in the folder, hidden files too."""
    return {path.name: path.read_bytes() for path in (root / folder / "raw").iterdir()}


@pytest.mark.parametrize("compressed", [False, True])
def test_files_are_put_in_place(tmp_path: Path, compressed: bool) -> None:
    source = FakeSource(FILES, compressed=compressed)
    assert fetch("mnist", collection(source), tmp_path) == dict.fromkeys(NAMES, "the fake source")
    assert contents(tmp_path) == FILES
    assert set(collection().check(tmp_path).values()) == {"ok"}


@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_there_is_kept(tmp_path: Path, compressed: bool) -> None:
    place(tmp_path / "MNIST/raw", FILES, compressed)
    source = FakeSource(FILES)
    assert fetch("mnist", collection(source), tmp_path) == dict.fromkeys(NAMES, "already there")
    assert source.asked == []


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_is_fetched_again(tmp_path: Path, compressed: bool) -> None:
    place(tmp_path / "MNIST/raw", {**FILES, NAMES[0]: FILES[NAMES[0]][:-1] + b"x"}, compressed)
    assert collection().check(tmp_path)[NAMES[0]] == "damaged"
    source = FakeSource(FILES)
    origins = fetch("mnist", collection(source), tmp_path)
    assert source.asked == [[NAMES[0]]]
    assert origins == {**dict.fromkeys(NAMES, "already there"), NAMES[0]: "the fake source"}
    assert set(collection().check(tmp_path).values()) == {"ok"}


def test_the_sources_are_tried_in_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    away = FakeSource(None, "the first")
    part = FakeSource({NAMES[1]: FILES[NAMES[1]]}, "the second")
    whole, unasked = FakeSource(FILES, "the third"), FakeSource(FILES, "the fourth")
    with caplog.at_level(logging.INFO, "mtl"):
        origins = fetch("mnist", collection(away, part, whole, unasked), tmp_path)
    assert origins == {**dict.fromkeys(NAMES, "the third"), NAMES[1]: "the second"}
    assert whole.asked == [[NAMES[0], *NAMES[2:]]] and unasked.asked == []
    assert caplog.messages == [
        "mnist: the first: nobody at home",
        "mnist: 1 files from the second",
        "mnist: 3 files from the third",
    ]


def test_wrong_content_is_never_put_in_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong = FakeSource({**FILES, NAMES[2]: b"wrong"}, "the liar")
    fetch("mnist", collection(wrong, FakeSource(FILES)), tmp_path)
    assert contents(tmp_path) == FILES
    assert f"the liar: {NAMES[2]} has the wrong checksum" in caplog.text


def test_a_cut_off_archive_is_never_put_in_place(tmp_path: Path) -> None:
    class CutOff(FakeSource):
        def collect(self, names: object, work: Path) -> dict[str, Path]:
            found = super().collect(NAMES, work)
            found[NAMES[0]].write_bytes(found[NAMES[0]].read_bytes()[:-20])
            return found

    with pytest.raises(MtlError, match="is no whole gzip file"):
        fetch("mnist", collection(CutOff(FILES, compressed=True)), tmp_path)
    assert contents(tmp_path) == {}


def test_all_failing_is_one_error_that_says_what_to_do(tmp_path: Path) -> None:
    place(tmp_path / "MNIST/raw", {NAMES[0]: FILES[NAMES[0]]})
    sources = FakeSource(None, "the first"), FakeSource({}, "the second")
    with pytest.raises(MtlError) as caught:
        fetch("mnist", collection(*sources), tmp_path)
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert f"can't fetch {', '.join(NAMES[1:])}. Tried:" in message
    assert "the first: nobody at home" in message and "the second: has none of the files" in message
    assert str(tmp_path / "MNIST" / "raw") in message and "`mtl data fetch mnist`" in message


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "MNIST").write_text("a file in the way")
    with pytest.raises(MtlError, match="can't write the data to"):
        fetch("mnist", collection(FakeSource(FILES)), tmp_path)


def test_several_may_fetch_at_once(tmp_path: Path) -> None:
    meeting = threading.Barrier(3)

    class Meeting(FakeSource):
        def collect(self, names: object, work: Path) -> dict[str, Path]:
            meeting.wait(timeout=30)
            return super().collect(NAMES, work)

    found: list[dict[str, str]] = []
    several = [
        threading.Thread(target=lambda: found.append(fetch("mnist", collection(Meeting(FILES)), tmp_path)))
        for _ in range(3)
    ]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    assert found == [dict.fromkeys(NAMES, "the fake source")] * 3
    assert contents(tmp_path) == FILES


def test_where_data_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MTL_DATA", raising=False)
    assert data_root(None) == Path("data")
    monkeypatch.setenv("MTL_DATA", "/somewhere")
    assert data_root(None) == Path("/somewhere")
    assert data_root("elsewhere") == Path("elsewhere")


def test_complete_looks_for_files_only(tmp_path: Path) -> None:
    whole: Collection = collection()
    assert not whole.complete(tmp_path)
    place(tmp_path / "MNIST/raw", dict.fromkeys(NAMES, b"anything"), compressed=True)
    assert whole.complete(tmp_path)
    assert set(whole.check(tmp_path).values()) == {"damaged"}
