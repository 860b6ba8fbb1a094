"""Output for people of a dry run and of a compressed model."""

import pytest

from mtlcli.cli.output import print_compression, print_plan


def test_the_plan_of_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan({"device": "cpu", "steps": 21, "data": {}})
    assert capsys.readouterr().out == "device: cpu\nsteps: 21\n"


def test_the_savings_of_a_compressed_model(capsys: pytest.CaptureFixture[str]) -> None:
    change = {"before": 2000, "after": 1500}
    metrics = {"val": {"digit": {"loss": 0.5, "accuracy": 0.9}}}
    layers = {"fc1": {"rank": 3, "of": 16, "parameters": 120}}
    report = {
        "shared_parameters": change, "parameters": change, "flops": change,
        "metrics": {"before": metrics, "after": {"val": {"digit": {"loss": 0.6, "accuracy": 0.875}}}},
        "regularizers": {"multi_nuclear_norm": {"layers": layers}},
    }  # fmt: skip
    print_compression(report)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "shared parameters: 2,000 → 1,500 (-25.0%)"
    assert lines[3] == "val digit accuracy: 0.9000 → 0.8750"
    assert lines[4] == "fc1: rank 3 of 16, 120 parameters"
