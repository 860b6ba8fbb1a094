"""The console script: exit codes, help without torch, pipes that close early."""

import subprocess
import sys
from pathlib import Path

import pytest

import mtlcli
from mtlcli.cli import app, main

VERBS = ["init", "validate", "train", "eval", "list", "show", "schema", "doctor", "data"]
LIGHT = """
import sys
from mtlcli.cli import main
code = main(sys.argv[1:])
heavy = {"torch", "torchvision", "numpy", "matplotlib", "sklearn", "yaml"} & sys.modules.keys()
sys.exit(f"imported {heavy}" if heavy else code)
"""


def run(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_every_verb_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {verb} " in printed for verb in VERBS)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = run("-c", LIGHT, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mtl {mtlcli.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nothing"], "No such option"),
        (["trian"], "Did you mean 'train'?"),
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

    monkeypatch.setattr("mtlcli.cli.app", interrupt)
    assert main([]) == 130
    assert callable(app)


def test_a_reader_that_stops_reading_is_no_error() -> None:
    script = "import sys; from mtlcli.cli import main; sys.exit(main(['list']))"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_a_stdout_that_lacks_characters_gets_escapes(tmp_path: Path) -> None:
    done = run("-c", LIGHT.replace('"torch"', '"nothing"').replace("heavy = {", "heavy = set() and {"), "show", "lenet",
               env={"PYTHONIOENCODING": "ascii", "PATH": "", "HOME": str(tmp_path)})  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "16\\xd716" in done.stdout


@pytest.mark.usefixtures("plugins_forgotten")
def test_components_of_the_user_s_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "my_plugin_for_the_tests.py"
    plugin.write_text(
        "from mtlcli.registry import weightings\n"
        "from mtlcli.weighting.methods.uniform import Uniform\n\n"
        "@weightings.register('mine_for_the_tests')\n"
        "class Mine(Uniform):\n"
        '    """A weighting of my own."""\n',
        encoding="utf-8",
    )
    assert main(["list", "weighting", "--plugin", str(plugin)]) == 0
    assert "A weighting of my own." in capsys.readouterr().out
