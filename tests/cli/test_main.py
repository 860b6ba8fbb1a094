"""The console script: exit codes, help without torch, pipes that close early."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mtlcli
from mtlcli.cli import app, main

VERBS = ["init", "validate", "train", "eval", "list", "show", "schema", "doctor", "data"]
ALL_HELP = f"""
import sys
from mtlcli.cli import main
for arguments in [["--help"], ["--version"], *([verb, "--help"] for verb in {VERBS})]:
    code = main(arguments)
    heavy = {{"torch", "torchvision", "numpy", "matplotlib", "sklearn", "yaml"}} & sys.modules.keys()
    print("\\nand", *arguments, "exits with", code, "and has imported", heavy or "nothing heavy")
"""
VALIDATE_AND_LIST = """
import sys
from mtlcli.cli import main
assert main(["validate", "configs/digits.yaml", "configs/mnist_fmnist.yaml", "configs/census_income.yaml"]) == 0
assert main(["list"]) == 0
heavy = ["torch", "torchvision", "torchmetrics", "torchjd", "sentence_transformers", "sklearn", "scipy", "matplotlib"]
print("imported:", *[name for name in heavy if name in sys.modules])
"""
ROOT = Path(__file__).parents[2]


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {verb} " in printed for verb in VERBS)


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", ALL_HELP], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    parts = re.split(r"^and (.*)\n", done.stdout, flags=re.MULTILINE)
    printed, reports = parts[:-1:2], parts[1::2]
    assert all(text.strip() for text in printed)
    commands = ["--help", "--version", *(f"{verb} --help" for verb in VERBS)]
    assert reports == [f"{command} exits with 0 and has imported nothing heavy" for command in commands]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mtl {mtlcli.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nothing"], "No such option"),
        (["trian"], "Did you mean 'train'?"),
        (["evaluate"], "Did you mean 'eval'?"),
        (["test"], "Did you mean 'eval'?"),
        (["download"], "Did you mean 'data fetch'?"),
        (["help"], "Did you mean '--help'?"),
        (["reprot"], "No such command 'reprot'. Choose from: init, "),
        (["show", "weighting"], "`mtl list weighting` lists them"),
        (["show", "heads"], "`mtl list head` lists them"),
        (["init", ""], "the name of the experiment is empty"),
        (["validate"], "Missing argument"),
        (["show"], "Missing argument"),
        (["validate", "training.epochs=1"], "no experiment file given"),
        (["list", "--plugin", "nowhere.py"], "--plugin nowhere.py: can't be imported"),
    ],
)
def test_a_wrong_command_exits_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.out == ""


def test_interrupted_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["mtlcli.cli.app"], "app", interrupt)
    assert main([]) == 130
    assert callable(app)


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """As with `mtl list | head`."""
    command = [sys.executable, "-u", "-m", "mtlcli", "init", str(tmp_path / "experiment.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_characters_that_stdout_cannot_encode_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    with io.TextIOWrapper(printed, encoding="ascii") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert main(["show", "lenet"]) == 0
        assert b"16\\xd716" in printed.getvalue()


def test_validating_and_listing_import_nothing_heavier_than_torch() -> None:
    """Listing imports the modules of components, but not the libraries that only their construction needs."""
    done = subprocess.run([sys.executable, "-c", VALIDATE_AND_LIST], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nimported: torch\n")


def test_components_of_a_plugin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "my_plugin_for_the_tests.py"
    plugin.write_text(
        "from mtlcli.registry import weightings\n"
        "from mtlcli.weighting.methods.uniform import Uniform\n\n"
        "@weightings.register('mine_for_the_tests')\n"
        "class Mine(Uniform):\n"
        '    """A weighting of a plugin."""\n',
        encoding="utf-8",
    )
    assert main(["list", "weighting", "--plugin", str(plugin)]) == 0
    assert "A weighting of a plugin." in capsys.readouterr().out
