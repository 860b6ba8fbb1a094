from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlcli.config.scalars import escape, expand
from mtlcli.errors import ConfigError
from tests.config.experiments import GOOD, load


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
    with pytest.raises(ValueError, match="the values of the variables are too long: the maximum is 19 characters"):
        expand("${LONG}${LONG}", 19)


def test_a_default_as_the_shell_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NONE", raising=False)
    monkeypatch.setenv("EMPTY", "")
    assert expand("${NONE:-0.01}") == "0.01"
    assert expand("${NONE:--0.01}") == "-0.01"
    assert expand("${EMPTY:-t.csv}|${EMPTY:t.csv}|${NONE:-}") == "t.csv||"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${A:=b}", r"\$\{A:=…\} is not supported: write \$\{A:default\} for a default, .* \$\{A:-=b\}"),
        ("${A:?b}", "not supported"),
        ("${A:+b}", "not supported"),
        ("${A:${B:c}}", "nested expressions"),
        ("${A-b}", r"for \$\{A-b\} write \$\{A:b\}"),
        ("${A:b", "the closing brace is missing"),
    ],
)
def test_forms_that_would_mean_something_else(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand(text)


@pytest.mark.parametrize("value", ['"${EPOCHS:2}"', "'${EPOCHS:2}'", '"${EPOCHS:-2}"'])
def test_quotes_do_not_make_a_number_a_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.delenv("EPOCHS", raising=False)
    text = GOOD.replace("epochs: 2", f"epochs: {value}")
    assert load(tmp_path, text).training.epochs == 2
    monkeypatch.setenv("EPOCHS", "3")
    assert load(tmp_path, text).training.epochs == 3


def test_what_a_variable_holds_is_read_as_its_key_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBER", "7")
    monkeypatch.setenv("RATE", "1e-2")
    text = GOOD.replace("seed: 3", "seed: ${NUMBER}\nname: ${NUMBER}").replace("lr: 1e-3", 'lr: "${RATE}"')
    experiment = load(
        tmp_path, text.replace("0.99]", '"${NONE:0.99}"]').replace("weight: 0.5", 'description: "${NUMBER}"')
    )
    assert (experiment.seed, experiment.name, experiment.tasks["ink"].description) == (7, "7", "7")
    assert experiment.optimizer.options["lr"] == 0.01
    assert list(experiment.optimizer.options["betas"]) == [0.8, 0.99]


def test_a_flow_mapping_says_that_quotes_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'put "\$\{…\}" in quotes here: a number stays a number'):
        load(tmp_path, GOOD.replace("epochs: 2", "epochs: ${EPOCHS:2}"))


def test_a_variable_without_braces(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"found the string '\$SEED'; write \$\{SEED\} for an environment variable"):
        load(tmp_path, GOOD.replace("seed: 3", "seed: $SEED"))


@given(st.text(alphabet="${}A:x"))
def test_an_escaped_text_expands_to_itself(text: str) -> None:
    assert expand(escape(text)) == text
