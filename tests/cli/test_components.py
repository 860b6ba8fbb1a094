"""`mtl list`, `mtl show` and `mtl schema`."""

import json

import pytest

from mtlcli.cli import main
from mtlcli.config.schema import json_schema
from mtlcli.registry import REGISTRIES


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    return out


def test_list_has_every_component(capsys: pytest.CaptureFixture[str]) -> None:
    head, *rows = printed(capsys, "list").splitlines()
    assert head.split() == ["kind", "name", "description"]
    assert [tuple(row.split()[:2]) for row in rows] == [
        (kind, name) for kind, registry in REGISTRIES.items() for name in registry.names()
    ]
    assert all(len(row.split()) > 3 for row in rows), "a component without a summary"


@pytest.mark.parametrize("kind", ["trunk", "trunks"])
def test_list_of_one_kind(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert {row.split()[0] for row in printed(capsys, "list", kind).splitlines()[1:]} == {"trunk"}


def test_list_as_json_and_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    heads = json.loads(printed(capsys, "list", "head", "--json"))
    assert [head["name"] for head in heads] == ["aspp", "fcn", "linear", "mlp"]
    assert heads[0].keys() == {"kind", "name", "summary"}
    markdown = printed(capsys, "list", "--markdown").splitlines()
    assert markdown[:2] == ["| kind | name | description |", "| --- | --- | --- |"]
    assert any(line.startswith("| optimizer | `ASGD`, `Adadelta`") for line in markdown)


def test_list_of_an_unknown_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "trunc"]) == 2
    assert "no kind of component 'trunc'. Did you mean 'trunk'?" in capsys.readouterr().err


def test_show_has_options_with_type_default_and_description(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "show", "lenet").splitlines()
    assert lines[0] == "trunk lenet"
    (row,) = [line.split(maxsplit=2) for line in lines if line.startswith("  hidden ")]
    assert row[1] == "50" and row[2].startswith("an integer > 0") and row[2].endswith("Width of fc1.")
    assert any(line.startswith("  init_from ") for line in lines)
    assert not any(line.strip() == "Options:" for line in lines)


def test_show_of_a_name_that_several_kinds_have(capsys: pytest.CaptureFixture[str]) -> None:
    both = printed(capsys, "show", "mlp")
    assert "trunk mlp\n" in both and "\nhead mlp\n" in both
    for name in ("head.mlp", "head:mlp"):
        assert printed(capsys, "show", name).startswith("head mlp\n")
        assert "trunk mlp" not in printed(capsys, "show", name)


def test_show_of_a_dataset_has_its_targets(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "show", "digits")
    assert "inputs: 1×8×8; splits: train, val, test" in shown
    rows = [line.split() for line in shown.partition("  target ")[2].splitlines()]
    assert any(row[:1] == ["parity"] for row in rows)


@pytest.mark.parametrize("kind", list(REGISTRIES))
def test_every_component_can_be_shown(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in REGISTRIES[kind].names():
        assert printed(capsys, "show", f"{kind}.{name}").startswith(f"{kind} {name}\n")


def test_show_of_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "lenett"]) == 2
    assert "no component 'lenett'. Did you mean 'lenet'?" in capsys.readouterr().err


def test_schema_is_one_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, "schema")) == json_schema()
