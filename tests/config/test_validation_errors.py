"""All problems of an experiment are reported together, with their locations."""

from pathlib import Path

import pytest

from mtlcli.config import load_experiment
from mtlcli.errors import ConfigError, Mark
from tests.config.experiments import GOOD, load, write_yaml

BROKEN = """\
nam: x
seed: -1
datasets:
  images: {name: digtis}
  more: {name: digits, vall: 0.1, val: 1.5}
  1st: digits
tasks:
  digit: {dataset: images, kind: classifcation, weight: -1.0}
  ink: {dataset: imags, kind: {name: regression}, head: {name: mlp, hidden: [16, -3]}}
  keys: {kind: 3}
  mean: []
trunk:
  name: mlp
  fetures: 64
sharing: {name: [hard]}
weighting:
optimizer: {name: AdamW, lr: fast, betas: [0.9, x], eps: .nan}
scheduler: {name: StepLR, interval: epochs}
training: {epochs: 0, batch_size: 1.5, threads: -1, precision: fp8, compile: yes, epoks: 3}
evaluation: {split: "${MTL_NOT_SET}", monitor: {task: dgit}}
"""
FOUND = """\
1:1: nam: unknown key. Did you mean 'name'? Keys: name, seed, datasets, tasks,
2:7: seed: expected an integer ≥ 0 and < 4294967296, found -1
4:18: datasets.images.name: unknown dataset 'digtis'. Did you mean 'digits'? Choose from:
5:24: datasets.more.vall: unknown option of dataset 'digits'. Did you mean 'val'? Options:
5:40: datasets.more.val: expected a number ≥ 0 and < 1, found 1.5
6:3: datasets.1st: expected a name of at most 100 letters, digits, '_' and '-' that starts with a letter or '_', found the string
8:34: tasks.digit.kind: unknown kind 'classifcation'. Did you mean 'classification'? Choose from:
8:57: tasks.digit.weight: expected a number ≥ 0, found -1.0
9:18: tasks.ink.dataset: no dataset 'imags'. Did you mean 'images'? Choose from: images, more, 1st
9:82: tasks.ink.head.hidden.1: expected an integer > 0 and ≤ 1048576, found -3
10:3: tasks.keys.dataset: missing; expected a string
10:16: tasks.keys.kind: expected the name of a kind, or a mapping of its name and options, found 3
11:3: tasks.mean: a task can't have the name 'mean', which is reserved for the mean over the tasks
11:9: tasks.mean: expected a mapping, found []
14:3: trunk.fetures: unknown option of trunk 'mlp'. Did you mean 'features'? Options: dropout, features, freeze, frozen, hidden, init_from
15:17: sharing.name: expected the name of a sharing, found ["hard"]
16:11: weighting: expected the name of a weighting, or a mapping of its name and options, found null
17:30: optimizer.lr: expected a number, found the string 'fast'
17:49: optimizer.betas.1: expected a number, found the string 'x'
17:58: optimizer.eps: expected a number, found NaN
18:1: scheduler.step_size: missing; expected an integer
18:37: scheduler.interval: expected 'epoch' or 'step', found the string 'epochs'
19:20: training.epochs: expected an integer > 0, found 0
19:35: training.batch_size: expected an integer > 0, found 1.5
19:49: training.threads: expected an integer > 0 and ≤ 4096 or 'auto', found -1
19:64: training.precision: expected 'fp32', 'bf16' or 'fp16', found the string 'fp8'
19:78: training.compile: expected true or false, found the string 'yes'
19:83: training.epoks: unknown key. Did you mean 'epochs'? Keys: epochs, batch_size, sampling,
20:21: evaluation.split: the environment variable MTL_NOT_SET is not set; set it, or give a default: ${MTL_NOT_SET:default}
20:55: evaluation.monitor.task: no task 'dgit'. Did you mean 'digit'? Choose from: mean, digit, ink, keys
"""  # noqa: E501


