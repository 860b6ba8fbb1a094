"""Conversion of a table's columns to numbers and one-hot categories."""

from __future__ import annotations

import numpy as np
import torch

from mtlcli.models.inputs import OneHot, make_column_encoder, make_preparation, prepared_shape
from mtlcli.specs import Column, DatasetSpec, TargetSpec
from tests.models.columns import COLUMNS, rows
from tests.oracles import tables


def spec(columns: tuple[Column, ...]) -> DatasetSpec:
    return DatasetSpec((len(columns),), {"y": TargetSpec("real")}, "y", ("train",), (), (), {}, columns)


def test_encoding_matches_the_oracle() -> None:
    x = rows()
    actual = make_column_encoder(COLUMNS)(x)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.numpy(), tables.one_hot(COLUMNS, x.tolist()), rtol=1e-5, atol=1e-6)


def test_numbers_are_unchanged_without_statistics() -> None:
    x = rows()
    actual = OneHot(COLUMNS)(x)
    assert torch.equal(actual[:, 3], x[:, 1]) and torch.equal(actual[:, -1], x[:, 4])
    assert set(actual[:, :3].unique().tolist()) == {0.0, 1.0}


def test_only_numbers_and_only_categories() -> None:
    x = rows()
    for chosen in ([1, 4], [0, 2, 3]):
        columns = [COLUMNS[at] for at in chosen]
        expected = tables.one_hot(columns, x[:, chosen].tolist())
        np.testing.assert_allclose(make_column_encoder(columns)(x[:, chosen]).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_negative_number_is_not_a_category() -> None:
    assert OneHot([Column("x"), Column("t", ("a",))])(torch.tensor([[-1.0, 2.0], [2.0, 0.0]])).tolist() == [
        [-1.0, 1.0],
        [2.0, 0.0],
    ]


def test_prepared_inputs_of_a_trunk() -> None:
    x = rows(4)
    shape = prepared_shape(spec(COLUMNS))
    assert shape == (37,) and make_preparation(spec(COLUMNS))(x).shape == (4, *shape)
    assert prepared_shape(spec(COLUMNS), raw_columns=True) == (5,)
    assert torch.equal(make_preparation(spec(COLUMNS), raw_columns=True)(x), x)
    images = DatasetSpec((1, 8, 8), {}, None, ("train",), (3.0,), (2.0,), {})
    assert prepared_shape(images) == (1, 8, 8)
    assert make_preparation(images)(torch.full((1, 1, 8, 8), 7)).unique().item() == 2.0


def test_encoding_is_part_of_the_state_dict() -> None:
    x, other = rows(), make_column_encoder([Column(c.name, c.levels, mean=1.0) for c in COLUMNS])
    other.load_state_dict(make_column_encoder(COLUMNS).state_dict())
    assert torch.equal(other(x), make_column_encoder(COLUMNS)(x))


def test_on_the_meta_device() -> None:
    with torch.device("meta"):
        assert make_column_encoder(COLUMNS)(torch.empty(2, 5)).shape == (2, 37)
