"""Reading of table files: formats, chunks, places, and Arrow against Python's readers."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlcli.data.content_hash import hash_table
from mtlcli.data.datasets.table import TableDataset
from mtlcli.data.formats import arrow_import, column_builder, compressed, delimited_text, json_lines, text_blocks
from mtlcli.data.formats.arrow_texts import TextCells
from mtlcli.data.formats.batches import Dialect
from mtlcli.data.formats.cells import Cells, NumberCells
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.table_options import MISSING_VALUES
from mtlcli.data.formats.table_reader import read_chunks, read_table
from mtlcli.data.formats.table_rows import Table
from mtlcli.errors import ConfigError

DIALECT = Dialect(",", MISSING_VALUES)
ROWS = [(f"{at / 8}", "Ulm" if at % 3 else "", str(at % 2), f"2023-01-{at % 28 + 1:02}") for at in range(40)]
NAMES = ("x", "town", "y", "day")


def texts(table: Table) -> list[list[str | None]]:
    return [[cells.value(row) for row in range(len(table))] for cells in table.columns.values()]


def write_csv(path: Path, delimiter: str = ",") -> None:
    text = "\n".join(delimiter.join(row) for row in [NAMES, *ROWS])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_zst(path: Path, text: str) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(text.encode())


def write_jsonl(path: Path) -> None:
    lines = [
        json.dumps({"x": float(x), **({"town": town or None} if town or at == 0 else {}), "y": int(y), "day": day})
        for at, (x, town, y, day) in enumerate(ROWS)
    ]
    path.write_text("\n".join(lines) + "\n")


def write_parquet(path: Path) -> None:
    x, town, y, day = zip(*ROWS, strict=True)
    columns = {
        "x": pa.array(map(float, x)),
        "town": pa.array([text or None for text in town]).dictionary_encode(),
        "y": pa.array([int(label) for label in y], pa.int8()),
        "day": pa.array([datetime.datetime.fromisoformat(text) for text in day], pa.timestamp("us")),
    }
    pq.write_table(pa.table(columns), path, row_group_size=7)


WRITERS: dict[str, Callable[[Path], None]] = {
    "t.csv": write_csv,
    "t.csv.gz": write_csv,
    "t.csv.zst": lambda path: write_zst(path, "\n".join(",".join(row) for row in [NAMES, *ROWS])),
    "t.tsv": lambda path: write_csv(path, "\t"),
    "t.jsonl": write_jsonl,
    "t.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_all_formats_give_the_same_examples_in_the_same_splits(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path / "reference.csv")
    WRITERS[name](tmp_path / name)
    options: dict[str, Any] = {"targets": ["y"], "dates": ["day"]}
    expected, actual = (TableDataset(path=str(tmp_path / file), **options) for file in ("reference.csv", name))
    assert actual.describe() == expected.describe() and actual.recorded() == expected.recorded()
    for split in expected.describe().splits:
        first, second = expected.examples(split, 0), actual.examples(split, 0)
        assert np.array_equal(first.inputs, second.inputs) and np.array_equal(first.rows, second.rows)


BITS = [
    '"',
    '""',
    '"a,b"',
    ",",
    ",",
    ",",
    "\n",
    "\n",
    "\r\n",
    "\r",
    " ",
    "1",
    "-2.5",
    "x",
    "é",
    "\0",
    "\ufeff",
    "NA",
    "a",
]


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.sampled_from(BITS), max_size=40).map("".join), block=st.sampled_from([8, 30, 2**20]))
def test_arrow_reads_what_the_csv_module_reads(tmp_path_factory: pytest.TempPathFactory, rows: str, block: int) -> None:
    """Either both readers give the same rows and lines, or the same error."""
    path = tmp_path_factory.getbasetemp() / "both.csv"
    path.write_text("a,b\n1,2\n" + rows, newline="")
    results = []
    for arrow in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(delimited_text, "has_arrow", lambda arrow=arrow: arrow)
            patch.setattr(text_blocks, "BLOCK", block)
            try:
                table = read_table(path, DIALECT)
            except ConfigError as error:
                results.append(str(error))
            else:
                results.append((texts(table), [table.place(row) for row in range(len(table))]))
    assert results[0] == results[1]
    if not isinstance(results[0], str):
        kept = list(csv.reader(io.StringIO(rows, newline=""), skipinitialspace=True))
        kept = [row for row in kept if len(row) > 1 or "".join(row).strip()]
        absent = {*MISSING_VALUES, ""}
        clean = [[None if cell.strip() in absent else cell.strip() for cell in row] for row in kept]
        assert [list(row) for row in zip(*results[0][0], strict=True)][1:] == clean


VALUES = [
    "1",
    "0",
    " 2.5",
    "-7e3",
    "+4",
    ".5",
    "5.",
    "1_0",
    "nan",
    "inf",
    "1e400",
    "0x1",
    "١",
    "",
    "?",
    "9007199254740993",
]


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.sampled_from(VALUES) | st.floats(allow_nan=False).map(repr), min_size=1, max_size=12),
    limit=st.sampled_from([0, 2]),
    numbers=st.booleans(),
    decimal=st.sampled_from([".", ","]),
)
def test_the_representation_of_a_column_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, values: list[str], limit: int, numbers: bool, decimal: Any
) -> None:
    """Distinct values, float64 numbers or Arrow texts: the same numbers, hashes, missing and invalid cells."""
    path = tmp_path_factory.getbasetemp() / "columns.csv"
    path.write_text("v;row\n" + "".join(f"{value};{at}\n" for at, value in enumerate(values)))
    notation = Notation(decimal)
    dialect = Dialect(";", MISSING_VALUES, notation)
    plain = read_table(path, dialect)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(column_builder, "MAX_DISTINCT", limit)
        patch.setattr(text_blocks, "BLOCK", 16)
        if numbers:
            (other,) = read_chunks(path, dialect, numbers=["v"])
        else:
            other = read_table(path, dialect)
    assert hash_table(plain, plain.columns, notation).tolist() == hash_table(other, other.columns, notation).tolist()
    first, second = plain.columns["v"], other.columns["v"]
    assert (first.has_missing, first.all_differ()) == (second.has_missing, second.all_differ()) or isinstance(
        second, NumberCells
    )
    (a, wrong), (b, others) = first.numbers(notation), second.numbers(notation)
    np.testing.assert_array_equal(first.spread(a), second.spread(b))
    assert first.rows(wrong) == second.rows(others)
    np.testing.assert_array_equal(first.missing_rows(), second.missing_rows())
    assert texts(plain) == texts(other)
    rows = np.arange(1, len(values))
    assert first.list_values(rows) == second.list_values(rows)
    assert texts(plain.slice(1, len(values))) == texts(other.slice(1, len(values)))


def test_many_different_values_are_stored_compactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_builder, "MAX_DISTINCT", 20)
    monkeypatch.setattr(text_blocks, "BLOCK", 2**9)
    rows = [f"{at}.5,n{at},{at % 30 + 50},{at if at < 190 else 'x'},{at}" for at in range(200)]
    (tmp_path / "t.csv").write_text("number,text,few,mixed,code\n" + "\n".join(rows))
    table = read_table(tmp_path / "t.csv", DIALECT, texts=["code"])
    kinds = {name: type(cells) for name, cells in table.columns.items()}
    assert kinds == {
        "number": NumberCells, "text": TextCells, "few": NumberCells, "mixed": TextCells, "code": TextCells,
    }  # fmt: skip
    assert [table.columns["number"].value(at) for at in (0, 199)] == ["0.5", "199.5"]  # read from the file again
    assert [cells.value(195) for cells in table.columns.values()] == ["195.5", "n195", "65", "x", "195"]
    assert table.columns["mixed"].numbers(Notation())[1] == list(range(190, 200))


def test_a_table_of_many_values_is_encoded_as_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits, inputs, targets, facts and notes don't depend on the representation."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(300, 2)).round(4)
    rows = [
        f"{at},{a if at % 7 else ''},{b + 1e6:.4f},{'uvw'[at % 3]},{'' if at % 9 == 4 else round(a * 3, 2)},u{at}"
        for at, (a, b) in enumerate(numbers)
    ]
    (tmp_path / "t.csv").write_text("id,a,b,c,y,name\n" + "\n".join(rows))
    results = []
    for limit in (2**16, 8):
        monkeypatch.setattr(column_builder, "MAX_DISTINCT", limit)
        monkeypatch.setattr(text_blocks, "BLOCK", 2**10)
        dataset = TableDataset(path=str(tmp_path / "t.csv"), targets=["y"], val=0.2)
        spec = dataset.describe()
        examples = [dataset.examples(split, 0) for split in spec.splits]
        report = dataset.report()
        assert report is not None
        results.append(
            (spec, dataset.recorded(), dataset.notes(), report.facts, [e.inputs[e.rows].tolist() for e in examples])
        )
    assert results[0] == results[1]


def test_chunks_have_the_rows_and_places_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_blocks, "BLOCK", 64)
    lines = [f'{at},"two\nlines {at}"' if at % 5 == 0 else f"{at},b" + "\n" * (at % 3) for at in range(60)]
    (tmp_path / "t.csv").write_text("x,t\n" + "\n".join([*lines, "oops,b"]))
    whole = read_table(tmp_path / "t.csv", DIALECT)
    for numbers in ([], ["x"]):
        chunks = list(read_chunks(tmp_path / "t.csv", DIALECT, rows=10, numbers=numbers))
        assert len(chunks) > 3 and all(len(chunk) >= 10 for chunk in chunks[:-1])
        assert [row for chunk in chunks for row in zip(*texts(chunk), strict=True)] == list(
            zip(*texts(whole), strict=True)
        )
        places = [chunk.place(row) for chunk in chunks for row in range(len(chunk))]
        assert places == [whole.place(row) for row in range(len(whole))]
        assert places[-1] == f"{tmp_path / 't.csv'}:{1 + sum(line.count(chr(10)) + 1 for line in lines) + 1}"
        last = chunks[-1].columns["x"]
        assert last.value(len(last) - 1) == "oops" and last.numbers(Notation())[1]


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_chunks_of_other_formats(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "BLOCK", 256)
    WRITERS[name](tmp_path / name)
    whole = read_table(tmp_path / name, DIALECT)
    chunks = list(read_chunks(tmp_path / name, DIALECT, rows=4, numbers=["x"], columns=["x", "town", "y", "day"]))
    assert [row for chunk in chunks for row in zip(*texts(chunk), strict=True)] == list(zip(*texts(whole), strict=True))
    places = [chunk.place(row) for chunk in chunks for row in range(len(chunk))]
    assert places == [whole.place(row) for row in range(40)]
    assert places[9] == f"{tmp_path / name}" + (":10" if name == "t.jsonl" else ": row 10")


@pytest.mark.parametrize("arrow", [False, True])
def test_a_key_that_no_object_has(tmp_path: Path, arrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late key is missing in earlier chunks; a key that never occurs is an error when the file ends."""
    monkeypatch.setattr(json_lines, "has_arrow", lambda: arrow)
    monkeypatch.setattr(json_lines, "BLOCK", 16)
    (tmp_path / "t.jsonl").write_text('{"x": 1}\n' * 9 + '{"x": 2, "town": "Ulm"}\n')
    chunks = list(read_chunks(tmp_path / "t.jsonl", DIALECT, rows=4, columns=["town", "x"]))
    assert [value for chunk in chunks for value in texts(chunk)[0]] == [None] * 9 + ["Ulm"]
    chunks = list(read_chunks(tmp_path / "t.jsonl", DIALECT, rows=4))
    assert [[*chunk.columns] for chunk in chunks] == [["x"]] * (len(chunks) - 1) + [["x", "town"]]
    message = r"t.jsonl: no object has the key 'twon'. Did you mean 'town'\? The keys are: x, town"
    with pytest.raises(ConfigError, match=message):
        list(read_chunks(tmp_path / "t.jsonl", DIALECT, columns=["x", "twon"]))


