"""Assignment of a table's rows to splits."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtlcli.data.content_hash import hash_cells
from mtlcli.data.datasets.table import TableDataset
from mtlcli.data.fingerprint import DataRecord
from mtlcli.data.formats.cells import Cells
from mtlcli.data.formats.numerals import Notation
from mtlcli.errors import ConfigError

HEADER = "site,x,y"


def lines(amount: int) -> list[str]:
    return [f"s{row % 9},{row}.5,{'abc'[row % 3]}" for row in range(amount)]


def write(path: Path, rows: list[str], header: str = HEADER) -> Path:
    path.parent.mkdir(exist_ok=True)
    text = "\n".join([header, *rows])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def table(path: Path, **options: Any) -> TableDataset:
    return TableDataset(path=str(path), **{"targets": ["y"], **options})


def members(dataset: TableDataset, seed: int = 0, column: int = 1) -> dict[str, set[float]]:
    """Return split → the numbers in a column of its rows; by default `x`, which identifies the rows."""
    numbers = {}
    for split in dataset.describe().splits:
        examples = dataset.examples(split, seed)
        assert isinstance(examples.inputs, torch.Tensor) and examples.rows is not None
        numbers[split] = set(examples.inputs[examples.rows, column].tolist())
    return numbers


def test_no_row_moves_when_the_table_changes(tmp_path: Path) -> None:
    """Rows added at the end, at the start and in between; removed; reordered; columns added and moved; compressed."""
    rows = lines(300)
    before = members(table(write(tmp_path / "t.csv", rows[:200])))
    assert set(before) == {"train", "val", "test"} and sum(map(len, before.values())) == 200
    shuffled = [rows[at] for at in np.random.default_rng(0).permutation(300)]
    for changed in (rows, rows[200:] + rows[:200], shuffled, rows[50:], rows[:200][::-1]):
        after = members(table(write(tmp_path / "t.csv.gz", changed)))
        there = {float(row.split(",")[1]) for row in changed}
        for split, numbers in after.items():
            assert numbers & set.union(*before.values()) == before[split] & there
    moved = [f"{y};{x};{site}" for site, x, y in (row.split(",") for row in rows[:200])]
    path = write(tmp_path / "moved.csv", moved, "y;x;site")
    assert members(table(path, features=["site", "x"], delimiter=";")) == before


def test_no_row_moves_when_numbers_are_spelled_differently(tmp_path: Path) -> None:
    """For example by pandas, which writes `1.0` for `1` in a column with gaps, or with another decimal mark."""
    rows = [(row % 40, row / 8, "ab"[row % 2]) for row in range(200)]
    spelled = {
        "plain": ([f"{site},{x},{y}" for site, x, y in rows], {}),
        "decimals": ([f"{site}.0,{x:.4f},{y}" for site, x, y in rows], {}),
        "exponents": ([f"{site:02},{x:.5e},{y}" for site, x, y in rows], {}),
        "commas": ([f"{site};{x};{y}".replace(".", ",") for site, x, y in rows], {"delimiter": ";", "decimal": ","}),
    }
    for group in (None, "site"):
        prints = []
        for name, (there, options) in spelled.items():
            path = write(tmp_path / f"{name}.csv", there, HEADER.replace(",", options.get("delimiter", ",")))
            dataset = table(path, features=["site", "x"], group_column=group, **options)
            prints.append((members(dataset), dataset.recorded().splits))
        assert all(fingerprint == prints[0] for fingerprint in prints)


def test_numbers_that_are_equal_in_float64_are_different_cells() -> None:
    values = ["12345678901234567890", "12345678901234567891", "1e40", "1e41", "a", None, "0", "5"]
    assert len(set(hash_cells(Cells(values, None), Notation()).tolist())) == len(values)
    same = ["-0.0", "0", "1e20", "100000000000000000000"]
    assert len(set(hash_cells(Cells(same, None), Notation()).tolist())) == 2


def test_an_undeclared_split_column_is_noted(tmp_path: Path) -> None:
    rows = [f"{line},{'test' if at % 5 == 0 else 'train'}" for at, line in enumerate(lines(60))]
    path = write(tmp_path / "t.csv", rows, f"{HEADER},part")
    assert any("set `split_column: part`" in note for note in table(path).notes())
    assert not any("split_column" in note for note in table(path, split_column="part").notes())


def test_another_seed_gives_another_draw(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", lines(200))
    first, same, other, val = (members(table(path, seed=seed), run) for seed, run in ((0, 0), (0, 0), (1, 0), (0, 1)))
    assert first == same != other and first["test"] == val["test"] and first["val"] != val["val"]


def test_the_choice_of_columns_does_not_affect_the_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [f"{row},{at % 7}" for at, row in enumerate(lines(200))], HEADER + ",z")
    expected = members(table(path))
    assert members(table(path, features=["x"]), column=0) == expected
    assert members(table(path, targets=["z"])) == expected
    assert members(table(path, targets={"y": "classes", "z": "real"})) == expected


@pytest.mark.parametrize("test", [0.2, 0.5])
def test_a_class_of_one_row_is_in_train(tmp_path: Path, test: float) -> None:
    """For every seed (case C13: for half of the seeds the class was only in `test`, which was an error)."""
    rows = [*lines(60), "s1,70.5,rare", "s2,80.5,"]
    path = write(tmp_path / "t.csv", rows)
    for seed in range(12):
        dataset = table(path, seed=seed, test=test)
        assert dataset.describe().targets["y"].classes == ("a", "b", "c", "rare")
        train = dataset.examples("train", seed)
        assert set(train.targets["y"][train.rows].tolist()) >= {0, 1, 2, 3}


def test_an_excluded_row_is_not_a_test_row_of_its_checkpoint(tmp_path: Path) -> None:
    """The record of a checkpoint keeps the row in its split even if its class has more rows later."""
    path = write(tmp_path / "t.csv", [*lines(60), "s1,70.5,rare"])
    kept = next(d for seed in range(50) if (d := table(path, seed=seed, test=0.5)).recorded().kept)
    spec, record = kept.describe(), DataRecord.from_dict(kept.recorded().to_dict(), "data")
    assert record == kept.recorded() and len(record.kept["test"]) == 1
    write(path, [*lines(60), *(f"s1,{row}.5,rare" for row in range(70, 90))])
    fresh, again = (table(path, seed=kept.seed, test=0.5) for _ in range(2))
    assert 70.5 in members(fresh)["test"]
    again.record = record
    again.restore(spec)
    assert (
        not members(again)["test"] & members(kept)["train"] and 70.5 in members(again)["train"] | members(again)["val"]
    )


def test_groups_stay_together(tmp_path: Path) -> None:
    rows = [*lines(300), *(f",{row}.5,a" for row in range(300, 350))]
    dataset = table(write(tmp_path / "t.csv", rows), group_column="site", test=0.3, val=0.3)
    assert [column.name for column in dataset.describe().columns] == ["x"]  # a group is no feature
    site = {float(x): site for site, x, _ in (row.split(",") for row in rows)}
    splits = members(dataset, column=0)
    of = {split: {site[x] for x in numbers} for split, numbers in splits.items()}
    named = [sites - {""} for sites in of.values()]
    assert sum(map(len, named)) == len(set.union(*named)) == 9
    assert all("" in sites for sites in of.values())  # without a group each row is drawn by itself
    changed = [row.replace(",a", ",b") for row in rows[:300]]  # cells change, the group's split doesn't
    after = members(table(write(tmp_path / "u.csv", changed), group_column="site", test=0.3, val=0.3), column=0)
    assert all(after[split] == {x for x in splits[split] if x < 300} for split in after)
    with pytest.raises(ConfigError, match=r"no column 'sit', which `group_column` names. Did you mean 'site'"):
        table(tmp_path / "t.csv", group_column="sit").describe()


def test_identical_rows_share_a_split(tmp_path: Path) -> None:
    splits = members(table(write(tmp_path / "t.csv", lines(100) * 3)))
    assert sum(map(len, splits.values())) == 100


def test_a_table_of_few_distinct_rows_is_split(tmp_path: Path) -> None:
    rows = [f"{a},{b},{a ^ b}" for a in (0, 1) for b in (0, 1) for _ in range(200)]
    dataset = table(write(tmp_path / "t.csv", rows), val=0.0)
    test = dataset.examples("test", 0)
    assert abs(len(test) / 800 - 0.2) < 6 * (0.16 / 800) ** 0.5 + 40 / 800
    assert isinstance(test.inputs, torch.Tensor) and len(test.inputs[test.rows].unique(dim=0)) == 4


@pytest.mark.parametrize(("amount", "sizes"), [(1, None), (2, [1, 1, 0]), (3, [1, 1, 1]), (5, [3, 1, 1])])
def test_tiny_tables(tmp_path: Path, amount: int, sizes: list[int] | None) -> None:
    """No split is empty if the table has enough rows; for a regression, which has no classes."""
    path = write(tmp_path / "t.csv", [f"a,{row},{row}.5" for row in range(amount)])
    dataset = table(path, targets={"y": "real"}, val=0.3 if amount > 2 else 0.0)
    if sizes is None:
        assert dataset.describe().splits == ("train",)
    else:
        assert sum(len(dataset.examples(split, 0)) for split in dataset.describe().splits) == amount
        assert all(len(dataset.examples(split, 0)) for split in dataset.describe().splits)
        assert len(dataset.describe().splits) == sum(size > 0 for size in sizes)


def test_shares_of_0_and_1(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", lines(30))
    assert table(path, test=0.0, val=0.0).describe().splits == ("train",)
    with pytest.raises(ConfigError, match="no training rows"):
        table(path, test=1.0).describe()
    spec = table(path).describe()
    everything = table(path, test=1.0)
    everything.record = table(path).recorded()
    assert everything.restore(spec).splits == ("test",) and len(everything.examples("test", 0)) == 30


def test_older_checkpoints_keep_their_rule_of_drawing(tmp_path: Path) -> None:
    """Their rows were drawn by position: a share of 0.2, the first of a permutation."""
    path = write(tmp_path / "t.csv", lines(50))
    spec = table(path).describe()
    old = table(path)
    old.record = DataRecord("position")
    old.restore(spec)
    assert len(old.examples("test", 0)) == 10 and len(old.examples("val", 0)) == 4
    assert members(old)["test"] != members(table(path))["test"]
