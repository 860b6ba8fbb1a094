"""A trunk for tables with entity embeddings of the categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from mtlcli.config.options import Width, Widths
from mtlcli.models.table_encoder import TableEncoder
from mtlcli.models.trunks.mlp import MLP
from mtlcli.registry import trunks
from mtlcli.specs import Column


@trunks.register("tabular")
class Tabular(MLP):
    """Embeddings of a table's categories, concatenated with its numbers, then fully connected layers → [B, F].

    The inputs are the raw columns [B, columns] of a `table` or of `census_income`. A categorical column has a learned
    vector for each category and one for a missing value; the vector of a category that doesn't occur in the training
    examples is constantly zero. A numeric column is standardized by its mean and standard deviation over the training
    examples; a missing number is the mean of the column (before any logarithm). Vectors and numbers are concatenated
    and pass through the layers of `mlp`, each followed by ReLU and dropout. Activations: fc1, fc2, …, one per layer
    (after the ReLU, before the dropout); the last one is the features.

    Note:
        Embeddings are initialized from N(0, 0.1²).

    References:
        Guo and Berkhahn, Entity embeddings of categorical variables, 2016, arXiv:1604.06737, section 3.

    Args:
        columns: the columns of the table.
        embedding: width of the vectors of every categorical column; `auto`: for each column round(1.6 n^0.56), where n
            counts its categories and the missing value (fastai's rule), e.g. 3 for 2 categories, 15 for 52.
        numeric: `standardize`: (x − mean) / std; `log1p`: the same for sign(x)·log(1 + |x|), for amounts that span
            several orders of magnitude.
        hidden: widths of the hidden layers; may be empty.
        features: width F of the output.
        dropout: dropout probability of the hidden layers.
    """

    of_columns = True

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        embedding: Width | Literal["auto"] = "auto",
        numeric: Literal["standardize", "log1p"] = "standardize",
        hidden: Widths = [256],  # noqa: B006 (never changed)
        features: Width = 128,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        encoder = TableEncoder(columns, embedding, numeric)
        super().__init__((encoder.width,), hidden=hidden, features=features, dropout=dropout)
        self.encoder = encoder
