"""Input files of a trained model, read piece by piece in constant memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mtlcli.api.raw_inputs import RawInputs, open_images, with_channel
from mtlcli.cores import usable_cores
from mtlcli.data.base import Dataset
from mtlcli.data.formats.batches import Dialect
from mtlcli.data.formats.column_encoding import encode_columns, list_sources
from mtlcli.data.formats.compressed import describe_os_error
from mtlcli.data.formats.folder_listing import count_suffixes, list_folder
from mtlcli.data.formats.image_decoding import supported_suffixes
from mtlcli.data.formats.table_reader import read_chunks
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.text_inputs import select_texts
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.errors import ConfigError, InputError, MtlError, Problem
from mtlcli.files import quote_path
from mtlcli.specs import DatasetSpec

LOG = logging.getLogger("mtl")
Encoded = TypeVar("Encoded")
MOST_LISTED = 10  # faulty inputs that are described one by one


@dataclass(frozen=True)
class Piece:
    """Consecutive examples of an input file.

    Attributes:
        inputs: Raw inputs [B, *input_shape], or texts.
        files: The file of each example.
        rows: Position of each example in its file, from 1; of an image 1.
    """

    inputs: Tensor | TextRows
    files: list[str]
    rows: list[int]

    def __len__(self) -> int:
        return len(self.files)

    def slice(self, start: int, stop: int) -> Piece:
        """Return the examples from `start` to `stop`."""
        inputs = self.inputs
        part = inputs[start:stop] if isinstance(inputs, Tensor) else inputs.slice(start, stop)
        return Piece(part, self.files[start:stop], self.rows[start:stop])


class Faults:
    """Collects inputs that can't be read: raises the first ones, or skips and counts them.

    Args:
        skip: Skip inputs that can't be read.

    Attributes:
        skipped: Number of inputs that were skipped.
    """

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.skipped = 0

    def add(self, problems: Sequence[str]) -> None:
        """Add a message for each faulty input.

        Args:
            problems: The messages.

        Raises:
            ConfigError: Faulty inputs are not skipped.
        """
        if not problems:
            return
        if not self.skip:
            more = [f"… and {len(problems) - MOST_LISTED} more"] if len(problems) > MOST_LISTED else []
            raise ConfigError(map(Problem, [*problems[:MOST_LISTED], *more]))
        for problem in problems[: max(0, MOST_LISTED - self.skipped)]:
            LOG.warning("skipped: %s", problem)
        self.skipped += len(problems)


def read_inputs(
    paths: Sequence[Path], dataset: Dataset, spec: DatasetSpec, faults: Faults, batch_size: int
) -> Iterator[Piece]:
    """Read input files in order, without keeping them.

    Args:
        paths: Image files, folders of images, tables, or `.npy` arrays of raw inputs, as the dataset takes them.
        dataset: The dataset of the model, restored from its checkpoint.
        spec: Its specification.
        faults: Receives the inputs that can't be read.
        batch_size: Number of examples in a piece, except the last.

    Yields:
        Pieces of `batch_size` examples.

    Raises:
        ConfigError: A file is missing, of the wrong type or faulty.
    """
    yield from _regroup(_pieces(paths, dataset, spec, faults, batch_size), batch_size)


def _pieces(
    paths: Sequence[Path], dataset: Dataset, spec: DatasetSpec, faults: Faults, batch_size: int
) -> Iterator[Piece]:
    if missing := [path for path in paths if not path.exists()]:
        raise ConfigError(Problem(f"{quote_path(path)}: no such file or folder") for path in missing)
    for path in paths:
        if path.suffix.lower() == ".npy" and spec.text is None:
            yield from _array_pieces(path, dataset, spec, faults, batch_size)
        elif spec.columns or spec.text:
            yield from _table_pieces(path, dataset, spec, faults)
        else:
            yield from _image_pieces(_list_images(path), dataset, spec, faults, batch_size)


def _array_pieces(path: Path, dataset: Dataset, spec: DatasetSpec, faults: Faults, batch_size: int) -> Iterator[Piece]:
    """Read an array of raw inputs through a memory map."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: can't be read as a .npy array: {error}") from error
    try:
        with_channel(torch.from_numpy(np.array(array[:0])), spec)
    except (InputError, TypeError) as error:
        raise ConfigError(f"{path}: {str(error).replace('got [0', f'got [{len(array)}')}") from error
    convert = RawInputs({"": dataset}, {"": spec}, {}).tensor
    for start in range(0, len(array), batch_size):
        stop = min(start + batch_size, len(array))
        good, problems = _largest_valid(
            lambda a, b: convert("", np.array(array[a:b]), stored_type=True),
            start, stop, lambda row: f"{path}: row {row + 1}", InputError,
        )  # fmt: skip
        faults.add(problems)
        for first, tensor in good:
            yield Piece(tensor, [str(path)] * len(tensor), list(range(first + 1, first + 1 + len(tensor))))


