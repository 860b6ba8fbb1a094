"""Data sets of the library `datasets`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mtlcli.data.base import Dataset, Examples
from mtlcli.data.content_hash import Hashes
from mtlcli.data.fingerprint import DataRecord
from mtlcli.data.formats.column_encoding import MOST_CATEGORIES, TrainingTable
from mtlcli.data.formats.column_report import TableReport, Unseen
from mtlcli.data.formats.image_decoding import Background, Fit, ImagePreparation
from mtlcli.data.formats.images import ImageFiles
from mtlcli.data.formats.mapped_set import MappedSet
from mtlcli.data.formats.numerals import ISO, Notation
from mtlcli.data.formats.set_encoding import SetTargets
from mtlcli.data.formats.set_images import Normalization
from mtlcli.data.formats.set_layout import SetOptions
from mtlcli.data.formats.table_options import Text, check_declarations
from mtlcli.data.formats.tag_columns import list_tag_columns
from mtlcli.data.formats.target_columns import check_targets
from mtlcli.data.formats.text_features import FEATURES, Ngrams
from mtlcli.data.formats.text_inputs import Pairs, choose_answers, choose_texts
from mtlcli.errors import ConfigError
from mtlcli.registry import datasets
from mtlcli.specs import MOST_CLASSES, Column, DatasetSpec, TargetSpec
from mtlcli.text_spec import TextSpec

if TYPE_CHECKING:
    from mtlcli.data.streams.streamed_set import StreamedSet

Side = Annotated[int, Field(ge=1, le=4096)]


@datasets.register("huggingface")
class HuggingFace(Dataset):
    """Data set of the library `datasets`: local files or folders, or a set of the Hugging Face hub.

    Reads CSV, JSON lines, Parquet and Arrow files, folders written by `save_to_disk`, folders of images (the builder
    `imagefolder`) and sets on the hub that consist of such files. Scripts are never run. A set on the hub is downloaded
    to the library's cache (`$HF_HOME`); with `HF_HUB_OFFLINE=1` only the cache is used.

    Inputs: float32 [columns], encoded as those of the dataset `table`; or images, uint8 [channels, height, width],
    decoded as those of the dataset `images`. Rows are read from memory-mapped Arrow files, images one at a time.

    Targets: columns of the set. A `ClassLabel` has the classes of the set, in its order; texts are classes; booleans
    are binary; numbers as in a table. A column of lists is a multilabel target, whose labels are those of the training
    rows or of the set's `ClassLabel`. A null is a missing label. docs/huggingface.md gives the rules.

    Args:
        path: folder, file, pattern of files (`shards/*.parquet`), or id of a set on the hub (`owner/name`). A file or
            folder is preferred.
        config: configuration of the set; default: its only or default one.
        revision: branch, tag or commit of a set on the hub.
        splits: `{train: NAME, val: NAME, test: NAME}`, where each name is one of the set's splits, or a file or pattern
            of files in the folder. Default: the set's splits `train`, `validation` (`val`, `valid`, `dev`) and `test`.
        targets: columns to predict, or `{column: type}` with the type `classes`, `binary`, `real`, or, for a column of
            lists, `multilabel` or `tags` (a label of each word of the text, which is a column of lists of words). A
            list of columns of 0 and 1 instead of a type is one multilabel target, and `{classes: [NAME, …]}` states the
            classes in their order.
        image: column of images, which are the inputs instead of columns of features. Default: the set's only column of
            images, unless `features` or `text` is set.
        size: images are resized to size × size, or to [height, width]; required if their sizes differ.
        fit: how images are resized, see the dataset `images`.
        mode: `rgb` for color, `grey` for one channel.
        background: color behind transparent pixels and of the padding.
        normalize: `fit`, `half` or `imagenet`, see the dataset `images`; `fit` uses 200 training images.
        features: columns to use as inputs. Default: all columns of numbers, booleans, dates and texts, except targets
            and columns that only number or identify the rows, as in a table.
        exclude: columns not to use as features, if `features` is not set.
        categorical: feature columns of numbers to treat as categories.
        levels: maximum number of categories of a column that is not listed in `categorical`.
        missing: texts that mean a missing value, in addition to null, NaN and the empty text.
        dates: feature columns of dates or times, which are read as days since 1970-01-01 (UTC).
        text: feature columns of text, each encoded as 512 features: hashed TF-IDF of its words, see docs/tables.md. Or
            `{column: number of features}`. A trunk that reads text gets one column, or two as a pair, as tokens.
        ngrams: longest sequence of words of a text that is counted.
        pairs: for a trunk that reads two texts: `joint` encodes them in one sequence, `separate` one by one. Default:
            separate if a task of the kind `similarity` or `contrastive` compares them.
        group_column: column whose equal values stay in one split. Not used as a feature unless listed in `features`.
        weight_column: column of the rows' weights in losses and metrics, at least 0; 0 excludes a row. Not used as a
            feature unless listed in `features`.
        test: share of the rows that becomes the split `test`, if the set has only the split `train`. Membership depends
            on a row's values, not on its position, see the dataset `table`.
        seed: seed of the split `test`; independent of the run's seed.
        val: share of the training rows that becomes the split `val`, drawn by the run's seed, if there is no such
            split; by the same rule.
        streaming: read the rows in sequence, without a copy in the cache, for data that fits neither memory nor disk.
            Training rows are shuffled by a buffer. `test` and `val` are drawn by the rows' positions.
        buffer: number of rows in the shuffle buffer, if `streaming`.
        rows: number of rows of each split, `{train: 1000000}`, if `streaming`. Default: they are counted, in Parquet
            files by their metadata, otherwise by reading all rows once.
        fit_rows: number of training rows on which statistics, categories and classes are fitted, if `streaming`: the
            first ones.
        augment: transforms of `torchvision.transforms.v2` by name, applied to each training image.
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
        image: str | None = None,
        size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None,
        fit: Fit = "crop",
        mode: Literal["rgb", "grey"] = "rgb",
        background: Background = "white",
        normalize: Normalization = "fit",
        features: list[str] | None = None,
        exclude: list[str] = [],  # noqa: B006
        categorical: list[str] = [],  # noqa: B006
        levels: Annotated[int, Field(ge=2, le=MOST_CLASSES)] = MOST_CATEGORIES,
        missing: list[str] = [],  # noqa: B006
        dates: list[str] = [],  # noqa: B006
        text: Text = [],  # noqa: B006
        ngrams: Ngrams = 1,
        pairs: Pairs | None = None,
        group_column: str | None = None,
        weight_column: str | None = None,
        test: Annotated[float, Field(ge=0, le=1)] = 0.2,
        seed: Annotated[int, Field(ge=0)] = 0,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        streaming: bool = False,
        buffer: Annotated[int, Field(ge=1)] = 10_000,
        rows: dict[str, Annotated[int, Field(ge=1)]] = {},  # noqa: B006
        fit_rows: Annotated[int, Field(ge=1)] = 100_000,
        augment: list[str | dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(val=val, augment=augment)
        if wrong := [split for split in splits if split not in ("train", "val", "test")]:
            raise ValueError(f"`splits` names the split {wrong[0]!r}; expected train, val or test")
        if image is not None and (features is not None or text):
            raise ValueError("the inputs are either `image` or `features` and `text`, not both")
        if normalize == "imagenet" and mode != "rgb":
            raise ValueError("`normalize: imagenet` needs `mode: rgb`")
        sides = (size, size) if isinstance(size, int) else None if size is None else (size[0], size[1])
        prepare = ImagePreparation(3 if mode == "rgb" else 1, sides, None if sides is None else fit, background)
        texts = text if isinstance(text, dict) else dict.fromkeys(text, FEATURES)
        check_declarations(categorical=categorical, dates=dates, text=texts)
        self.notation, self.missing = Notation(dates=tuple((name, ISO) for name in dates)), missing
        self.options = SetOptions(
            path, config, revision, splits, check_targets(targets, optional=len(text) == 2), image, prepare, normalize,
            features, exclude, categorical, levels, missing, self.notation, texts, ngrams, group_column, weight_column,
            test, seed, val,
        )  # fmt: skip
        if streaming and group_column is not None:
            raise ValueError("`group_column` can't keep groups in one split with `streaming`, which draws by position")
        if wrong := [split for split in rows if split not in ("train", "val", "test")]:
            raise ValueError(f"`rows` names the split {wrong[0]!r}; expected train, val or test")
        self.streaming, self.buffer, self.rows, self.fit_rows = streaming, buffer, rows, fit_rows
        self.pairs = pairs
        self._stored: DatasetSpec | None = None
        self._set: MappedSet | StreamedSet | None = None

    def keep_texts(self, max_length: int, compared: bool) -> None:
        if self.options.image is not None:
            raise ConfigError("the trunk reads text, but the inputs are images")
        tags = list_tag_columns(self.options.targets)
        if tags and self.streaming:
            raise ConfigError(f"the tags of {', '.join(tags)} can't be streamed; leave out `streaming`")
        texts = choose_texts(list(self.options.text), max_length, tags, self.pairs, compared)
        self.options = replace(self.options, texts=texts)

    def keep_prompt(self, texts: TextSpec) -> None:
        self.options = replace(self.options, texts=choose_answers(texts, self.options.targets))

    def describe(self) -> DatasetSpec:
        """Open the set, and fit the encoding of the columns."""
        return self._open().spec

    def restore(self, spec: DatasetSpec) -> DatasetSpec:
        """Use a checkpoint's features, encoding and classes; labels may be missing in this set.

        Args:
            spec: specification stored in the checkpoint.

        Returns:
            The specification with the splits of this set.

        Raises:
            ConfigError: the set doesn't match the checkpoint.
        """
        self._stored, self._set = spec, None
        self._read.clear()
        self._val.clear()
        return self._open().spec

    def type_hint(self, target: str, spec: TargetSpec) -> str:
        other = {"real": "classes", "classes": "real"}.get(spec.type)
        return f"To change the type, declare `targets: {{{target}: {other}}}`" if other else ""

    def notes(self) -> list[str]:
        return self._open().notes()

    def preparation(self) -> str:
        return self.options.prepare.describe()  # of images; not called for columns

    def open_images(self, paths: Sequence[Path], spec: DatasetSpec) -> ImageFiles:
        return ImageFiles(paths, ImagePreparation.of(spec))

    def report(self) -> TableReport | None:
        return self._open().report

    def unseen(self, examples: Examples) -> dict[str, Unseen]:
        return {} if self.streaming else self._mapped().unseen(examples)

    def column_source(self) -> TrainingTable | None:
        return None if self.streaming else self._mapped().source

    def use_columns(self, columns: tuple[Column, ...]) -> DatasetSpec:
        return self._mapped().use_columns(columns)

    def examples(self, split: str, seed: int) -> Examples:
        opened = self._open()
        if isinstance(opened, MappedSet):
            return super().examples(split, seed)
        return self.whole() if split == "all" else opened.examples(split, seed)

    def own_splits(self) -> tuple[str, ...]:
        return self._open().own_splits

    def read(self, split: str) -> Examples:
        return self._mapped().read(split)

    def whole(self) -> Examples:
        opened = self._open()
        return opened.whole if isinstance(opened, MappedSet) else opened.read_whole()

    def hashes(self, split: str) -> Hashes | None:
        if self.streaming:
            return None
        splits = self._mapped().splits
        return splits.hashes[splits.rows[split]]

    def all_hashes(self) -> Hashes | None:
        return None if self.streaming else self._mapped().splits.hashes

    def draws_test(self) -> bool:
        return self._open().draws_test

    def keys(self, split: str) -> Hashes | None:
        if self.streaming:
            return None
        splits = self._mapped().splits
        return splits.keys[splits.rows[split]]

    def recorded(self) -> DataRecord:
        opened = self._open()
        return super().recorded() if isinstance(opened, MappedSet) else opened.recorded()

    def hashed_columns(self) -> tuple[str, ...] | None:
        return None if self.streaming else self._mapped().splits.columns

    def _open(self) -> MappedSet | StreamedSet:
        if self._set is None:
            if self.streaming:
                from mtlcli.data.streams.streamed_set import StreamedSet, StreamOptions

                stream = StreamOptions(self.buffer, self.rows, self.fit_rows)
                self._set = StreamedSet(self.options, stream, self._stored)
            else:
                self._set = MappedSet(self.options, self._stored, self.record)
                self._kept["test"] = self._set.splits.kept
        return self._set

    def _mapped(self) -> MappedSet:
        opened = self._open()
        assert isinstance(opened, MappedSet)
        return opened
