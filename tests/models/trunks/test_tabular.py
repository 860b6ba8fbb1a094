"""Trunk with embeddings of a table's categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from mtlcli.models.table_encoder import Embeddings, default_width
from mtlcli.models.trunks.mlp import MLP
from mtlcli.models.trunks.tabular import Tabular
from mtlcli.models.warm_start import freeze
from mtlcli.specs import Column
from tests.models.columns import COLUMNS, rows
from tests.oracles import tables


def make(columns: tuple[Column, ...] = COLUMNS, **options: Any) -> Tabular:
    torch.manual_seed(0)
    return Tabular(columns, **{"hidden": [6], "features": 4, **options})


def embeddings(trunk: Tabular) -> list[Embeddings]:
    return [module for module in trunk.encoder.modules() if isinstance(module, Embeddings)]


def vectors(trunk: Tabular) -> dict[str, NDArray[np.float64]]:
    """Return the vectors of each column, [1 + levels, width], which follow the row of zeros in the weight."""
    actual = {}
    for embedding in embeddings(trunk):
        columns = [COLUMNS[int(position)] for position in embedding.positions]
        cuts = np.cumsum([1, *(1 + len(column.levels or ()) for column in columns)])
        assert cuts[-1] == len(embedding.weight)
        weight = embedding.weight.detach().double().numpy()
        actual |= {c.name: weight[start:stop] for c, start, stop in zip(columns, cuts, cuts[1:], strict=False)}
    return actual


@pytest.mark.parametrize("embedding", ["auto", 1, 5])
@pytest.mark.parametrize("numeric", ["standardize", "log1p"])
def test_encoding_matches_the_oracle(embedding: Any, numeric: str) -> None:
    trunk, x = make(embedding=embedding, numeric=numeric), rows()
    given = tables.embedded(COLUMNS, x.tolist(), vectors(trunk), numeric == "log1p")
    np.testing.assert_allclose(trunk.encoder(x).detach().numpy(), given, rtol=1e-5, atol=1e-5)
    weights = {key: value.double().numpy() for key, value in trunk.state_dict().items()}
    hidden = np.maximum(given @ weights["fc1.weight"].T + weights["fc1.bias"], 0)
    expected = np.maximum(hidden @ weights["fc2.weight"].T + weights["fc2.bias"], 0)
    out, actual = trunk.activations(x, ["fc1", "fc2"])
    np.testing.assert_allclose(actual["fc1"].detach().numpy(), hidden, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(out, trunk(x)) and torch.equal(out, actual["fc2"])


def test_default_widths_of_embeddings() -> None:
    """Widths for numbers of categories that fastai publishes; here one of them is the missing value."""
    assert [default_width(n - 1) for n in (3, 10, 53, 1000)] == [3, 6, 15, 77]
    assert {name: table.shape[1] for name, table in vectors(make()).items()} == {"sex": 3, "town": 3, "code": 11}
    assert {table.shape[1] for table in vectors(make(embedding=7)).values()} == {7}


def test_columns_of_the_same_width_share_one_lookup() -> None:
    many = tuple(Column(str(at), ("a", "b")) for at in range(40))
    assert len(embeddings(make(many))) == len(embeddings(make(COLUMNS, embedding=8))) == 1
    assert len(embeddings(make())) == 2


def test_unseen_category_is_constantly_zero() -> None:
    trunk = make()
    optimizer = torch.optim.AdamW(trunk.parameters(), lr=0.1, weight_decay=0.1)
    for seed in range(3):
        optimizer.zero_grad()
        trunk.encoder(rows(seed=seed)).square().sum().backward()
        for embedding in embeddings(trunk):
            assert embedding.weight.grad is not None
            assert embedding.weight.grad[1:].any() and not embedding.weight.grad[0].any()
        optimizer.step()
    unseen = torch.zeros(1, len(COLUMNS))
    width = sum(table.shape[1] for table in vectors(trunk).values())
    assert not trunk.encoder(unseen)[:, :width].any()


def test_categories_have_separate_vectors_in_each_column() -> None:
    trunk, x = make(embedding=2), rows(8)
    before = trunk.encoder(x)
    weight = embeddings(trunk)[0].weight
    with torch.no_grad():
        weight[1 + 1 + 3 - 1] += 1.0  # Ulm: after the zeros, the missing town, Bonn and Köln
    changed = trunk.encoder(x) != before
    assert changed[x[:, 0] == 4, :2].all() and not changed[:, 2:].any() and not changed[x[:, 0] != 4].any()


@pytest.mark.parametrize("chosen", [[1, 4], [0, 2, 3], [2]])
def test_only_numbers_and_only_categories(chosen: list[int]) -> None:
    trunk = make(tuple(COLUMNS[at] for at in chosen))
    assert trunk(rows(9)[:, chosen]).shape == (9, 4)


def test_layers_are_those_of_mlp() -> None:
    trunk = make(hidden=[6, 5], dropout=0.5)
    mlp = MLP((17 + 2,), hidden=[6, 5], features=4, dropout=0.5)
    assert {k: v.shape for k, v in trunk.state_dict().items() if not k.startswith("encoder")} == {
        k: v.shape for k, v in mlp.state_dict().items()
    }
    assert list(trunk.stages()) == list(mlp.stages()) == trunk.activation_names() == ["fc1", "fc2", "fc3"]
    assert trunk.features == 4


def test_on_the_meta_device_and_from_a_state_dict() -> None:
    trunk, x = make().eval(), rows()
    with torch.device("meta"):
        other = Tabular(COLUMNS, hidden=[6], features=4)
        assert other(torch.empty(2, len(COLUMNS))).shape == (2, 4)
    other.load_state_dict(trunk.state_dict(), assign=True)
    assert torch.equal(other.eval()(x), trunk(x))


def test_frozen_trunk_keeps_its_embeddings() -> None:
    trunk = freeze(make(dropout=0.5))
    model = nn.Sequential(trunk, nn.Linear(4, 1)).train()
    model(rows()).sum().backward()
    assert all(p.grad is None for p in trunk.parameters()) and torch.equal(model(rows()), model(rows()))


def test_codes_are_exact_under_bf16_autocast() -> None:
    """With 2,001 levels, bf16 would round the codes above 256."""
    trunk = make((Column("id", tuple(map(str, range(2000)))),), embedding=3)
    x = torch.arange(2002.0).unsqueeze(1)
    with torch.autocast("cpu", torch.bfloat16):
        actual = trunk.encoder(x)
    assert torch.equal(actual, trunk.encoder(x)) and len(actual.unique(dim=0)) == 2002


def test_parameters_of_the_embeddings_precede_those_of_the_stages() -> None:
    trunk = make()
    trunk.input_shape = (len(COLUMNS),)
    divided = trunk.stage_parameters()
    assert list(divided) == ["encoder", "fc1", "fc2"]
    assert [id(p) for p in divided["encoder"]] == [id(p) for p in trunk.encoder.parameters()]
    assert sum(map(len, divided.values())) == len(list(trunk.parameters()))
