"""Conversion of raw inputs, images and columns of tables, to the inputs of the trunks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlcli.models.text_pairs import SeparateTexts
from mtlcli.specs import Column, DatasetSpec, Shape
from mtlcli.text_spec import TextSpec


class Normalize(nn.Module):
    """Normalization (x − mean) / std in float32; a constant feature (std 0) is only centred.

    The statistics are buffers, so they are saved with the model.

    Args:
        input_shape: shape of an example without the batch.
        mean: one mean for all values, or one for each channel of an image or each feature of a table.
        std: as many standard deviations.

    Raises:
        ValueError: if the number of statistics is neither 1 nor the number of channels or features.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, input_shape: Shape, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        count = len(mean)
        if len(std) != count or count not in (1, input_shape[0]):
            raise ValueError(
                f"statistics of inputs {'×'.join(map(str, input_shape))}: expected 1 or {input_shape[0]} means and as "
                f"many standard deviations, got {count} and {len(std)}"
            )
        shape = () if count == 1 else (count, *(1 for _ in input_shape[1:]))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(shape))
        self.register_buffer("std", torch.tensor([s or 1.0 for s in std], dtype=torch.float32).reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize raw inputs; only the result is allocated, since the steps after the conversion are in place.

        Args:
            x: raw inputs of any dtype, [B, *input_shape].

        Returns:
            Normalized inputs, float32 [B, *input_shape].
        """
        if x.dtype == torch.float32:
            return (x - self.mean).div_(self.std)
        return x.to(torch.float32).sub_(self.mean).div_(self.std)


FIRST_CODE = 2  # code of a column's first level, see `Column`


class OneHot(nn.Module):
    """One-hot encoding of the categories of a table; numbers are left unchanged.

    The result has one value for each number and one for each level of a category, in the order of the columns and of
    their levels. All values of a category are 0 if it is missing or doesn't occur in the training examples. The
    encoding takes three operations for any number of columns; its buffers are saved with the model.

    Args:
        columns: the columns of the table.

    Attributes:
        width: number of values for an example.
    """

    column: Tensor
    code: Tensor

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        outputs = [
            (position, code)
            for position, column in enumerate(columns)
            for code in ([-1] if column.levels is None else range(FIRST_CODE, FIRST_CODE + len(column.levels)))
        ]
        position, code = zip(*outputs, strict=True)
        self.width = len(outputs)
        self.register_buffer("column", torch.tensor(position))  # of each output
        self.register_buffer("code", torch.tensor(code, dtype=torch.float32))  # for which it is 1; -1: a number

    def forward(self, x: Tensor) -> Tensor:
        """Encode raw columns.

        Args:
            x: raw columns, [B, columns].

        Returns:
            Encoded columns, float32 [B, width].
        """
        x = x.index_select(1, self.column)
        return torch.where(self.code < 0, x, (x == self.code).to(x.dtype))


def make_column_encoder(columns: Sequence[Column]) -> nn.Module:
    """Create the default conversion of a table's columns: standardized numbers and one-hot categories.

    Args:
        columns: the columns of the table.

    Returns:
        A module raw columns [B, columns] → float32 [B, width]: `OneHot`, then `Normalize`.
    """
    one_hot = OneHot(columns)
    statistics = [
        (column.mean, column.std) if column.levels is None else (0.0, 1.0)
        for column in columns
        for _ in (column.levels if column.levels is not None else [None])
    ]
    mean, std = zip(*statistics, strict=True)
    return nn.Sequential(one_hot, Normalize((one_hot.width,), mean, std))


def make_preparation(spec: DatasetSpec, raw_columns: bool = False) -> nn.Module:
    """Create the module that converts the raw inputs of a dataset to the inputs of the trunk.

    Args:
        spec: the dataset.
        raw_columns: whether the trunk processes the raw columns of a table (`Trunk.of_columns`).

    Returns:
        A module raw inputs [B, *spec.input_shape] → float32 [B, *prepared_shape]: the identity for raw columns and for
        the tokens of texts, otherwise a normalization. Texts that are encoded one by one are divided, [texts · B, …].
    """
    if spec.text is not None:
        return SeparateTexts() if spec.text.separate else nn.Identity()
    if not spec.columns:
        return Normalize(spec.input_shape, spec.mean, spec.std)
    return nn.Identity() if raw_columns else make_column_encoder(spec.columns)


def blank_texts(texts: TextSpec, examples: int, tokens: int, device: torch.device | str | None = None) -> Tensor:
    """Return texts of zeros for a trial.

    Args:
        texts: description of the texts.
        examples: number of examples, B.
        tokens: maximum number of tokens.
        device: device of the inputs.

    Returns:
        int32 [B, …, L] of `TextSpec.input_shape`, with at most `tokens` tokens.
    """
    *planes, length = texts.input_shape
    return torch.zeros(examples, *planes, min(length, tokens), dtype=torch.int32, device=device)


def prepared_shape(spec: DatasetSpec, raw_columns: bool = False) -> Shape:
    """Return the shape of an example after `make_preparation`.

    Args:
        spec: the dataset.
        raw_columns: whether the trunk processes the raw columns of a table.

    Returns:
        The shape without the batch.
    """
    if spec.text is not None and spec.text.separate:
        return spec.input_shape[1:]
    if not spec.columns or raw_columns:
        return spec.input_shape
    return (sum(1 if column.levels is None else len(column.levels) for column in spec.columns),)
