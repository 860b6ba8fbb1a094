"""Loaded experiments: defaults, options, and round trips through YAML."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtlcli.config import SchedulerConfig, TrunkConfig, dump_yaml, experiment_from_dict, load_experiment
from mtlcli.config.yaml import parse
from tests.config.experiments import GOOD, load

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.sampled_from(["1e-3", "012", "on", "null", "${HOME}", "$${x", "0o14", "~", "- a", "a: b", ".inf", "+.5", "#"])
    | st.sampled_from(["\x85", "a\u2028", "\ufeff", "\n", " a", "a ", "\x00"]),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)  # fmt: skip


def test_the_readme_experiment_has_its_defaults(tmp_path: Path) -> None:
    text = "datasets: {d: digits}\ntasks: {digit: {dataset: d, kind: classification}}\ntrunk: mlp\n"
    experiment = load(tmp_path, text)
    assert experiment.name == "good"
    assert experiment.seed == 0
    assert experiment.datasets["d"].name == "digits"
    task = experiment.tasks["digit"]
    assert (task.dataset, task.target, task.kind.name, task.head.name, task.weight) == (
        "d", None, "classification", "linear", 1.0,
    )  # fmt: skip
    assert (experiment.trunk.init_from, experiment.trunk.frozen) == (None, False)
    assert (experiment.sharing.name, experiment.weighting.name, experiment.regularizers) == ("hard", "fixed", [])
    assert (experiment.optimizer.name, experiment.optimizer.options["lr"], experiment.scheduler) == ("Adam", 1e-3, None)
    assert (experiment.training.epochs, experiment.training.sampling.name) == (10, "proportional")
    assert experiment.evaluation.monitor.task == "mean"


def test_options_have_the_types_of_the_signature(tmp_path: Path) -> None:
    experiment = load(tmp_path, GOOD.replace("lr: 1e-3", "lr: 1"))
    assert experiment.optimizer.options["betas"] == (0.8, 0.99)
    assert isinstance(experiment.optimizer.options["lr"], float)


def test_common_keys_of_trunks_and_schedulers(tmp_path: Path) -> None:
    text = GOOD.replace("features: 8", "features: 8, frozen: true, init_from: a.pt")
    experiment = load(tmp_path, text)
    assert isinstance(experiment.trunk, TrunkConfig)
    assert (experiment.trunk.frozen, experiment.trunk.init_from) == (True, "a.pt")
    assert "frozen" not in experiment.trunk.options
    assert isinstance(experiment.scheduler, SchedulerConfig)
    assert experiment.scheduler.interval == "epoch"
    one_cycle = load(tmp_path, GOOD, "scheduler={name: OneCycleLR, max_lr: 0.1}").scheduler
    assert one_cycle is not None and one_cycle.interval == "step"


@pytest.mark.parametrize(
    ("scheduler", "supplied"),
    [
        ("name: CosineAnnealingLR", "T_max"),
        ("name: OneCycleLR, max_lr: 0.1", "total_steps"),
        ("name: PolynomialLR", "total_iters"),
    ],
)
def test_options_that_the_builder_supplies_are_omitted_unless_set(
    tmp_path: Path, scheduler: str, supplied: str
) -> None:
    entry = f"scheduler={{{scheduler}}}"
    left_out, given_by_user = load(tmp_path, GOOD, entry), load(tmp_path, GOOD, entry, f"scheduler.{supplied}=7")
    assert left_out.scheduler is not None and supplied not in left_out.scheduler.options
    assert given_by_user.scheduler is not None and given_by_user.scheduler.options[supplied] == 7


def test_the_default_name_is_that_of_the_file_without_special_characters(tmp_path: Path) -> None:
    file = tmp_path / "-my exp (1).yaml"
    file.write_text(GOOD, encoding="utf-8")
    assert load_experiment(file).name == "_my_exp__1_"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    lr=st.floats(0, 1e10),
    description=st.text(),
    weight=st.floats(0, allow_infinity=False),
    optimizer=st.sampled_from(["Adam", "AdamW", "SGD", "Adafactor", "Rprop", "NAdam"]),
    scheduler=st.sampled_from(
        [
            "null",
            "StepLR, step_size: 3",
            "MultiStepLR, milestones: [1, 2]",
            "PolynomialLR",
            "OneCycleLR, max_lr: [1, .5]",
        ]
    ),
    root=st.none() | st.text(min_size=1),
)
def test_resolved_and_loaded_again_is_the_same(
    tmp_path: Path,
    seed: int,
    lr: float,
    description: str,
    weight: float,
    optimizer: str,
    scheduler: str,
    root: str | None,
) -> None:
    entry = scheduler if scheduler == "null" else f"{{name: {scheduler}}}"
    plain = load(tmp_path, GOOD, f"optimizer={optimizer}", f"scheduler={entry}").resolved()
    plain |= {"seed": seed}
    plain["optimizer"]["lr"] = lr
    plain["tasks"]["digit"] |= {"description": description, "weight": weight}
    plain["trunk"]["init_from"] = root
    experiment = experiment_from_dict(plain)
    resolved = experiment.resolved()
    file = tmp_path / "config.yaml"
    file.write_text(dump_yaml(resolved), encoding="utf-8")
    assert load_experiment(file) == experiment
    assert load_experiment(file).resolved() == resolved
    assert experiment_from_dict(resolved) == experiment


@settings(deadline=None)
@given(PLAIN)
def test_dumped_data_is_parsed_to_the_same_data(plain: object) -> None:
    document = parse(dump_yaml({"x": plain}), "x")
    assert document.unexpanded == {}
    assert document.data == {"x": plain}
    assert repr(document.data) == repr({"x": plain})


def test_changing_an_experiment_raises_an_error_with_the_override(tmp_path: Path) -> None:
    experiment = load(tmp_path)
    with pytest.raises(AttributeError, match=r"can't be changed; pass the override 'training\.epochs=3' to load_exp"):
        experiment.training.epochs = 3
    with pytest.raises(AttributeError, match="'seed=1'"):
        experiment.seed = 1
    with pytest.raises(AttributeError, match=r"'evaluation\.monitor\.task=digit'"):
        experiment.evaluation.monitor.task = "digit"
    with pytest.raises(AttributeError, match=r"'tasks\.TASK\.kind=VALUE'"):
        next(iter(experiment.tasks.values())).kind = None  # type: ignore[assignment]
    changed = load_experiment(tmp_path / "good.yaml", ["training.epochs=3"])
    assert changed.training.epochs == 3
