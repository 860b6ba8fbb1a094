"""Missing labels, and the forms of maps."""

import math

import pytest
import torch
from torch import Tensor

from mtlcli.labels import IGNORE_INDEX, expand_map, has_label, is_labelled, labelled_pixels

BYTES = torch.tensor([[[0, 1], [255, 254]], [[255, 255], [255, 255]]], dtype=torch.uint8)
NAN = math.nan


def test_a_class_map_of_bytes_becomes_indices() -> None:
    expanded = expand_map(BYTES, "class_map")
    assert expanded.tolist() == [[[0, 1], [IGNORE_INDEX, 254]], [[IGNORE_INDEX] * 2] * 2]
    assert expand_map(expanded, "class_map").equal(expanded)


def test_a_binary_map_of_bytes_becomes_floats() -> None:
    expanded = expand_map(BYTES.clamp(max=1).where(BYTES < 254, 255), "binary_map")
    assert expanded.dtype == torch.float32
    assert expanded[0, 0].tolist() == [0.0, 1.0]
    assert expanded.isnan().sum() == 6


@pytest.mark.parametrize("form", ["real_map", "depth_map", "normal_map"])
def test_maps_of_half_precision_become_float32(form: str) -> None:
    expanded = expand_map(torch.tensor([[[0.5, NAN]]], dtype=torch.float16), form)
    assert expanded.dtype == torch.float32
    assert expanded[0, 0, 0] == 0.5
    assert expanded[0, 0, 1].isnan()


def test_a_pixel_is_labelled_if_all_its_channels_are() -> None:
    normals = torch.tensor([[[[0.0, 1.0]], [[NAN, 0.0]], [[1.0, 0.0]]], [[[0.0, NAN]], [[NAN, 0.0]], [[1.0, 0.0]]]])
    assert labelled_pixels(normals).tolist() == [[[False, True]], [[False, False]]]
    assert has_label(normals).tolist() == [True, False]


@pytest.mark.parametrize(("target", "expected"), [
    (torch.tensor([1, IGNORE_INDEX]), [True, False]),
    (torch.tensor([[0.0, NAN], [NAN, NAN]]), [True, False]),
    (BYTES, [True, False]),
    (expand_map(BYTES, "class_map"), [True, False]),
])  # fmt: skip
def test_an_example_has_a_label_if_any_is_not_missing(target: Tensor, expected: list[bool]) -> None:
    assert has_label(target).tolist() == expected
    assert is_labelled(target).shape == target.shape
