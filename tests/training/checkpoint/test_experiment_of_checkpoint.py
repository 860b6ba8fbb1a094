"""Paths and plugins named in checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtlcli.cli import main
from mtlcli.cores import usable_cores
from mtlcli.data.datasets.table import TableDataset
from mtlcli.errors import ConfigError
from mtlcli.plugins import load_plugin
from mtlcli.registry import datasets, trunks
from mtlcli.training.assembly.build import rebuild
from mtlcli.training.checkpoint.experiment import experiment_from_checkpoint, publishable
from mtlcli.training.export import export
from mtlcli.training.run import plugins_of
from tests.hostile.archives import serialize
from tests.hostile.checkpoints import valid_document
from tests.training.experiments import digits

TABLE = "a,b,y\n" + "".join(f"{row % 7},{row % 5},{row % 2}\n" for row in range(60))
CHECKPOINT = Path("best.pt")


@pytest.fixture
def payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the checkpoint of a run on `t.csv`, and change to the folder `here`, which contains another table."""
    (tmp_path / "here/data").mkdir(parents=True)
    for path in ("t.csv", "here/inner.csv", "here/data/inner.csv"):
        (tmp_path / path).write_text(TABLE)
    (tmp_path / "here/out.csv").symlink_to(tmp_path / "t.csv")
    monkeypatch.chdir(tmp_path / "here")
    table = {"name": "csv", "path": str(tmp_path / "t.csv"), "targets": ["y"]}
    return valid_document(datasets={"t": table}, tasks={"y": {"dataset": "t", "kind": "binary"}})


def set_table_options(payload: dict[str, Any], **options: Any) -> dict[str, Any]:
    payload["config"]["datasets"]["t"] |= options
    return payload


@pytest.mark.parametrize("path", ["inner.csv", "./data/inner.csv", "not/there.csv"])
def test_path_inside_the_current_folder_is_used(payload: dict[str, Any], path: str) -> None:
    experiment = experiment_from_checkpoint(set_table_options(payload, path=path), [], CHECKPOINT)
    assert experiment.datasets["t"].options["path"] == path