JSON_LINES = {
    "a list": ('{"x": [1]}', r":3: the value of 'x' is a list, but a table has"),
    "an object": ('{"x": {"y": 1}}', r":3: the value of 'x' is an object"),
    "not JSON": ('{"x": 1', r":3: is not valid JSON \(.*\); expected one object in each line"),
    "a number": ("7", r":3: is not an object, such as .*, but '7'"),
    "not UTF-8": ('{"x": "\udcff"}', r":3: is not UTF-8 text: it has the byte 0xFF at position 8"),
    "a long key": (f'{{"{"k" * 300}": 1}}', r"the name of column 3, 'k{60}'…, has 300 characters"),
}


@pytest.mark.parametrize("arrow", [False, True])
@pytest.mark.parametrize(("line", "message"), JSON_LINES.values(), ids=JSON_LINES)
def test_invalid_json_lines(
    tmp_path: Path, line: str, message: str, arrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "has_arrow", lambda: arrow)
    text = '{"x": 1, "y": 0}\n\n' + line + '\n{"x": 2, "y": 1}\n'
    (tmp_path / "t.jsonl").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=message):
        read_table(tmp_path / "t.jsonl", DIALECT)


OBJECTS = st.dictionaries(
    st.sampled_from("abcd"),
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["u", "1", "", "2023-07-14"]),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(OBJECTS, min_size=1, max_size=8), blank=st.booleans(), block=st.sampled_from([40, 2**20]))
def test_arrow_reads_json_lines_as_python_does(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], blank: bool, block: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "both.jsonl"
    path.write_text(("\n\n" if blank else "\n").join(map(json.dumps, rows)))
    results = []
    for arrow in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_lines, "has_arrow", lambda arrow=arrow: arrow)
            patch.setattr(json_lines, "BLOCK", block)
            table = read_table(path, DIALECT)
            places = [table.place(row) for row in range(len(table))]
            hashes = hash_table(table, table.columns, Notation()).tolist()
            results.append(([*table.columns], hashes, places))
    assert results[0] == results[1]


