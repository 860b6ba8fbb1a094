"""Malicious files: a message for each problem, exit code 2, no code executed, no file written.

The files are those of `tests/hostile`; `tests/training/checkpoint/test_hostile_checkpoints.py` has the reasons of those
that `load_checkpoint` refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mtlcli.cli import main
from mtlcli.config.locations import MOST_PROBLEMS
from tests.hostile import checkpoints, configs, corpus
from tests.hostile.archives import serialize
from tests.hostile.limits import limit_memory
from tests.training.checkpoint.test_hostile_checkpoints import REASONS

REFUSED = {
    "missing_key": "normalize.digits.mean is missing",
    "extra_key": "os.system is unexpected",
    "misshapen_key": "normalize.digits.mean is 3×3×3, expected a number",
    "key_of_another_type": "normalize.digits.mean is torch.int64, expected torch.float32",
    "nan_weights": "normalize.digits.mean contains NaN or infinity",
    "hidden_units": "trunk.hidden.0: the integer is too large",
    "many_layers": "no longer than 100",
    "large_layers": "too large: 1,099,579,785,216 or more parameters",
    "epochs_beyond_any": "training.epochs: the integer is too large",
    "task_named_as_a_path": "found the string '../../x'",
    "escapes_in_a_name": r"found the string '\x1b[31mred\x1b]0;title\x07'",
    "markup_in_a_name": "found the string '[bold red]x[/]'",
    "line_break_in_a_name": r"unknown trunk 'x\nerror: all is fine'",
    "path_outside": "the checkpoint has '/etc/passwd'",
    "matrix_in_a_file": "weighting.matrix: names a file instead of the numbers",
    "specs_of_another_type": "specs.digits: expected an object",
    "specs_without_a_shape": "specs.digits.input_shape: tuple should have at least 1 item",
    "specs_of_a_large_shape": "specs.digits.input_shape: an example has more than",
    "classes_beyond_any": "specs.digits.targets.digit.size: expected less than or equal to 1048576",
    "a_plugin_of_its_own": "trunk 'evil' came from the plugin '/tmp/evil.py': give it with --plugin",
}
UNREADABLE = ("sealed_pickle", "legacy_format", "deflate_bomb", "truncated", "fifo", "directory", "missing")
UNREAD = {"trunk.init_from"}  # initial weights of a trained model
UNREAD_BY_EXPORT = {*UNREAD, "training.device"}  # export uses the CPU


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def hostile_checkpoints(folder: Path) -> dict[str, Path]:
    return checkpoints.make(folder)


@pytest.fixture(scope="module")
def hostile_configs(folder: Path) -> dict[str, Path]:
    return configs.make(folder)


@pytest.fixture(autouse=True)
def nothing_runs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for variable, value in configs.ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    yield
    assert not (folder / checkpoints.CANARY).exists()
    assert not list(tmp_path.iterdir())


def message(capsys: pytest.CaptureFixture[str], *arguments: str | Path, lines: int = 1) -> str:
    with limit_memory():
        code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert code == 2, (arguments, printed)
    printed_lines = printed.err.split("\n")[:-1]
    assert 1 <= len(printed_lines) <= lines, printed_lines
    assert all(line.startswith("error: ") and line.isprintable() for line in printed_lines), printed_lines
    assert printed.out == ""
    return printed.err


def test_all_hostile_checkpoints_exist(hostile_checkpoints: dict[str, Path], hostile_configs: dict[str, Path]) -> None:
    names = {path.name for path in (*hostile_checkpoints.values(), *hostile_configs.values())}
    assert set(corpus.DOCUMENTED_FILES.values()) <= names and len(corpus.DOCUMENTED_FILES) == 26


def test_eval_rejects_hostile_checkpoints(
    hostile_checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    named = {f"{checkpoints.COMMAND}_as_{path}" for path in checkpoints.INJECTIONS}
    assert hostile_checkpoints.keys() == REASONS.keys() | REFUSED.keys() | named
    for name in [*UNREADABLE, *REFUSED, *named]:
        if name.rpartition("_as_")[2] not in UNREAD:
            expected = {**REASONS, **REFUSED}.get(name, checkpoints.COMMAND)
            assert expected in message(capsys, "eval", hostile_checkpoints[name]), name


def test_export_rejects_hostile_checkpoints(
    hostile_checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    for name in [*REFUSED, *(f"{checkpoints.COMMAND}_as_{path}" for path in checkpoints.INJECTIONS)]:
        if name.rpartition("_as_")[2] not in UNREAD_BY_EXPORT and name != "path_outside":
            message(capsys, "export", hostile_checkpoints[name], "--format", "safetensors")
    assert not list(folder.glob("*.safetensors"))


def test_the_checkpoint_of_init_from_is_not_opened(
    hostile_checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(hostile_checkpoints["os.system_as_trunk.init_from"]), "--json"]) == 0
    assert capsys.readouterr().err == ""


def test_export_opens_no_data(
    hostile_checkpoints: dict[str, Path], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "exported"
    assert main(["export", str(hostile_checkpoints["path_outside"]), "--format", "safetensors", "--out", str(out)]) == 0
    assert b"passwd" in out.read_bytes() and b"/etc" not in out.read_bytes()


def test_weights_with_valid_shapes_but_invalid_values(tmp_path_factory: pytest.TempPathFactory,
                                                       capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """A position beyond the last column, which only the evaluation can find."""
    path = tmp_path_factory.mktemp("table") / "a.pt"
    path.write_bytes(serialize(checkpoints.table_document(path.with_name("t.csv"), column=9)))
    assert main(["eval", str(path), f"datasets.t.path={path.with_name('t.csv')}"]) == 1
    assert "a.pt: its model can't be evaluated: " in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["validate"], ["train", "--dry-run"]], ids=["validate", "train"])
def test_hostile_configs_are_rejected(
    hostile_configs: dict[str, Path], verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, path in hostile_configs.items():
        several = name in ("alias_bomb", "os.system_everywhere")
        text = message(capsys, *verb, path, lines=MOST_PROBLEMS + 1 if several else 1)
        assert str(path) in text, name
