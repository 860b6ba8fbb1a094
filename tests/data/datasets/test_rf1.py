"""River flow: a made-up table in the layout of the real one, and the real one if it is available."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from mtlcli.data.datasets.rf1 import FILES, HOURS, RF1, SITES
from mtlcli.data.download.collection import data_root
from mtlcli.data.formats.column_encoding import list_sources
from mtlcli.errors import MtlError

INPUTS = [f"{site}__{-hours}" for hours in HOURS for site in SITES]


def write(raw: Path, sizes: dict[str, int], names: list[str] | None = None) -> None:
    """Write tables in which the flow at a site in 48 hours is ten times the present one, and one input is missing."""
    import pyarrow as pa
    import pyarrow.parquet

    raw.mkdir(parents=True)
    for number, (split, rows) in enumerate(sizes.items()):
        values = np.arange(rows * 64, dtype=np.float64).reshape(rows, 64) + 0.1 + 1000 * number
        columns = {name: list(values[:, column]) for column, name in enumerate(names or INPUTS)}
        columns |= {f"{site}_48H__0": list(10 * values[:, column]) for column, site in enumerate(SITES)}
        columns[(names or INPUTS)[3]][1] = float("nan")
        pyarrow.parquet.write_table(pa.table(columns), raw / FILES[split])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "rf1/raw", {"train": 30, "test": 20})
    return tmp_path


@pytest.mark.parametrize("split", ["random", "authors"])
def test_rows_and_splits(root: Path, split: str) -> None:
    dataset = RF1(root=str(root), download=False, split=split, val=0.2)  # type: ignore[arg-type]
    outline = dataset.describe()
    dataset.fit()
    spec = dataset.describe()
    assert list_sources(spec.columns) == list_sources(outline.columns) == INPUTS
    assert outline.splits == spec.splits == ("train", "val", "test") and list(spec.targets) == list(SITES)
    whole = dataset.whole()
    assert isinstance(whole.inputs, Tensor) and len(whole) == 50
    flow = whole.targets["EADM7"].double().numpy()
    np.testing.assert_allclose(flow[:3], [21.0, 661.0, 1301.0], rtol=1e-6)
    inputs = whole.inputs[:, 2].double().numpy() + spec.columns[2].offset
    np.testing.assert_allclose(flow, 10 * inputs, rtol=1e-6)
    assert int(dataset.unseen(whole)["SCLM7__0"].missing) == 2
    sizes = {name: len(dataset.examples(name, 0)) for name in spec.splits}
    assert sum(sizes.values()) == 50 and min(sizes.values()) > 0
    test = dataset.examples("test", 0).rows
    assert test is not None
    if split == "authors":
        assert test.tolist() == list(range(30, 50)) and not dataset.draws_test()


def test_a_file_of_other_columns(tmp_path: Path) -> None:
    write(tmp_path / "rf1/raw", {"train": 3, "test": 3}, [*INPUTS[:-1], "other"])
    with pytest.raises(MtlError, match=r"rf1_train.parquet.brotli: no column 'DLDI4__-60'. Run `mtl data fetch rf1"):
        RF1(root=str(tmp_path), download=False).fit()


def test_the_real_files_match_the_description() -> None:
    if not RF1.collection.complete(data_root(None)):
        pytest.skip("the data isn't here: mtl data fetch rf1")
    dataset = RF1(split="authors", val=0.0)
    dataset.fit()
    assert (len(dataset.examples("train", 0)), len(dataset.examples("test", 0))) == (4108, 5017)
    unseen = dataset.unseen(dataset.whole())
    assert sum(counts.missing for counts in unseen.values()) == 2 * 1632
    assert not any(target.missing for target in dataset.describe().targets.values())
