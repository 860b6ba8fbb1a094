"""Stems of an experiment: the shape of the trunk's input, ownership of parameters, errors, transfer, baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import mtlcli
from mtlcli.cli.app import app
from mtlcli.config import Experiment, experiment_from_dict, load_experiment
from mtlcli.errors import ConfigError
from mtlcli.models import Stem
from mtlcli.registry import datasets, sharings, stems
from mtlcli.studies.compare.baselines import make_baseline
from mtlcli.studies.relate.experiments import make_joint, make_single_task
from mtlcli.training.assembly.build import build, check_experiment, rebuild
from mtlcli.training.assembly.data_checks import open_datasets
from mtlcli.training.assembly.optimizers import group_names, make_optimizer
from mtlcli.training.checkpoint.file import plain, save_checkpoint
from mtlcli.training.run import Run
from mtlcli.training.step import Step
from tests.weighting.training_steps import MadeUp

ROOT = Path(__file__).parents[3]
TEXT = """name: mixed
datasets:
  a: {name: digits, val: 0.2}
  b: {name: digits, val: 0.2}
  t: {name: csv, path: PATH, targets: [sold]}
stems:
  a: {name: conv, channels: 3}
  b: {name: linear}
  t: {name: tabular, features: 12}
tasks:
  digit: {dataset: a, target: digit, kind: classification}
  ink: {dataset: a, target: ink, kind: regression}
  parity: {dataset: b, target: parity, kind: binary}
  sold: {dataset: t, kind: binary}
