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


def test_values_of_variables_are_not_expanded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOT", "${HOME}")
    assert expand("${ROOT}") == "${HOME}"


def test_the_error_of_an_unset_variable_suggests_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NONE", raising=False)
    with pytest.raises(ValueError, match=r"NONE is not set; .*\$\{NONE:default\}"):
        expand("${NONE}")


@pytest.mark.parametrize("text", ["${", "${}", "${1}", "${A", "a ${A B}", "${A-b}"])
def test_invalid_expressions_are_errors(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        expand(text)


def test_the_length_of_variables_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONG", "x" * 10)
    assert expand("a${LONG}b${LONG}", 20) == "a" + "x" * 10 + "b" + "x" * 10
    with pytest.raises(ValueError, match="the values of the variables are too long: the maximum is 19 characters"):
        expand("${LONG}${LONG}", 19)


def test_a_default_in_the_form_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_unsupported_forms_of_the_shell(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand(text)


@pytest.mark.parametrize("value", ['"${EPOCHS:2}"', "'${EPOCHS:2}'", '"${EPOCHS:-2}"'])
def test_quotes_do_not_make_a_number_a_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.delenv("EPOCHS", raising=False)
    text = GOOD.replace("epochs: 2", f"epochs: {value}")
    assert load(tmp_path, text).training.epochs == 2
    monkeypatch.setenv("EPOCHS", "3")
    assert load(tmp_path, text).training.epochs == 3


def test_the_type_of_the_key_determines_the_value_of_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBER", "7")
    monkeypatch.setenv("RATE", "1e-2")
    text = GOOD.replace("seed: 3", "seed: ${NUMBER}\nname: ${NUMBER}").replace("lr: 1e-3", 'lr: "${RATE}"')
    experiment = load(
        tmp_path, text.replace("0.99]", '"${NONE:0.99}"]').replace("weight: 0.5", 'description: "${NUMBER}"')
    )
    assert (experiment.seed, experiment.name, experiment.tasks["ink"].description) == (7, "7", "7")
    assert experiment.optimizer.options["lr"] == 0.01
    assert list(experiment.optimizer.options["betas"]) == [0.8, 0.99]


def test_the_error_in_a_flow_mapping_suggests_quotes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'put "\$\{…\}" in quotes here: a number stays a number'):
        load(tmp_path, GOOD.replace("epochs: 2", "epochs: ${EPOCHS:2}"))


def test_a_variable_without_braces(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"found the string '\$SEED'; write \$\{SEED\} for an environment variable"):
        load(tmp_path, GOOD.replace("seed: 3", "seed: $SEED"))


@given(st.text(alphabet="${}A:x"))
def test_an_escaped_text_expands_to_itself(text: str) -> None:
    assert expand(escape(text)) == text
