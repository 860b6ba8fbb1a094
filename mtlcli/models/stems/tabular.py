"""A stem for tables with entity embeddings of the categories."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from mtlcli.config.options import Width, Widths
from mtlcli.models.stems.base import Stem, make_projection
from mtlcli.models.table_encoder import TableEncoder
from mtlcli.registry import stems
from mtlcli.specs import Column, Shape


@stems.register("tabular")
class Tabular(Stem):
    """Embeddings of a table's categories and its standardized numbers, then a linear layer → the input of the trunk.

    The columns are encoded as by the trunk `tabular`: a learned vector for each category and for a missing one, and
    numbers minus their mean, divided by their standard deviation. Optional hidden layers with ReLU and dropout precede
    the linear layer.

    References:
        Guo and Berkhahn, Entity embeddings of categorical variables, 2016, arXiv:1604.06737, section 3.

    Args:
        columns: the columns of the table.
        output_shape: input shape of the trunk; a map [C, H, W] is the output of the linear layer in this order.
        features: width of the output, which states that the trunk takes vectors of this width; null: the rest of the
            experiment determines the shape.
        embedding: width of the vectors of every categorical column; `auto`: for each column round(1.6 n^0.56), where n
            counts its categories and the missing value.
        numeric: `standardize`: (x − mean) / std; `log1p`: the same for sign(x)·log(1 + |x|), for amounts that span
            several orders of magnitude.
        hidden: widths of the hidden layers; may be empty.
        dropout: dropout probability of the hidden layers.
    """

    of_columns = True

    def __init__(
        self,
        columns: Sequence[Column],
        output_shape: Shape,
        *,
        features: Width | None = None,
        embedding: Width | Literal["auto"] = "auto",
        numeric: Literal["standardize", "log1p"] = "standardize",
        hidden: Widths = [],  # noqa: B006 (never changed)
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = TableEncoder(columns, embedding, numeric)
        layers: list[nn.Module] = []
        for inputs, width in pairwise([self.encoder.width, *hidden]):
            layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.projection = make_projection([self.encoder.width, *hidden][-1], output_shape)

    def forward(self, x: Tensor, /) -> Tensor:
        encoded: Tensor = self.projection(self.hidden(self.encoder(x)))
        return encoded