def test_typed_columns_are_spelled_as_in_text(tmp_path: Path) -> None:
    moment = datetime.datetime(2023, 7, 14, 6, 30)
    columns = {
        "whole": pa.array([2**60 + 1, None]),
        "float32": pa.array([0.5, float("nan")], pa.float32()),
        "decimal": pa.array([1, None], pa.decimal128(5, 2)),
        "truth": pa.array([True, False]),
        "nothing": pa.nulls(2),
        "text": pa.array([" a ", "NA"], pa.large_string()),
        "date": pa.array([moment.date(), None]),
        "local": pa.array([moment, datetime.datetime(1960, 1, 1)], pa.timestamp("ns")),
        "zoned": pa.array([moment, None], pa.timestamp("ms", "Europe/Berlin")),
        "at": pa.array([moment, None], pa.timestamp("us")),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", Dialect(",", ["NA"], Notation(dates=(("at", "%d.%m.%Y %H:%M"),))))
    assert dict(zip(columns, texts(table), strict=True)) == {
        "whole": ["1152921504606846977", None],
        "float32": ["0.5", None],
        "decimal": ["1.00", None],
        "truth": ["1", "0"],
        "nothing": [None, None],
        "text": ["a", None],
        "date": ["2023-07-14", None],
        "local": ["2023-07-14 06:30:00", "1960-01-01"],
        "zoned": ["2023-07-14 06:30:00Z", None],
        "at": ["14.07.2023 06:30", None],
    }


def test_parquet_files_that_are_not_tables(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [[1]], "b": [b"1"]}), tmp_path / "list.parquet")
    with pytest.raises(ConfigError, match=r"list.parquet: column 'x' has the type list<\w+: int64>.*\n.*column 'b'"):
        read_table(tmp_path / "list.parquet", DIALECT)
    (tmp_path / "text.parquet").write_text("x,y\n1,2\n")
    for name, message in (("text", "can't be read as a table: .*Parquet"), ("none", "No such file")):
        with pytest.raises(ConfigError, match=f"{name}.parquet: .*{message}"):
            read_table(tmp_path / f"{name}.parquet", DIALECT)
    pq.write_table(pa.table({"x": pa.array([], pa.int64())}), tmp_path / "empty.parquet")
    with pytest.raises(ConfigError, match=r"empty.parquet: has no rows"):
        read_table(tmp_path / "empty.parquet", DIALECT)
    pq.write_table(pa.table([[1], [2]], ["x", "x"]), tmp_path / "twice.parquet")
    with pytest.raises(ConfigError, match=r"twice.parquet: the header names 'x' more than once"):
        read_table(tmp_path / "twice.parquet", DIALECT)


