"""Suggestions for mistyped keys, names of components and overrides."""

from pathlib import Path
from typing import Any

import pytest

from mtlcli.cli import main
from mtlcli.config.suggestions import value_hint
from mtlcli.errors import ConfigError, suggest
from tests.config.experiments import GOOD, load, write_yaml


def message(folder: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, GOOD, *overrides)
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("epochs=5", "training.epochs"), ("lr=1e-3", "optimizer.lr"), ("batch_size=8", "training.batch_size"),
        ("device=cpu", "training.device"), ("training.lr=1", "optimizer.lr"), ("Epochs=5", "training.epochs"),
        ("training.optimizer=Adam", "optimizer"), ("optimizer.epochs=5", "training.epochs"),
        ("dropout=0.5", "trunk.dropout"),
        ("learning_rate=1", "optimizer.lr"), ("optimizer.learning_rate=1", "lr"), ("num_epochs=1", "training.epochs"),
        ("training.num_epochs=1", "epochs"), ("training.batch-size=4", "batch_size"), ("model=mlp", "trunk"),
        ("loss=mse", "tasks.TASK.kind"), ("tasks.ink.loss=mse", "tasks.ink.kind.loss"),
        ("tasks.digit.loss=ce", "kind"), ("tasks.digit.type=x", "kind"),
        ("tasks.ink.loss_weight=2", "weight"), ("trunk.num_layers=3", "hidden"),
        ("patience=3", "training.early_stopping"),
        ("metric=loss", "evaluation.monitor.metric"), ("weight=2", "tasks.TASK.weight"), ("gpu=0", "training.device"),
        ("optimizer={type: SGD}", "name"), ("dataset=x", "datasets"), ("lr_scheduler=StepLR", "scheduler"),
    ],
)  # fmt: skip
def test_suggested_keys(tmp_path: Path, override: str, key: str) -> None:
    assert f". Did you mean {key!r}?" in message(tmp_path, override)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("trunk=resnet18", "'resnet18' is a torchvision model: trunk: {name: torchvision, model: resnet18}."),
        ("sharing=resnet18", "'resnet18' is a torchvision model: trunk: {name: torchvision, model: resnet18}."),
        ("sharing=pcgrad", "'pcgrad' is a weighting: weighting: pcgrad."),
        ("weighting=mmoe", "'mmoe' is a sharing: sharing: mmoe."),
        ("optimizer=StepLR", "'StepLR' is a scheduler: scheduler: StepLR."),
        ("scheduler=Adam", "'Adam' is an optimizer: optimizer: Adam."),
        ("weighting=l1", "'l1' is a regularizer: regularizers: [{name: l1}]."),
        ("trunk=linear", "'linear' is a head: tasks.TASK.head: linear."),
        ("weighting=Nash-MTL", "Did you mean 'nash_mtl'?"),
        ("weighting=equal", "Did you mean 'uniform'?"),
        ("tasks.digit.kind=cross_entropy", "Did you mean 'classification'?"),
        ("weighting='uniform, mgda'", "To compare several, use mtl compare --vary weighting=uniform,mgda."),
        ("scheduler=none", "'none'. For a constant learning rate, use scheduler: null."),
        ("weighting=none", "'none'. For a sum of losses, use weighting: uniform"),
        ("trunk=ResNet18", "trunk: {name: torchvision, model: resnet18}."),
        ("weighting=imtl", "Did you mean 'imtl_g' or 'imtl_l'?"),
        ("scheduler=linear_warmup", "Did you mean 'warmup_linear'?"),
        ("optimizer=lbfgs", "LBFGS evaluates the loss several times"),
        ("scheduler={name: ReduceLROnPlateau, mode: min}", "It is derived from the monitored metric"),
        ("regularizers=[{name: l2, weight: 0.1}]", "Did you mean 'strength'?"),
        ("scheduler={name: warmup_cosine, warmup_steps: 9}", "Did you mean 'warmup'?"),
        ("training.precision=bf16-mixed", "; write bf16"),
        ("scheduler=cosine", "Did you mean 'CosineAnnealingLR'?"),
        ("output_dir=x", "Set the run folder on the command line: --run-dir FOLDER."),
        ("seeds=3", "mtl compare --seeds N."),
        ("optimizer.momentum=0.9", "RMSprop, SGD have it."),
        ("trunk={type: mlp}", "has no `name` (write `name` for 'type')"),
    ],
)
def test_suggested_components(tmp_path: Path, override: str, hint: str) -> None:
    assert hint in message(tmp_path, override)


@pytest.mark.parametrize(
    "override", ["zzz=1", "training.zzz=1", "scheduler=SequentialLR", "trunk=vae", "tasks.digit.zzz=1"]
)
def test_no_suggestion_for_an_unrelated_name(tmp_path: Path, override: str) -> None:
    assert "Did you mean" not in message(tmp_path, override)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("optim", "optimizer"),
        ("epohcs", "epochs"),
        ("gsl", "gls"),
        ("Cosine", "CosineAnnealingLR"),
        ("lenet_five", None),
        ("unet", None),
    ],
)
def test_nearest(name: str, hint: str | None) -> None:
    names = ["optimizer", "epochs", "gls", "CosineAnnealingLR", "lenet"]
    assert suggest(name, names) == ("" if hint is None else f" Did you mean {hint!r}?")


@pytest.mark.parametrize(
    ("arguments", "override"),
    [
        (["--epochs", "3"], "training.epochs=3"), (["--lr", "1e-3"], "optimizer.lr=1e-3"),
        (["--training.epochs=3"], "training.epochs=3"), (["--batch-size=8"], "training.batch_size=8"),
        (["--device"], "training.device=VALUE"), (["--optimizer", "SGD"], "optimizer=SGD"),
        (["--gpu", "0"], "training.device=cuda:0"), (["--amp", "true"], "training.precision=VALUE"),
        (["--model", "resnet18"], "trunk=VALUE"), (["--device", "gpu"], "training.device=VALUE"),
        (["--hidden", "[8, 8]"], "'trunk.hidden=[8, 8]'"), (["--patience=3"], "training.early_stopping=3"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["train", "validate", "summary"])
def test_options_with_the_names_of_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, arguments: list[str], override: str
) -> None:
    assert main([verb, str(write_yaml(tmp_path, GOOD)), *arguments]) == 2
    assert capsys.readouterr().err.endswith(f"set keys of the experiment as KEY=VALUE, without dashes: {override}\n")


def test_a_mistyped_option_is_no_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(write_yaml(tmp_path, GOOD)), "--resum", "auto"]) == 2
    assert "No such option: --resum" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "annotation", "hint"),
    [
        ("-999", list[str], '; write ["-999"]'),
        ("true", list[str], '; write ["true"]'),
        ("u", list[str], "; write [u]"),
        (-999, str, "; write it in quotes"),
        (2020.5, str, "; write it in quotes"),
        (True, str, ""),
    ],
)
def test_strings_that_resolve_to_other_types_are_quoted(value: Any, annotation: Any, hint: str) -> None:
    assert value_hint(value, annotation) == hint
