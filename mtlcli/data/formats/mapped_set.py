"""Splits of a data set whose rows are read by index from memory-mapped files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.content_hash import mix_bits
from mtlcli.data.examples import Examples
from mtlcli.data.fingerprint import DataRecord
from mtlcli.data.formats.arrow_tables import to_table
from mtlcli.data.formats.column_encoding import TrainingTable
from mtlcli.data.formats.column_report import TableReport, Unseen
from mtlcli.data.formats.feature_choice import Features
from mtlcli.data.formats.hub_sets import OpenedSet, import_datasets, open_set
from mtlcli.data.formats.set_images import MappedCells, SetImages, describe_images, restore_preparation, with_size
from mtlcli.data.formats.set_layout import SetLayout, SetOptions
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.table_splits import TableSplits, note_repeated_rows, split_table
from mtlcli.data.formats.target_columns import list_class_codes
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.samplers.base import Rows
from mtlcli.data.splitting import add_val_split
from mtlcli.errors import ConfigError
from mtlcli.specs import Column, DatasetSpec
from mtlcli.text import join_names


class MappedSet:
    """Encoded rows of a data set.

    Args:
        options: options of the columns and splits.
        stored: specification stored in a checkpoint, or None to fit one.
        record: record of a checkpoint's data, or None.

    Attributes:
        spec: the specification.
        splits: rows of each split.
        whole: the examples of all splits.
        report: report on the columns.
        source: table on which columns can be fitted jointly with other tables; None for a stored specification.
        draws_test: True if `test` is drawn.
    """

    def __init__(self, options: SetOptions, stored: DatasetSpec | None, record: DataRecord | None) -> None:
        self.options = options
        self._opened: OpenedSet = open_set(options.path, options.config, options.revision, options.splits)
        self.draws_test = list(self._opened.splits) == ["train"]
        self.layout = layout = SetLayout(options, self._opened.features)
        table, rows = self._read_table()
        classes = [] if stored is not None else list_class_codes(table, layout.encoding.targets, options.notation)
        positions = None if layout.image is None else mix_bits(np.arange(len(table), dtype=np.uint64))
        self.splits: TableSplits = split_table(
            table, None, options.group_column, options.test, options.seed, classes, record, options.notation,
            None if self.draws_test else rows, positions,
        )  # fmt: skip
        self.source: TrainingTable | None = None
        self._features: Features | None = None
        if stored is not None:
            layout.check(stored)
            spec = layout.encoding.restore(table, stored, options.features)
        elif "train" not in self.splits.rows:
            names = join_names(list(self.splits.rows))
            raise ConfigError(f"{options.path}: has no training rows; its splits: {names}")
        else:
            spec, self._features, self.source = layout.fit(table, self.splits.rows["train"])
        self.spec = replace(spec, splits=add_val_split(self.own_splits, options.val))
        inputs: Tensor | SetImages | TextRows
        if layout.image is None:
            inputs, self.report = self._encode(table)
        else:
            inputs = self._open_images(layout.image, table, stored)
            self.report = TableReport(table, (), np.arange(0), options.notation, None)
        targets, weights = layout.encoding.encode_targets(table, spec), layout.encoding.encode_weights(table)
        self.whole = Examples(inputs, targets, weights=weights)

    @property
    def own_splits(self) -> tuple[str, ...]:
        """The splits that don't depend on the seed of a run."""
        return tuple(self.splits.rows)

    def read(self, split: str) -> Examples:
        """Return the examples of a split."""
        self.source = None
        return replace(self.whole, rows=torch.from_numpy(self.splits.rows[split]))

    def unseen(self, examples: Examples) -> dict[str, Unseen]:
        """Count missing and unknown values, see `Dataset.unseen`."""
        if not isinstance(self.whole.inputs, Tensor | TextRows):
            return {}
        rows = np.arange(len(self.whole)) if examples.rows is None else examples.rows.numpy()
        return self.report.unseen(self.whole.inputs, self.spec.columns, rows)

    def use_columns(self, columns: tuple[Column, ...]) -> DatasetSpec:
        """Encode the inputs by columns fitted jointly with other tables, see `Dataset.use_columns`."""
        assert self.source is not None
        self.spec = replace(self.spec, input_shape=(len(columns),), columns=columns)
        inputs, self.report = self._encode(self.source.table)
        self.whole = replace(self.whole, inputs=inputs)
        return self.spec

    def notes(self) -> list[str]:
        """List facts that the user should know, in one sentence each."""
        inputs: Tensor | TextRows = torch.empty(len(self.whole), 0)
        subsets = {}
        if isinstance(self.whole.inputs, Tensor | TextRows):
            inputs = self.whole.inputs
            subsets = {f"the split {split!r}": rows for split, rows in self.splits.rows.items()}
        notes = self.report.notes(inputs, self.spec, subsets)
        paths = {split: Path(f"{self.options.path} (split {split})") for split in self.splits.rows}
        notes += note_repeated_rows(self.splits, paths)
        return [*notes, *self._opened.notes(), *self.layout.notes()]

    def _read_table(self) -> tuple[Table, dict[str, Rows]]:
        """Return the rows of all splits, and split → rows."""
        sets, columns = self._opened.splits, self.layout.columns
        chosen = {split: rows.select_columns(columns).with_format("arrow")[:] for split, rows in sets.items()}
        table = to_table(self.options.path, chosen, self.layout.rule)
        ends = np.cumsum([len(rows) for rows in sets.values()]).tolist()
        return table, {split: np.arange(end - len(sets[split]), end) for split, end in zip(sets, ends, strict=True)}

    def _open_images(self, column: str, table: Table, stored: DatasetSpec | None) -> SetImages:
        """Return the images of all rows, and complete the specification by that of images."""
        library = import_datasets()
        sets = [rows.select_columns([column]) for rows in self._opened.splits.values()]
        cells = MappedCells(library.concatenate_datasets(sets), column)
        place = replace(table, columns={}).place  # without the cells, since workers receive a copy
        if stored is not None:
            return SetImages(cells, restore_preparation(stored, self.options.prepare), place)
        train = self.splits.rows["train"]
        images = with_size(SetImages(cells, self.options.prepare, place), train)
        self.spec = describe_images(self.spec, images, train, images.prepare, self.options.normalize)
        return images

    def _encode(self, table: Table) -> tuple[Tensor | TextRows, TableReport]:
        train = self.splits.rows.get("train", np.arange(len(table)))
        return self.layout.encode(table, self.spec, train, self._features)
