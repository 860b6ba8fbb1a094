"""A trunk for tables that embeds their categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from mtlcli.config.options import Width, Widths
from mtlcli.models.inputs import TableEncoder
from mtlcli.models.trunks.mlp import MLP
from mtlcli.registry import trunks
from mtlcli.specs import Column


@trunks.register("tabular")
class Tabular(MLP):
    """Learned vectors for the categories of a table beside its numbers, then fully connected layers → [B, features].

    Takes the raw columns [B, columns] of a table (`csv`, `census_income`). A categorical column has a vector for each
    category and one for a missing value; a category that wasn't seen in training is a vector of zeros, and stays so. A
    numeric column is one number, by its mean and standard deviation over the training examples; a missing one is the
    mean of the column (before any logarithm). Vectors and numbers, side by side, go through layers as those of `mlp`:
    each followed by ReLU and dropout. Activations: fc1, fc2, …, one per layer (after the ReLU, before the dropout); the
    last one is the features.

    Source: Guo and Berkhahn, Entity embeddings of categorical variables, 2016, section 3. The vectors start from
    N(0, 0.1²).

    Options:
        embedding: width of the vectors of every categorical column; `auto`: for each column round(1.6 n^0.56), where n
            counts its categories and the missing one (fastai's rule): 3 for 2 categories, 15 for 52.
        numeric: `standardize`: (x − mean) / std; `log1p`: the same of sign(x)·log(1 + |x|), for amounts that are spread
            over several powers of ten.
        hidden: widths of the hidden layers; may be empty.
        features: width of the output.
        dropout: probability that a value of a hidden layer is dropped in training.
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
