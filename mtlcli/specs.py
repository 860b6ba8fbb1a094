"""What the packages tell each other: a dataset its shapes, targets and statistics, a trunk what it has computed.

Floor: the lowest, beside `registry` and `errors`; it is what lets the component packages not import one another.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
IGNORE_INDEX = -100  # the missing label of a `classes` target; of every other type it is NaN


@dataclass(frozen=True)
class TargetSpec:
    """One target column of a dataset.

    type: `classes` (int64 [N], missing = IGNORE_INDEX), `binary` (float32 [N] of 0/1), `multilabel` (float32 [N, size]
        of 0/1) or `real` (float32 [N]); in the last three a missing label is NaN.
    size: number of classes or of labels; 1 for `binary` and `real`.
    classes: names of the classes or labels, where there are any.
    missing: whether a label may be missing.
    mean, std: of a `real` target over the training examples, where they are known.
    """

    type: Literal["classes", "binary", "multilabel", "real"]
    size: int = 1
    classes: tuple[str, ...] | None = None
    missing: bool = False
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class Column:
    """One feature column of a table, as it is in the raw inputs [B, columns].

    levels: of a categorical one, the categories of the training rows, in order; None: a numeric one. A raw value is
        then a code: 0 a category not seen in training, 1 a missing value, 2 + i the category levels[i].
    mean, std: of a numeric one over the training rows; log_mean, log_std: of sign(x)·log(1 + |x|). A missing value is
        the mean.
    """

    name: str
    levels: tuple[str, ...] | None = None
    mean: float = 0.0
    std: float = 1.0
    log_mean: float = 0.0
    log_std: float = 1.0


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

    input_shape: Shape
    targets: dict[str, TargetSpec]
    main_target: str | None
    splits: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    state: dict[str, Any]
    columns: tuple[Column, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, for a checkpoint."""
        plain: dict[str, Any] = _listed(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> DatasetSpec:
        targets = {
            name: TargetSpec(**{**target, "classes": None if target["classes"] is None else tuple(target["classes"])})
            for name, target in plain["targets"].items()
        }
        tuples = {key: tuple(plain[key]) for key in ("input_shape", "splits", "mean", "std")}
        columns = tuple(
            Column(**{**column, "levels": None if column["levels"] is None else tuple(column["levels"])})
            for column in plain.get("columns", [])
        )
        return cls(**{**plain, **tuples, "targets": targets, "columns": columns})


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
