"""A table in a text file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mtlcli.data.base import Dataset, Examples, add_val_split, restore_spec
from mtlcli.data.content_hash import Hashes
from mtlcli.data.formats.column_encoding import MOST_CATEGORIES, TrainingTable, encode_columns, fit_column
from mtlcli.data.formats.column_report import UNNAMED, Features, TableReport, Unseen, choose_features
from mtlcli.data.formats.csv_reader import Table, append, read_table
from mtlcli.data.formats.numerals import ISO, Notation
from mtlcli.data.formats.table_splits import MISSING_VALUES, Delimiter, TableSplits, Targets, split_table
from mtlcli.data.formats.target_columns import TargetType, encode_target, find_non_number, fit_target
from mtlcli.data.shuffling import Rows
from mtlcli.data.splitting import Codes
from mtlcli.errors import ConfigError, Problem
from mtlcli.files import user_path
from mtlcli.registry import datasets
from mtlcli.specs import MOST_CLASSES, Column, DatasetSpec, TargetSpec
from mtlcli.text import listed

REPEATED = 0.25  # of the rows of a split's file: with more among the training rows, a note says so


@datasets.register("csv")
class CSV(Dataset):
    """A table of your own: a text file with a header, a column for each feature and target.

    Inputs are float32 [columns]: numbers, and codes of categories. The trunk `tabular` embeds the categories; for any
    other trunk the model makes of them a feature for each category (one-hot), and standardizes the numbers. What is
    fitted (means and standard deviations, categories, classes) comes from the training rows, `val` included where it
    is carved from them, and travels with the checkpoint. A missing number becomes the mean, a missing category or one
    never seen in training becomes zeros (embedded, a missing one has a vector of its own); a missing target drops out
    of its loss and metrics. ConfigError, with file and line, for what can't be read so.

    Options:
        path: the file, text in UTF-8; .gz will do.
        test_path: a file of its own for the split `test`, with the same columns. The rows of `path` are then all for
            training, and for `val` where `val_path` is not given.
        val_path: likewise for the split `val`.
        targets: the columns to predict, or `{column: type}` with the types `classes`, `binary` and `real`; a list of
            columns of 0 and 1 in place of a type is one multilabel target: `{tags: [news, sport, money]}`. A column
            without a type is binary where all cells are 0 or 1, real where all are numbers, classes where none is; a
            mixture is an error. A column of class numbers needs the type `classes`.
        features: the columns to predict from; default: all that are neither target nor split, except those that only
            number or identify the rows. These are left out with a note: columns without a name (an index that pandas
            wrote) and, in a table of 20 rows or more, columns that number the rows (consecutive whole numbers in any
            order, or increasing ones in a column called `rownames`, `nr` or the like), text that is different in every
            row, and whole numbers that are different in every row in a column called an identifier (`id`,
            `customer_id`, `index`). Columns that are listed here, in `categorical` or in `dates` are kept; where
            nothing else is left, numbers of rows and identifiers are too.
        exclude: columns that are no features, where `features` names none.
        categorical: feature columns of numbers that are categories; columns without numbers are categories anyway. A
            mixture of numbers and other values is an error in a column that is not listed here.
        levels: the most categories of a column that is not listed in `categorical`.
        missing: cells that mean a missing value, as an empty one always does; the default is pandas' list and `-`,
            `--`, `?`, `none`, which a list of your own replaces.
        decimal: the decimal mark of numbers.
        thousands: the mark between groups of three digits.
        dates: columns of dates to read as numbers (days since 1970-01-01, UTC): a list of columns in ISO 8601, or
            `{column: format}` with a format of Python's `strptime`, such as "%d.%m.%Y".
        split_column: the column that says `train`, `val` or `test` for each row.
        test: without a split column or file, the share of the rows that becomes the split `test`. Whether a row is
            among them is a function of its cells and `seed`, never of its position: no row moves when others are
            added, removed or reordered. Identical rows (up to 10) share a split, and every class keeps a row to train
            on.
        group_column: a column whose equal values stay in one split (a patient, a site); a unique id makes the split of
            a row independent of its other cells. No feature, unless `features` names it.
        seed: draws the rows of `test`; the same for every run, whatever the run's own seed.
        val: share of the training rows set aside as the split `val`, drawn by the run's seed, unless the split column
            has a `val`.
        delimiter: the character between the values; for a tab, a backslash and a t.
    """

    def __init__(
        self,
        *,
        path: str,
        test_path: str | None = None,
        val_path: str | None = None,
        targets: Targets,
        features: list[str] | None = None,
        exclude: list[str] = [],  # noqa: B006
        categorical: list[str] = [],  # noqa: B006  (never changed)
        levels: Annotated[int, Field(ge=2, le=MOST_CLASSES)] = MOST_CATEGORIES,
        missing: list[str] = MISSING_VALUES,
        decimal: Literal[".", ","] = ".",
        thousands: Literal["", ",", ".", " ", "'"] = "",
        dates: list[str] | dict[str, str] = [],  # noqa: B006
        split_column: str | None = None,
        group_column: str | None = None,
        test: Annotated[float, Field(ge=0, le=1)] = 0.2,
        seed: Annotated[int, Field(ge=0)] = 0,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        delimiter: Delimiter = ",",
    ) -> None:
        super().__init__(val=val)
        if not targets:
            raise ValueError("`targets` names no column")
        self.path = user_path(path)
        given = {"val": val_path, "test": test_path}
        self.files = {split: user_path(one) for split, one in given.items() if one is not None}
        if self.files and split_column is not None:
            raise ValueError(
                f"the splits come from `split_column` or from `{next(iter(self.files))}_path`, not from both"
            )
        self.targets: dict[str, TargetType | None] = dict(
            targets if isinstance(targets, dict) else dict.fromkeys(targets)
        )
        for name, labels in self.targets.items():
            if isinstance(labels, list) and (twice := [label for label in labels if labels.count(label) > 1]):
                raise ValueError(f"the target {name!r} names the column {twice[0]!r} more than once")
        if decimal == thousands:
            raise ValueError(f"`decimal` and `thousands` are both {decimal!r}")
        self.features, self.categorical, self.levels, self.missing = features, categorical, levels, missing
        self.dates = dates if isinstance(dates, dict) else dict.fromkeys(dates, ISO)
        self.notation = Notation(decimal, thousands, tuple(self.dates.items()))
        self.split_column, self.group_column, self.test, self.seed = split_column, group_column, test, seed
        self.delimiter, self.exclude = delimiter, exclude
        self._features: Features | None = None
        self._report: TableReport | None = None
        self._no_number: dict[str, str | None] = {}  # target of classes → where it first holds no number
        self._stored: DatasetSpec | None = None
        self._source: TrainingTable | None = None  # until the first examples are read
        self._loaded: tuple[DatasetSpec, Tensor, dict[str, Tensor], TableSplits] | None = None

    def describe(self) -> DatasetSpec:
        """Reads the file, and fits what is to be fitted."""
        return self._load()[0]

    def restore(self, spec: DatasetSpec) -> DatasetSpec:
        """The features, their encoding and the targets' classes are the checkpoint's; labels may be missing here."""
        if not spec.columns:
            shape = "×".join(map(str, spec.input_shape))
            raise ConfigError(f"the checkpoint was trained on inputs {shape} of another dataset, and this is a table")
        self._stored, self._loaded = spec, None
        self._read.clear()
        self._val.clear()
        return self._load()[0]

    def type_hint(self, target: str, spec: TargetSpec) -> str:
        if spec.type == "real":
            return f"To use its numbers as classes, declare `targets: {{{target}: classes}}`"
        if spec.type != "classes":
            return ""
        if place := self._no_number.get(target):
            return f"It holds values that are no numbers, first at {place}"
        return f"It is declared as classes; to use its numbers, declare `targets: {{{target}: real}}`"

    def notes(self) -> list[str]:
        spec, inputs, _, splits = self._load()
        assert self._report is not None
        parts = {f"the split {split!r}": rows for split, rows in splits.rows.items()}
        if self._stored is not None:  # a table to evaluate, whose splits may mean nothing
            parts = {str(self.path): np.arange(len(inputs))}
        return [*self._report.notes(inputs, spec, parts), *self._repeated(splits)]

    def _repeated(self, splits: TableSplits) -> list[str]:
        """A sentence for each file of a split of which many rows are training rows too."""
        notes = []
        train = splits.hashes[splits.rows["train"]] if "train" in splits.rows else splits.hashes[:0]
        for split, path in self.files.items():
            hashes = splits.hashes[splits.rows[split]]
            known = int(np.isin(hashes, train).sum())
            if known > REPEATED * len(hashes):
                notes.append(
                    f"{known} of the {len(hashes)} rows of {path} are rows of {self.path} too, so the metrics of the "
                    f"split {split!r} are too good"
                )
        return notes

    def report(self) -> TableReport | None:
        self._load()
        return self._report

    def unseen(self, examples: Examples) -> dict[str, Unseen]:
        spec, inputs, _, _ = self._load()
        assert self._report is not None and examples.inputs is inputs
        rows = np.arange(len(inputs)) if examples.rows is None else examples.rows.numpy()
        return self._report.unseen(inputs, spec.columns, rows)

    def column_source(self) -> TrainingTable | None:
        self._load()
        return self._source

    def use_columns(self, columns: tuple[Column, ...]) -> DatasetSpec:
        spec, _, targets, splits = self._load()
        assert self._source is not None
        spec = replace(spec, input_shape=(len(columns),), columns=columns)
        self._loaded = spec, self._encoded(self._source.table, columns, splits.rows), targets, splits
        return spec

    def own_splits(self) -> tuple[str, ...]:
        return tuple(self._load()[3].rows)

    def read(self, split: str) -> Examples:
        _, inputs, targets, splits = self._load()
        self._source = None
        return Examples(inputs, targets, torch.from_numpy(splits.rows[split]))

    def whole(self) -> Examples:
        return Examples(*self._load()[1:3])

    def hashes(self, split: str) -> Hashes:
        splits = self._load()[3]
        return splits.hashes[splits.rows[split]]

    def all_hashes(self) -> Hashes:
        return self._load()[3].hashes

    def draws_test(self) -> bool:
        return self.split_column is None and not self.files

    def keys(self, split: str) -> Hashes:
        splits = self._load()[3]
        return splits.keys[splits.rows[split]]

    def hashed_columns(self) -> tuple[str, ...]:
        return self._load()[3].columns

    def _load(self) -> tuple[DatasetSpec, Tensor, dict[str, Tensor], TableSplits]:
        """The description, all inputs and targets, and the rows of each split the table has."""
        if self._loaded is None:
            table, files = self._read_files()
            classes = self._classes(table)
            splits = split_table(
                table, self.split_column, self.group_column, self.test, self.seed, classes, self.record,
                self.notation, files,
            )  # fmt: skip
            self._kept["test"] = splits.kept
            spec = self._fit(table, splits.rows) if self._stored is None else self._adopt(table, self._stored)
            table.require((column.name for column in spec.columns), "features")
            spec = replace(spec, splits=add_val_split(tuple(splits.rows), self.val))
            inputs = self._encoded(table, spec.columns, splits.rows)
            targets = {name: encode_target(table, name, one, self.notation) for name, one in spec.targets.items()}
            self._loaded = spec, inputs, targets, splits
        return self._loaded

    def _read_files(self) -> tuple[Table, dict[str, Rows] | None]:
        """The rows of all files, and those of each split where a file is one."""
        table = read_table(self.path, self.delimiter, self.missing)
        rows = {"train": np.arange(len(table))}
        for split, path in self.files.items():
            other = read_table(path, self.delimiter, self.missing)
            other.require(self._target_columns(), "targets")
            unused = {*self.exclude, *([] if self.features is None else set(table.columns).difference(self.features))}
            needed = [name for name in table.columns if name not in unused and not UNNAMED.fullmatch(name)]
            other.require(needed, f"the header of {self.path}")
            rows[split] = np.arange(len(table), len(table) + len(other))
            table = append(table, other)
        return table, rows if self.files else None

    def _encoded(self, table: Table, columns: Sequence[Column], rows: dict[str, Rows]) -> Tensor:
        train = rows.get("train", np.arange(len(table)))
        self._report = TableReport(table, columns, train, self.notation, self._features)
        return encode_columns(table, columns, self.notation)

    def _adopt(self, table: Table, stored: DatasetSpec) -> DatasetSpec:
        table.require(self._target_columns(), "targets")
        features = [column.name for column in stored.columns]
        if self.features is not None and set(self.features) != set(features):
            raise ConfigError(
                f"the checkpoint was trained on the features {listed(features)}, and `features` here are "
                f"{listed(self.features)}"
            )
        targets = {}
        for name, target in stored.targets.items():
            if name in self.targets:
                here = self.targets[name]
                if isinstance(here, list):
                    missing = any(None in table.columns[label].values for label in here)
                    targets[name] = TargetSpec("multilabel", len(here), tuple(here), missing)
                else:
                    missing = None in table.columns[name].values
                    targets[name] = replace(target, type=here or target.type, missing=missing)
        return restore_spec(stored, replace(stored, targets=targets))

    def _classes(self, table: Table) -> list[Codes]:
        """Of each target that may have classes, those of the rows; each is to keep a row to train on."""
        found: list[Codes] = []
        types = {name: None if isinstance(type_, list) else type_ for name, type_ in self.targets.items()}
        columns = {column: types.get(column) for column in self._target_columns()}
        for name, type_ in columns.items() if self._stored is None else ():
            cells = table.columns.get(name)
            if cells is None or type_ == "real":
                continue
            parsed, wrong = self.notation.numbers(cells.values, name)
            if type_ is not None or wrong or len(set(parsed[~np.isnan(parsed)])) <= 2:
                codes = np.array([-1 if value is None else at for at, value in enumerate(cells.values)])
                found.append(codes[cells.index])
        return found

    def _fit(self, table: Table, rows: dict[str, Rows]) -> DatasetSpec:
        if "train" not in rows:
            raise table.error("there are no training rows; `test` leaves none, or the split column names none")
        self._features = self._choose(table)
        train = rows["train"]
        self._source = TrainingTable(table, train, self.notation, self.categorical)
        problems: list[Problem] = []
        columns, targets = [], {}
        for name in self._features.names:
            try:
                columns.append(fit_column([self._source], name, self.levels))
            except ConfigError as error:
                problems += error.problems
        for name, type_ in self.targets.items():
            try:
                targets[name] = fit_target(table, name, train, type_, self.notation)
                if targets[name].type == "classes":
                    self._no_number[name] = find_non_number(table, name, self.notation)
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        return DatasetSpec(
            input_shape=(len(columns),),
            targets=targets,
            main_target=next(iter(targets)) if len(targets) == 1 else None,
            splits=(),
            mean=(),
            std=(),
            state={},
            columns=tuple(columns),
        )

    def _choose(self, table: Table) -> Features:
        table.require(self._target_columns(), "targets")
        for option in ("features", "exclude", "categorical", "dates"):
            table.require(getattr(self, option) or [], option)
        apart = {*self._target_columns(), *([self.split_column] if self.split_column else [])}
        exclude = [*self.exclude, *([self.group_column] if self.group_column and self.features is None else [])]
        declared = {*self.categorical, *self.dates}
        return choose_features(table, self.features, exclude, apart, declared, self.notation)

    def _target_columns(self) -> list[str]:
        return [
            column for name, type_ in self.targets.items() for column in (type_ if isinstance(type_, list) else [name])
        ]
