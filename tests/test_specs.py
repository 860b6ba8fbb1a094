import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtlcli.errors import ConfigError
from mtlcli.specs import Column, DatasetSpec, TargetSpec

IMAGES = DatasetSpec(
    input_shape=(3, 8, 8),
    targets={
        "shape": TargetSpec("classes", 2, ("round", "square")),
        "size": TargetSpec("real", missing=True, mean=2.5),
    },
    main_target=None,
    splits=("train", "test"),
    mean=(0.5, 1.0, 1.5),
    std=(1.0, 0.0, 2.0),
    state={"anything": [1, "x", None, {"plain": True}]},
)
TABLE = DatasetSpec(
    (2,), {"y": TargetSpec("binary")}, "y", ("train",), (), (), {}, (Column("a"), Column("b", ("x", "y")))
)


MAPS = DatasetSpec(
    (3, 8, 8),
    {
        "class": TargetSpec("class_map", 3, ("floor", "wall", "ball"), missing=True),
        "edge": TargetSpec("binary_map"),
        "heat": TargetSpec("real_map", 2, mean=1.0, std=2.0),
        "depth": TargetSpec("depth_map", mean=2.5),
        "normals": TargetSpec("normal_map", 3),
    },
    None, ("train",), (0.5,), (1.0,), {},
)  # fmt: skip


@pytest.mark.parametrize("spec", [IMAGES, TABLE, MAPS])
def test_a_spec_survives_a_round_trip(spec: DatasetSpec) -> None:
    assert DatasetSpec.from_dict(spec.to_dict()) == spec


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_survive_a_round_trip_exactly(values: list[float]) -> None:
    spec = DatasetSpec(
        (len(values),), {"y": TargetSpec("real")}, None, ("train",), tuple(values), (1.0,) * len(values), {}
    )
    assert [value.hex() for value in DatasetSpec.from_dict(spec.to_dict()).mean] == [value.hex() for value in values]


def changed(spec: DatasetSpec, path: str, value: Any) -> Any:
    plain = copy.deepcopy(spec.to_dict())
    *above, last = path.split(".")
    node = plain
    for key in above:
        node = node[int(key) if isinstance(node, list) else key]
    node[last] = value
    return plain


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("input_shape", [3, "8", 8], r"input_shape\.1: expected a valid integer"),
        ("input_shape", [3, 0, 8], r"input_shape\.1: expected greater than or equal to 1"),
        ("input_shape", [2] * 5, r"input_shape: tuple should have at most 4 items"),
        ("input_shape", [3, 2**20, 2**20], r"input_shape: an example has more than 268435456 numbers"),
        ("input_shape", 3, r"input_shape: expected a valid array"),
        ("targets", {}, r"targets: dictionary should have at least 1 item"),
        ("targets.shape.size", 2.0, r"targets\.shape\.size: expected a valid integer"),
        ("targets.shape.size", 2**40, r"targets\.shape\.size: expected less than or equal to 1048576"),
        ("targets.shape.size", 3, r"targets\.shape\.classes: 2 names, but `size` is 3"),
        (
            "targets.shape.type",
            "os.system",
            r"targets\.shape\.type: expected 'classes', 'binary', 'multilabel', 'real', 'tags', 'text', 'class_map'",
        ),
        ("targets.shape.classes", [1, 2], r"targets\.shape\.classes\.0: expected a valid string"),
        ("targets.size.missing", 1, r"targets\.size\.missing: expected a valid boolean"),
        ("targets.size.mean", float("nan"), r"targets\.size\.mean: expected a finite number"),
        ("main_target", "color", r"main_target: no target has the name 'color'"),
        ("splits", ["os.system"], r"splits\.0: string should match pattern"),
        ("mean", [1.0, 2.0], r"mean: 1 or 3 means and as many standard deviations"),
        ("std", [-1.0, 1.0, 1.0], r"std\.0: expected greater than or equal to 0"),
        ("state", [], r"state: expected an object"),
        ("state", {"tensor": torch.zeros(1)}, "specs: not plain data"),
        ("columns", [{"name": 3}], r"columns\.0\.name: expected a valid string"),
        ("columns", [{"name": "a", "levels": []}], r"columns\.0\.levels: tuple should have at least 1 item"),
        ("columns", [{"name": "a"}], "columns: 1 columns, but inputs of another shape"),
        ("more", 1, "more: unexpected keyword argument"),
        ("main_target", "\ud800", "specs: not plain data"),
    ],
)
def test_invalid_values_are_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DatasetSpec.from_dict(changed(IMAGES, path, value))


@pytest.mark.parametrize(("path", "value", "message"), [
    ("targets.depth.size", 3, r"targets\.depth\.size: expected 1 for a depth_map"),
    ("targets.normals.size", 1, r"targets\.normals\.size: expected 3 for a normal_map"),
    ("input_shape", [192], r"targets\.class\.type: a map needs inputs that are images"),
])  # fmt: skip
def test_invalid_maps_are_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DatasetSpec.from_dict(changed(MAPS, path, value))


@pytest.mark.parametrize("plain", [None, 3, "x", [], {}])
def test_invalid_specs(plain: Any) -> None:
    with pytest.raises(ConfigError, match=r"^here(\.input_shape)?: (expected an object|missing)"):
        DatasetSpec.from_dict(plain, "here")


def test_only_some_of_many_problems_are_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        DatasetSpec.from_dict(changed(IMAGES, "mean", ["x"] * 1000))
    assert len(caught.value.problems) == 10