def test_damaged_and_extremely_compressed_zst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv.zst"
    write_zst(path, "x,y\n" + "".join(f"{at * 7919 % 1009},2\n" for at in range(5000)))
    whole = path.read_bytes()
    for content in (whole[:-20], b"x,y\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"t.csv.zst: can't be read as a table: damaged: "):
            read_table(path, DIALECT)
    monkeypatch.setattr(compressed, "ALWAYS_ALLOWED", 2**16)
    write_zst(path, "x,y\n" + "1,2\n" * 2**18)
    with pytest.raises(ConfigError, match=r"t.csv.zst: can't be read as a table: becomes more than 0 MiB"):
        read_table(path, DIALECT)


@pytest.mark.parametrize("name", ["t.csv.zst", "t.parquet"])
def test_without_pyarrow(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](tmp_path / name)

    def refuse(module: str) -> Any:
        raise ImportError(module)

    monkeypatch.setattr(arrow_import.importlib, "import_module", refuse)
    with pytest.raises(ConfigError, match=r"the package pyarrow, which is not installed: pip install 'mtlcli\[data\]'"):
        read_table(tmp_path / name, DIALECT)


def test_cells_of_rows() -> None:
    cells = Cells(("a", None, "b"), np.array([0, 2, 1, 0]))
    assert (len(cells), cells.has_missing, cells.count_present(), cells.all_differ()) == (4, True, 2, False)
    assert cells.rows([0, 1]) == [0, 2, 3] and cells.missing_rows().tolist() == [False, False, True, False]
    assert Cells(("a", "b"), np.array([1, 0])).all_differ()
