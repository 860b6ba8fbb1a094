"""Rows of the shards of a streamed data set, encoded chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from mtlcli.data.formats.arrow_tables import TableRule, to_table
from mtlcli.data.formats.set_layout import SetLayout
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.text_inputs import select_texts
from mtlcli.data.samplers.base import Rows
from mtlcli.data.splitting import Mask
from mtlcli.data.streams.row_stream import ROW, Block
from mtlcli.errors import MtlError
from mtlcli.specs import DatasetSpec

CHUNK = 4096  # rows that are read and encoded at once
IMAGES = 256  # the same, of images, which are kept as they are stored until they are emitted
INPUTS, WEIGHTS, TARGET = "inputs", "weights", "target "  # names in a block; that of a target follows


class SetRows:
    """Rows of a split of a streamed data set.

    Args:
        path: path or id of the set, for messages.
        split: name of the split, for messages.
        rows: `datasets.IterableDataset`.
        sizes: number of rows of each shard; a single number if only that of all rows is known.
        layout: use of the columns.
        spec: specification by which rows are encoded.
    """

    def __init__(
        self, path: str, split: str, rows: Any, sizes: Sequence[int], layout: SetLayout, spec: DatasetSpec
    ) -> None:
        self.path, self.split, self.rows, self.sizes = path, split, rows, sizes
        self.layout, self.spec = layout, spec
        numbers = {column.name for column in spec.columns if column.levels is None and column.text is None}
        self.rule = replace(layout.rule, numbers=numbers - {*layout.rule.texts})

    def read(self, shard: int, wanted: Callable[[int, int], Mask | None]) -> Iterator[Block]:
        """Read and encode rows of a shard, see `RowSource`.

        Args:
            shard: index of the shard.
            wanted: function that chooses the rows of a chunk.

        Yields:
            Blocks of the wanted rows.

        Raises:
            MtlError: the shard has another number of rows than expected.
        """
        offset, first = sum(self.sizes[:shard]), 0
        size = CHUNK if self.layout.image is None else IMAGES
        for chunk in iterate_chunks(self.rows, shard, len(self.sizes), size):
            chosen = wanted(first, len(chunk)) if first + len(chunk) <= self.sizes[shard] else None
            if chosen is not None:
                rows = np.flatnonzero(chosen)
                yield self._encode(chunk if chosen.all() else chunk.take(rows), offset + first + rows)
            first += len(chunk)
        if first != self.sizes[shard]:
            where = f" in its shard {shard + 1} of {len(self.sizes)}" if len(self.sizes) > 1 else ""
            raise MtlError(
                f"{self.path}: split {self.split!r}: {first:,} rows{where}, but {self.sizes[shard]:,} were expected: "
                f"the files have changed, or the option `rows` is wrong"
            )

    def _encode(self, chunk: Any, numbers: Rows) -> Block:
        table, encoding = (
            to_set_table(self.path, self.split, chunk, numbers, self.layout, self.rule),
            self.layout.encoding,
        )
        block: Block = {ROW: numbers}
        if (texts := self.layout.options.texts) is not None:
            block[INPUTS] = np.empty(len(numbers), object)
            for at, row in enumerate(chain.from_iterable(select_texts(table, texts).blocks())):
                block[INPUTS][at] = row
        elif self.layout.image is None:
            block[INPUTS] = encoding.encode_inputs(table, self.spec).numpy()
        else:
            block[INPUTS] = np.empty(len(numbers), object)
            block[INPUTS][:] = chunk.column(self.layout.image).to_pylist()
        for name, labels in encoding.encode_targets(table, self.spec).items():
            block[TARGET + name] = labels.numpy()
        if (weights := encoding.encode_weights(table)) is not None:
            block[WEIGHTS] = weights.numpy()
        return block


def iterate_chunks(rows: Any, shard: int, shards: int, size: int = CHUNK) -> Iterator[Any]:
    """Read a shard of a streamed split.

    Args:
        rows: `datasets.IterableDataset`.
        shard: index of the shard.
        shards: number of shards; 1 reads all rows.
        size: maximum number of rows in a chunk.

    Yields:
        Chunks, `pyarrow.Table`.

    Raises:
        MtlError: the data can't be read.
    """
    if shards > 1:
        rows = rows.shard(shards, shard)
    try:
        yield from rows.with_format("arrow").iter(batch_size=size)
    except MtlError:
        raise
    except Exception as error:  # of the library and those below it
        raise MtlError(f"can't be read: {type(error).__name__}: {' '.join(str(error).split())}") from error


def to_set_table(
    path: str, split: str, chunk: Any, numbers: Rows, layout: SetLayout, rule: TableRule | None = None
) -> Table:
    """Convert a chunk of rows to a table, with missing values in columns that it lacks.

    Args:
        path: path or id of the data set, for messages.
        split: name of the split, for messages.
        chunk: `pyarrow.Table`.
        numbers: number of each row in the split.
        layout: use of the columns.
        rule: rule by which the columns become cells; None for that of the layout.

    Returns:
        The table.
    """
    import pyarrow as pa

    for name in layout.columns:
        if name not in chunk.column_names:
            chunk = chunk.append_column(name, pa.nulls(len(chunk)))
    return to_table(path, {split: chunk.select(layout.columns)}, rule or layout.rule, numbers.tolist())


def count_rows(rows: Any, files: Sequence[str]) -> list[int]:
    """Count the rows of each shard of a streamed split.

    Those of local Parquet files are read from the ends of the files; of others, all rows are read once.

    Args:
        rows: `datasets.IterableDataset`.
        files: the files of the split, if known; then each is a shard.

    Returns:
        Number of rows of each shard.
    """
    shards: int = rows.num_shards
    if len(files) == shards and all(name.endswith(".parquet") and "://" not in name for name in files):
        from pyarrow.parquet import read_metadata

        return [int(read_metadata(name).num_rows) for name in files]
    return [sum(len(chunk) for chunk in iterate_chunks(rows, shard, shards)) for shard in range(shards)]
