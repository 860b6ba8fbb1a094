import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlcli.config.environment import escape, expand


def test_a_variable_and_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOT", "/data")
    monkeypatch.delenv("NONE", raising=False)
    assert expand("${ROOT}/mnist") == "/data/mnist"
    assert expand("${ROOT:x}${NONE:y:z}${NONE:}") == "/datay:z"


def test_what_a_variable_holds_is_not_expanded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOT", "${HOME}")
    assert expand("${ROOT}") == "${HOME}"


def test_an_unset_variable_says_how_to_give_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NONE", raising=False)
    with pytest.raises(ValueError, match=r"NONE is not set; .*\$\{NONE:default\}"):
        expand("${NONE}")


@pytest.mark.parametrize("text", ["${", "${}", "${1}", "${A", "a ${A B}", "${A-b}"])
def test_what_is_no_expression_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        expand(text)


def test_variables_have_room_for_so_many_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONG", "x" * 10)
    assert expand("a${LONG}b${LONG}", 20) == "a" + "x" * 10 + "b" + "x" * 10
    with pytest.raises(ValueError, match="the variables hold too much: 19 characters are the most there is room for"):
        expand("${LONG}${LONG}", 19)


@given(st.text(alphabet="${}A:x"))
def test_an_escaped_text_expands_to_itself(text: str) -> None:
    assert expand(escape(text)) == text
