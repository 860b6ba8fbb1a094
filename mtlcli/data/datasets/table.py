"""Tables in files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from mtlcli.data.base import Examples, add_val_split
from mtlcli.data.datasets._split_table import SplitTable
from mtlcli.data.formats.batches import Dialect
from mtlcli.data.formats.column_encoding import MOST_CATEGORIES, TrainingTable, encode_columns, list_sources
from mtlcli.data.formats.column_report import TableReport, Unseen
from mtlcli.data.formats.feature_choice import Features, choose_features
from mtlcli.data.formats.numerals import ISO
from mtlcli.data.formats.stated_classes import note_classes
from mtlcli.data.formats.table_encoding import encode_targets, fit_table, require_training_rows, restore_table
from mtlcli.data.formats.table_options import (
    MISSING_VALUES,
    Booleans,
    Delimiter,
    Targets,
    Text,
    check_declarations,
    make_notation,
)
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.table_splits import TableSplits, note_repeated_rows, read_split_files, split_table
from mtlcli.data.formats.tag_columns import list_tag_columns
from mtlcli.data.formats.target_columns import (
    check_targets,
    find_non_number,
    list_class_codes,
    list_target_columns,
    list_text_columns,
)
from mtlcli.data.formats.text_features import FEATURES, Ngrams
from mtlcli.data.formats.text_inputs import Pairs, TextReport, check_texts, choose_texts, select_texts, with_texts
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.weight_column import encode_weights
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError
from mtlcli.files import user_path
from mtlcli.registry import datasets
from mtlcli.specs import MOST_CLASSES, Column, DatasetSpec


@datasets.register("table", aliases=("csv",))
class TableDataset(SplitTable):
    r"""Table in a file: CSV, TSV, JSON Lines or Parquet; also named `csv`.

    One column per feature and per target. Text may be compressed (.gz, .zst). Delimited text has a header in its first
    line; JSON Lines has a flat object in each line, in which a missing key is a missing value.

    Inputs: float32 [columns], numbers and codes of categories. The trunk `tabular` embeds categories; for other trunks
    the model encodes them as one-hot vectors and standardizes the numbers. A missing number is replaced by the mean. A
    missing category, or one that doesn't occur in training, is encoded as zeros (the trunk `tabular` has an embedding
    for missing ones). An example with a missing target is excluded from that task's loss and metrics.

    Statistics, categories and classes are fitted on the training rows, including those that `val` is drawn from, and
    are stored in the checkpoint. Errors in the file are reported with their lines.

    Args:
        path: file whose name ends with its format: .jsonl or .ndjson, .parquet; all others are delimited text.
        test_path: separate file of the split `test`, with the same columns. `path` is then used for training (and for
            `val` unless `val_path` is set).
        val_path: separate file of the split `val`, likewise.
        targets: columns to predict, or `{column: type}` with the type `classes`, `binary`, `real`, `tags` for a
            label of each word of the text, or `text` for answers of a language model. A list of columns of 0 and 1
            instead of a type is one multilabel target: `{topics: [news, sport, money]}`. A column without a type is
            binary if all cells are 0 or 1, real if all are numbers, and classes if none is; a mixture is an error. A
            column of class numbers needs the type `classes`. `{column: {classes: [low, high]}}` states the classes in
            their order; other values are an error, or missing labels with `others: missing`. `{}`
            for two columns of `text` without labels, whose only target is `pair`, see the kind `contrastive`.
        features: columns to use as inputs. Default: all columns except targets and split, columns without a name, and
            columns that only number or identify the rows, which are left out with a note; see docs/tables.md for the
            rules. Columns listed here, in `categorical`, `dates`, `booleans` or `text` are always used.
        exclude: columns not to use as features, if `features` is not set.
        categorical: feature columns of numbers to treat as categories; columns without numbers always are. In a column
            not listed here, a mixture of numbers and other values is an error.
        levels: maximum number of categories of a column that is not listed in `categorical`.
        missing: cells that mean a missing value, in addition to empty ones. Default: pandas' list with `-`, `--`, `?`
            and `none`; a list given here replaces it.
        decimal: decimal mark of numbers.
        thousands: mark between groups of three digits.
        dates: columns of dates, which are read as days since 1970-01-01 (UTC): a list of columns in ISO 8601, or
            `{column: format}` with a format of Python's `strptime`, such as "%d.%m.%Y".
        booleans: columns of truth values, read as 1 and 0: a list of columns of `true`/`false`, `t`/`f`, `yes`/`no`,
            `y`/`n`, `on`/`off` or 1/0, in any case; or `{column: [word for 1, word for 0]}`, such as [ja, nein].
        text: columns of text, each encoded as 512 features: hashed TF-IDF of its words, see docs/tables.md. Or
            `{column: number of features}`. A trunk that reads text gets one column, or two as a pair, as tokens.
        ngrams: longest sequence of words of a text that is counted: 2 also counts pairs of words.
        pairs: for a trunk that reads two texts: `joint` encodes them in one sequence, `separate` one by one. Default:
            separate if a task of the kind `similarity` or `contrastive` compares them.
        split_column: column with the value `train`, `val` or `test` in each row.
        group_column: column whose equal values stay in one split, such as a patient or a site. With a unique id, a
            row's split doesn't depend on its other cells. Not used as a feature unless listed in `features`.
        weight_column: column of the rows' weights in losses and metrics, at least 0. Likewise not used as a feature.
        test: without `split_column` and `test_path`, share of the rows that becomes the split `test`. Membership
            depends on a row's cells and `seed`, not on its position, so no row moves when others are added, removed or
            reordered. Identical rows (up to 10) share a split, and every class keeps a training row.
        seed: seed of the split `test`; independent of the run's seed.
        val: share of the training rows that becomes the split `val`, drawn by the run's seed, unless the table has one.
        delimiter: character between values of delimited text; `\t` for a tab, which is the default in a .tsv file.

    Raises:
        ValueError: options contradict each other.
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
        categorical: list[str] = [],  # noqa: B006  (never modified)
        levels: Annotated[int, Field(ge=2, le=MOST_CLASSES)] = MOST_CATEGORIES,
        missing: list[str] = MISSING_VALUES,
        decimal: Literal[".", ","] = ".",
        thousands: Literal["", ",", ".", " ", "'"] = "",
        dates: list[str] | dict[str, str] = [],  # noqa: B006
        booleans: Booleans = [],  # noqa: B006
        text: Text = [],  # noqa: B006
        ngrams: Ngrams = 1,
        pairs: Pairs | None = None,
        split_column: str | None = None,
        group_column: str | None = None,
        weight_column: str | None = None,
        test: Annotated[float, Field(ge=0, le=1)] = 0.2,
        seed: Annotated[int, Field(ge=0)] = 0,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        delimiter: Delimiter = ",",
    ) -> None:
        super().__init__(val=val)
        paths = {"train": path, "val": val_path, "test": test_path}
        self.paths = {split: user_path(file) for split, file in paths.items() if file is not None}
        if len(self.paths) > 1 and split_column is not None:
            raise ValueError(f"splits come either from `split_column` or from `{list(self.paths)[1]}_path`, not both")
        self.features, self.categorical, self.levels, self.missing = features, categorical, levels, missing
        self.dates = dates if isinstance(dates, dict) else dict.fromkeys(dates, ISO)
        self.booleans = booleans if isinstance(booleans, dict) else dict.fromkeys(booleans, ())
        self.text, self.ngrams = text if isinstance(text, dict) else dict.fromkeys(text, FEATURES), ngrams
        self.notation = make_notation(decimal, thousands, self.dates, self.booleans)
        self.targets = check_targets(targets, self.notation, len(self.text) == 2)
        check_declarations(categorical=categorical, dates=self.dates, booleans=self.booleans, text=self.text)
        self.split_column, self.group_column, self.test, self.seed = split_column, group_column, test, seed
        lists = {*list_tag_columns(self.targets), *self.text}
        self.dialect, self.exclude = Dialect(delimiter, missing, self.notation, lists=lists), exclude
        self.weight_column, self.pairs = weight_column, pairs
        self._features: Features | None = None
        self._report: TableReport | None = None
        self._source: TrainingTable | None = None  # released when the first examples are read
        self._loaded: tuple[DatasetSpec, Tensor | TextRows, dict[str, Tensor], TableSplits] | None = None

    def keep_texts(self, max_length: int, compared: bool) -> None:
        tags = list_tag_columns(self.targets)
        self._texts = choose_texts(list(self.text), max_length, tags, self.pairs, compared)

    def describe(self) -> DatasetSpec:
        """Read the file, and fit the encoding of the columns."""
        return self._load()[0]

    def restore(self, spec: DatasetSpec) -> DatasetSpec:
        """Use a checkpoint's features, encoding and classes; labels may be missing in this table.

        Args:
            spec: specification stored in the checkpoint.

        Returns:
            The specification with the splits of this table.

        Raises:
            ConfigError: the table doesn't match the checkpoint.
        """
        if not spec.columns and spec.text is None:
            shape = "×".join(map(str, spec.input_shape))
            raise ConfigError(f"the checkpoint was trained on inputs {shape} of another dataset, but this is a table")
        return super().restore(spec)

    def notes(self) -> list[str]:
        spec, inputs, _, splits = self._load()
        assert self._report is not None
        subsets = {f"the split {split!r}": rows for split, rows in splits.rows.items()}
        if self._stored is not None:  # a table to evaluate, whose splits may be meaningless
            subsets = {str(self.paths["train"]): np.arange(len(inputs))}
        notes = [*self._report.notes(inputs, spec, subsets), *note_repeated_rows(splits, self.paths)]
        if any(isinstance(type_, dict) for type_ in self.targets.values()):
            train = splits.rows.get("train", np.arange(len(inputs)))
            notes += note_classes(self._report.table, self.targets, spec.targets, train, self.notation)
        return notes

    def report(self) -> TableReport | None:
        self._load()
        return self._report

    def unseen(self, examples: Examples) -> dict[str, Unseen]:
        spec, inputs = self._load()[:2]
        assert self._report is not None and (self._texts is not None or examples.inputs is inputs)
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

    def read(self, split: str) -> Examples:
        self._source = None
        return super().read(split)

    def hashed_columns(self) -> tuple[str, ...]:
        return self._load()[3].columns

    def _load(self) -> tuple[DatasetSpec, Tensor | TextRows, dict[str, Tensor], TableSplits]:
        """Return the specification, all inputs and targets, and the rows of each split."""
        if self._loaded is None:
            table, files = self._read_files()
            codes = [] if self._stored is not None else list_class_codes(table, self.targets, self.notation)
            splits = split_table(
                table, self.split_column, self.group_column, self.test, self.seed, codes, self.record,
                self.notation, files,
            )  # fmt: skip
            self._kept["test"] = splits.kept
            if self._stored is None:
                spec = self._fit(table, splits.rows)
            else:
                spec = restore_table(table, self._stored, None if self._texts else self.features, self.targets)
            table.require(list_sources(spec.columns), "features")
            spec = replace(spec, splits=add_val_split(tuple(splits.rows), self.val))
            inputs = self._encoded(table, spec.columns, splits.rows)
            targets = encode_targets(table, spec, self.targets, self.notation)
            if self.weight_column is not None:
                self._weights = encode_weights(table, self.weight_column, self.notation)
            self._loaded = spec, inputs, targets, splits
        return self._loaded

    def _read_files(self) -> tuple[Table, dict[str, Rows] | None]:
        required = [*list_target_columns(self.targets), *filter(None, [self.weight_column])]
        texts = list_text_columns(self.targets, self.split_column, self.group_column, *self.categorical, *self.text)
        return read_split_files(self.paths, self.dialect, texts, required, self.features, self.exclude)

    def _encoded(self, table: Table, columns: Sequence[Column], rows: dict[str, Rows]) -> Tensor | TextRows:
        train = rows.get("train", np.arange(len(table)))
        if self._texts is not None:
            self._report = TextReport(table, self._texts, train, self.notation, self._reserved())
            return select_texts(table, self._texts, list_tag_columns(self.targets))
        self._report = TableReport(table, columns, train, self.notation, self._features)
        return encode_columns(table, columns, self.notation)

    def _fit(self, table: Table, rows: dict[str, Rows]) -> DatasetSpec:
        train = require_training_rows(table, rows)
        source = TrainingTable(table, train, self.notation, self.categorical, self.text, self.ngrams)
        if self._texts is not None:
            self._check_columns(table)
            check_texts(table, self._texts, train)
            spec = with_texts(fit_table(source, (), self.levels, self.targets), self._texts)
        else:
            self._features, self._source = self._choose_features(table), source
            spec = fit_table(source, self._features.names, self.levels, self.targets)
        for name, target in spec.targets.items():
            if target.type == "classes":
                self._non_numbers[name] = find_non_number(table, name, self.notation)
        return spec

    def _check_columns(self, table: Table) -> None:
        table.require(list_target_columns(self.targets), "targets")
        for option in ("features", "exclude", "categorical", "dates", "booleans", "text"):
            table.require(getattr(self, option) or [], option)

    def _reserved(self) -> set[str]:
        """Columns of targets, splits, groups and weights, and excluded ones."""
        named = [self.split_column, self.group_column, self.weight_column, *self.exclude]
        return {*list_target_columns(self.targets), *filter(None, named)}

    def _choose_features(self, table: Table) -> Features:
        self._check_columns(table)
        reserved = {*list_target_columns(self.targets), *filter(None, [self.split_column])}
        used = filter(None, [self.group_column, self.weight_column] if self.features is None else [])
        declared = {*self.categorical, *self.dates, *self.booleans, *self.text}
        return choose_features(table, self.features, [*self.exclude, *used], reserved, declared, self.notation)
