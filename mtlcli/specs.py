"""Types that the component packages exchange, so that they needn't import one another.

They describe datasets, targets and columns, and the activations of a trunk.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from mtlcli.errors import ConfigError, Problem, suggest
from mtlcli.labels import IGNORE_BYTE as IGNORE_BYTE
from mtlcli.labels import IGNORE_INDEX as IGNORE_INDEX
from mtlcli.labels import MAP_TYPES as MAP_TYPES
from mtlcli.labels import expand_map as expand_map
from mtlcli.labels import has_label as has_label
from mtlcli.labels import is_labelled as is_labelled
from mtlcli.labels import labelled_pixels as labelled_pixels
from mtlcli.text_spec import PAIR, TextSpec

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Pool = Literal["mean", "cls", "max", "last"]  # reduction of a sequence or a map to a vector
MAP_SIZES = {"binary_map": 1, "depth_map": 1, "normal_map": 3}  # types of maps whose size is given
UNKNOWN, MISSING, FIRST = 0, 1, 2  # codes of categories: unseen in training, missing, first level (see `Column`)

# limits of what is read from a checkpoint
PLAIN = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
MOST_CLASSES, MOST_COLUMNS, MOST_NUMBERS, MOST_PROBLEMS = 2**20, 2**17, 2**28, 10
Names = Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_CLASSES)]
Means = Annotated[tuple[float, ...], Field(max_length=MOST_COLUMNS)]
Sizes = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=4)]
Split = Annotated[str, Field(pattern="^(train|val|test)$")]
Std = Annotated[float, Field(ge=0)]
Stds = Annotated[tuple[Std, ...], Field(max_length=MOST_COLUMNS)]


@dataclass(frozen=True)
class TargetSpec:
    """A target of a dataset.

    Args:
        type: `classes` (int64 [N], missing = IGNORE_INDEX), `binary` (float32 [N] of 0/1), `multilabel` (float32
            [N, size] of 0/1), `real` (float32 [N]; float64 if the values are so far from 0 that float32 would round
            their differences), `tags` (a class for each word, int64 [N, W]; IGNORE_INDEX where a label is missing and
            after the last word) or `text` (int64 [N, L], the tokens of a text, IGNORE_INDEX after the last; int64 [N],
            0, before it is encoded). A missing label of the types of floats is NaN.
            Five types have labels for each pixel of the dataset's images, of height H and width W: `class_map` (a
            class, int64 [N, H, W]), `binary_map` (float32 [N, H, W] of 0/1), `real_map` (numbers, float32 [N, H, W], or
            [N, size, H, W] if `size` isn't 1), `depth_map` (distance along the camera axis, float32 [N, H, W]) and
            `normal_map` (unit vectors x, y, z in the coordinates of the camera, x to the right, float32 [N, 3, H, W]).
            They may be stored in smaller types, which `expand_map` converts: `class_map` of up to 255 classes and
            `binary_map` as uint8, where a missing label is IGNORE_BYTE; the others as float16.
        size: number of classes, of labels or of tags, or of the channels of a map of numbers (3 for `normal_map`); 1
            for the other types.
        classes: names of the classes or labels; None if they have none.
        missing: labels may be missing.
        mean: mean of a `real` target over the training examples; 0 if unknown.
        std: standard deviation of a `real` target over the training examples; 1 if unknown.
    """

    __pydantic_config__: ClassVar[ConfigDict] = PLAIN

    type: Literal[
        "classes", "binary", "multilabel", "real", "tags", "text",
        "class_map", "binary_map", "real_map", "depth_map", "normal_map",
    ]  # fmt: skip
    size: Annotated[int, Field(ge=1, le=MOST_CLASSES)] = 1
    classes: Names | None = None
    missing: bool = False
    mean: float = 0.0
    std: Std = 1.0

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names in `classes`, or else the numbers of the classes or labels; 0 and 1 for a binary target."""
        return self.classes or tuple(map(str, range(2 if self.type in ("binary", "binary_map") else self.size)))

    @property
    def is_map(self) -> bool:
        """True if the labels are those of pixels."""
        return self.type in MAP_TYPES


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert a tensor to float32 unless its precision is higher."""
    return tensor if tensor.is_floating_point() and tensor.element_size() > 4 else tensor.float()


@dataclass(frozen=True)
class TextFeature:
    """One of the features of a text column, see `mtlcli.data.formats.text_features`.

    Args:
        column: name of the text column.
        ngrams: number of words of the longest word n-grams.
        idf: inverse document frequency of the feature.
    """

    __pydantic_config__: ClassVar[ConfigDict] = PLAIN

    column: str
    ngrams: Annotated[int, Field(ge=1, le=5)]
    idf: Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Column:
    """A feature column of a table, in the raw inputs [B, columns].

    The dataset `table` fits the statistics to its training rows. A dataset whose data never changes stores them as
    constants, computed once with `mtlcli.data.formats.column_encoding.compute_statistics`.

    Args:
        name: the column's name.
        levels: categories of the training rows, in order; None for a numeric column. The raw input of a category is a
            code: 0 for an unseen category, 1 for a missing value, 2 + i for levels[i]. If all levels are numbers, all
            spellings of a number (`1`, `1.0`, `01`) are the same category.
        mean: mean of x − offset over the training rows, which also replaces missing numbers.
        std: standard deviation of x − offset over the training rows.
        log_mean: mean of sign(x)·log(1 + |x|) − sign(offset)·log(1 + |offset|) over the training rows.
        log_std: standard deviation of the same.
        offset: the raw input of a number x is x − offset, computed in float64 and converted to float32, so that numbers
            far from 0 (times, coordinates) keep their digits. 0 for most columns.
        text: for one of the features of a text column, which is a numeric column, its encoding. None for others.
    """

    __pydantic_config__: ClassVar[ConfigDict] = PLAIN

    name: str
    levels: Names | None = None
    mean: float = 0.0
    std: Std = 1.0
    log_mean: float = 0.0
    log_std: Std = 1.0
    offset: float = 0.0
    text: TextFeature | None = field(default=None, kw_only=True)

    @property
    def source(self) -> str:
        """Name of the file's column: that of the text column for one of its features."""
        return self.name if self.text is None else self.text.column


@dataclass(frozen=True)
class DatasetSpec:
    """Shapes, targets and statistics of a dataset.

    Args:
        input_shape: shape of one example: (C, H, W) for images, (F,) for tables, (2, max_length) at most for a text.
        targets: the targets by name.
        main_target: the target of a task that names none; None if every task has to name one.
        splits: the available splits, of `train`, `val` and `test`.
        mean: mean of the raw inputs (of images, of the raw values 0…255), one per channel or one for all. The model
            normalizes its inputs by it, and the checkpoint contains it. Empty for tables, whose columns have their own.
        std: standard deviation of the raw inputs, as `mean`.
        state: other values that were fitted to the training data: plain lists, dicts, numbers, strings.
        columns: columns of a table, in the order of the raw inputs [B, columns]; empty for other data.
        text: the texts that are the inputs, for a trunk that reads text; None for other inputs.
    """

    __pydantic_config__: ClassVar[ConfigDict] = PLAIN

    input_shape: Sizes
    targets: Annotated[dict[str, TargetSpec], Field(min_length=1, max_length=MOST_CLASSES)]
    main_target: str | None
    splits: Annotated[tuple[Split, ...], Field(max_length=3)]
    mean: Means
    std: Stds
    state: dict[str, Any]
    columns: Annotated[tuple[Column, ...], Field(max_length=MOST_COLUMNS)] = ()
    text: TextSpec | None = None

    def find_target(self, name: str | None, alias: str, task: str) -> tuple[str, TargetSpec]:
        """Return name and description of a task's target: that named, that named like the task, or the main one.

        Args:
            name: the name, or None.
            alias: alias of the dataset.
            task: name of the task.

        Returns:
            The name and the description.

        Raises:
            ValueError: the dataset has no such target, or the target isn't determined.
        """
        names = ", ".join(self.targets)
        if name is None:
            name = task if task in self.targets else self.main_target
            name = next(iter(self.targets)) if name is None and len(self.targets) == 1 else name
        if name is None:
            raise ValueError(
                f"the task sets no target, and dataset {alias!r} has neither a target {task!r} nor a main target."
                f"{suggest(task, self.targets)} Set `target` to one of: {names}"
            )
        if name not in self.targets:
            hint = suggest(str(name), self.targets)
            if name == PAIR and self.text is not None and len(self.text.columns) == 2:
                hint = " A pair of texts has it if both are encoded one by one: set `pairs: separate`."
            raise ValueError(f"dataset {alias!r} has no target {name!r}.{hint} It has: {names}")
        return name, self.targets[name]

    def to_dict(self) -> dict[str, Any]:
        """Convert the spec to plain dicts, lists, numbers and strings, for a checkpoint."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {key: value for key, value in plain.items() if key != "text" or value is not None}

    @classmethod
    def from_dict(cls, plain: Any, where: str = "specs") -> DatasetSpec:
        """Restore a spec from the result of `to_dict`.

        Args:
            plain: the plain data.
            where: key path of the data, for error messages.

        Returns:
            The spec.

        Raises:
            ConfigError: the data is invalid.
        """
        try:
            spec = _adapter().validate_json(json.dumps(plain))  # accepts lists for tuples, and is strict otherwise
        except (TypeError, RecursionError) as error:
            raise ConfigError(Problem("not plain data", where)) from error
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)[:MOST_PROBLEMS]
            raise ConfigError(
                Problem(_reword(detail["msg"]), ".".join([where, *map(str, detail["loc"])])) for detail in problems
            ) from error
        if wrong := spec._disagreement():
            raise ConfigError(Problem(wrong[1], f"{where}.{wrong[0]}"))
        return spec

    def _disagreement(self) -> tuple[str, str] | None:
        """Return the key of an inconsistent value and the reason; None if the spec is consistent."""
        if math.prod(self.input_shape) > MOST_NUMBERS:
            return "input_shape", f"an example has more than {MOST_NUMBERS} numbers"
        if self.main_target is not None and self.main_target not in self.targets:
            return "main_target", f"no target has the name {self.main_target!r}"
        for name, target in self.targets.items():
            if target.classes is not None and len(target.classes) != target.size:
                return f"targets.{name}.classes", f"{len(target.classes)} names, but `size` is {target.size}"
            if target.is_map and len(self.input_shape) != 3:
                return f"targets.{name}.type", "a map needs inputs that are images"
            if target.size != MAP_SIZES.get(target.type, target.size):
                return f"targets.{name}.size", f"expected {MAP_SIZES[target.type]} for a {target.type}"
        if self.text is not None and self.input_shape != self.text.input_shape:
            return "text", "inputs of another shape"
        if self.columns:
            if self.input_shape != (len(self.columns),):
                return "columns", f"{len(self.columns)} columns, but inputs of another shape"
        elif len(self.mean) not in (1, self.input_shape[0]) or len(self.std) != len(self.mean):
            return "mean", f"1 or {self.input_shape[0]} means and as many standard deviations are needed"
        return None


@cache
def _adapter() -> TypeAdapter[DatasetSpec]:
    return TypeAdapter(DatasetSpec)


def _reword(message: str) -> str:
    """Reword a message of pydantic."""
    text = (
        message.replace("Input should be", "expected")
        .replace("Field required", "missing")
        .replace(" after validation", "")
    )
    return "not plain data" if text.startswith("Invalid JSON") else text[:1].lower() + text[1:]


@dataclass(frozen=True)
class TrunkPass:
    """Activations of one pass of N examples through the shared trunk, for the regularizers.

    Args:
        rows: alias of a dataset → number of its examples among the N rows, in the order of the rows.
        activations: name → [N, *shape]: `input` (normalized), the outputs of the trunk's stages, and `features`.
        private: task → features of its private trunk for its dataset's examples, [n, F]; empty without private trunks.
        selectors: gate → [n, k, E], the k distributions over E experts that constitute its weights for n examples; n is
            1 if they are the same for all. Each sums to 1 or less. Empty without gates.
        predictions: task → its prediction for its dataset's examples, [n, outputs]; empty unless tasks depend on each
            other.
    """

    rows: dict[str, int]
    activations: dict[str, Tensor]
    private: dict[str, Tensor] = field(default_factory=dict)
    selectors: dict[str, Tensor] = field(default_factory=dict)
    predictions: dict[str, Tensor] = field(default_factory=dict)
