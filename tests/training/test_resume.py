"""A run that is killed at any step and resumed has the same bits as one that was never killed."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtlcli.config import Experiment
from mtlcli.config.changed_keys import check_same
from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import build
from mtlcli.training.trainer import Trainer
from tests.training.experiments import digits, training
from tests.training.identical import digest_checkpoint
from tests.training.killing import KilledError, Killer


def train(experiment: Experiment, folder: Path, killed_at: int | None = None) -> dict[str, Any]:
    trainer = Trainer(build(experiment), folder, resume="auto", callbacks=[Killer(killed_at or -1)])
    return trainer.fit()


STATEFUL: list[Any] = [
    "gradnorm", "famo", "moco", "graddrop", "db_mtl", {"name": "mgda", "gradients": "features", "every": 2},
]  # fmt: skip
MORE: list[Any] = [
    {"name": "stch", "warmup_epochs": 1}, {"name": "nash_mtl", "every": 5}, "pcgrad", "gradvac", "excess_mtl",
    "sdmgrad", {"name": "torchjd", "aggregator": "GradVac"},
]  # fmt: skip


@pytest.mark.parametrize(
    "weighting", [*STATEFUL, *(pytest.param(weighting, marks=pytest.mark.matrix) for weighting in MORE)], ids=str
)
def test_the_state_of_a_weighting_is_resumed_in_the_middle_of_an_epoch(tmp_path: Path, weighting: Any) -> None:
    experiment = digits(weighting=weighting, checkpoint={"every": "1 step"})
    whole = train(experiment, tmp_path / "whole")
    with pytest.raises(KilledError):
        train(experiment, tmp_path / "killed", killed_at=9)  # in the second epoch
    resumed = train(experiment, tmp_path / "killed")
    assert digest_checkpoint(tmp_path / "killed/checkpoints/last.pt") == digest_checkpoint(
        tmp_path / "whole/checkpoints/last.pt"
    )
    assert resumed["metrics"] == whole["metrics"]
    assert (tmp_path / "killed/metrics.csv").read_text() == (tmp_path / "whole/metrics.csv").read_text()


@given(
    kill=st.integers(1, 11),
    every=st.sampled_from(["epoch", "1 step", "2 steps"]),
    weighting=st.sampled_from(["uncertainty", "dwa", "rlw", "gls", "imtl_l", {"name": "stch", "warmup_epochs": 1}]),
    scheduler=st.sampled_from([None, "CosineAnnealingLR", {"name": "OneCycleLR", "max_lr": 0.01}, "ReduceLROnPlateau"]),
    accumulate=st.sampled_from([1, 2]),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_killed_and_resumed_run_has_the_same_bits(
    tmp_path_factory: pytest.TempPathFactory, kill: int, every: str, weighting: Any, scheduler: Any, accumulate: int
) -> None:
    folder = tmp_path_factory.mktemp("resume")
    experiment = digits(
        weighting=weighting,
        scheduler=scheduler,
        training=training(batch_size=200 // accumulate, accumulate=accumulate),
        checkpoint={"every": every},
    )
    whole = train(experiment, folder / "whole")
    with pytest.raises(KilledError):
        train(experiment, folder / "killed", killed_at=kill)
    resumed = train(experiment, folder / "killed")
    assert digest_checkpoint(folder / "killed/checkpoints/last.pt") == digest_checkpoint(
        folder / "whole/checkpoints/last.pt"
    )
    assert digest_checkpoint(folder / "killed/checkpoints/best.pt") == digest_checkpoint(
        folder / "whole/checkpoints/best.pt"
    )
    assert resumed["metrics"] == whole["metrics"]
    assert (folder / "killed/metrics.csv").read_text() == (folder / "whole/metrics.csv").read_text()


def test_the_seed_determines_every_bit(tmp_path: Path) -> None:
    train(digits(), tmp_path / "a")
    train(digits(), tmp_path / "b")
    train(digits(seed=1), tmp_path / "c")
    last = "checkpoints/last.pt"
    assert digest_checkpoint(tmp_path / "a" / last) == digest_checkpoint(tmp_path / "b" / last)
    assert digest_checkpoint(tmp_path / "a" / last)["model"] != digest_checkpoint(tmp_path / "c" / last)["model"]


def test_a_finished_run_can_be_trained_for_more_epochs(tmp_path: Path) -> None:
    train(digits(), tmp_path / "a")
    longer = train(digits(training=training(epochs=3)), tmp_path / "a")
    train(digits(training=training(epochs=3)), tmp_path / "b")
    assert longer["epochs"] == 3
    assert digest_checkpoint(tmp_path / "a/checkpoints/last.pt") == digest_checkpoint(
        tmp_path / "b/checkpoints/last.pt"
    )


def test_resume_never_and_must_check_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        Trainer(build(digits()), tmp_path / "a", resume="must").fit()
    train(digits(), tmp_path / "a")
    before = (tmp_path / "a/summary.json").read_bytes()
    with pytest.raises(ConfigError, match="holds a run already"):
        Trainer(build(digits()), tmp_path / "a").fit()
    assert (tmp_path / "a/summary.json").read_bytes() == before


def test_another_experiment_is_refused_with_the_differences(tmp_path: Path) -> None:
    train(digits(), tmp_path / "a")
    with pytest.raises(ConfigError) as caught:
        train(digits(weighting="dwa", seed=3), tmp_path / "a")
    assert "seed: is 3, and the saved run has 0" in str(caught.value)
    assert "weighting.name: is 'dwa', and the saved run has 'fixed'" in str(caught.value)


def test_null_and_booleans_are_printed_as_in_yaml() -> None:
    saved = {"training": {"early_stopping": None, "epochs": 2}, "trunk": {"frozen": True}}
    asked = {"training": {"early_stopping": 3, "epochs": None}, "trunk": {"frozen": False}}
    changed = check_same(saved, asked, ["*"], "last.pt")
    assert [f"{problem.path}: {problem.message}" for problem in changed] == [
        "training.early_stopping: is 3, and the saved run has null",
        "training.epochs: is null, and the saved run has 2",
        "trunk.frozen: is false, and the saved run has true",
    ]
