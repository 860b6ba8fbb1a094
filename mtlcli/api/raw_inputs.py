"""Inputs that users pass to a trained model, checked and converted to tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.api.text_batches import tokenize_texts
from mtlcli.data.base import Dataset, LazyInputs
from mtlcli.data.formats.image_decoding import ImagePreparation
from mtlcli.data.formats.images import ImageFiles, OpensImages
from mtlcli.data.formats.row_encoding import encode_rows, is_rows
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.data.formats.tokenization import TextTokenizer
from mtlcli.errors import InputError, suggest
from mtlcli.specs import DatasetSpec
from mtlcli.text_spec import TextSpec

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)


class RawInputs:
    """Converts the inputs of a trained model's datasets to raw tensors.

    Args:
        datasets: The datasets, by alias; their data is not read.
        specs: Their descriptions, by alias.
        columns: Alias → names of table columns that may be present and are ignored.
        tokenizer: The tokenizer of a model that reads text; None for others.
    """

    def __init__(
        self,
        datasets: Mapping[str, Dataset],
        specs: Mapping[str, DatasetSpec],
        columns: Mapping[str, Sequence[str]],
        tokenizer: TextTokenizer | None = None,
    ) -> None:
        self.datasets, self.specs, self.columns = dict(datasets), dict(specs), dict(columns)
        self.tokenizer = tokenizer

    def tensors(self, inputs: Any, *, stored_type: bool = False) -> dict[str, Tensor]:
        """Convert inputs to raw tensors.

        Args:
            inputs: Alias → inputs, or the inputs themselves for a model of one dataset.
            stored_type: Require the type and the range of values that the dataset stores.

        Returns:
            Alias → raw inputs [B, *input_shape]; of texts, padded to the longest.
        """
        converted = self.convert(inputs, stored_type=stored_type)
        return {alias: x if isinstance(x, Tensor) else x.batch(np.arange(len(x))) for alias, x in converted.items()}

    def convert(self, inputs: Any, *, stored_type: bool = False) -> dict[str, Tensor | TokenRows]:
        """Convert inputs to raw tensors, and texts to tokens.

        Args:
            inputs: Alias → inputs, or the inputs themselves for a model of one dataset.
            stored_type: Require the type and the range of values that the dataset stores.

        Returns:
            Alias → raw inputs [B, *input_shape], or B examples as tokens.

        Raises:
            InputError: A dataset is unknown, or its inputs have the wrong shape, type, columns or values.
        """
        converted: dict[str, Tensor | TokenRows] = {}
        for alias, value in self._by_alias(inputs).items():
            try:
                texts = self.specs[alias].text
                if texts is None or isinstance(value, Tensor):
                    converted[alias] = self.tensor(alias, value, stored_type=stored_type)
                else:
                    assert self.tokenizer is not None
                    others = {*self.columns.get(alias, ()), *self.specs[alias].targets}
                    converted[alias] = tokenize_texts(value, self.tokenizer, texts, self.datasets[alias], others)
            except InputError as error:
                raise InputError(f"inputs of dataset {alias!r}: {error}") from error
        return converted

    def _by_alias(self, inputs: Any) -> Mapping[str, Any]:
        aliases = list(self.specs)
        named = isinstance(inputs, Mapping) and not (len(aliases) == 1 and self._is_table(inputs))
        if not named:
            if len(aliases) > 1:
                example = f"{{{aliases[0]!r}: …, {aliases[1]!r}: …}}"
                raise InputError(f"the model has {len(aliases)} datasets; pass their inputs by name: {example}")
            return {aliases[0]: inputs}
        if not inputs:
            raise InputError(f"no inputs; expected those of {' or '.join(aliases)}")
        for alias in inputs:
            if alias not in self.specs:
                hint = suggest(str(alias), aliases)
                raise InputError(f"no dataset {alias!r}.{hint} The model's datasets: {', '.join(aliases)}")
        return inputs  # type: ignore[no-any-return]

    def _is_table(self, inputs: Mapping[str, Any]) -> bool:
        """Return whether a mapping holds the columns of the only dataset, and not the dataset by its alias."""
        ((alias, spec),) = self.specs.items()
        return bool(spec.columns or spec.text) and set(inputs) != {alias}

    def tensor(self, alias: str, value: Any, *, stored_type: bool = False) -> Tensor:
        """Convert the inputs of one dataset, as `tensors` does.

        Args:
            alias: The dataset.
            value: Its inputs.
            stored_type: Require the type and the range of values that the dataset stores.

        Returns:
            Raw inputs [B, *input_shape].

        Raises:
            InputError: The inputs have the wrong shape, type, columns or values.
        """
        spec, dataset = self.specs[alias], self.datasets[alias]
        if is_rows(value):
            if not spec.columns:
                raise InputError(f"expected a tensor or an array {_shape(spec)}, got rows of a table")
            others = {*self.columns.get(alias, ()), *spec.targets}
            encoded = encode_rows(value, spec.columns, dataset.notation, dataset.missing, others)
            if len(encoded) == 0:
                raise InputError("expected at least one example, got none")
            return encoded
        if isinstance(value, list | tuple) and value and all(isinstance(item, str | Path) for item in value):
            images = open_images([Path(item) for item in value], dataset, spec)
            return torch.stack([images[row] for row in range(len(value))])
        if spec.text is not None:
            return _check_tokens(_as_tensor(value), spec.text)
        tensor = with_channel(_as_tensor(value), spec)
        if len(tensor) == 0:
            raise InputError("expected at least one example, got none")
        if tensor.dtype == torch.bool or tensor.is_complex():
            raise InputError(f"expected numbers, got {_name(tensor.dtype)}")
        return _checked(tensor, spec, dataset) if stored_type else tensor


def _check_tokens(tensor: Tensor, texts: TextSpec) -> Tensor:
    """Check tokens that are passed instead of texts."""
    *planes, length = texts.input_shape
    shape = f"[B, {', '.join(map(str, planes))}, at most {length}]"
    if tensor.dtype not in (torch.int32, torch.int64) or list(tensor.shape[1:-1]) != planes or not len(tensor):
        raise InputError(f"expected texts, or their tokens {shape}, int32, got {_name(tensor.dtype)} "
                         f"{list(tensor.shape)}")  # fmt: skip
    if not 0 < tensor.shape[-1] <= length:
        raise InputError(f"expected tokens {shape}, got {list(tensor.shape)}")
    return tensor


def with_channel(tensor: Tensor, spec: DatasetSpec) -> Tensor:
    """Check the shape of raw inputs, and add the dimension of the channel to grey images without it.

    Args:
        tensor: Raw inputs.
        spec: Specification of the dataset.

    Returns:
        [B, *input_shape].

    Raises:
        InputError: The inputs have another shape.
    """
    expected = spec.input_shape
    if len(expected) == 3 and expected[0] == 1 and tuple(tensor.shape[1:]) == expected[1:]:
        return tensor.unsqueeze(1)
    if tuple(tensor.shape[1:]) != expected or tensor.ndim != len(expected) + 1:
        raise InputError(f"expected the shape {_shape(spec)}, got {list(tensor.shape)}{_hint(tensor, expected)}")
    return tensor


def open_images(paths: Sequence[Path], dataset: Dataset, spec: DatasetSpec) -> LazyInputs:
    """Open image files as raw inputs.

    Args:
        paths: Image files.
        dataset: The dataset of the model.
        spec: Its specification.

    Returns:
        The images, uint8 [*input_shape] each, decoded when they are accessed.

    Raises:
        InputError: The inputs of the dataset aren't images of 8 bits.
    """
    if isinstance(dataset, OpensImages):
        return dataset.open_images(paths, spec)
    shape = spec.input_shape
    if dataset.value_range != (0, 255) or len(shape) != 3 or shape[0] not in (1, 3):
        size = "×".join(map(str, shape))
        raise InputError(f"the model's inputs ({size}) are not read from image files; pass a .npy array [N, {size}]")
    return ImageFiles(paths, ImagePreparation(1 if shape[0] == 1 else 3, (shape[1], shape[2])))


def _as_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        if isinstance(value, list | tuple) and value and all(isinstance(item, Tensor) for item in value):
            return torch.stack(list(value))
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
        raise InputError(f"expected a tensor or an array of numbers, got {kind} ({error})") from error


def _checked(tensor: Tensor, spec: DatasetSpec, dataset: Dataset) -> Tensor:
    """Check that a tensor has the type and the range of values that the dataset stores."""
    if dataset.value_range is not None or spec.state.get("dtype") == "uint8":
        low, high = dataset.value_range or (0, 255)
        if tensor.dtype not in INTEGERS:
            raise InputError(
                f"expected uint8 with the raw values {low} to {high}, got {_name(tensor.dtype)}; pass the values as "
                "the dataset stores them, neither scaled nor normalized"
            )
        values = tensor.to(torch.int64) if tensor.dtype != torch.uint8 else tensor
        if (least := int(values.min())) < low or (most := int(values.max())) > high:
            wrong = least if least < low else most
            raise InputError(f"expected values from {low} to {high}, as the dataset stores them, got {wrong}")
        return values.to(torch.uint8)
    if not spec.columns and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        wrong_rows = (~tensor.isfinite()).flatten(1).any(1).nonzero().flatten()
        raise InputError(f"example {int(wrong_rows[0])} has a value that is not finite")
    return tensor.float()


def _shape(spec: DatasetSpec) -> str:
    return f"[B, {', '.join(map(str, spec.input_shape))}]"


def _hint(tensor: Tensor, expected: tuple[int, ...]) -> str:
    """Return the remedy for a common mistake in the shape, or an empty string."""
    if tuple(tensor.shape) == expected:
        return "; add the dimension of the batch: x.unsqueeze(0)"
    channels_last = (*expected[1:], expected[0])
    if len(expected) == 3 and tuple(tensor.shape[1:]) == channels_last:
        return "; channels come first: x.permute(0, 3, 1, 2)"
    return ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
