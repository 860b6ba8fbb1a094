"""The trained model as a function of raw inputs, for predictions and exported programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlcli.models.model import MultiTaskModel
from mtlcli.models.sharing.base import AnyNameModuleDict
from mtlcli.specs import FIRST, Column, DatasetSpec


class RawInputModel(nn.Module):
    """A multi-task model that takes the inputs of all datasets in one dict, made safe for table inputs of any origin.

    Args:
        model: The trained model.
        specs: Descriptions of the datasets, by alias.
    """

    def __init__(self, model: MultiTaskModel, specs: Mapping[str, DatasetSpec]) -> None:
        super().__init__()
        self.model = model
        self.tables = AnyNameModuleDict({alias: Cleaned(spec.columns) for alias, spec in specs.items() if spec.columns})

    def forward(self, inputs: dict[str, Tensor], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Compute the outputs of tasks on the datasets in `inputs`.

        Args:
            inputs: Alias → raw inputs [B, *input_shape].
            tasks: The tasks; None for all on these datasets.

        Returns:
            Task → outputs [B, outputs].
        """
        return self.model(self.cleaned(inputs), tasks)  # type: ignore[no-any-return]

    def representations(self, inputs: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
        """Compute the inputs of the heads.

        Args:
            inputs: Alias → raw inputs [B, *input_shape].
            tasks: The tasks, whose datasets are all in `inputs`.

        Returns:
            Task → representation [B, features].
        """
        return self.model.representations(self.cleaned(inputs), tasks)

    def cleaned(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the inputs with those of tables cleaned, see `Cleaned`."""
        return {alias: self.tables[alias](x) if alias in self.tables else x for alias, x in inputs.items()}


class Cleaned(nn.Module):
    """Raw columns [B, columns] with the mean in place of a missing number and 0 in place of an invalid category code.

    Data files are checked as they are read, so in training and `mtl eval` no such value reaches the model.

    Args:
        columns: The columns, in order.
    """

    codes: Tensor
    mean: Tensor

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        codes = [0 if column.levels is None else FIRST + len(column.levels) for column in columns]
        self.register_buffer("codes", torch.tensor(codes, dtype=torch.float32))  # number of codes; 0: a number
        self.register_buffer("mean", torch.tensor([column.mean for column in columns], dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Replace NaN by the column's mean, and by 0 what is no code of a category."""
        is_code = (x >= 0) & (x < self.codes) & (x == x.floor())
        return torch.where(self.codes > 0, torch.where(is_code, x, 0.0), torch.where(x.isnan(), self.mean, x))
