import math
from pathlib import Path

import pytest

from mtlcli.training.messages import EpochReport, RunEnd, RunHeader, describe_parameters, flow

METRICS = {
    "digit": {"loss": 0.4184, "accuracy": 0.88889, "f1": 0.8743},
    "ink": {"loss": 0.03176, "r2": 0.9671, "mse": 3.65e-5},
    "none": {"loss": math.nan, "accuracy": math.nan},
}
LOSSES = {"digit": 0.6415, "ink": 1.7e30, "none": math.nan}


def report(**changes: object) -> EpochReport:
    facts = {
        "epoch": 3, "epochs": 20, "losses": LOSSES, "split": "val", "metrics": METRICS, "monitor": "val mean primary",
        "value": 0.9163, "is_best": True, "seconds": 0.2, "samples_per_second": 6610.4,
        "learning_rates": {"trunk": 0.002, "heads": 0.002}, **changes,
    }  # fmt: skip
    return EpochReport(**facts)  # type: ignore[arg-type]


def test_an_epoch_report_in_one_line() -> None:
    assert str(report()) == (
        "epoch 3 of 20 | digit: train loss 0.6415, val accuracy 0.8889 f1 0.8743 | "
        "ink: train loss 1.700e+30, val r2 0.9671 mse 3.650e-05 | none: no labels in train, no labels in val | "
        "val mean primary 0.9163, best so far | lr 0.002 | 0.20 s, 6,610 samples/s"
    )
    assert report(losses={"digit": 0.6}, metrics={"digit": METRICS["digit"]}, learning_rates={}).lines(200) == [
        "epoch 3 of 20 | digit: train loss 0.6000, val accuracy 0.8889 f1 0.8743 | "
        "val mean primary 0.9163, best so far | 0.20 s, 6,610 samples/s"
    ]


def test_an_epoch_report_on_a_terminal() -> None:
    layers = {f"layer.{index}": 2.0**index / 1000 for index in range(8)}
    assert "lr 0.001 (layer.0) to 0.128 (layer.7) |" in report(learning_rates=layers).lines(300)[0]
    pairs = {"layer.0": 0.1, "layer.0 (no decay)": 0.1, "heads": 0.2, "heads (no decay)": 0.3}
    expected = "lr of layer.0 0.1, lr of heads 0.2, lr of heads (no decay) 0.3 |"
    assert expected in report(learning_rates=pairs).lines(300)[0]
    assert report(is_best=False, learning_rates={"trunk": 1e-5, "heads": 0.01}).lines(80) == [
        "epoch 3 of 20 | val mean primary 0.9163 | lr of trunk 1e-05, lr of heads 0.01",
        "  0.20 s, 6,610 samples/s",
        "  digit: train loss 0.6415, val accuracy 0.8889 f1 0.8743",
        "  ink: train loss 1.700e+30, val r2 0.9671 mse 3.650e-05",
        "  none: no labels in train, no labels in val",
    ]
    assert report().lines(40)[3:7] == [
        "  digit: train loss 0.6415,",
        "    val accuracy 0.8889 f1 0.8743",
        "  ink: train loss 1.700e+30,",
        "    val r2 0.9671 mse 3.650e-05",
    ]


@pytest.mark.parametrize("width", [10, 30, 60, 80, 1000])
def test_no_number_is_broken(width: int) -> None:
    lines = report().lines(width)
    words = {word.strip(",") for line in lines for word in line.split()}
    assert {"0.8889", "3.650e-05", "1.700e+30", "0.9163"} <= words
    if width >= 30:
        assert max(map(len, lines)) <= max(width, 0 if width < 1000 else len(str(report())))


def test_flow_breaks_between_texts_first() -> None:
    assert flow(["a b", "c d", "e f"], 7, ", ", "  ") == ["a b", "  c d", "  e f"]
    assert flow(["a b", "c d", "e f"], 8, ", ", "  ") == ["a b, c d", "  e f"]
    assert flow(["longer than this", "x"], 9) == ["longer", "than this", "x"]


def test_run_header() -> None:
    header = RunHeader(
        Path("runs/a"), "cpu", 1, {"train": {"a": 1293, "b": 10}, "test": {"a": 360}},
        {"shared": 16576, "tasks": {"digit": 650, "ink": 65}, "total": 17291, "trained": 17291}, 20, 21,
    )  # fmt: skip
    assert header.lines() == [
        "run folder: runs/a",
        "device: cpu, 1 thread",
        "examples: a 1,293 train, 360 test; b 10 train",
        "parameters: 16,576 shared; digit 650, ink 65; 17,291 in total",
        "training: 20 epochs of 21 steps",
    ]


def test_run_end() -> None:
    assert str(RunEnd(7, 20, 3, 4, "val digit accuracy", 0.81234)) == (
        "stopped early at epoch 7 of 20: no improvement of val digit accuracy for 3 epochs; "
        "best epoch 4 of 7, val digit accuracy 0.8123"
    )
    assert str(RunEnd(20, 20, 3, 18, "val mean primary", 0.8)) == (
        "trained 20 epochs; best epoch 18 of 20, val mean primary 0.8000"
    )
    assert str(RunEnd(2, 2, None, 2, "val mean primary", 0.8)).endswith("(the last one: more epochs may help)")
    assert str(RunEnd(2, 2, None, 2, "val mean primary", math.nan)) == (
        "trained 2 epochs; val mean primary was undefined, so the latest epoch, 2, counts as the best"
    )


def test_trained_parameters_are_stated_where_some_are_frozen() -> None:
    counts = {"shared": 1000, "tasks": {"digit": 250}, "total": 1250, "trained": 250}
    assert describe_parameters(counts) == "1,000 shared; digit 250; 1,250 in total, of which 250 (20.00%) are trained"
