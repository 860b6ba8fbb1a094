"""Plan of a comparison: methods, baselines, and errors before training."""

import pytest

from mtlcli.errors import ConfigError
from mtlcli.studies.compare.identity import experiment_hash
from mtlcli.studies.compare.plan import Load, Plan, make_plan
from tests.studies.compare.fake_runs import TASKS, make_load
from tests.studies.fake_data import TRAINING, fake_dataset, task

__all__ = ["fake_dataset"]

pytestmark = pytest.mark.usefixtures("fake_dataset")


def plan_study(load: Load, *vary: str, tune: tuple[str, ...] = ()) -> Plan:
    return make_plan(load, vary, tune, 3, 1)


def test_methods_seeds_and_reference() -> None:
    plan = plan_study(make_load(seed=7), "weighting=mgda,uniform", "sharing=hard,cross_stitch")
    assert [method.label for method in plan.methods] == [
        "mgda + hard", "mgda + cross_stitch", "uniform + hard", "uniform + cross_stitch",
    ]  # fmt: skip
    assert plan.reference.label == "uniform + hard"
    assert plan.seeds == [7, 8, 9]
    experiment = plan.methods[1].candidates[0].experiment
    assert (experiment.weighting.name, experiment.sharing.name) == ("mgda", "cross_stitch")
    assert plan.directions["sum"] == {"r2": "max", "mse": "min", "rmse": "min", "mae": "min"}
    assert list(plan.directions["sign"]) == ["accuracy", "auroc", "f1"]
    assert plan_study(make_load(), "weighting=mgda,pcgrad").reference.label == "mgda"  # no method is uniform
    assert [method.label for method in plan_study(make_load()).methods] == ["fake"]
    assert make_plan(make_load(seed=2**32 - 1), [], [], 2, 5).seeds == [2**32 - 1, 0]


def test_chosen_metrics_are_compared() -> None:
    tasks = {"sign": {**task("sign"), "metrics": ["log_loss", "recall_per_class"]}, "sum": task("sum")}
    load = make_load(tasks=tasks, evaluation={"monitor": {"metric": "loss"}})
    plan = plan_study(load)
    assert plan.directions["sign"] == {"log_loss": "min", "recall[0]": "max", "recall[1]": "max"}
    with pytest.raises(ConfigError, match="its tasks differ from the experiment's"):
        plan_study(load, "tasks.sign.metrics=[log_loss],[accuracy]")


def test_baseline_has_one_task() -> None:
    load = make_load(
        tasks={"sign": task("sign", weight=3.0), "sum": {**task("sum"), "dataset": "other"}},
        datasets={"fake": {"name": "fake"}, "other": {"name": "fake", "shift": 1.0}},
        sharing="shared_private", weighting="mgda",
        regularizers=[{"name": "l2", "strength": 0.1, "as_task": True}, {"name": "adversarial"},
                      {"name": "trace_norm_across_tasks"}],
        optimizer={"name": "Adam", "groups": {"trunk": {"lr": 0.1}, "sign": {"lr": 0.2}, "sum": {"lr": 0.3}}},
        training={**TRAINING, "early_stopping": 4},
        evaluation={"monitor": {"task": "sign", "metric": "auroc"}},
    )  # fmt: skip
    sign, total = (method.candidates[0].experiment for method in plan_study(load).baselines)
    assert (list(sign.tasks), list(sign.datasets), sign.tasks["sign"].weight) == (["sign"], ["fake"], 1.0)
    assert (sign.sharing.name, sign.weighting.name) == ("hard", "uniform")
    assert [(entry.name, entry.as_task) for entry in sign.regularizers] == [("l2", False)]  # others need several tasks
    assert (sign.training.early_stopping, sign.trunk) == (4, load([]).trunk)
    assert list(sign.optimizer.groups) == ["trunk", "sign"]
    assert sign.evaluation.monitor.metric == "auroc"
    assert total.evaluation.monitor.metric == "primary"  # the monitored metric is one of another task
    assert list(total.datasets) == ["other"]
    mean = plan_study(make_load(evaluation={"monitor": {"metric": "loss"}})).baselines
    assert [method.candidates[0].experiment.evaluation.monitor.metric for method in mean] == ["loss", "loss"]


def test_baselines_are_tuned_like_methods() -> None:
    plan = plan_study(make_load(), "weighting=cagrad", tune=("optimizer.lr=1e-3,1e-2", "weighting.c=0.1,0.4"))
    assert [candidate.point.label for candidate in plan.methods[0].candidates] == [
        "lr=1e-3, c=0.1", "lr=1e-3, c=0.4", "lr=1e-2, c=0.1", "lr=1e-2, c=0.4",
    ]  # fmt: skip
    for method in plan.baselines:  # without the keys that do not apply to them
        assert [candidate.point.overrides for candidate in method.candidates] == [
            ("optimizer.lr=1e-3",), ("optimizer.lr=1e-2",),
        ]  # fmt: skip
        assert [candidate.experiment.optimizer.options["lr"] for candidate in method.candidates] == [1e-3, 1e-2]


def refused(load: Load, *vary: str, tune: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_study(load, *vary, tune=tune)
    return str(caught.value)


def test_problems_are_reported_once_with_their_methods() -> None:
    message = refused(make_load(), "weighting=uniform,mgdaa", "sharing=hard,mmoee").splitlines()
    assert len(message) == 2
    assert "unknown sharing 'mmoee'. Did you mean 'mmoe'?" in message[0]
    assert message[0].endswith("[uniform + mmoee; mgdaa + mmoee]")
    assert message[1].endswith("[mgdaa + hard; mgdaa + mmoee]")
    message = refused(make_load(), "trunk=mlp,lenet", tune=("optimizer.lr=1e-3,-1",)).splitlines()
    assert len(message) == 2
    assert "Invalid learning rate: -1" in message[0]
    assert message[0].endswith("[mlp, lr=-1]")
    assert "lenet needs images" in message[1]
    assert message[1].endswith("[lenet, lr=1e-3; lenet, lr=-1]")


def test_problem_of_the_experiment_is_reported_alone() -> None:
    message = refused(make_load(trunk="lenet"), "weighting=uniform,mgdaa")
    assert message.count("\n") == 0
    assert "lenet needs images" in message
    assert "[" not in message.partition("lenet")[0]


def test_incomparable_methods_are_refused() -> None:
    assert "weighting=uniform and weighting={name: uniform} are the same" in refused(
        make_load(), "weighting=uniform,{name: uniform}"
    )
    assert "are the same experiment" in refused(make_load(), "training.threads=1,2")  # which affects no metric
    other = f"tasks={{sign: {TASKS['sign']}}}".replace("'", "")
    assert "its tasks differ" in refused(make_load(), other, "weighting=uniform")


def test_experiment_hash() -> None:
    load = make_load()
    digits = experiment_hash(load([]))
    assert digits == experiment_hash(load(["training.threads=2", "training.device=cpu", "training.workers=0"]))
    assert digits == experiment_hash(load(["weighting={name: uniform}"]))
    assert len({digits, experiment_hash(load(["seed=1"])), experiment_hash(load(["trunk.hidden=[5]"]))}) == 3
    turned = make_load(tasks=dict(reversed(TASKS.items())))
    assert experiment_hash(turned([])) != digits  # weights are drawn in the order of the tasks
