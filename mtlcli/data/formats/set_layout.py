"""Use of a data set's columns as features, targets and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mtlcli.data.formats.arrow_tables import SetColumns, TableRule, list_columns
from mtlcli.data.formats.column_encoding import TrainingTable
from mtlcli.data.formats.column_report import TableReport
from mtlcli.data.formats.feature_choice import Features, choose_features
from mtlcli.data.formats.image_decoding import ImagePreparation
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.set_encoding import SetEncoding, split_targets
from mtlcli.data.formats.set_images import Normalization
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.tag_columns import list_tag_columns
from mtlcli.data.formats.target_columns import list_target_columns
from mtlcli.data.formats.text_inputs import TextReport, check_texts, select_texts, with_texts
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError, suggest
from mtlcli.specs import DatasetSpec
from mtlcli.text import join_names
from mtlcli.text_spec import TextSpec


@dataclass(frozen=True)
class SetOptions:
    """Options of the dataset `huggingface` that concern its columns and splits; they are described there."""

    path: str
    config: str | None
    revision: str | None
    splits: Mapping[str, str]
    targets: Mapping[str, Any]
    image: str | None
    prepare: ImagePreparation
    normalize: Normalization
    features: Sequence[str] | None
    exclude: Sequence[str]
    categorical: Sequence[str]
    levels: int
    missing: Sequence[str]
    notation: Notation
    text: Mapping[str, int]
    ngrams: int
    group_column: str | None
    weight_column: str | None
    test: float
    seed: int
    val: float
    texts: TextSpec | None = None  # the inputs, for a trunk that reads text


class SetLayout:
    """Use of the columns of a data set, by its options and the types of the columns.

    Args:
        options: the options.
        features: name of a column → its feature type of the library `datasets`.

    Attributes:
        image: column of the images that are the inputs; None for features.
        rule: rule by which the columns become cells.
        columns: columns that are read.
        unused: columns of lists, records and images that are not targets.
        encoding: encoding of the rows.

    Raises a ConfigError if a target's declared type doesn't fit its column, or the images can't be chosen.
    """

    def __init__(self, options: SetOptions, features: Mapping[str, Any]) -> None:
        self.options = options
        columns = list_columns(features)
        targets, lists = split_targets(options.path, options.targets, columns)
        self.encoding = SetEncoding(
            targets, lists, options.notation, options.categorical, options.levels, options.text, options.ngrams,
            options.weight_column,
        )  # fmt: skip
        numbers = {name for name, type_ in options.targets.items() if type_ in ("binary", "real")}
        names = {name: names for name, names in columns.names.items() if name not in numbers}
        texts = [name for name, type_ in targets.items() if isinstance(type_, dict) or type_ in ("classes", "tags")]
        compared = {*texts, *lists, *options.categorical, *filter(None, [options.group_column])}
        tags = list_tag_columns(options.targets)
        words = [name for name in columns.lists if name in tags or name in options.text]
        self.rule = TableRule(options.missing, options.notation, names, compared, words)
        self.image = None if options.texts is not None else self._choose_image(columns, list(features))
        required = [*list_target_columns(options.targets), *words]
        unused = [*columns.unusable, *columns.lists, *columns.images]
        self.unused = [name for name in unused if name not in required]
        self.columns = [name for name in features if name not in self.unused]
        if self.image is not None:
            needed = {*required, options.group_column, options.weight_column}
            self.columns = [name for name in features if name in needed]

    def fit(self, table: Table, train: Rows) -> tuple[DatasetSpec, Features, TrainingTable]:
        """Choose the features, and fit the encoding on the training rows.

        Args:
            table: rows of the set.
            train: the training rows.

        Returns:
            The specification without splits, the features, and the table on which columns can be fitted again.
        """
        if self.image is not None or self.options.texts is not None:
            table.require(list_target_columns(self.options.targets), "targets")
            source = self.encoding.source(table, train)
            if self.options.texts is not None:
                check_texts(table, self.options.texts, train)
            spec = self.encoding.fit(source, ())
            spec = spec if self.options.texts is None else with_texts(spec, self.options.texts)
            return spec, Features((), {}, ()), source
        features = self._choose_features(table)
        source = self.encoding.source(table, train)
        return self.encoding.fit(source, features.names), features, source

    def encode(
        self, table: Table, spec: DatasetSpec, train: Rows, features: Features | None
    ) -> tuple[Tensor | TextRows, TableReport]:
        """Encode the features of a table, or take its texts.

        Args:
            table: rows of the set.
            spec: the specification.
            train: the training rows.
            features: choice of the feature columns, or None if a checkpoint determines them.

        Returns:
            The inputs and the report on the columns.
        """
        notation, texts = self.options.notation, self.options.texts
        if texts is None:
            report = TableReport(table, spec.columns, train, notation, features)
            return self.encoding.encode_inputs(table, spec), report
        used = [self.options.group_column, self.options.weight_column, *self.options.exclude]
        others = {*list_target_columns(self.options.targets), *filter(None, used)}
        inputs = select_texts(table, texts, list_tag_columns(self.options.targets))
        return inputs, TextReport(table, texts, train, notation, others)

    def check(self, stored: DatasetSpec) -> None:
        """Check that a checkpoint's inputs are of the same kind. ConfigError if not."""
        if stored.text is not None:
            return  # the experiment in the checkpoint has the same trunk
        if ("image" in stored.state) != (self.image is not None):
            then, now = ("images", "columns") if "image" in stored.state else ("columns", "images")
            raise ConfigError(
                f"{self.options.path}: the checkpoint was trained on {then}, but the inputs are {now} here"
            )

    def notes(self) -> list[str]:
        """List the columns that can't be features, in one sentence, if there are any."""
        if not self.unused or self.options.features is not None or self.image is not None or self.options.texts:
            return []
        return [f"not used as features, since they hold lists, records or images: {join_names(self.unused)}"]

    def _choose_image(self, columns: SetColumns, names: Sequence[str]) -> str | None:
        options = self.options
        if options.image is None:
            images = [name for name in columns.images if name not in options.exclude]
            if options.features is not None or options.text or not images:
                return None
            if len(images) > 1:
                raise ConfigError(f"{options.path}: has the image columns {join_names(images)}; choose one by `image`")
            return images[0]
        if options.image not in names:
            hint = suggest(options.image, names)
            raise ConfigError(f"{options.path}: no column {options.image!r}, which `image` names.{hint}")
        if options.image not in (*columns.images, *columns.binary):
            raise ConfigError(f"{options.path}: the column {options.image!r} doesn't hold images or the bytes of files")
        return options.image

    def _choose_features(self, table: Table) -> Features:
        options = self.options
        required = list_target_columns(options.targets)
        table.require(required, "targets")
        if wrong := [name for name in options.features or () if name in self.unused]:
            raise ConfigError(f"{options.path}: the feature column {wrong[0]!r} holds lists, records or images")
        dates = dict(options.notation.dates)
        listed = {
            "features": options.features or (), "exclude": options.exclude, "categorical": options.categorical,
            "dates": dates, "text": options.text,
        }  # fmt: skip
        for option, names in listed.items():
            table.require((name for name in names if name not in self.unused), option)
        used = [column for column in (options.group_column, options.weight_column) if column]
        table.require(used, "group_column` or `weight_column")
        exclude = [*options.exclude, *(used if options.features is None else [])]
        declared = {*options.categorical, *dates, *options.text}
        return choose_features(table, options.features, exclude, required, declared, options.notation)
