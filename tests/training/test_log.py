import logging
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mtlcli.training.run_folder import RunFolder, log_to_folder


@pytest.fixture(params=[345, 0, -210])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[timedelta]:
    minutes = request.param
    with monkeypatch.context() as patched:
        patched.setenv("TZ", {345: "XXX-5:45", 0: "UTC", -210: "XXX3:30"}[minutes])  # without a time zone database
        time.tzset()
        yield timedelta(minutes=minutes)
    time.tzset()


def test_log_lines_have_the_offset_from_utc(zone: timedelta, tmp_path: Path) -> None:
    with log_to_folder(RunFolder(tmp_path)):
        logging.getLogger("mtl").warning("a caf\udce9")
    line = (tmp_path / "log.txt").read_text(encoding="utf-8")
    stamp, level, text = line.split(" ", 2)
    assert (level, text) == ("WARNING", "a caf\\udce9\n")
    moment = datetime.fromisoformat(stamp)
    assert moment.utcoffset() == zone
    assert abs(moment.timestamp() - time.time()) < 600
