"""Data sets of the library `datasets`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mtlcli.data.base import Dataset, Examples, add_val_split
from mtlcli.data.content_hash import Hashes
from mtlcli.data.formats.arrow_tables import SetColumns, list_columns, to_table
from mtlcli.data.formats.column_encoding import MOST_CATEGORIES, TrainingTable
from mtlcli.data.formats.column_report import TableReport, Unseen
from mtlcli.data.formats.feature_choice import Features, choose_features
from mtlcli.data.formats.hub_sets import open_sets
from mtlcli.data.formats.numerals import ISO, Notation
from mtlcli.data.formats.set_encoding import SetEncoding, SetTargets, split_targets
from mtlcli.data.formats.table_options import Text, check_declarations
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.table_splits import TableSplits, note_repeated_rows, split_table
from mtlcli.data.formats.target_columns import check_targets, list_class_codes, list_target_columns
from mtlcli.data.formats.text_features import FEATURES, Ngrams
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError
from mtlcli.registry import datasets
from mtlcli.specs import MOST_CLASSES, Column, DatasetSpec, TargetSpec
from mtlcli.text import join_names


@datasets.register("huggingface")
class HuggingFace(Dataset):
    """Data set of the library `datasets`: local files or folders, or a set of the Hugging Face hub.

    Reads CSV, JSON lines, Parquet and Arrow files, folders written by `save_to_disk`, folders of images (the builder
    `imagefolder`) and sets on the hub that consist of such files. Scripts are never run. A set on the hub is downloaded
    to the library's cache (`$HF_HOME`); with `HF_HUB_OFFLINE=1` only the cache is used.

    Inputs: float32 [columns], encoded as those of the dataset `table`. Rows are read from memory-mapped Arrow files.

    Targets: columns of the set. A `ClassLabel` has the classes of the set, in its order; texts are classes; booleans
    are binary; numbers as in a table. A column of lists is a multilabel target, whose labels are those of the training
    rows or of the set's `ClassLabel`. A null is a missing label.

    Args:
        path: folder, file, pattern of files (`shards/*.parquet`), or id of a set on the hub (`owner/name`). A file or
            folder is preferred.
        config: configuration of the set; default: its only or default one.
        revision: branch, tag or commit of a set on the hub.
        splits: `{train: NAME, val: NAME, test: NAME}`, where each name is one of the set's splits, or a file or pattern
            of files in the folder. Default: the set's splits `train`, `validation` (`val`, `valid`, `dev`) and `test`.
        targets: columns to predict, or `{column: type}` with the type `classes`, `binary`, `real`, or `multilabel` for
            a column of lists. A list of columns of 0 and 1 instead of a type is one multilabel target, and `{classes:
            [NAME, …]}` states the classes in their order.
        features: columns to use as inputs. Default: all columns of numbers, booleans, dates and texts, except targets
            and columns that only number or identify the rows, as in a table.
        exclude: columns not to use as features, if `features` is not set.
        categorical: feature columns of numbers to treat as categories.
        levels: maximum number of categories of a column that is not listed in `categorical`.
        missing: texts that mean a missing value, in addition to null, NaN and the empty text.
        dates: feature columns of dates or times, which are read as days since 1970-01-01 (UTC).
        text: feature columns of text, each encoded as 512 features: hashed TF-IDF of its words, see docs/tables.md. Or
            `{column: number of features}`.
        ngrams: longest sequence of words of a text that is counted.
        group_column: column whose equal values stay in one split. Not used as a feature unless listed in `features`.
        weight_column: column of the rows' weights in losses and metrics, at least 0; 0 excludes a row. Not used as a
            feature unless listed in `features`.
        test: share of the rows that becomes the split `test`, if the set has only the split `train`. Membership depends
            on a row's values, not on its position, see the dataset `table`.
        seed: seed of the split `test`; independent of the run's seed.
        val: share of the training rows that becomes the split `val`, drawn by the run's seed, if there is no such
            split; by the same rule.
    """

    origin = "local files or the Hugging Face hub"

    def __init__(
        self,
        *,
        path: str,
        config: str | None = None,
        revision: str | None = None,
        splits: dict[str, str] = {},  # noqa: B006  (never modified)
        targets: SetTargets,
        features: list[str] | None = None,
        exclude: list[str] = [],  # noqa: B006
        categorical: list[str] = [],  # noqa: B006
        levels: Annotated[int, Field(ge=2, le=MOST_CLASSES)] = MOST_CATEGORIES,
        missing: list[str] = [],  # noqa: B006
        dates: list[str] = [],  # noqa: B006
        text: Text = [],  # noqa: B006
        ngrams: Ngrams = 1,
        group_column: str | None = None,
        weight_column: str | None = None,
        test: Annotated[float, Field(ge=0, le=1)] = 0.2,
        seed: Annotated[int, Field(ge=0)] = 0,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__(val=val)
        if wrong := [split for split in splits if split not in ("train", "val", "test")]:
            raise ValueError(f"`splits` names the split {wrong[0]!r}; expected train, val or test")
        self.path, self.config, self.revision, self.split_names = path, config, revision, splits
        self.declared = check_targets(targets)
        self.features, self.exclude, self.missing = features, exclude, missing
        self.categorical, self.levels, self.dates = categorical, levels, dates
        self.text, self.ngrams = text if isinstance(text, dict) else dict.fromkeys(text, FEATURES), ngrams
        check_declarations(categorical=categorical, dates=dates, text=self.text)
        self.notation = Notation(dates=tuple((name, ISO) for name in dates))
        self.group_column, self.weight_column, self.test, self.seed = group_column, weight_column, test, seed
        self._sets: dict[str, Any] = {}  # split → `datasets.Dataset`
        self._others: list[str] = []  # splits of the set that are not used
        self._columns = SetColumns({}, [], [], [], [])
        self._features: Features | None = None
        self._report: TableReport | None = None
        self._stored: DatasetSpec | None = None
        self._source: TrainingTable | None = None  # released when the first examples are read
        self._loaded: tuple[DatasetSpec, Examples, TableSplits] | None = None

    def describe(self) -> DatasetSpec:
        """Open the set, and fit the encoding of the columns."""
        return self._load()[0]

    def restore(self, spec: DatasetSpec) -> DatasetSpec:
        """Use a checkpoint's features, encoding and classes; labels may be missing in this set.

        Args:
            spec: specification stored in the checkpoint.

        Returns:
            The specification with the splits of this set.

        Raises:
            ConfigError: the set doesn't match the checkpoint.
        """
        self._stored, self._loaded = spec, None
        self._read.clear()
        self._val.clear()
        return self._load()[0]

    def type_hint(self, target: str, spec: TargetSpec) -> str:
        other = {"real": "classes", "classes": "real"}.get(spec.type)
        return f"To change the type, declare `targets: {{{target}: {other}}}`" if other else ""

    def notes(self) -> list[str]:
        spec, whole, splits = self._load()
        assert self._report is not None and isinstance(whole.inputs, Tensor)
        subsets = {f"the split {split!r}": rows for split, rows in splits.rows.items()}
        notes = self._report.notes(whole.inputs, spec, subsets)
        notes += note_repeated_rows(splits, {split: Path(f"{self.path} (split {split})") for split in splits.rows})
        if self._others:
            notes.append(f"splits of the set that are not used: {join_names(self._others)}; choose by `splits`")
        if (unused := self._unusable()) and self.features is None:
            notes.append(f"not used as features, since they hold lists, records or images: {join_names(unused)}")
        return notes

    def report(self) -> TableReport | None:
        self._load()
        return self._report

    def unseen(self, examples: Examples) -> dict[str, Unseen]:
        spec, whole, _ = self._load()
        assert self._report is not None and isinstance(whole.inputs, Tensor)
        rows = np.arange(len(whole)) if examples.rows is None else examples.rows.numpy()
        return self._report.unseen(whole.inputs, spec.columns, rows)

    def column_source(self) -> TrainingTable | None:
        self._load()
        return self._source

    def use_columns(self, columns: tuple[Column, ...]) -> DatasetSpec:
        spec, whole, splits = self._load()
        assert self._source is not None
        spec = replace(spec, input_shape=(len(columns),), columns=columns)
        self._loaded = spec, replace(whole, inputs=self._encode(self._source.table, spec, splits.rows)), splits
        return spec

    def own_splits(self) -> tuple[str, ...]:
        return tuple(self._load()[2].rows)

    def read(self, split: str) -> Examples:
        _, whole, splits = self._load()
        self._source = None
        return replace(whole, rows=torch.from_numpy(splits.rows[split]))

    def whole(self) -> Examples:
        return self._load()[1]

    def hashes(self, split: str) -> Hashes:
        splits = self._load()[2]
        return splits.hashes[splits.rows[split]]

    def all_hashes(self) -> Hashes:
        return self._load()[2].hashes

    def draws_test(self) -> bool:
        return list(self._open()) == ["train"]

    def keys(self, split: str) -> Hashes:
        splits = self._load()[2]
        return splits.keys[splits.rows[split]]

    def hashed_columns(self) -> tuple[str, ...]:
        return self._load()[2].columns

    def _open(self) -> dict[str, Any]:
        """Return split → `datasets.Dataset`. ConfigError if the splits have different columns."""
        if not self._sets:
            self._sets, self._others = open_sets(self.path, self.config, self.revision, self.split_names)
            (first, rows), *others = self._sets.items()
            for split, other in others:
                if differing := set(rows.column_names) ^ set(other.column_names):
                    names = join_names(sorted(differing))
                    raise ConfigError(f"{self.path}: only one of the splits {first!r} and {split!r} has {names}")
            self._columns = list_columns(rows.features)
        return self._sets

    def _unusable(self) -> list[str]:
        """Return the columns that can be neither features nor targets, and the lists that are not targets."""
        names = [*self._columns.unusable, *self._columns.lists, *self._columns.images]
        return [name for name in names if name not in list_target_columns(self.declared)]

    def _class_names(self) -> dict[str, Sequence[str]]:
        """Return the names of class numbers, by column, except for targets that are declared as numbers."""
        numbers = {name for name, type_ in self.declared.items() if type_ in ("binary", "real")}
        return {name: names for name, names in self._columns.names.items() if name not in numbers}

    def _encoding(self) -> SetEncoding:
        targets, lists = split_targets(self.path, self.declared, self._columns)
        return SetEncoding(
            targets, lists, self.notation, self.categorical, self.levels, self.text, self.ngrams, self.weight_column
        )

    def _load(self) -> tuple[DatasetSpec, Examples, TableSplits]:
        """Return the specification, the examples of all splits, and the rows of each split."""
        if self._loaded is None:
            table, rows = self._read_table()
            encoding = self._encoding()
            classes = [] if self._stored is not None else list_class_codes(table, encoding.targets, self.notation)
            splits = split_table(
                table, None, self.group_column, self.test, self.seed, classes, self.record, self.notation,
                None if self.draws_test() else rows,
            )  # fmt: skip
            self._kept["test"] = splits.kept
            if self._stored is None:
                spec = self._fit(table, splits.rows, encoding)
            else:
                spec = encoding.restore(table, self._stored, self.features)
            spec = replace(spec, splits=add_val_split(tuple(splits.rows), self.val))
            inputs = self._encode(table, spec, splits.rows)
            whole = Examples(inputs, encoding.encode_targets(table, spec), weights=encoding.encode_weights(table))
            self._loaded = spec, whole, splits
        return self._loaded

    def _read_table(self) -> tuple[Table, dict[str, Rows]]:
        """Return the rows of all splits, and split → rows."""
        sets = self._open()
        first, unused = next(iter(sets.values())), self._unusable()
        names = [name for name in first.column_names if name not in unused]
        chosen = {split: rows.select_columns(names).with_format("arrow")[:] for split, rows in sets.items()}
        table = to_table(self.path, chosen, self.missing, self._class_names())
        ends = np.cumsum([len(rows) for rows in sets.values()]).tolist()
        return table, {split: np.arange(end - len(sets[split]), end) for split, end in zip(sets, ends, strict=True)}

    def _fit(self, table: Table, rows: dict[str, Rows], encoding: SetEncoding) -> DatasetSpec:
        if "train" not in rows:
            raise ConfigError(f"{self.path}: the set has no training rows; its splits: {join_names(list(rows))}")
        self._features = self._choose_features(table)
        self._source = encoding.source(table, rows["train"])
        return encoding.fit(self._source, self._features.names)

    def _encode(self, table: Table, spec: DatasetSpec, rows: dict[str, Rows]) -> Tensor:
        train = rows.get("train", np.arange(len(table)))
        self._report = TableReport(table, spec.columns, train, self.notation, self._features)
        return self._encoding().encode_inputs(table, spec)

    def _choose_features(self, table: Table) -> Features:
        table.require(list_target_columns(self.declared), "targets")
        unusable = self._unusable()
        if wrong := [name for name in self.features or () if name in unusable]:
            raise ConfigError(f"{self.path}: the feature column {wrong[0]!r} holds lists, records or images")
        for option in ("features", "exclude", "categorical", "dates", "text"):
            table.require((name for name in getattr(self, option) or () if name not in unusable), option)
        used = [column for column in (self.group_column, self.weight_column) if column]
        table.require(used, "group_column` or `weight_column")
        exclude = [*self.exclude, *(used if self.features is None else [])]
        declared = {*self.categorical, *self.dates, *self.text}
        reserved = list_target_columns(self.declared)
        return choose_features(table, self.features, exclude, reserved, declared, self.notation)