@pytest.mark.parametrize("path", [
    "/etc/passwd", "../t.csv", "data/../../t.csv", "data/../inner.csv", "out.csv", "~/t.csv", "~root/t.csv", "a\0b",
])  # fmt: skip
def test_path_outside_the_current_folder_is_not_opened(payload: dict[str, Any], path: str,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(TableDataset, "__init__", None)  # creating the dataset would fail
    with pytest.raises(ConfigError) as caught:
        experiment_from_checkpoint(set_table_options(payload, path=path), [], CHECKPOINT)
    (problem,) = caught.value.problems
    assert problem.path == "datasets.t.path"
    assert repr(path) in problem.message and "mtl eval best.pt datasets.t.path=PATH" in problem.message


@pytest.mark.parametrize(
    "override", ["datasets.t.path=../t.csv", "datasets.t={name: csv, path: ../t.csv, targets: [y]}"]
)
def test_path_on_the_command_line_is_used(payload: dict[str, Any], override: str) -> None:
    experiment = experiment_from_checkpoint(payload, [override], CHECKPOINT)
    run = rebuild(experiment, payload)
    assert len(run.examples("all")["t"]) == 60
    with pytest.raises(ConfigError, match=r"datasets\.t\.path: the checkpoint has"):
        experiment_from_checkpoint(payload, ["datasets.t.test=0.5"], CHECKPOINT)


def test_error_of_eval_suggests_a_working_command(
    payload: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.pt").write_bytes(serialize(payload))
    assert main(["eval", "../a.pt"]) == 2
    error = capsys.readouterr().err
    command = error[error.index("mtl eval") :].split()
    assert main([*command[1:3], command[3].replace("=PATH", f"={tmp_path / 't.csv'}")]) == 0


def test_root_with_a_default_is_reset_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = valid_document()
    payload["config"]["datasets"]["digits"] = {"name": "mnist", "root": "/somewhere/else"}
    monkeypatch.setenv("MTL_DATA", "/my/data")
    assert experiment_from_checkpoint(payload, [], CHECKPOINT).datasets["digits"].options["root"] is None
    given = experiment_from_checkpoint(payload, ["datasets.digits.root=/mine"], CHECKPOINT)
    assert given.datasets["digits"].options["root"] == "/mine"


def test_paths_of_plugin_datasets_are_recognized() -> None:
    @datasets.register("own")
    class Own:
        """A dataset."""

        def __init__(self, *, table: Path = Path("default"), path: str, shade: str = "/not/a/path") -> None: ...

    payload = valid_document()
    payload["config"]["datasets"]["digits"] = {"name": "own", "table": "/etc/passwd", "path": "x", "shade": "/grey"}
    options = experiment_from_checkpoint(payload, [], CHECKPOINT).datasets["digits"].options
    assert options == {"table": Path("default"), "path": "x", "shade": "/grey"}


def test_split_file_of_a_plugin_dataset_needs_no_path(tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    @datasets.register("own")
    class Own:
        """A dataset."""

        def __init__(self, *, folder: str, val_path: str | None = None) -> None: ...

    monkeypatch.chdir(tmp_path)
    payload = valid_document()
    payload["config"]["datasets"]["digits"] = {"name": "own", "folder": "x", "val_path": "val.bin"}
    options = experiment_from_checkpoint(payload, [], CHECKPOINT).datasets["digits"].options
    assert options == {"folder": "x", "val_path": "val.bin"}


def test_no_other_file_is_opened(payload: dict[str, Any]) -> None:
    payload["config"]["datasets"]["t"]["path"] = "inner.csv"
    payload["config"]["trunk"]["init_from"] = "/dev/zero"
    assert experiment_from_checkpoint(payload, [], CHECKPOINT).trunk.init_from is None
    payload["config"]["weighting"] = {"name": "relation", "matrix": "/dev/zero"}
    with pytest.raises(ConfigError, match=r"weighting\.matrix: names a file instead of the numbers"):
        experiment_from_checkpoint(payload, [], CHECKPOINT)
    experiment_from_checkpoint(payload, ["weighting=uniform"], CHECKPOINT)


def test_threads_and_workers_are_limited_to_the_machine() -> None:
    payload, cores = valid_document(), usable_cores()
    payload["config"]["training"] |= {"threads": 4096, "workers": 1024}
    training = experiment_from_checkpoint(payload, [], CHECKPOINT).training
    assert training.threads == training.workers == cores
    given = experiment_from_checkpoint(payload, ["training.threads=999"], CHECKPOINT).training
    assert given.threads == 999


def test_exported_metadata_contain_no_local_paths(payload: dict[str, Any], tmp_path: Path) -> None:
    from safetensors import safe_open

    payload["config"]["trunk"]["init_from"] = str(tmp_path / "other.pt")
    run = rebuild(experiment_from_checkpoint(payload, [], CHECKPOINT, data=False), payload, data=False)
    export(run, "safetensors", tmp_path / "model.safetensors")
    assert str(tmp_path).encode() not in (tmp_path / "model.safetensors").read_bytes()
    with safe_open(str(tmp_path / "model.safetensors"), "pt") as file:
        experiment = json.loads(file.metadata()["experiment"])
        assert set(file.keys()) == payload["model"].keys()
    assert experiment["datasets"]["t"]["path"] == "t.csv" and experiment["trunk"]["init_from"] is None
    mnist = digits(datasets={"digits": {"name": "mnist", "root": "/my/data"}}, trunk={"name": "mlp", "init_from": "/x"})
    assert publishable(mnist)["datasets"]["digits"]["root"] is None


PLUGIN = '''
from mtlcli.models.trunks.mlp import MLP
from mtlcli.registry import trunks

@trunks.register("own_trunk")
class Own(MLP):
    """A trunk of a plugin."""
'''


def test_error_names_the_plugin_that_a_checkpoint_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_plugin.py").write_text(PLUGIN)
    load_plugin(str(tmp_path / "own_plugin.py"))
    experiment = digits(trunk={"name": "own_trunk", "hidden": [4]})
    assert plugins_of(experiment) == {"trunk own_trunk": "own_plugin.py"}
    assert plugins_of(digits()) == {}
    payload = {**valid_document(trunk={"name": "own_trunk", "hidden": [4]}), "plugins": plugins_of(experiment)}
    (tmp_path / "a.pt").write_bytes(serialize(payload))
    monkeypatch.delitem(trunks._components, "own_trunk")

    assert main(["eval", str(tmp_path / "a.pt")]) == 2
    hint = "error: trunk.name: trunk 'own_trunk' came from the plugin 'own_plugin.py': give it with --plugin, if you"
    assert capsys.readouterr().err.startswith(hint)
    assert main(["eval", str(tmp_path / "a.pt"), "trunk.name=mlp", "trunk.hidden=[4]"]) == 0
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "a.pt"), "trunk.name=mlpp"]) == 2
    assert "unknown trunk 'mlpp'. Did you mean 'mlp'?" in capsys.readouterr().err
    assert main(["eval", str(tmp_path / "a.pt"), "--plugin", str(tmp_path / "own_plugin.py")]) == 0


@pytest.mark.parametrize("recorded", [None, [], {"trunk": 3}, {"trunk none": None}, {"": ""}, {"no none": "x"}])
def test_invalid_record_of_plugins_is_ignored(recorded: Any) -> None:
    payload = {**valid_document(), "plugins": recorded}
    payload["config"]["trunk"] = {"name": "none"}
    with pytest.raises(ConfigError, match="unknown trunk 'none'"):
        experiment_from_checkpoint(payload, [], CHECKPOINT)