def _table_pieces(path: Path, dataset: Dataset, spec: DatasetSpec, faults: Faults) -> Iterator[Piece]:
    """Read the rows of a table, with the model's columns in any order; other columns are ignored."""
    first = 0
    for table in _read_chunks(path, dataset, spec, faults.skip):
        table.require(_sources(spec), "the model")

        def encode(start: int, stop: int, table: Table = table) -> Tensor | TextRows:
            rows = table if stop - start == len(table) else table.slice(start, stop)
            if spec.text is not None:
                return select_texts(rows, spec.text)
            return encode_columns(rows, spec.columns, dataset.notation)

        good: list[tuple[int, Tensor | TextRows]] = []
        problems: list[str] = []
        start = 0
        for row in [*sorted(table.faulty), len(table)]:
            if start < row and faults.skip:
                valid, wrong = _largest_valid(encode, start, row, None, ConfigError)
                good, problems = good + valid, problems + wrong
            elif start < row:
                good.append((start, encode(start, row)))
            if row < len(table):
                problems.append(table.faulty[row])
            start = row + 1
        faults.add(problems)
        for start, encoded in good:
            at = first + start + 1
            yield Piece(encoded, [str(path)] * len(encoded), list(range(at, at + len(encoded))))
        first += len(table)


def _sources(spec: DatasetSpec) -> list[str]:
    """Return the columns of a file from which the inputs are made."""
    return list_sources(spec.columns) if spec.text is None else list(spec.text.columns)


def _largest_valid(
    encode: Callable[[int, int], Encoded],
    start: int,
    stop: int,
    place: Callable[[int], str] | None,
    expected: type[MtlError],
) -> tuple[list[tuple[int, Encoded]], list[str]]:
    """Encode a range of rows, leaving out those that can't be encoded, which are found by bisection.

    Args:
        encode: Encodes the rows from its first argument to its second.
        start: First row.
        stop: Row after the last.
        place: Describes a row for messages that don't; None if they do.
        expected: The error of a faulty row.

    Returns:
        (first row, inputs) of each valid range, and a message for each faulty row.
    """
    try:
        return [(start, encode(start, stop))], []
    except expected as error:
        if stop - start == 1:
            return [], [str(error) if place is None else f"{place(start)}: {error}"]
    middle = (start + stop) // 2
    (before, wrong), (after, more) = (
        _largest_valid(encode, a, b, place, expected) for a, b in ((start, middle), (middle, stop))
    )
    return [*before, *after], [*wrong, *more]


def _list_images(path: Path) -> list[Path]:
    """Return an image file, or all those in a folder, sorted by their path."""
    suffixes = supported_suffixes()
    if not path.is_dir():
        return [path]
    try:
        listing = list_folder(path, suffixes)
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {describe_os_error(error)}") from error
    if listing.others:
        LOG.warning("%s: ignored %s", path, count_suffixes(listing.others))
    if not listing.images:
        raise ConfigError(f"{quote_path(path)}: the folder has no images")
    return [path.joinpath(*parts) for parts in sorted(listing.images)]


def _image_pieces(
    paths: Sequence[Path], dataset: Dataset, spec: DatasetSpec, faults: Faults, batch_size: int
) -> Iterator[Piece]:
    """Decode images in parallel threads, a batch at a time."""
    images = open_images(paths, dataset, spec)

    def decode(row: int) -> Tensor | str:
        try:
            return images[row]
        except MtlError as error:
            return str(error)

    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(paths), batch_size):
            rows = range(start, min(start + batch_size, len(paths)))
            decoded = list(pool.map(decode, rows))
            faults.add([item for item in decoded if isinstance(item, str)])
            good = [
                (str(paths[row]), item) for row, item in zip(rows, decoded, strict=True) if not isinstance(item, str)
            ]
            if good:
                yield Piece(torch.stack([item for _, item in good]), [file for file, _ in good], [1] * len(good))


def _regroup(pieces: Iterator[Piece], size: int) -> Iterator[Piece]:
    """Yield pieces of `size` examples, and a last one of the remaining examples."""
    waiting: list[Piece] = []
    amount = 0
    for piece in pieces:
        waiting.append(piece)
        amount += len(piece)
        if amount < size:
            continue
        whole = _join(waiting)
        full = amount - amount % size
        for start in range(0, full, size):
            yield whole.slice(start, start + size)
        waiting, amount = [whole.slice(full, amount)], amount - full
    if amount:
        yield _join(waiting)


def _join(pieces: Sequence[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    first, *others = (piece.inputs for piece in pieces)
    tensors = [piece.inputs for piece in pieces if isinstance(piece.inputs, Tensor)]
    return Piece(
        first.join([x for x in others if isinstance(x, TextRows)])
        if isinstance(first, TextRows)
        else torch.cat(tensors),
        [file for piece in pieces for file in piece.files],
        [row for piece in pieces for row in piece.rows],
    )


def _read_chunks(path: Path, dataset: Dataset, spec: DatasetSpec, tolerant: bool) -> Iterator[Table]:
    dialect = getattr(dataset, "dialect", Dialect(",", dataset.missing, dataset.notation))
    lists = {*dialect.lists, *(spec.text.columns if spec.text is not None else ())}
    dialect = replace(dialect, tolerant=tolerant, lists=lists)
    numbers = {column.name for column in spec.columns if column.levels is None and column.text is None}
    sources = _sources(spec)
    yield from read_chunks(path, dialect, texts=set(sources) - numbers, numbers=numbers, columns=sources)
