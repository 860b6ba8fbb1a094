"""Invalid experiments: exit code 2 and one message with the location from every verb, without a traceback.

The first line of each experiment in `tests/broken/` is the text that the message must contain, with the
line and the column if it has them.
"""

from pathlib import Path

import pytest

from mtlcli.cli import main
from mtlcli.config.locations import MOST_PROBLEMS
from mtlcli.config.yaml import MAX_BYTES

BROKEN = sorted(Path(__file__).parents[1].joinpath("broken").glob("*.yaml"))


def message(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert code == 2, printed
    assert "Traceback" not in printed.err
    assert printed.err.startswith("error: ")
    assert printed.out == ""
    return printed.err


@pytest.fixture(params=["validate", "train"])
def verb(request: pytest.FixtureRequest, tmp_path: Path) -> list[str | Path]:
    """Return the arguments before the experiment. `train` gets a run folder, which must not be created."""
    return ["validate"] if request.param == "validate" else ["train", "--run-dir", tmp_path / "run"]


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.stem)
def test_invalid_experiments(
    file: Path,
    verb: list[str | Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MTL_NOT_SET", raising=False)
    expected = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# expect: ")
    printed = message(capsys, *verb, file)
    assert (f"error: {file}:{expected}" if expected[0].isdigit() else expected) in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("missing.yaml", None, "can't be read: No such file"),
        ("empty.yaml", b"", ":1:1: the file is empty"),
        ("comments.yaml", b"# to do\n", ":1:1: the file is empty"),
        ("binary.yaml", bytes(range(256)), ":2:118: not a text file"),
        ("image.yaml", b"\x89PNG\r\n\x1a\n\0\0", ":1:1: not a text file in UTF-8"),
        ("nul.yaml", b"seed: 1\nname: a\0b\n", ":2:8: not a text file: it contains the character U+0000"),
        ("latin.yaml", "seed: 1\nname: né\n".encode("latin-1"), ":2:8: not a text file in UTF-8"),
        ("large.yaml", b"# \n" * MAX_BYTES, "larger than"),
        (".", None, "can't be read: Is a directory"),
    ],
)
def test_files_that_are_no_experiments(
    name: str,
    content: bytes | None,
    expected: str,
    verb: list[str | Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert expected in message(capsys, *verb, tmp_path / name)


def test_many_tasks(verb: list[str | Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Too many tasks, each of them invalid."""
    file = tmp_path / "many.yaml"
    file.write_text(
        "datasets:\n" + "".join(f"  d{at}: {{}}\n" for at in range(600))
        + "tasks:\n" + "".join(f"  t{at}: {{dataset: e{at}}}\n" for at in range(600)),
        encoding="utf-8",
    )  # fmt: skip
    printed = message(capsys, *verb, file).splitlines()
    assert len(printed) == MOST_PROBLEMS + 1
    assert printed[-1] == f"error: further problems are omitted: these are the first {MOST_PROBLEMS}"


def test_many_layers(
    verb: list[str | Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtlcli.training.assembly.build.MOST_TENSORS", 1000)
    assert main(["init", str(tmp_path / "good")]) == 0
    capsys.readouterr()
    printed = message(
        capsys, *verb, tmp_path / "good.yaml", "trunk.hidden=[" + "8," * 100 + "]", "sharing={name: mmoe, experts: 5}"
    )
    assert printed.endswith("good.yaml:19:8: trunk: too many layers: more than 1,000 weights and biases\n")


@pytest.mark.parametrize(
    "override",
    [
        "training..epochs=1", "training.epochs=[", "tasks.dgit.weight=1", "training.epochs=0", "name=../../x",
        "name=..", "training.epochs=4611686018427387904", "trunk.hidden=[2097152]", ".".join("a" * 33) + "=1",
        "evaluation.monitor.task=[]", "tasks.digit.dataset={}", "seed=!!int 3", "training={<<: *a}",
    ],
)  # fmt: skip
def test_invalid_overrides(
    override: str, verb: list[str | Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "good")]) == 0
    capsys.readouterr()
    printed = message(capsys, *verb, tmp_path / "good.yaml", override)
    assert override in printed


def test_an_override_too_long_for_a_file_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "good")]) == 0
    capsys.readouterr()
    printed = message(capsys, "validate", tmp_path / "good.yaml", "trunk.hidden=[" + "x," * 60_000 + "]")
    assert printed.startswith("error: override 'trunk.hidden=[x,x,x,") and len(printed) < 400
    assert printed.endswith(": more than 15000 values, which is the maximum\n")


def test_a_run_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "good")]) == 0
    capsys.readouterr()
    (tmp_path / "file").write_text("in the way")
    printed = message(capsys, "train", tmp_path / "good.yaml", "--run-dir", tmp_path / "file" / "run")
    assert str(tmp_path / "file" / "run") in printed
