import os
from pathlib import Path

import pytest

from mtlcli.errors import ConfigError
from mtlcli.files import MAX_NAME, MAX_PATH, given_path, quote_path, user_path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_home_folder_is_expanded(home: Path) -> None:
    assert user_path("~/a b/c.yaml") == home / "a b/c.yaml"
    assert user_path("~") == home
    assert user_path(Path("~") / "x") == home / "x"
    assert user_path("a/~/b") == Path("a/~/b")
    assert user_path("./~x") == user_path(user_path("./~x")) == Path.cwd() / "~x"  # as suggested by the error


def test_names_are_unchanged() -> None:
    for name in ("out ", " out", "caf\udce9", "a\nb", "", "x" * MAX_NAME, "é" * (MAX_NAME // 2)):
        assert user_path(name) == Path(name)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a\0b", "the character NUL"),
        ("~no-such-user-here/x", "a user who does not exist here"),
        ("x" * (MAX_NAME + 1), "has 256 bytes; the maximum is 255"),
        ("a/" + "é" * 128 + "/b", "has 256 bytes"),
        ("caf\udce9" * 64, "has 256 bytes"),
        ("/".join(["x" * 200] * 20), f"the maximum is {MAX_PATH:,}"),
    ],
)
def test_impossible_file_names(path: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        user_path(path)
    with pytest.raises(ConfigError, match=f"^--out .*{reason}"):
        given_path(path, "--out")


def test_paths_in_messages_are_quoted_and_escaped() -> None:
    assert [quote_path(path) for path in ("a", "a ", "", os.fsdecode(b"caf\xe9"))] == ["a", "'a '", "''", r"caf\udce9"]
