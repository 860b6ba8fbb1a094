"""Base class of tables that are datasets by name: downloaded, with a known form."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mtlcli.data.base import add_val_split
from mtlcli.data.datasets.table import TableDataset
from mtlcli.data.download.collection import Collection, data_root, ensure_files, suggest_fetch
from mtlcli.data.formats.cells import Cells
from mtlcli.data.formats.column_encoding import TrainingTable
from mtlcli.data.formats.column_report import TableReport
from mtlcli.data.formats.prompts import check_placeholders
from mtlcli.data.formats.table_rows import ListedLines, Table
from mtlcli.data.formats.text_features import TextEncoding
from mtlcli.data.formats.text_inputs import with_texts
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import MtlError
from mtlcli.specs import Column, DatasetSpec, TargetSpec
from mtlcli.text_spec import TextSpec

Texts = Sequence[str | None]  # cells of a column, None for a missing one


class NamedTable(TableDataset):
    """Base class of tables in files that are downloaded, whose columns, categories and classes are known.

    A fifth of the examples is the split `test`; membership depends on their content. Until data is read, the
    description has the right form, with means of 0, standard deviations of 1 and inverse document frequencies of 1.

    Args:
        root: path of the data root, see `data_root`.
        download: whether to download missing files.
        val: share of the training examples that becomes the split `val`, drawn by seed.
        targets: target → its specification, apart from the statistics.
        columns: feature → its categories, None for a number, or the number of features of a text.
        ngrams: longest sequence of words of a text that is counted.
        group: column whose equal values stay in one split; None to draw each example separately.

    Attributes:
        name: name in the registry.
        collection: the files.
    """

    name: ClassVar[str]
    collection: ClassVar[Collection]

    def __init__(
        self,
        *,
        root: str | None,
        download: bool,
        val: float,
        targets: Mapping[str, TargetSpec],
        columns: Mapping[str, Sequence[str] | int | None],
        ngrams: int = 1,
        group: str | None = None,
    ) -> None:
        self.root, self.download = root, download
        raw = self.collection.raw(data_root(root))  # reports an invalid path as an error of the configuration
        declared: dict[str, Any] = {name: _declare(target) for name, target in targets.items()}
        super().__init__(
            path=str(raw / next(iter(self.collection.files))),
            targets=declared,
            features=list(columns),
            categorical=[name for name, content in columns.items() if isinstance(content, Sequence)],
            text={name: content for name, content in columns.items() if isinstance(content, int)},
            ngrams=ngrams,
            group_column=group,
            missing=[],
            val=val,
        )
        outlined = tuple(_outline_columns(columns, ngrams))
        main_target = next(iter(targets)) if len(targets) == 1 else None
        self._outline = DatasetSpec(
            (len(outlined),), dict(targets), main_target, add_val_split(("train", "test"), val),
            mean=(), std=(), state={}, columns=outlined,
        )  # fmt: skip

    @abstractmethod
    def read_columns(self, files: Mapping[str, Path]) -> dict[str, Texts]:
        """Read the files.

        Raises a ValueError or an OSError if one is damaged.

        Args:
            files: name → path of the file.

        Returns:
            Column → its cells, one for each example: those of the features, of the targets and of `group`.
        """

    def keep_texts(self, max_length: int, compared: bool) -> None:
        super().keep_texts(max_length, compared)
        assert self._texts is not None
        self._outline = with_texts(self._outline, self._texts)

    def keep_prompt(self, texts: TextSpec) -> None:
        check_placeholders(texts.columns, [*(self.features or ()), *self._outline.targets])
        super().keep_prompt(texts)
        assert self._texts is not None
        self._outline = with_texts(self._outline, self._texts)

    def fit(self) -> None:
        """Fit the encoding of the columns, downloading missing files."""
        self._load()

    def describe(self) -> DatasetSpec:
        """Return the fitted description, or the outline before data is read."""
        return self._outline if self._loaded is None else super().describe()

    def own_splits(self) -> tuple[str, ...]:
        return ("train", "test")

    def notes(self) -> list[str]:
        return [] if self._loaded is None else super().notes()

    def report(self) -> TableReport | None:
        return None if self._loaded is None else super().report()

    def column_source(self) -> TrainingTable | None:
        return None if self._loaded is None else super().column_source()

    def _read_files(self) -> tuple[Table, dict[str, Rows] | None]:
        files = ensure_files(self.name, self.collection, self.root, self.download)
        try:
            columns = self.read_columns(files)
        except (OSError, ValueError) as error:
            raise MtlError(f"{self.name}: {error}. {suggest_fetch(self.name, self.root)}") from error
        return make_table(self.paths["train"], columns), None


def make_table(path: Path, columns: Mapping[str, Texts]) -> Table:
    """Create a table of cells in memory.

    Args:
        path: file from which they come, for messages.
        columns: name → cells.

    Returns:
        The table, whose lines are the positions of the rows, from 1.
    """
    cells = {}
    for name, texts in columns.items():
        positions: dict[str | None, int] = {}
        index = np.fromiter((positions.setdefault(text, len(positions)) for text in texts), np.int32, len(texts))
        cells[name] = Cells(tuple(positions), index)
    return Table(path, cells, ListedLines(path, range(1, 1 + len(next(iter(columns.values()))))))


def _declare(target: TargetSpec) -> Any:
    """Return the type of a target as the option `targets` of a table declares it."""
    if target.type in ("classes", "tags"):
        return {"type": target.type, "classes": list(target.class_names), "others": "error"}
    return list(target.class_names) if target.type == "multilabel" else target.type


def _outline_columns(columns: Mapping[str, Sequence[str] | int | None], ngrams: int) -> list[Column]:
    outlined: list[Column] = []
    for name, content in columns.items():
        if isinstance(content, int):
            outlined += TextEncoding(ngrams, (1.0,) * content).columns(name)
        else:
            outlined.append(Column(name, None if content is None else tuple(content)))
    return outlined