trunk: {name: mlp, hidden: [8], features: 6}
training: {epochs: 1, batch_size: 200, device: cpu, threads: 1}
"""


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    lines = [f"{i % 7},{'red' if i % 3 else 'blue'},{i % 2}" for i in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["size,colour,sold", *lines]))
    path = tmp_path / "mixed.yaml"
    path.write_text(TEXT.replace("PATH", str(tmp_path / "table.csv")))
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_experiment(load_experiment(path, list(overrides)))
    return str(caught.value)


def changed(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def blank(run: Run) -> dict[str, torch.Tensor]:
    return {alias: torch.zeros(2, *spec.input_shape) for alias, spec in run.specs.items()}


def test_stems_end_in_the_stated_shape(mixed: Path) -> None:
    run = build(load_experiment(mixed))
    assert run.input_shape == (12,)
    assert run.model.stems is not None and list(run.model.stems) == ["a", "b", "t"]
    for alias, x in blank(run).items():
        assert run.model.prepare(alias, x).shape == (2, 12)


def test_tables_with_stems_have_columns_of_their_own(mixed: Path, tmp_path: Path) -> None:
    rows = "\n".join(f"{at},{at % 2}" for at in range(0, 90, 3))
    (tmp_path / "other.csv").write_text(f"weight,sold\n{rows}\n")
    changed(
        mixed, "  b: {name: digits, val: 0.2}", f"  b: {{name: csv, path: {tmp_path / 'other.csv'}, targets: [sold]}}"
    )
    changed(mixed, "b: {name: linear}", "b: {name: tabular, features: 12}")
    changed(mixed, "target: parity", "target: sold")
    run = build(load_experiment(mixed))
    assert [[column.name for column in run.specs[alias].columns] for alias in "bt"] == [["weight"], ["size", "colour"]]


def test_datasets_without_a_stem_determine_the_shape(mixed: Path) -> None:
    changed(mixed, "  t: {name: tabular, features: 12}\n", "  t: {name: tabular}\n")
    changed(mixed, "  a: {name: conv, channels: 3}\n", "")
    changed(mixed, "mlp, hidden: [8]", "lenet, channels: 2").write_text(mixed.read_text())
    assert build(load_experiment(mixed, ["trunk=mlp"])).input_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tabular, features: 12", "tabular", "mixed.yaml:7:3: stems: every dataset has a stem, and none states the "
         "shape in which they end, the input of the trunk: set `features: 64` (vectors), or `shape: [C, H, W]`"),
        ("conv, channels: 3", "conv, size: 4", "mixed.yaml:7:3: stems: the datasets reach the trunk in different "
         "shapes (a 16×4×4 after its stem, t 12 after its stem), but all of them pass the same trunk"),
        ("  a: {name: conv, channels: 3}\n", "", "(a 1×8×8 without a stem, t 12 after its stem)"),
        ("conv, channels: 3", "conv, size: 4, features: 12", "mixed.yaml:7:6: stems.a: `size` is for a trunk that"),
        ("tabular, features: 12", "tabular, features: 12, shape: [3]", "stems.t: `shape` is 3, but the options state"),
        ("b: {name: linear}", "b: {name: resize}", "stems.b: resize changes the height and width of images only"),
        ("b: {name: linear}", "b: {name: tabular}", "stems.b: tabular needs the columns of a table, but the inputs of "
         "dataset 'b' are 1×8×8"),
        ("t: {name: tabular, features: 12}", "t: {name: conv, features: 12}", "stems.t: conv converts images"),
        ("b: {name: linear}", "c: {name: linear}", "mixed.yaml:8:3: stems.c: no dataset 'c'"),
        ("b: {name: linear}", "b: {name: linaer}", "Did you mean 'linear'?"),
        ("mlp, hidden: [8], features: 6", "tabular", "stems: trunk 'tabular' encodes the raw columns of a table, which "
         "no stem returns; use the trunk `mlp` and the stem `tabular`"),
        ("stems:\n  a: {name: conv, channels: 3}\n  b: {name: linear}\n  t: {name: tabular, features: 12}\n", "",
         "datasets: the datasets' inputs differ in shape (a 1×8×8, b 1×8×8, t 3), but all of them pass the same trunk. "
         "Give datasets an encoder of their own in `stems`: `resize` for images of another size"),
    ],
)  # fmt: skip
def test_errors_name_the_line_and_the_remedy(mixed: Path, old: str, new: str, message: str) -> None:
    assert message in refused(changed(mixed, old, new))


def test_images_of_different_sizes_hint_at_resize(tmp_path: Path) -> None:
    datasets.register("made_up")(MadeUp)
    tasks = {"digit": {"dataset": "a", "target": "digit", "kind": "classification"},
             "t0": {"dataset": "b", "target": "t0", "kind": "regression"}}  # fmt: skip
    entry = {"name": "x", "datasets": {"a": "digits", "b": {"name": "made_up", "tasks": 1}}, "tasks": tasks}
    with pytest.raises(ConfigError, match=r"Give datasets an encoder of their own in `stems`, such as `stems: {b: re"):
        check_experiment(experiment_from_dict({**entry, "trunk": "mlp"}))
    check_experiment(experiment_from_dict({**entry, "trunk": "mlp", "stems": {"b": "resize"}}))


class Wrong(Stem):
    """A stem that returns one value too many."""

    def __init__(self, input_shape: Any, output_shape: Any) -> None:
        super().__init__()
        self.width = output_shape[0] + 1

    def forward(self, x: torch.Tensor, /) -> torch.Tensor:
        return x.new_zeros(len(x), self.width)


def test_stem_of_a_plugin_with_a_wrong_output(mixed: Path) -> None:
    stems.register("wrong")(Wrong)
    message = "stems.b: returns [2, 13] for 2 examples, but the trunk takes [2, 12]"
    assert message in refused(changed(mixed, "b: {name: linear}", "b: {name: wrong}"))


JOINT_STATISTICS = [(name, "cnn") for name in ("hard", "none", "mmoe", "cross_stitch")]


@pytest.mark.parametrize(("name", "trunk"), [*((name, "mlp") for name in sharings.names()), *JOINT_STATISTICS])
def test_ownership_agrees_with_autograd(mixed: Path, name: str, trunk: str) -> None:
    """A stem belongs to a task iff only the loss of this task reaches it, also through joint batch statistics."""
    overrides = [f"sharing={name}"]
    if name in ("esmm", "aitm"):  # two binary tasks in order
        overrides = [f"tasks.{task}={{dataset: a, target: parity, kind: binary}}" for task in ("digit", "ink")]
        overrides.append(f"sharing={{name: {name}, order: [digit, ink]}}")
    if trunk == "cnn":
        overrides += ["trunk={name: cnn, widths: [3], features: 4}", "stems.t={name: tabular, shape: [2, 6, 6]}"]
    run = build(load_experiment(mixed, overrides))
    model, names = run.model.train(), {id(p): name for name, p in run.model.named_parameters()}
    assert model.stems is not None
    torch.manual_seed(0)
    inputs = {alias: torch.rand(4, *spec.input_shape) * 3 for alias, spec in run.specs.items()}
    parameters, reached = list(model.parameters()), {}
    for task, prediction in model(inputs).items():
        gradients = torch.autograd.grad(prediction.square().sum(), parameters, retain_graph=True, allow_unused=True)
        # the joint batch connects all stems to all outputs, with gradients of 0
        reached[task] = {
            name
            for name, g in zip(map(names.get, map(id, parameters)), gradients, strict=True)
            if g is not None and (g.any() or not name.startswith("stems."))
        }
    for task in run.kinds:
        others = set().union(*(reached[other] for other in reached if other != task))
        own = {names[id(p)] for module in model.own_modules(task) for p in module.parameters()}
        assert own == reached[task] - others
    several = {n for n in names.values() if sum(n in actual for actual in reached.values()) > 1}
    assert {names[id(p)] for p in model.shared_parameters()} == several
    counts = model.count_parameters()
    assert counts["total"] == counts["shared"] + sum(counts["tasks"].values())
    assert Step(run, make_optimizer(run)) is not None


def test_groups_of_the_optimizer(mixed: Path) -> None:
    def groups(*overrides: str) -> list[str]:
        return group_names(build(load_experiment(mixed, list(overrides))))

    assert groups() == ["model"]
    assert groups("optimizer.groups.stems.lr=0.1") == ["trunk+heads", "stems"]
    assert groups("optimizer.groups.heads.lr=0.1") == ["trunk+stems", "heads"]
    run = build(load_experiment(mixed, ["optimizer.groups.stems.lr=0.1"]))
    assert run.model.stems is not None
    rates = {id(p): group["lr"] for group in make_optimizer(run).param_groups for p in group["params"]}
    assert {rates[id(p)] for p in run.model.stems.parameters()} == {0.1}
    assert {rates[id(p)] for p in run.model.sharing.parameters()} == {1e-3}
    assert "stems" in refused(mixed, "optimizer.groups.stem.lr=0.1")


def test_initial_weights_and_frozen_stems(mixed: Path, tmp_path: Path) -> None:
    first = build(load_experiment(mixed, ["seed=3"]))
    payload = {"config": first.experiment.resolved(), "specs": {}, "model": plain(dict(first.model.state_dict()))}
    save_checkpoint(tmp_path / "first.pt", payload)
    options = [f"stems.a.init_from={tmp_path / 'first.pt'}", "stems.a.frozen=true"]
    run = build(load_experiment(mixed, options))
    assert run.model.stems is not None and first.model.stems is not None
    for alias in ("a", "b"):
        pairs = zip(run.model.stems[alias].parameters(), first.model.stems[alias].parameters(), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs) == (alias == "a")
    assert not run.model.train().stems["a"].training  # type: ignore[index]
    trained = {id(p) for group in make_optimizer(run).param_groups for p in group["params"]}
    assert trained.isdisjoint(map(id, run.model.stems["a"].parameters()))
    assert "stems.a.init_from: the stem in" in refused(mixed, *options, "stems.a.channels=4")
    changed(mixed, "  b: {name: linear}", "  c: {name: linear}")
    changed(mixed, "  b: {name: digits", "  c: {name: digits")
    changed(mixed, "dataset: b", "dataset: c")
    message = refused(mixed, f"stems.c.init_from={tmp_path / 'first.pt'}")
    assert "has no stem of a dataset 'c'" in message and "It has stems of: a, b, t" in message


def test_rebuilt_run_has_the_same_predictions(mixed: Path) -> None:
    run = build(load_experiment(mixed))
    specs = {alias: spec.to_dict() for alias, spec in run.specs.items()}
    again = rebuild(run.experiment, {"specs": specs, "model": run.model.state_dict()}, data=False, prepare=False)
    inputs = blank(run)
    before, after = run.model.eval()(inputs), again.model.eval()(inputs)
    assert all(torch.equal(before[task], after[task]) for task in run.kinds)


def test_baselines_keep_the_stem_of_their_dataset(mixed: Path) -> None:
    """The shape of the trunk's input is that of the joint run, though another dataset's stem states it."""
    experiment = load_experiment(mixed, ["optimizer.groups.stems.lr=0.1"])
    opened = open_datasets(experiment)
    joint = make_joint(experiment, 1)
    for task, alias in (("digit", "a"), ("parity", "b"), ("sold", "t")):
        for single in (make_baseline(experiment, task, opened), make_single_task(joint, task, 0)):
            assert list(single.stems) == [alias]
            run = build(experiment_from_dict(single.resolved()))
            assert run.input_shape == (12,)
            assert type(run.model.stems[alias]) is stems[experiment.stems[alias].name].target  # type: ignore[index]
    changed(mixed, "  b: {name: linear}\n  t: {name: tabular, features: 12}", "  t: {name: tabular}")
    changed(mixed, "a: {name: conv, channels: 3}", "a: {name: resize}")
    without = make_baseline(load_experiment(mixed, ["optimizer.groups.stems.lr=0.1"]), "parity", opened)
    assert without.stems == {} and build(without).input_shape == (1, 8, 8)


def test_plain_experiments_do_not_mention_stems() -> None:
    experiment = load_experiment(ROOT / "configs/digits.yaml")
    assert "stems" not in experiment.resolved()


def test_schema_and_resolved_configuration(mixed: Path) -> None:
    experiment: Experiment = load_experiment(mixed)
    resolved = experiment.resolved()
    assert resolved["stems"]["t"]["features"] == 12 and resolved["stems"]["a"]["shape"] is None
    assert experiment_from_dict(json.loads(json.dumps(resolved))) == experiment


def test_train_eval_and_summary(mixed: Path, tmp_path: Path) -> None:
    runner, folder = CliRunner(), tmp_path / "run"
    mtlcli.train(mixed, run_dir=folder, plots=False)
    table = f"datasets.t.path={tmp_path / 'table.csv'}"
    evaluated = runner.invoke(app, ["eval", str(folder), table, "--split", "val", "--json"])
    assert evaluated.exit_code == 0, evaluated.output
    assert set(json.loads(evaluated.stdout)["metrics"]) == {"digit", "ink", "parity", "sold"}
    document = json.loads(runner.invoke(app, ["summary", str(mixed), "--json"]).stdout)
    layers = document["layers"]
    assert layers["stems.a.convolutions.0"]["of"] is None and layers["stems.b.projection"]["of"] == "parity"
    assert sum(layer["parameters"] for layer in layers.values()) == document["parameters"]["total"]
    assert document["parameters"] == json.loads((folder / "summary.json").read_text())["parameters"]