def test_all_problems_are_reported_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MTL_NOT_SET", raising=False)
    file = write_yaml(tmp_path, BROKEN)
    with pytest.raises(ConfigError) as caught:
        load_experiment(file)
    messages = [str(problem).removeprefix(f"{file}:") for problem in caught.value.problems]
    expected = FOUND.splitlines()
    assert len(messages) == len(expected), "\n".join(messages)
    for message, start in zip(messages, expected, strict=True):
        assert message.startswith(start)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (GOOD, "", "1:1: the file is empty"),
        (GOOD, "# nothing\n", "1:1: the file is empty"),
        (GOOD, "- a\n", '1:1: expected an experiment (a mapping), found ["a"]'),
        (GOOD, "tasks: {}\n", "1:1: tasks: at least one task is required"),
        (GOOD, "seed: 1\n", "1:1: datasets: missing; expected a mapping"),
        (GOOD, "seed: 1\n", "1:1: trunk: missing; expected the name of a trunk, or a mapping of its name and options"),
        ("name: mlp, hidden: [32]", "hidden: [32]", "12:8: trunk: has no `name`: which trunk? Choose from: cnn"),
        ("images: {name: digits}", "images: digits\n  more: digits", "4:3: datasets.more: no task uses this dataset"),
        ("training:", "evaluation: {monitor: {metric: accuracy}}\ntraining:",
         "16:32: evaluation.monitor.metric: no metric 'accuracy' that all tasks have. Choose from: primary, loss"),
        ("training:", "evaluation: {monitor: {task: digit, metric: acuracy}}\ntraining:",
         "16:45: evaluation.monitor.metric: no metric 'acuracy' of task 'digit'. Did you mean 'accuracy'?"),
        ("[0.8, 0.99]", "0.8", "14:43: optimizer.betas: expected [a number, a number], found 0.8"),
        ("[0.8, 0.99]", "[0.8]", "14:43: optimizer.betas"),
        ("weight: 0.5", "weight: '0.5'", "11:13: tasks.ink.weight: expected a number ≥ 0, found the string '0.5'"),
        ("weight: 0.5", "weight: .inf", "11:13: tasks.ink.weight: expected a number ≥ 0, found Infinity"),
        ("weight: 0.5", "weight: true", "11:13: tasks.ink.weight: expected a number ≥ 0, found true"),
        ("seed: 3", "name: a/b", "1:7: name: expected a name of at most 100 letters, digits"),
        ("seed: 3", "_source: 1", "1:1: _source: unknown key"),
        ("seed: 3", f"seed: 1{'0' * 400}", "1:7: seed: the integer is too large: the maximum is 4294967295"),
        ("lr: 1e-3", f"lr: 1{'0' * 400}", "14:30: optimizer.lr: the integer is too large"),
        ("training:", "evaluation: {monitor: {task: []}}\ntraining:",
         "16:30: evaluation.monitor.task: expected a string, found []"),
        ("dataset: images, target: digit", "dataset: {}", "5:20: tasks.digit.dataset: expected a string, found {}"),
    ],
)  # fmt: skip
def test_single_problems(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert problem in str(caught.value)


def test_later_problems_have_locations(tmp_path: Path) -> None:
    experiment = load(tmp_path)
    file = str(tmp_path / "good.yaml")
    assert experiment.problem("tasks.ink.target", "x").mark == Mark(file, 8, 13)
    assert experiment.problem("tasks.ink.head.hidden.0", "x").mark == Mark(file, 10, 32)
    # a missing key is located at the key of its nearest parent
    assert experiment.problem("tasks.digit.head", "x").mark == Mark(file, 5, 3)
    assert experiment.problem("evaluation.split", "x").mark == Mark(file, 1, 1)
    assert str(experiment.problem("trunk", "too small")) == f"{file}:12:8: trunk: too small"


def test_problems_of_a_checkpoint_name_it(tmp_path: Path) -> None:
    from mtlcli.config import experiment_from_dict

    plain = load(tmp_path).resolved()
    plain["training"]["epochs"] = 0
    with pytest.raises(ConfigError, match=r"^training\.epochs: expected .* \(in the experiment of last\.pt\)$"):
        experiment_from_dict(plain, source="last.pt")
