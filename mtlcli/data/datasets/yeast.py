"""Yeast genes."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mtlcli.data.datasets._named_table import NamedTable, Texts
from mtlcli.data.download.collection import Collection
from mtlcli.data.download.pip_package import PipPackage
from mtlcli.data.formats.compressed import open_decompressed
from mtlcli.registry import datasets
from mtlcli.specs import TargetSpec

FILE = "yeast.csv"
INPUTS = tuple(f"Att{number}" for number in range(1, 104))
LABELS = tuple(f"Class{number}" for number in range(1, 15))


@datasets.register("yeast")
class Yeast(NamedTable):
    """Yeast: the functions of 2,417 genes, in 14 classes of which a gene has several (4.2 on average).

    Inputs: 103 numbers, the expression of the gene in microarrays and its phylogenetic profile.

    Targets: `functions` (multilabel, all 14 classes), and each class as a target of its own, `Class1` … `Class14`
    (binary), which a multi-task model can learn as 14 tasks. Class14 is rare (1.4 %); Class12 and Class13 are
    equal for 99 % of the genes.

    Splits: a fifth of the genes is `test`, drawn by their content.

    Files: the data set of the MULAN library as a table, in `<root>/yeast/raw`. It is extracted from the package river
    on the Python package index, which is verified by checksum.

    Args:
        root: data root; default $MTL_DATA, else `data`.
        download: whether to download missing files.
        val: share of the training examples that becomes the split `val`, drawn by the run's seed.

    References:
        Elisseeff and Weston, "A kernel method for multi-labelled classification", NIPS 2001.
    """

    name = "yeast"
    origin = "MULAN, from a package on the Python package index (river)"
    collection = Collection(
        folder="yeast",
        files={FILE: "fd17cb9b53acaaf5e82a9e0795e2667167775915c0e32c1f6fe0fadb0d3bd703"},
        sources=(
            PipPackage(
                "river",
                "0.26.1",
                "6a11e1a9749beec3ea138efeb0205b2c5cea8d424e9deee306c8980faec01bef",
                {FILE: "river/datasets/yeast.csv.gz"},
                wheel=True,
                built_for=("3.11", "manylinux_2_28_x86_64"),
            ),
        ),
    )

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = True,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__(
            root=root,
            download=download,
            val=val,
            targets={
                "functions": TargetSpec("multilabel", len(LABELS), LABELS),
                **{label: TargetSpec("binary") for label in LABELS},
            },
            columns=dict.fromkeys(INPUTS),
        )

    def read_columns(self, files: Mapping[str, Path]) -> dict[str, Texts]:
        """Read the table.

        Args:
            files: name → path of the file.

        Returns:
            Column → its cells.

        Raises:
            ValueError: the file is damaged.
        """
        with open_decompressed(files[FILE]) as file:
            header, *rows = csv.reader(file.read().decode("ascii").splitlines())
        if tuple(header) != INPUTS + LABELS:
            raise ValueError(f"{files[FILE]}:1: expected the columns {INPUTS[0]}, …, {LABELS[-1]}")
        for at, row in enumerate(rows, 2):
            if len(row) != len(header):
                raise ValueError(f"{files[FILE]}:{at}: {len(row)} values, expected {len(header)}")
        return dict(zip(header, (list(column) for column in zip(*rows, strict=True)), strict=True))
