"""What is compared, and against what."""

import pytest

from mtlcli.errors import ConfigError
from mtlcli.studies.compare.identity import experiment_hash
from mtlcli.studies.compare.plan import Load, Plan, make_plan
from tests.studies.compare.fake_runs import TASKS, loads
from tests.studies.fake_data import TRAINING, made, task

__all__ = ["made"]

pytestmark = pytest.mark.usefixtures("made")


def planned(load: Load, *vary: str, tune: tuple[str, ...] = ()) -> Plan:
    return make_plan(load, vary, tune, 3, 1)


def test_methods_seeds_and_reference() -> None:
    plan = planned(loads(seed=7), "weighting=mgda,uniform", "sharing=hard,cross_stitch")
    assert [method.label for method in plan.methods] == [
        "mgda + hard", "mgda + cross_stitch", "uniform + hard", "uniform + cross_stitch",
    ]  # fmt: skip
    assert plan.reference.label == "uniform + hard"
    assert plan.seeds == [7, 8, 9]
    experiment = plan.methods[1].candidates[0].experiment
    assert (experiment.weighting.name, experiment.sharing.name) == ("mgda", "cross_stitch")
    assert plan.directions["sum"] == {"r2": "max", "mse": "min", "rmse": "min", "mae": "min"}
    assert list(plan.directions["sign"]) == ["accuracy", "auroc", "f1"]
    assert planned(loads(), "weighting=mgda,pcgrad").reference.label == "mgda"  # for want of uniform
    assert [method.label for method in planned(loads()).methods] == ["made"]
    assert make_plan(loads(seed=2**32 - 1), [], [], 2, 5).seeds == [2**32 - 1, 0]


def test_a_baseline_is_the_task_alone() -> None:
    dressed = loads(
        tasks={"sign": task("sign", weight=3.0), "sum": {**task("sum"), "dataset": "other"}},
        datasets={"made": {"name": "made"}, "other": {"name": "made", "shift": 1.0}},
        sharing="shared_private", weighting="mgda",
        regularizers=[{"name": "l2", "strength": 0.1, "as_task": True}, {"name": "adversarial"},
                      {"name": "trace_norm_across_tasks"}],
        optimizer={"name": "Adam", "groups": {"trunk": {"lr": 0.1}, "sign": {"lr": 0.2}, "sum": {"lr": 0.3}}},
        training={**TRAINING, "early_stopping": 4},
        evaluation={"monitor": {"task": "sign", "metric": "auroc"}},
    )  # fmt: skip
    sign, total = (method.candidates[0].experiment for method in planned(dressed).baselines)
    assert (list(sign.tasks), list(sign.datasets), sign.tasks["sign"].weight) == (["sign"], ["made"], 1.0)
    assert (sign.sharing.name, sign.weighting.name) == ("hard", "uniform")
    assert [(entry.name, entry.as_task) for entry in sign.regularizers] == [("l2", False)]  # others need several tasks
    assert (sign.training.early_stopping, sign.trunk) == (4, dressed([]).trunk)
    assert list(sign.optimizer.groups) == ["trunk", "sign"]
    assert sign.evaluation.monitor.metric == "auroc"
    assert total.evaluation.monitor.metric == "primary"  # what is monitored isn't its own
    assert list(total.datasets) == ["other"]
    mean = planned(loads(evaluation={"monitor": {"metric": "loss"}})).baselines
    assert [method.candidates[0].experiment.evaluation.monitor.metric for method in mean] == ["loss", "loss"]


def test_baselines_are_tuned_as_the_methods_are() -> None:
    plan = planned(loads(), "weighting=cagrad", tune=("optimizer.lr=1e-3,1e-2", "weighting.c=0.1,0.4"))
    assert [candidate.point.label for candidate in plan.methods[0].candidates] == [
        "lr=1e-3, c=0.1", "lr=1e-3, c=0.4", "lr=1e-2, c=0.1", "lr=1e-2, c=0.4",
    ]  # fmt: skip
    for method in plan.baselines:  # but for what is no part of them
        assert [candidate.point.overrides for candidate in method.candidates] == [
            ("optimizer.lr=1e-3",), ("optimizer.lr=1e-2",),
        ]  # fmt: skip
        assert [candidate.experiment.optimizer.options["lr"] for candidate in method.candidates] == [1e-3, 1e-2]


def refused(load: Load, *vary: str, tune: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        planned(load, *vary, tune=tune)
    return str(caught.value)


def test_every_problem_is_told_once_with_the_methods_that_have_it() -> None:
    told = refused(loads(), "weighting=uniform,mgdaa", "sharing=hard,mmoee").splitlines()
    assert len(told) == 2
    assert "unknown sharing 'mmoee'. Did you mean 'mmoe'?" in told[0]
    assert told[0].endswith("[uniform + mmoee; mgdaa + mmoee]")
    assert told[1].endswith("[mgdaa + hard; mgdaa + mmoee]")
    told = refused(loads(), "trunk=mlp,lenet", tune=("optimizer.lr=1e-3,-1",)).splitlines()
    assert len(told) == 2
    assert "Invalid learning rate: -1" in told[0]
    assert told[0].endswith("[mlp, lr=-1]")
    assert "lenet needs images" in told[1]
    assert told[1].endswith("[lenet, lr=1e-3; lenet, lr=-1]")


def test_a_problem_of_the_experiment_itself_is_told_alone() -> None:
    told = refused(loads(trunk="lenet"), "weighting=uniform,mgdaa")
    assert told.count("\n") == 0
    assert "lenet needs images" in told
    assert "[" not in told.partition("lenet")[0]


def test_what_cannot_be_compared() -> None:
    assert "weighting=uniform and weighting={name: uniform} are the same" in refused(
        loads(), "weighting=uniform,{name: uniform}"
    )
    assert "are the same experiment" in refused(loads(), "training.threads=1,2")  # which changes no figure
    other = f"tasks={{sign: {TASKS['sign']}}}".replace("'", "")
    assert "its tasks differ" in refused(loads(), other, "weighting=uniform")


def test_the_identity_of_a_run() -> None:
    load = loads()
    known = experiment_hash(load([]))
    assert known == experiment_hash(load(["training.threads=2", "training.device=cpu", "training.workers=0"]))
    assert known == experiment_hash(load(["weighting={name: uniform}"]))
    assert len({known, experiment_hash(load(["seed=1"])), experiment_hash(load(["trunk.hidden=[5]"]))}) == 3
    turned = loads(tasks=dict(reversed(TASKS.items())))
    assert experiment_hash(turned([])) != known  # weights are drawn in the tasks' order
