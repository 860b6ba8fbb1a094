"""Yeast genes: a made-up table in the layout of the real one, and the real one if it is available."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mtlcli.data.datasets.yeast import FILE, INPUTS, LABELS, Yeast
from mtlcli.data.download.collection import data_root
from mtlcli.data.formats.column_encoding import list_sources
from mtlcli.errors import MtlError


def write(root: Path, rows: int = 40, header: tuple[str, ...] = INPUTS + LABELS) -> np.ndarray:
    raw = root / "yeast/raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (rows, 14))
    lines = [",".join([*(f"{value:.6f}" for value in rng.normal(size=103)), *map(str, row)]) for row in labels.tolist()]
    (raw / FILE).write_text("\n".join([",".join(header), *lines, ""]))
    return labels


def test_labels_are_one_target_and_fourteen(tmp_path: Path) -> None:
    labels = write(tmp_path)
    dataset = Yeast(root=str(tmp_path), download=False)
    outline = dataset.describe()
    dataset.fit()
    spec = dataset.describe()
    assert list_sources(spec.columns) == list_sources(outline.columns) == list(INPUTS)
    assert {name: target.type for name, target in spec.targets.items()} == {
        "functions": "multilabel", **dict.fromkeys(LABELS, "binary")
    }  # fmt: skip
    assert outline.targets == spec.targets and outline.splits == spec.splits
    targets = dataset.whole().targets
    assert torch.equal(targets["functions"], torch.from_numpy(labels).float())
    assert torch.equal(targets["Class14"], torch.from_numpy(labels[:, 13]).float())


@pytest.mark.parametrize(("header", "line", "message"), [
    (("other", *INPUTS[1:], *LABELS), "", r"yeast.csv:1: expected the columns Att1, …, Class14\. Run `mtl data fetch"),
    (INPUTS + LABELS, "1,2", r"yeast.csv:42: 2 values, expected 117"),
])  # fmt: skip
def test_damaged_files(tmp_path: Path, header: tuple[str, ...], line: str, message: str) -> None:
    write(tmp_path, header=header)
    file = tmp_path / "yeast/raw" / FILE
    file.write_text(file.read_text() + line)
    with pytest.raises(MtlError, match=message):
        Yeast(root=str(tmp_path), download=False).fit()


def test_the_real_file_matches_the_description() -> None:
    if not Yeast.collection.complete(data_root(None)):
        pytest.skip("the data isn't here: mtl data fetch yeast")
    dataset = Yeast()
    dataset.fit()
    whole = dataset.whole()
    assert len(whole) == 2417 and whole.targets["functions"].shape == (2417, 14)
    assert whole.targets["functions"].sum(1).mean().item() == pytest.approx(4.237, abs=1e-3)
    assert abs(len(dataset.examples("test", 0)) / 2417 - 0.2) < 0.02
