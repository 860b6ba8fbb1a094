from pathlib import Path

import pytest

from mtlcli.config import Experiment
from mtlcli.errors import ConfigError
from tests.config.experiments import GOOD, load


def test_scalars_lists_and_mappings(tmp_path: Path) -> None:
    experiment = load(
        tmp_path, GOOD, "training.epochs=7", "optimizer.lr=1e-2", "trunk.hidden=[64, 64]",
        "tasks.digit.head={name: mlp}",        "tasks.ink.head.hidden.0=5", "name=other",
    )  # fmt: skip
    assert experiment.name == "other"
    assert experiment.training.epochs == 7
    assert experiment.optimizer.options["lr"] == 1e-2
    assert experiment.trunk.options["hidden"] == [64, 64]
    assert experiment.tasks["digit"].head.name == "mlp"
    assert experiment.tasks["ink"].head.options["hidden"] == [5]


def test_missing_sections_and_components_without_options(tmp_path: Path) -> None:
    text = GOOD.replace("{name: mlp, hidden: [32], features: 8}", "mlp")
    experiment = load(tmp_path, text, "evaluation.monitor.metric=loss", "trunk.features=4", "sharing.name=hard")
    assert experiment.evaluation.monitor.metric == "loss"
    assert experiment.trunk.options["features"] == 4


def test_setting_an_option_of_a_default_component(tmp_path: Path) -> None:
    text = "".join(line for line in GOOD.splitlines(keepends=True) if not line.startswith(("optimizer", "weighting")))
    experiment = load(tmp_path, text, "optimizer.lr=0.5")
    assert (experiment.optimizer.name, experiment.optimizer.options["lr"]) == ("Adam", 0.5)
    assert experiment.weighting.name == "fixed"


def test_a_whole_entry_is_replaced(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, "weighting=uniform").weighting.name == "uniform"
    assert load(tmp_path, GOOD, "scheduler=null").scheduler is None


def test_a_bare_name_gets_options_from_later_overrides(tmp_path: Path) -> None:
    experiment = load(tmp_path, GOOD, "weighting=cagrad", "weighting.c=0.25", "trunk=mlp", "trunk.features=4")
    assert (experiment.weighting.name, experiment.weighting.options["c"]) == ("cagrad", 0.25)
    assert (experiment.trunk.name, experiment.trunk.options["features"]) == ("mlp", 4)


def test_another_component_drops_the_previous_options(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, "weighting.name=gls").weighting.options == {}
    # the same name keeps the options; those set on the command line are always kept
    assert load(tmp_path, GOOD, "weighting.name=uncertainty").weighting.options["init"] == 0.5
    experiment = load(tmp_path, GOOD, "optimizer.lr=0.1", "optimizer.name=SGD", "optimizer.momentum=0.9")
    assert experiment.optimizer.name == "SGD"
    assert experiment.optimizer.options["lr"] == 0.1
    assert experiment.optimizer.options["momentum"] == 0.9


def test_overrides_apply_in_order(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, "training.epochs=1", "training={}", "training.epochs=5").training.epochs == 5
    assert load(tmp_path, GOOD, "training.epochs=5", "training={}").training.epochs == 10


def test_an_override_replaces_an_unset_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NONE", raising=False)
    text = GOOD.replace("epochs: 2", 'epochs: "${NONE}"')
    assert load(tmp_path, text, "training.epochs=4").training.epochs == 4
    with pytest.raises(ConfigError, match=r"good\.yaml:16:20: training\.epochs: the environment variable NONE"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "override 'training.epochs': expected KEY=VALUE"),
        ("=3", "override '=3': expected KEY=VALUE"),
        ("training..epochs=3", "override 'training..epochs=3': expected KEY=VALUE"),
        ("training.epochs=[", "override 'training.epochs=[': not YAML"),
        ("training=*a", "override 'training=*a': aliases"),
        ("training={epochs: 1, epochs: 2}", "override 'training={epochs: 1, epochs: 2}': duplicate key"),
        ("tasks.dgit.weight=2", "'tasks.dgit.weight=2': no 'dgit' in tasks. Did you mean 'digit'?"),
        ("regularizers.0.strength=1", "no item '0' in regularizers, which has 0"),
        ("tasks.ink.head.hidden.x=1", "no item 'x' in tasks.ink.head.hidden, which has 1"),
        ("training.epochs=0", "epochs: expected an integer > 0, found 0 (set by the override 'training.epochs=0')"),
        ("trainig.epochs=1", "trainig: unknown key. Did you mean 'training'?"),
        ("weighting.name=gsl", "weighting.name: unknown weighting 'gsl'. Did you mean 'gls'?"),
        ("training.device=${MTL_NOT_SET}", "the environment variable MTL_NOT_SET is not set"),
        ("training.epochs.x=1", "training.epochs: expected an integer > 0, found {\"name\": 2, \"x\": 1}"),
    ],
)  # fmt: skip
def test_errors_name_the_override(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD, override)
    assert message in str(caught.value)


