from pathlib import Path

import pytest
from pydantic import TypeAdapter

from mtlcli.cli import main
from mtlcli.config.components import DatasetField
from mtlcli.errors import ConfigError
from mtlcli.plugins import load_plugin
from mtlcli.registry import datasets

PLUGIN = '''
from mtlcli.models.trunks.mlp import MLP
from mtlcli.registry import trunks

@trunks.register("{name}")
class {class_name}(MLP):
    """A trunk of a plugin."""
'''


def test_the_component_of_a_plugin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.py").write_text(PLUGIN.format(name="own_trunk", class_name="Own"))
    assert main(["show", "own_trunk", "--plugin", str(tmp_path / "own.py")]) == 0
    assert "A trunk of a plugin." in capsys.readouterr().out
    config = tmp_path / "own.yaml"
    config.write_text(
        "datasets: {d: digits}\ntasks: {digit: {dataset: d, kind: classification}}\n"
        "trunk: {name: own_trunk, features: 8}\ntraining: {epochs: 1, threads: 1}\n"
    )
    run = ["train", str(config), "--run-dir", str(tmp_path / "run"), "--plugin", str(tmp_path / "own.py")]
    assert main(run) == 0


@pytest.mark.parametrize("class_name", ["MLP2", "MLP"])
def test_a_plugin_cannot_replace_a_component_of_mtl(tmp_path: Path, class_name: str) -> None:
    text = PLUGIN.format(name="mlp", class_name=class_name).replace("import MLP\n", "import MLP as Base\n")
    (tmp_path / "thief.py").write_text(text.replace("(MLP)", "(Base)"))
    with pytest.raises(ConfigError, match="trunk 'mlp' is already registered, by mtlcli"):
        load_plugin(str(tmp_path / "thief.py"))


@pytest.mark.parametrize(("name", "text"), [("none.py", None), ("broken.py", "1 +"), ("raises.py", "1 / 0")])
def test_a_plugin_that_cannot_be_imported(tmp_path: Path, name: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="can't be imported"):
        load_plugin(str(tmp_path / name))


def test_a_plugin_named_without_its_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_own_plugin.py").touch()
    with pytest.raises(ConfigError, match=r"No module named .*\. Did you mean the file my_own_plugin\.py\?$"):
        load_plugin("my_own_plugin")
    with pytest.raises(ConfigError, match="No module named 'aaa"):
        load_plugin("a" * 300)  # too long for a file name


def test_an_alias_names_the_same_component(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "csv" in datasets and datasets["csv"] is datasets["table"] and "csv" not in datasets.names()
    entries = [
        TypeAdapter(DatasetField).validate_python({"name": n, "path": "t", "targets": ["y"]}) for n in ("csv", "table")
    ]
    assert entries[0] == entries[1] and entries[0].plain()["name"] == "table"
    shown = [main(["show", name]) or capsys.readouterr().out for name in ("csv", "dataset.csv", "table")]
    assert shown[0] == shown[1] == shown[2] and shown[0].startswith("dataset table")
    (tmp_path / "own.py").write_text(
        "from mtlcli.registry import datasets\n@datasets.register('csv')\nclass Own:\n    pass\n"
    )
    with pytest.raises(ConfigError, match=r"dataset .csv. is already registered, by mtlcli.data.datasets.table"):
        load_plugin(str(tmp_path / "own.py"))
