"""Plugins named in files are imported only if allowed, and runs record their plugins."""

from pathlib import Path

import pytest
import yaml

from mtlcli import registry
from mtlcli.cli import main

PLUGIN = '''
from pathlib import Path
from mtlcli.models.trunks.mlp import MLP
from mtlcli.registry import trunks

Path("imported").touch()

@trunks.register("own_trunk")
class OwnTrunk(MLP):
    """A trunk of a plugin."""

    passes = 0

    def forward(self, x):
        if self.training:
            OwnTrunk.passes += 1
        if OwnTrunk.passes == {fails}:
            {how}
        return super().forward(x)
'''
CONFIG = """\
plugins: [own.py]
datasets: {d: digits}
tasks: {digit: {dataset: d, kind: classification}}
trunk: {name: own_trunk, features: 8}
training: {epochs: 1, threads: 1, batch_size: 512}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MTL_ALLOW_PLUGINS", raising=False)
    Path("own.py").write_text(PLUGIN.format(fails=-1, how="pass"))
    Path("own.yaml").write_text(CONFIG)
    return tmp_path / "own.yaml"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the plugins, as in a new process."""
    monkeypatch.setattr("mtlcli.plugins._loaded_plugins", {})
    registry.trunks._components.pop("own_trunk", None)
    Path("imported").unlink(missing_ok=True)


@pytest.mark.parametrize("verb", ["train", "validate", "summary", "compare", "relate"])
def test_plugins_of_a_file_are_not_imported(config: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert main([verb, "own.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: own.yaml:1:10: plugins: plugins run code")
    assert "--allow-plugins or MTL_ALLOW_PLUGINS=1" in error and "own.py" in error
    assert len(error.splitlines()) == 1
    assert not Path("imported").exists()


@pytest.mark.parametrize("consent", ["flag", "environment", "the same plugin"])
def test_plugins_are_imported_if_allowed(config: Path, monkeypatch: pytest.MonkeyPatch, consent: str) -> None:
    more = {"flag": ["--allow-plugins"], "environment": [], "the same plugin": ["--plugin", "./own.py"]}[consent]
    if consent == "environment":
        monkeypatch.setenv("MTL_ALLOW_PLUGINS", "1")
    assert main(["validate", "own.yaml", *more]) == 0
    assert Path("imported").exists()


def test_a_run_records_its_plugins_and_can_be_trained_again(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(CONFIG.replace("plugins: [own.py]\n", ""))
    assert main(["train", "own.yaml", "--plugin", "own.py", "--run-dir", "first"]) == 0
    assert yaml.safe_load(Path("first/config.yaml").read_text())["plugins"] == ["own.py"]
    forget(monkeypatch)
    assert main(["train", "first/config.yaml", "--run-dir", "second"]) == 2
    assert "--allow-plugins" in capsys.readouterr().err
    assert not Path("imported").exists()
    assert main(["train", "first/config.yaml", "--run-dir", "second", "--allow-plugins"]) == 0
    assert Path("second/table.csv").read_text() == Path("first/table.csv").read_text()
    first, second = (yaml.safe_load(Path(run, "config.yaml").read_text()) for run in ("first", "second"))
    assert first == second
    assert main(["train", "own.yaml", "--plugin", "own.py", "--run-dir", "first", "--resume", "auto"]) == 0


def test_a_checkpoint_never_imports_its_plugins(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "own.yaml", "--allow-plugins", "--run-dir", "run"]) == 0
    forget(monkeypatch)
    monkeypatch.setenv("MTL_ALLOW_PLUGINS", "1")
    assert main(["eval", "run/checkpoints/best.pt"]) == 2
    assert "trunk 'own_trunk' came from the plugin 'own.py': give it with --plugin" in capsys.readouterr().err
    assert not Path("imported").exists()
    assert main(["eval", "run/checkpoints/best.pt", "--plugin", "own.py"]) == 0


def test_a_plugin_that_cannot_be_imported(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.py").write_text("import no_such_module\n")
    assert main(["validate", "own.yaml", "--allow-plugins"]) == 2
    expected = "plugins.0: plugin own.py: can't be imported: own.py:1: ModuleNotFoundError: No module named"
    assert f"error: own.yaml:1:11: {expected}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("raise KeyError('nothing')", "KeyError: 'nothing'"),
        ("import sys; sys.exit(0)", "calls sys.exit(0)"),
        ("x = x[..., :3]", "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("raise ValueError('no good')", "ValueError: no good"),
    ],
)
def test_a_plugin_that_fails_in_the_run(
    config: Path, capsys: pytest.CaptureFixture[str], how: str, expected: str
) -> None:
    Path("own.py").write_text(PLUGIN.format(fails=5, how=how))  # after the passes of the trial step
    assert main(["train", "own.yaml", "--allow-plugins", "--run-dir", "run"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert line.startswith("error: the run failed at own.py:")
    assert f", in forward: {expected}" in line
    assert line.endswith("(traceback: run/log.txt)")
    assert "Traceback" in Path("run/log.txt").read_text()
    assert '"status": "failed"' in Path("run/summary.json").read_text()


def test_an_unexpected_error_prints_no_traceback(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MTL_TRACEBACK", raising=False)
    monkeypatch.setattr("mtlcli.cli.validate._checked", lambda *_: {}["a"])
    assert main(["validate", "own.yaml"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: internal error in mtl: KeyError: 'a' (test_plugins.py:")
