"""Splits of a data set that are read in sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mtlcli.data.content_hash import mix_bits
from mtlcli.data.fingerprint import DataRecord, Fingerprint
from mtlcli.data.formats.column_report import TableReport
from mtlcli.data.formats.hub_sets import OpenedSet, import_datasets, open_set
from mtlcli.data.formats.image_statistics import SAMPLED
from mtlcli.data.formats.set_images import Decoder, SetImages, describe_images, restore_preparation, with_size
from mtlcli.data.formats.set_layout import SetLayout, SetOptions
from mtlcli.data.samplers.base import Rows, stable_seed
from mtlcli.data.splitting import Mask, add_val_split
from mtlcli.data.streams.pieces import PieceMaker
from mtlcli.data.streams.row_stream import Block, SplitRows
from mtlcli.data.streams.set_rows import CHUNK, IMAGES, SetRows, count_rows, iterate_chunks, to_set_table
from mtlcli.data.streams.streamed_split import StreamedSplit
from mtlcli.errors import ConfigError
from mtlcli.specs import DatasetSpec
from mtlcli.text import join_names


@dataclass(frozen=True)
class StreamOptions:
    """Options of a streamed set.

    Attributes:
        buffer: number of rows in the shuffle buffer.
        rows: split → number of its rows; the rows of other splits are counted.
        fit_rows: number of training rows on which the encoding is fitted.
    """

    buffer: int
    rows: Mapping[str, int]
    fit_rows: int


class StreamedSet:
    """Splits of a data set that are read in sequence, and the encoding fitted on the first training rows.

    Args:
        options: options of the columns and splits.
        stream: options of the stream.
        stored: specification stored in a checkpoint, or None to fit one.

    Attributes:
        spec: the specification.
        report: report on the columns in the rows that the encoding was fitted on.
        draws_test: True if `test` is drawn.
    """

    def __init__(self, options: SetOptions, stream: StreamOptions, stored: DatasetSpec | None) -> None:
        self.options, self.stream = options, stream
        self._opened: OpenedSet = open_set(
            options.path, options.config, options.revision, options.splits, streaming=True
        )
        self.draws_test = list(self._opened.splits) == ["train"] and options.test > 0
        self._sizes: dict[str, list[int]] = {}
        self._notes: list[str] = []
        self.layout, self.spec, self.report = self._describe(stored)

    @property
    def own_splits(self) -> tuple[str, ...]:
        """The splits that don't depend on the seed of a run."""
        return ("train", "test") if self.draws_test else tuple(self._opened.splits)

    def examples(self, split: str, seed: int) -> StreamedSplit:
        """Return the examples of a split.

        Args:
            split: name of a split of the specification.
            seed: seed of the run, by which `val` is drawn.

        Returns:
            The examples.

        Raises:
            ConfigError: the split has no examples.
        """
        rows = SplitRows.of(self._source(split), self._members(split, seed))
        if not len(rows):
            drawn = f": none of {sum(rows.source.sizes)} rows was drawn" if rows.members is not None else ""
            raise ConfigError(f"the split {split!r} has no examples{drawn}")
        return StreamedSplit.of(rows, self.stream.buffer, self._maker(split))

    def read_whole(self) -> StreamedSplit:
        """Return the examples of all splits."""
        sources = _JoinedRows([self._source(split) for split in self._opened.splits])
        return StreamedSplit.of(SplitRows.of(sources), 0, self._maker(" and ".join(self._opened.splits)))

    def recorded(self) -> DataRecord:
        """Record the number of rows of each split and its shards, for a checkpoint."""
        prints = {}
        for split in self.own_splits:
            sizes = np.array(SplitRows.of(self._source(split), self._members(split, None)).sizes, np.uint64)
            prints[split] = replace(Fingerprint(int(sizes.sum())), order=Fingerprint.of(sizes).order)
        return DataRecord("position", None, {}, prints)

    def notes(self) -> list[str]:
        """List facts that the user should know, in one sentence each."""
        return [*self._notes, *self._opened.notes(), *self.layout.notes()]

    def _describe(self, stored: DatasetSpec | None) -> tuple[SetLayout, DatasetSpec, TableReport]:
        """Read the first training rows, and fit the encoding on them unless it is stored."""
        options, opened = self.options, self._opened
        split = "train" if "train" in opened.splits else next(iter(opened.splits))
        if stored is None and split != "train":
            raise ConfigError(f"{options.path}: has no training rows; its splits: {join_names(list(opened.splits))}")
        features, amount = opened.splits[split].features, self.stream.fit_rows if stored is None else SAMPLED
        layout = None if features is None else SetLayout(options, features)
        if layout is not None and layout.image is not None and layout.encoding.fits_nothing:
            amount = min(amount, SAMPLED)
        first, cells = self._read_first(split, amount, layout)
        if layout is None:  # of files without types
            layout = SetLayout(options, import_datasets().Features.from_arrow_schema(first.schema))
        rows, chosen = np.arange(len(first)), None
        table = to_set_table(options.path, split, first, rows, layout)
        if stored is None:
            spec, chosen, _ = layout.fit(table, rows)
        else:
            layout.check(stored)
            spec = layout.encoding.restore(table, stored, options.features)
        spec = replace(spec, splits=add_val_split(self.own_splits, options.val))
        self._prepare = options.prepare
        if layout.image is not None and stored is not None:
            self._prepare = restore_preparation(stored, options.prepare)
        elif layout.image is not None:
            images = with_size(SetImages(cells, options.prepare, table.place), np.arange(len(cells)))
            self._prepare = images.prepare
            spec = describe_images(spec, images, np.arange(len(cells)), self._prepare, options.normalize)
        inputs, report = layout.encode(table, spec, rows, chosen)
        if stored is None:
            subset = f"the first {len(first):,} training rows"
            self._notes = report.notes(inputs, spec, {subset: rows} if spec.columns or spec.text else {})
            if len(first) >= amount and not (layout.image is not None and layout.encoding.fits_nothing):
                self._notes.append(
                    f"statistics, categories and classes are those of {subset}; a class that occurs only in later rows "
                    f"is an error: state it under `targets`, or raise `fit_rows`"
                )
        return layout, spec, report

    def _read_first(self, split: str, amount: int, layout: SetLayout | None) -> tuple[Any, list[Any]]:
        """Return the first rows of a split, without those drawn for `test`, and the cells of the first images."""
        import pyarrow as pa

        members, first = self._members(split, None), 0
        chunks: list[Any] = []
        cells: list[Any] = []
        size = CHUNK if layout is None or layout.image is None else IMAGES
        for chunk in iterate_chunks(self._opened.splits[split], 0, 1, min(size, amount)):
            rows = np.arange(first, first + len(chunk))
            first += len(chunk)
            kept = chunk if members is None else chunk.take(np.flatnonzero(members(rows)))
            kept = kept.slice(0, amount - sum(map(len, chunks)))
            if layout is not None:
                if layout.image is not None and len(cells) < SAMPLED:
                    cells += kept.column(layout.image).slice(0, SAMPLED - len(cells)).to_pylist()
                kept = kept.select([name for name in layout.columns if name in kept.column_names])
            chunks.append(kept)
            if sum(map(len, chunks)) >= amount:
                break
        if not sum(map(len, chunks)):
            raise ConfigError(f"{self.options.path}: the split {split!r} has no rows")
        return pa.concat_tables(chunks, promote_options="permissive"), cells

    def _maker(self, split: str) -> PieceMaker:
        return PieceMaker(None if self.layout.image is None else Decoder(self._prepare, self.options.path, split))

    def _members(self, split: str, seed: int | None) -> _Members | None:
        """Return the membership of rows in a split that is drawn, or from which one is drawn; None for all rows."""
        draws_val = seed is not None and "val" not in self._opened.splits and self.options.val > 0
        if split not in ("train", "val", "test") or (split in self._opened.splits and split != "train"):
            return None
        draws: list[tuple[float, int, bool]] = []
        if self.draws_test:
            draws.append((self.options.test, stable_seed("test", self.options.seed), split == "test"))
        if draws_val and split != "test":
            draws.append((self.options.val, stable_seed("val", seed or 0), split == "val"))
        return _Members(tuple(draws)) if draws else None

    def _source(self, split: str) -> SetRows:
        """Return the rows that a split consists of, or is drawn from."""
        own = split if split in self._opened.splits else "train"
        rows = self._opened.splits[own]
        if own not in self._sizes:
            given = self.stream.rows.get(own)
            self._sizes[own] = [given] if given is not None else count_rows(rows, self._opened.files.get(own, []))
        return SetRows(self.options.path, own, rows, self._sizes[own], self.layout, self.spec)


@dataclass(frozen=True)
class _Members:
    """Membership of rows in a split, as a function of their numbers.

    Attributes:
        draws: share, seed, and whether the split's rows are among those drawn.
    """

    draws: tuple[tuple[float, int, bool], ...]

    def __call__(self, rows: Rows) -> Mask:
        chosen: Mask = np.ones(len(rows), bool)
        for share, seed, among in self.draws:
            limit = np.uint64(min(int(share * 2**64), 2**64 - 1))
            chosen &= (mix_bits(rows.astype(np.uint64) ^ np.uint64(seed)) < limit) == among
        return chosen


class _JoinedRows:
    """Rows of several sources, one after the other."""

    def __init__(self, sources: Sequence[SetRows]) -> None:
        self.shards = [(source, shard) for source in sources for shard in range(len(source.sizes))]
        self.sizes: Sequence[int] = [source.sizes[shard] for source, shard in self.shards]

    def read(self, shard: int, wanted: Callable[[int, int], Mask | None]) -> Iterator[Block]:
        source, own = self.shards[shard]
        return source.read(own, wanted)
