from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mtlcli.data.base import Examples
from mtlcli.data.datasets.digits import Digits


def images(examples: Examples) -> torch.Tensor:
    assert isinstance(examples.inputs, torch.Tensor)
    return examples.inputs if examples.rows is None else examples.inputs[examples.rows]


def test_the_description_matches_the_data() -> None:
    dataset = Digits(val=0.0)
    spec, train, test = dataset.describe(), dataset.examples("train", 0), dataset.examples("test", 0)
    assert (len(train), len(test)) == (1437, 360)
    assert train.inputs is test.inputs and images(train).shape[1:] == spec.input_shape
    assert images(train).dtype == torch.uint8 and int(images(train).max()) == 16
    pixels = images(train).double()
    assert spec.mean[0] == pytest.approx(float(pixels.mean()), abs=1e-3)
    assert spec.std[0] == pytest.approx(float(pixels.std(correction=0)), abs=1e-3)
    assert set(train.targets) == set(spec.targets)
    ink = train.targets["ink"][train.rows].double()
    assert spec.targets["ink"].mean == pytest.approx(float(ink.mean()), abs=1e-5)
    assert spec.targets["ink"].std == pytest.approx(float(ink.std(correction=0)), abs=1e-5)


def test_the_splits_are_disjoint_and_complete() -> None:
    dataset = Digits()
    parts = [dataset.examples(split, 3).rows for split in dataset.describe().splits]
    rows = torch.cat([split_rows for split_rows in parts if split_rows is not None])
    assert sorted(rows.tolist()) == list(range(1797))


def test_the_test_split_is_fixed_and_has_every_digit() -> None:
    first, other = (Digits(val=val).examples("test", seed) for val, seed in ((0.1, 0), (0.3, 9)))
    assert first.rows is not None and other.rows is not None and first.rows.equal(other.rows)
    assert first.targets["digit"][first.rows].bincount().min() > 20


def test_targets() -> None:
    examples = Digits().examples("test", 0)
    digit, targets = examples.targets["digit"], examples.targets
    assert targets["parity"].equal((digit % 2).float())
    assert isinstance(examples.inputs, torch.Tensor)
    assert targets["ink"].equal(examples.inputs.float().mean((1, 2, 3)) / 16)
    assert 0.17 < float(targets["ink"].min()) < float(targets["ink"].max()) < 0.43
    lit = {
        int(d): "".join(s for s, on in zip("abcdefg", row, strict=True) if on)
        for d, row in zip(digit, targets["segments"], strict=True)
    }
    assert lit[1] == "bc" and lit[8] == "abcdefg" and lit[4] == "bcfg"
    assert [targets[name].dtype for name in ("digit", "parity", "ink", "segments")] == [torch.int64] + [
        torch.float32
    ] * 3


def test_describe_does_not_import_sklearn() -> None:
    code = (
        "import sys; from mtlcli.registry import datasets; datasets['digits'].target().describe(); "
        "datasets['mnist'].target().describe(); assert not {'sklearn', 'torchvision', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