def test_all_broken_overrides_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD, "a", "b", "training.epochs=0", "training.batch_size=[")
    assert len(caught.value.problems) == 4


def test_overrides_do_not_change_the_data_given(tmp_path: Path) -> None:
    from mtlcli.config import experiment_from_dict

    plain = load(tmp_path).resolved()
    changed: Experiment = experiment_from_dict(plain, ["training.epochs=9"])
    assert changed.training.epochs == 9
    assert plain["training"]["epochs"] == 2


TABLE = """\
datasets:
  t: {name: csv, path: t.csv, targets: [y]}
tasks:
  y: {dataset: t, target: y, kind: binary}
trunk: {name: mlp, hidden: [16], features: 8}
"""


@pytest.mark.parametrize(
    "text", [";", "|", "#", ",", "@", "%", "~", "`", "*", "!", ">", "-", "?", ":", "[", "{", " ", "\t"]
)
def test_any_character_is_a_delimiter(tmp_path: Path, text: str) -> None:
    experiment = load(tmp_path, TABLE, f"datasets.t.delimiter={text}")
    assert experiment.datasets["t"].options["delimiter"] == text


@pytest.mark.parametrize(("text", "value"), [("\\t", "\t"), ('"\\t"', "\t"), ("'|'", "|"), ('"|"', "|")])
def test_a_tab_and_quoted_delimiters(tmp_path: Path, text: str, value: str) -> None:
    experiment = load(tmp_path, TABLE, f"datasets.t.delimiter={text}")
    assert experiment.datasets["t"].options["delimiter"] == value
    assert load(tmp_path, TABLE.replace("path:", r"delimiter: \t, path:")).datasets["t"].options["delimiter"] == "\t"


@pytest.mark.parametrize("text", ['"', "\n", "||", "null"])
def test_invalid_delimiters(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="delimiter: expected one character, not a quote or a line break"):
        load(tmp_path, TABLE, f"datasets.t.delimiter={text}")


@pytest.mark.parametrize(
    "path",
    [
        "a#b.csv", "#b.csv", "a #b.csv", r"C:\data\t.csv", "a: b.csv", "@x.csv", "my table.csv", "[x].csv", "[x]",
        "{a: b}", "5", "0x10", "2024-01-01", "null", "yes", "*.csv", "&t", "!t", "%t", "|", "- x", "x:", "a'b.csv",
    ],
)  # fmt: skip
def test_paths_are_used_literally(tmp_path: Path, path: str) -> None:
    assert load(tmp_path, TABLE, f"datasets.t.path={path}").datasets["t"].options["path"] == path


def test_the_type_of_the_key_determines_text_and_null(tmp_path: Path) -> None:
    experiment = load(tmp_path, GOOD, "name=5", "tasks.digit.target=null", "tasks.digit.description=#5: a, b")
    assert (experiment.name, experiment.tasks["digit"].target) == ("5", None)
    assert experiment.tasks["digit"].description == "#5: a, b"
    assert load(tmp_path, GOOD, "trunk.init_from='x.pt'").trunk.init_from == "x.pt"
    assert load(tmp_path, GOOD, "training.epochs = 3", "name = x y".replace(" y", "")).training.epochs == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scheduler=", "override 'scheduler=': no value after '='; write scheduler=null"),
        ("scheduler=#x", "override 'scheduler=#x': as YAML the value is empty (' #' starts a comment)"),
        ("training.epochs:3", "override 'training.epochs:3': expected KEY=VALUE with a dotted key, such as "
         "training.epochs=5: write training.epochs=3"),
        ("b.yaml", "only one experiment file is accepted"),
    ],
)  # fmt: skip
def test_ambiguous_overrides_are_errors(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD, override)
    assert message in str(caught.value)
