"""Types that the packages exchange: a dataset its shapes, targets and statistics, a trunk what it has computed.

Floor: the lowest, beside `registry` and `errors`; it is what lets the component packages not import one another.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from mtlcli.errors import ConfigError, Problem

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
IGNORE_INDEX = -100  # the missing label of a `classes` target; of every other type it is NaN
UNKNOWN, MISSING, FIRST = 0, 1, 2  # codes of a category: not seen in training, missing, the first level (see `Column`)

# what is read from a checkpoint has to keep to these
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
    """One target column of a dataset.

    type: `classes` (int64 [N], missing = IGNORE_INDEX), `binary` (float32 [N] of 0/1), `multilabel` (float32 [N, size]
        of 0/1) or `real` (float32 [N]; float64 where the values are so far from 0 that float32 would round their
        differences); in the last three a missing label is NaN.
    size: number of classes or of labels; 1 for `binary` and `real`.
    classes: names of the classes or labels, where there are any.
    missing: whether a label may be missing.
    mean, std: of a `real` target over the training examples, where they are known.
    """

    __pydantic_config__: ClassVar[ConfigDict] = PLAIN

    type: Literal["classes", "binary", "multilabel", "real"]
    size: Annotated[int, Field(ge=1, le=MOST_CLASSES)] = 1
    classes: Names | None = None
    missing: bool = False
    mean: float = 0.0
    std: Std = 1.0

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names in `classes`; where there are none, the numbers of the classes or labels, of `binary` 0 and 1."""
        return self.classes or tuple(map(str, range(2 if self.type == "binary" else self.size)))


def is_labelled(target: Tensor) -> Tensor:
    """Mark the labels that are not missing: neither IGNORE_INDEX (integer targets) nor NaN (float targets).

    Args:
        target: labels as `TargetSpec` defines them, [N] or [N, size].

    Returns:
        bool, of the same shape as `target`.
    """
    return target.isnan().logical_not() if target.is_floating_point() else target != IGNORE_INDEX


def has_label(target: Tensor) -> Tensor:
    """Mark the examples with at least one label that is not missing.

    Args:
        target: labels as `TargetSpec` defines them, [N] or [N, size].

    Returns:
        bool [N].
    """
    mask = is_labelled(target)
    return mask if mask.ndim == 1 else mask.flatten(1).any(1)


@dataclass(frozen=True)
class Column:
    """One feature column of a table, as it is in the raw inputs [B, columns].

    levels: of a categorical column, the categories of the training rows, in order; None: a numeric column. The raw
        input of a category is a code: 0 for one not seen in training, 1 for a missing value, 2 + i for levels[i]. Where
        all levels are numbers, any spelling of the same number (`1`, `1.0`, `01`) is the same category.
    offset: the raw input of a number x is x − offset, computed in float64 and narrowed to float32, so that numbers far
        from 0 (times, coordinates) keep their digits. 0 for most columns.
    mean, std: of x − offset over the training rows. A missing number is the mean.
    log_mean, log_std: of sign(x)·log(1 + |x|) − sign(offset)·log(1 + |offset|).
    """

    __pydantic_config__: ClassVar[ConfigDict] = PLAIN

    name: str
    levels: Names | None = None
    mean: float = 0.0
    std: Std = 1.0
    log_mean: float = 0.0
    log_std: Std = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a dataset without reading all of it.

    input_shape: of one example: (C, H, W) for images, (F,) for tables.
    targets: by name; `main_target` is the one a task gets when it names none (None: there is no such one).
    splits: those it has, of `train`, `val`, `test`.
    mean, std: of the raw inputs (an image's in units of its raw values, 0…255), per channel, or one for all; the model
        normalizes by them, so that they travel with the checkpoint. None of a table, whose `columns` have theirs.
    state: whatever else was fitted on the training data, plain lists, dicts, numbers, strings.
    columns: of a table, in the order of the raw inputs [B, columns]; none for anything else.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, for a checkpoint."""
        plain: dict[str, Any] = _listed(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, plain: Any, where: str = "specs") -> DatasetSpec:
        """The spec that `to_dict` told of. ConfigError, naming the keys below `where`, for anything else."""
        try:
            spec = _adapter().validate_json(json.dumps(plain))  # where a list may stand for a tuple, and nothing else
        except (TypeError, RecursionError) as error:
            raise ConfigError(Problem("not plain data", where)) from error
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)[:MOST_PROBLEMS]
            raise ConfigError(
                Problem(_told(one["msg"]), ".".join([where, *map(str, one["loc"])])) for one in problems
            ) from error
        if wrong := spec._disagreement():
            raise ConfigError(Problem(wrong[1], f"{where}.{wrong[0]}"))
        return spec

    def _disagreement(self) -> tuple[str, str] | None:
        """The key of what doesn't agree with the rest, and why; None where all does."""
        if math.prod(self.input_shape) > MOST_NUMBERS:
            return "input_shape", f"an example of more than {MOST_NUMBERS} numbers"
        if self.main_target is not None and self.main_target not in self.targets:
            return "main_target", f"there is no target {self.main_target!r}"
        for name, target in self.targets.items():
            if target.classes is not None and len(target.classes) != target.size:
                return f"targets.{name}.classes", f"{len(target.classes)} names, and `size` is {target.size}"
        if self.columns:
            if self.input_shape != (len(self.columns),):
                return "columns", f"{len(self.columns)} columns, and inputs of another shape"
        elif len(self.mean) not in (1, self.input_shape[0]) or len(self.std) != len(self.mean):
            return "mean", f"1 or {self.input_shape[0]} means and as many standard deviations are needed"
        return None


@cache
def _adapter() -> TypeAdapter[DatasetSpec]:
    return TypeAdapter(DatasetSpec)


def _told(message: str) -> str:
    """What pydantic says, in our words."""
    text = (
        message.replace("Input should be", "expected")
        .replace("Field required", "missing")
        .replace(" after validation", "")
    )
    return "not plain data" if text.startswith("Invalid JSON") else text[:1].lower() + text[1:]


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class TrunkPass:
    """One pass of examples through the shared trunk, for the regularizers.

    rows: alias of a dataset → how many of the N rows are its examples, in the order of the rows.
    activations: name → [N, *shape]: `input` (normalized), those of the trunk's stages, and `features`.
    private: task → its own features of its dataset's examples [n, F], under a sharing that has such.
    selectors: gate → [n, k, E], the k distributions over E experts that make up its weights for n examples, under a
        sharing that has gates; n is 1 where they are the same for all. They sum to 1 or less.
    """

    rows: dict[str, int]
    activations: dict[str, Tensor]
    private: dict[str, Tensor] = field(default_factory=dict)
    selectors: dict[str, Tensor] = field(default_factory=dict)
