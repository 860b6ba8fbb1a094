import os
from pathlib import Path

import pytest

from mtlcli.config import dump_yaml
from mtlcli.config.locations import MOST_PROBLEMS
from mtlcli.config.yaml import MAX_BYTES, MAX_DEPTH, parse, read
from mtlcli.errors import ConfigError, Mark


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_every_key_and_value_has_a_location() -> None:
    document = parse("a:\n  b: [1, {c: two}]\n'd': |\n  text\n", "x.yaml")
    assert document.data == {"a": {"b": [1, {"c": "two"}]}, "d": "text\n"}
    places = {
        path: tuple((m.line, m.column) if isinstance(m, Mark) else m for m in place)
        for path, place in document.places.items()
    }
    assert places == {
        (): ((1, 1), None),
        ("a",): ((2, 3), (1, 1)),
        ("a", "b"): ((2, 6), (2, 3)),
        ("a", "b", 0): ((2, 7), None),
        ("a", "b", 1): ((2, 10), None),
        ("a", "b", 1, "c"): ((2, 14), (2, 11)),
        ("d",): ((3, 6), (3, 1)),
    }


def test_keys_and_quoted_values_are_strings() -> None:
    assert parse("1: '1'\non: \"true\"\nnull: ~\n", "x").data == {"1": "1", "on": "true", "null": None}


def test_all_violations_of_strict_yaml_are_reported() -> None:
    assert problems("a: &x 1\nb: *x\na: 2\nc: !!str 3\n") == [
        "x.yaml:1:4: a: anchors (&x) are not allowed: write the value out where it is used",
        "x.yaml:2:4: b: aliases (*x) are not allowed: write the value out",
        "x.yaml:3:1: a: duplicate key, first given in line 1",
        "x.yaml:4:4: c: tags (tag:yaml.org,2002:str) are not allowed",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &a [*a]", "x.yaml:1:4: a: anchors"),
        ("a: {<<: {b: 1}, <<: {c: 1}}", "x.yaml:1:17: a.<<: duplicate key"),
        ("a:\n\tb: 1\n", "x.yaml:2:1: tab character: YAML is indented with spaces"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2:1: the file contains a second document"),
        ("a: [1, 2\nb: 3\n", "x.yaml:2:2: not YAML: while parsing a flow sequence"),
        ("? [a, b]\n: 1\n", "x.yaml:1:3: a key must be a plain string"),
        ("a: {b: ${C}}", 'x.yaml:1:9: not YAML: while parsing a flow mapping, expected \',\' or \'}\', but got \'{\'; '
         'put "${…}" in quotes here'),
        ("a: 1\nb: \0\n", "x.yaml:2:4: not a text file: it contains the character U+0000"),
        ('a: "\\UFFFFFFFF"', "x.yaml:1:1: not YAML"),
        ("a: " + "9" * 2000, "x.yaml:1:4: a: a number has 2000 digits"),
        ("[" * 10000, f"x.yaml:1:{MAX_DEPTH + 1}: nested deeper than {MAX_DEPTH} levels"),
        ("%YAML 2.0\n---\na: 1", "x.yaml:1:1: not YAML: found incompatible YAML document"),
    ],
)  # fmt: skip
def test_invalid_yaml(text: str, problem: str) -> None:
    assert problems(text)[0].startswith(problem)


def test_expanded_expressions_are_resolved_like_literals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHS", "3")
    monkeypatch.delenv("NONE", raising=False)
    document = parse("a: ${EPOCHS}\nb: '${EPOCHS}'\nc: ${NONE:1e-3}\nd: ${NONE:}\ne: ${NONE}\n", "x.yaml")
    assert document.data == {"a": 3, "b": "3", "c": 1e-3, "d": None, "e": None}
    assert list(document.unexpanded) == [("e",)]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def problem(name: str, content: bytes | None) -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            read(tmp_path / name)
        return str(caught.value).removeprefix(str(tmp_path))

    assert problem("missing.yaml", None) == "/missing.yaml: can't be read: No such file or directory"
    assert problem("", None) == ": can't be read: Is a directory"
    assert problem("latin.yaml", "a: 1\nname: né\n".encode("latin-1")) == "/latin.yaml:2:8: not a text file in UTF-8"
    assert problem("utf16.yaml", "a: 1".encode("utf-16")) == "/utf16.yaml:1:1: not a text file in UTF-8"
    assert "larger than 512 KiB" in problem("large.yaml", b"#" * (MAX_BYTES + 1))
    assert "can't be read: the name 'xxxxxxxxxxxxxxxxxxxx'… has 300 bytes" in problem("x" * 300, None)
    assert problem("\0", None).endswith(": can't be read: a file name can't contain the character NUL")


def test_paths_that_are_no_files_are_rejected_without_reading(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(ConfigError, match=f"^{name}: not a regular file$"):
            read(name)


def test_control_characters_in_file_names_are_escaped(tmp_path: Path) -> None:
    file = tmp_path / "\x1b[2Ja\nb.yaml"
    file.write_text("a: *b\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read(file)
    assert (
        str(caught.value) == rf"{tmp_path}/\x1b[2Ja\nb.yaml:1:4: a: aliases (*b) are not allowed: write the value out"
    )


def test_the_number_of_values_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlcli.config.yaml.MAX_VALUES", 5)
    assert parse("a: [1, 1, 1]", "x").data["a"] == [1, 1, 1]
    assert problems("a: [1, 1, 1, 1]") == ["x.yaml:1:14: more than 5 values, which is the maximum"]


def test_only_the_first_of_many_problems_are_reported() -> None:
    messages = problems("a: 1\n" * 1000)
    assert messages[:MOST_PROBLEMS] == [
        f"x.yaml:{line}:1: a: duplicate key, first given in line 1" for line in range(2, MOST_PROBLEMS + 2)
    ]
    assert messages[MOST_PROBLEMS:] == [f"further problems are omitted: these are the first {MOST_PROBLEMS}"]


def test_the_length_of_all_variables_together_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONG", "x" * 100_000)
    document = parse("a: [" + "'${LONG}'," * 8 + "]", "x")
    assert [path[1] for path in document.unexpanded] == [5, 6, 7]
    assert "the values of the variables are too long: the maximum is 24323" in document.unexpanded[("a", 5)]


def test_unpaired_surrogates() -> None:
    assert problems(r'a: "\ud83d"') == ["x.yaml:1:4: a: invalid Unicode: unpaired surrogate"]


def test_a_file_name_that_is_not_utf8_survives_a_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYTES", os.fsdecode(b"caf\xe9.csv"))
    data = parse("a: ${BYTES}", "x").data
    assert parse(dump_yaml(data), "x").data == data == {"a": "caf\udce9.csv"}
    dump_yaml(data).encode("utf-8")


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: x\r\n")
    document = read(file)
    assert document.data == {"a": 1, "b": "x"}
    assert document.places[("b",)].value == Mark(str(file), 2, 4)
