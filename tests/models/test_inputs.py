"""A table's columns as numbers and one-hot categories."""

from __future__ import annotations

import numpy as np
import torch

from mtlcli.models.inputs import OneHot, make_column_encoder, make_preparation, prepared_shape
from mtlcli.specs import Column, DatasetSpec, TargetSpec
from tests.models.columns import COLUMNS, rows
from tests.oracles import tables


def spec(columns: tuple[Column, ...]) -> DatasetSpec:
    return DatasetSpec((len(columns),), {"y": TargetSpec("real")}, "y", ("train",), (), (), {}, columns)


def test_against_the_oracle() -> None:
    x = rows()
    found = make_column_encoder(COLUMNS)(x)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), tables.one_hot(COLUMNS, x.tolist()), rtol=1e-5, atol=1e-6)


def test_without_statistics_the_numbers_are_as_they_are() -> None:
    x = rows()
    found = OneHot(COLUMNS)(x)
    assert torch.equal(found[:, 3], x[:, 1]) and torch.equal(found[:, -1], x[:, 4])
    assert set(found[:, :3].unique().tolist()) == {0.0, 1.0}


def test_numbers_alone_and_categories_alone() -> None:
    x = rows()
    for chosen in ([1, 4], [0, 2, 3]):
        columns = [COLUMNS[at] for at in chosen]
        expected = tables.one_hot(columns, x[:, chosen].tolist())
        np.testing.assert_allclose(make_column_encoder(columns)(x[:, chosen]).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_negative_number_is_no_category() -> None:
    assert OneHot([Column("x"), Column("t", ("a",))])(torch.tensor([[-1.0, 2.0], [2.0, 0.0]])).tolist() == [
        [-1.0, 1.0],
        [2.0, 0.0],
    ]


def test_what_a_trunk_is_given() -> None:
    x = rows(4)
    shape = prepared_shape(spec(COLUMNS))
    assert shape == (37,) and make_preparation(spec(COLUMNS))(x).shape == (4, *shape)
    assert prepared_shape(spec(COLUMNS), raw_columns=True) == (5,)
    assert torch.equal(make_preparation(spec(COLUMNS), raw_columns=True)(x), x)
    images = DatasetSpec((1, 8, 8), {}, None, ("train",), (3.0,), (2.0,), {})
    assert prepared_shape(images) == (1, 8, 8)
    assert make_preparation(images)(torch.full((1, 1, 8, 8), 7)).unique().item() == 2.0


def test_the_encoding_travels_with_the_weights() -> None:
    x, other = rows(), make_column_encoder([Column(c.name, c.levels, mean=1.0) for c in COLUMNS])
    other.load_state_dict(make_column_encoder(COLUMNS).state_dict())
    assert torch.equal(other(x), make_column_encoder(COLUMNS)(x))


def test_on_the_meta_device() -> None:
    with torch.device("meta"):
        assert make_column_encoder(COLUMNS)(torch.empty(2, 5)).shape == (2, 37)
