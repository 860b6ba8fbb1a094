"""Training and evaluation from the command line, in separate processes, on real images."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mtlcli.cli import main
from tests.cli.processes import fork_mtl
from tests.training.identical import digest_checkpoint

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "digits.yaml")
QUICK = ["training.epochs=2", "training.threads=1"]
MTL = [sys.executable, "-m", "mtlcli"]


def ci_example(*arguments: str | Path, mtl: Path) -> subprocess.CompletedProcess[str]:
    """Run `scripts/ci_example.sh` with this program as `mtl`."""
    environment = {"PATH": f"{mtl.parent}:/usr/bin:/bin", "MTL": str(mtl)}
    command = [ROOT / "scripts/ci_example.sh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)


def executable(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_validate_then_train_then_eval(tmp_path: Path) -> None:
    """As in CI: three processes that communicate by files and exit codes."""
    mtl = executable(tmp_path / "mtl", f'exec "{sys.executable}" -m mtlcli "$@"')
    done = ci_example(DIGITS, tmp_path / "run", "digit.accuracy>=0.5", *QUICK, mtl=mtl)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{DIGITS}: ok\nci: passed: digit.accuracy>=0.5\n"
    epochs = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    assert epochs[0].startswith("epoch 1 of 2 | digit: train loss")  # a plain line per epoch without a terminal
    assert len(epochs) == 2
    assert done.stderr.splitlines()[0] == f"run folder: {tmp_path / 'run'}"

    summary = json.loads((tmp_path / "run.train.json").read_text())  # its output is one document
    assert summary == json.loads((tmp_path / "run/summary.json").read_text())
    document = json.loads((tmp_path / "run.eval.json").read_text())
    assert document["split"] == "test"
    assert document["metrics"] == summary["metrics"]["test"]
    assert document["examples"] == summary["examples"]["test"] == dict.fromkeys(document["metrics"], 360)
    with (tmp_path / "run/table.csv").open() as file:
        table = {(row["split"], row["task"]): row for row in csv.DictReader(file)}
    for task, values in document["metrics"].items():
        for metric, value in values.items():
            assert float(table["test", task][metric]) == value  # to the last digit


@pytest.mark.parametrize(("verb", "code", "words"), [
    ("train", 1, "ci: the run failed; see "), ("validate", 2, "ci: invalid command or configuration"),
    ("eval", 3, "ci: requirement not met: digit.accuracy>=0.5"), ("train", 143, "run again to resume"),
])  # fmt: skip
def test_ci_exits_with_the_code_of_the_failing_command(tmp_path: Path, verb: str, code: int, words: str) -> None:
    mtl = executable(tmp_path / "mtl", f'echo \'{{"checkpoint": "best.pt"}}\'; [ $1 != {verb} ] || exit {code}')
    done = ci_example(DIGITS, tmp_path / "run", "digit.accuracy>=0.5", mtl=mtl)
    assert (done.returncode, "ci: passed" in done.stdout) == (code, False)
    assert done.stderr.startswith(words) if words.startswith("ci") else done.stderr.endswith(f"{words}\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", DIGITS, *QUICK, "--run-dir", str(folder)]) == 0
    return folder


def test_the_printed_table_equals_the_one_in_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", DIGITS, *QUICK, "--run-dir", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "run/table.md").read_text() + f"run folder: {tmp_path / 'run'}\n"


def test_eval_other_splits_and_overrides(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = str(trained / "checkpoints/best.pt")
    assert main(["eval", best, "--split", "val", "training.device=cpu", "evaluation.batch_size=7", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    summary = json.loads((trained / "summary.json").read_text())
    assert document["metrics"]["digit"]["accuracy"] == summary["metrics"]["val"]["digit"]["accuracy"]
    assert main(["eval", best, "--split", "nowhere"]) == 2
    assert "train, val, test" in capsys.readouterr().err


def test_requirements(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = str(trained / "checkpoints/best.pt")
    assert main(["eval", best, "--require", "digit.accuracy>=0.1", "--require", "mean.loss<100"]) == 0
    assert main(["eval", best, "--require", "digit.accuracy>=0.999", "--require", "digit.f1>0.1"]) == 3
    error = capsys.readouterr().err
    assert "required digit.accuracy>=0.999, got 0." in error
    assert "f1" not in error
    for wrong, message in {
        "digit.accuracy": "expected TASK.METRIC>=X",
        "digt.accuracy>=1": "no task 'digt'. Did you mean 'digit'?",
        "digit.acuracy>=1": "task 'digit' has no metric 'acuracy'. Did you mean 'accuracy'?",
        "digit.accuracy>=high": "'high' is not a number",
        "digit.accuracy>=nan": "'nan' is not a number",
        "mean.accuracy>=0.5": "task 'ink' has no metric 'accuracy'",
    }.items():
        assert main(["eval", best, "--require", wrong]) == 2
        assert message in capsys.readouterr().err


def test_a_requirement_of_a_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    train = ["train", DIGITS, *QUICK, "tasks.digit.metrics=[accuracy, recall_per_class]", "--run-dir", str(run)]
    assert main([*train, "--require", "digit.recall[11]>=0"]) == 2
    error = capsys.readouterr().err
    assert "task 'digit' has no metric 'recall[11]'" in error and "recall[9]" in error and not run.exists()
    assert main([*train, "--require", "digit.recall[9]>=0", "--require", "digit.recall[1] <= 1"]) == 0
    header, *rows = csv.reader((run / "table.csv").read_text().splitlines())
    assert header[3:6] == ["loss", "accuracy", "recall[0]"] and len(rows) == 2 * 4
    assert main(["eval", str(run / "checkpoints/best.pt"), "--require", "digit.recall[ 9]>=0"]) == 2


def test_a_requirement_is_checked_before_training(tmp_path: Path) -> None:
    assert main(["train", DIGITS, "--run-dir", str(tmp_path / "run"), "--require", "nothing.at>=0"]) == 2
    assert not (tmp_path / "run").exists()
    code = main(["train", DIGITS, *QUICK, "--run-dir", str(tmp_path / "run"), "--require", "digit.accuracy>1"])
    assert code == 3
    assert (tmp_path / "run/checkpoints/best.pt").exists()


ENDLESS = ["train", DIGITS, "training.epochs=5000", "training.threads=1", "training.batch_size=16", "scheduler=null"]


def test_sigterm_saves_and_exits_with_143(tmp_path: Path) -> None:
    command = [*MTL, *ENDLESS, "--run-dir", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("epoch 1 ") for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate()
    assert process.returncode == 143, error
    check_that_it_goes_on(tmp_path / "run", error)


def test_sigint_saves_and_exits_with_130(tmp_path: Path) -> None:
    with fork_mtl(*ENDLESS, "--run-dir", str(tmp_path / "run")) as mtl:
        assert any(line.startswith("epoch 1 ") for line in mtl.err)
        assert mtl.process.pid is not None
        os.kill(mtl.process.pid, signal.SIGINT)
        error = mtl.err.read()
        assert mtl.wait() == 130, error
    check_that_it_goes_on(tmp_path / "run", error)


def check_that_it_goes_on(run: Path, error: str) -> None:
    assert "Resume with: --resume auto" in error
    assert "Traceback" not in error
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    goal = [*ENDLESS, f"training.epochs={summary['epochs'] + 1}", "--run-dir"]
    goal.remove("training.epochs=5000")
    assert main([*goal, str(run), "--resume", "auto"]) == 0
    assert main([*goal, str(run.with_name("whole"))]) == 0
    last = "checkpoints/last.pt"
    assert digest_checkpoint(run / last) == digest_checkpoint(run.with_name("whole") / last)


def test_a_locked_or_occupied_folder_is_rejected(trained: Path, tmp_path: Path) -> None:
    assert main(["train", DIGITS, *QUICK, "--run-dir", str(trained)]) == 2
    (tmp_path / "file").write_text("")
    assert main(["train", DIGITS, *QUICK, "--run-dir", str(tmp_path / "file" / "run")]) == 2
    assert main(["train", DIGITS, *QUICK, "--resume", "auto"]) == 2  # the folder is missing


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                  capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["train", DIGITS, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps_per_epoch"] == 21
    assert not list(tmp_path.iterdir())


def test_a_run_that_diverges_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*QUICK, "optimizer={name: SGD, lr: 1e20}", "--run-dir", str(tmp_path / "run"), "--json"]
    assert main(["train", DIGITS, *options]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("the loss of task") == 1
    assert json.loads(printed.out)["status"] == "failed"


def test_a_damaged_checkpoint_is_rejected(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes((trained / "checkpoints/best.pt").read_bytes()[:5000])
    assert main(["eval", str(damaged)]) == 2
    assert main(["eval", str(tmp_path / "none.pt")]) == 2
    error = capsys.readouterr().err
    assert "damaged" in error
    assert "no such checkpoint" in error


def test_a_run_folder_is_evaluated_by_its_best_checkpoint(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(trained), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == str(trained / "checkpoints/best.pt")
    assert main(["validate", DIGITS, f"trunk.init_from={trained}"]) == 0
    out = tmp_path / "model.safetensors"
    assert main(["export", str(trained), "--format", "safetensors", "--out", str(out)]) == 0
    assert out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "{run}/checkpoints/best.pt"], "not an experiment file; use `mtl eval {run}/checkpoints/best"),
        (["validate", "{run}/checkpoints/best.pt"], "a checkpoint or another archive, not an experiment file"),
        (["train", "{run}"], "a run folder; its experiment is {run}/config.yaml"),
        (["eval", "{run}/config.yaml"], "an experiment file: run `mtl train {run}/config.yaml`"),
        (["eval", "{folder}"], "{folder}: not a regular file, so not a checkpoint, nor a run folder"),
        (["eval", "{folder}/interrupted"], "use its last one: {folder}/interrupted/checkpoints"),
        (["train", "{run}/config"], "No such file or directory. Did you mean 'config.yaml'?"),
        (["show", "resnet18"], "'resnet18' is a torchvision model: trunk: {{name: torchvision, model: resnet18}}."),
    ],
)  # fmt: skip
def test_a_checkpoint_in_the_place_of_an_experiment_and_vice_versa(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "interrupted/checkpoints").mkdir(parents=True)
    (tmp_path / "interrupted/checkpoints/last.pt").touch()
    verb, *rest = [text.format(run=trained, folder=tmp_path) for text in arguments]
    assert main([verb, *rest]) == 2
    assert message.format(run=trained, folder=tmp_path) in capsys.readouterr().err


def test_summary_and_training_report_the_same_data(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", DIGITS, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["parameters"] == json.loads((trained / "summary.json").read_text())["parameters"]
    assert document["tasks"]["ink"]["target"] == "digits.ink"
    assert main(["summary", DIGITS]) == 0
    printed = capsys.readouterr().out
    assert f"{document['parameters']['total']:,} in total" in printed
