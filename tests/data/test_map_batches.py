"""Batches of datasets whose targets are maps, compared with plain loops over the examples."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlcli.data.augmentation import Augmentation
from mtlcli.data.examples import Examples, concat_examples
from mtlcli.data.loader import Batch, Loader, evaluation_batches
from mtlcli.data.placement import Loading, Placement
from mtlcli.data.samplers.base import ShuffledEpochs
from mtlcli.errors import MtlError
from mtlcli.registry import samplers
from mtlcli.specs import IGNORE_INDEX, TargetSpec, expand_map
from tests.data.batches import CPU, Lazy

SIDE, AMOUNT, BATCH = 6, 11, 4
TARGETS = {
    "class": TargetSpec("class_map", 3),
    "edge": TargetSpec("binary_map"),
    "depth": TargetSpec("depth_map"),
    "normals": TargetSpec("normal_map", 3),
}
TASKS = {**{name: ("a", name) for name in TARGETS}, "scene": ("a", "scene")}
CLASSES = {"class": torch.tensor([0.5, 1.0, 4.0]), "edge": torch.tensor([1.0, 3.0])}


def scenes(lazy: bool = False, weighted: bool = False) -> Examples:
    """Examples with missing pixels; the last one has no labelled pixel."""
    generator = torch.Generator().manual_seed(0)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, (2 * AMOUNT, *shape), dtype=torch.uint8, generator=generator)

    missing = draw(3, SIDE, SIDE) == 0
    missing[-1] = True
    normals = torch.randn(2 * AMOUNT, 3, SIDE, SIDE, generator=generator)
    maps: dict[str, Any] = {
        "class": draw(3, SIDE, SIDE).masked_fill(missing, 255),
        "edge": draw(2, SIDE, SIDE).masked_fill(missing, 255),
        "depth": (torch.rand(2 * AMOUNT, SIDE, SIDE, generator=generator) + 0.5).masked_fill(missing, math.nan),
        "normals": normals.masked_fill(missing.unsqueeze(1), math.nan).half(),
    }
    inputs: Any = draw(256, 3, SIDE, SIDE)
    if lazy:
        inputs, maps = Lazy(inputs), {name: Lazy(of_target) for name, of_target in maps.items()}
    weights = torch.rand(2 * AMOUNT, generator=generator).masked_fill(torch.arange(2 * AMOUNT) == 3, 0.0)
    rows = torch.arange(1, 2 * AMOUNT, 2)
    return Examples(inputs, {"scene": torch.arange(2 * AMOUNT) % 5}, rows, weights if weighted else None, maps)


def load(
    examples: Examples, loading: Loading = "auto", workers: int = 0, classes: dict[str, Tensor] | None = None
) -> Loader:
    sampler = samplers["proportional"].target([len(examples)], BATCH)
    return Loader({"a": examples}, TASKS, sampler, 0, Placement(CPU, loading, workers), None, classes, 0, TARGETS)


def content(batch: Batch) -> dict[str, Any]:
    """Convert a batch to plain values, with NaN as a string."""
    tensors = {"inputs": batch.inputs, "targets": batch.targets, "weights": batch.weights, "own": batch.metric_weights}
    plain: dict[str, Any] = {
        name: {key: [str(value) for value in x.flatten().tolist()] for key, x in of_name.items()}
        for name, of_name in tensors.items()
    }
    return {**plain, "counts": batch.counts, "labelled": batch.labelled}


def expected_pixels(examples: Examples, target: str, row: int) -> tuple[list[float], int]:
    """Return the labels of an example's pixels as in a batch, and the number of those that are labelled."""
    stored = examples.maps[target][row]
    pixels = stored.float().flatten().tolist()
    if target == "class":
        pixels = [float(IGNORE_INDEX) if pixel == 255 else pixel for pixel in pixels]
        return pixels, sum(pixel >= 0 for pixel in pixels)
    if target == "edge":
        pixels = [math.nan if pixel == 255 else pixel for pixel in pixels]
    channels = 3 if target == "normals" else 1
    size = len(pixels) // channels
    whole = [not any(math.isnan(pixels[size * c + at]) for c in range(channels)) for at in range(size)]
    return pixels, sum(whole)


@pytest.mark.parametrize(("loading", "lazy"), [("auto", False), ("auto", True), ("stream", True)])
def test_a_batch_has_the_images_and_maps_of_its_rows(loading: Loading, lazy: bool) -> None:
    examples = scenes(lazy)
    loader = load(examples, loading)
    assert loader.route == {"a": "stream" if loading == "stream" else "resident"}
    seen: list[int] = []
    for batch in loader.epoch(0):
        rows = [
            next(row for row in range(2 * AMOUNT) if torch.equal(examples.inputs[row], image))
            for image in batch.inputs["a"]
        ]
        seen += rows
        assert batch.targets["scene"].tolist() == [row % 5 for row in rows]
        for target, spec in TARGETS.items():
            labels = [expected_pixels(examples, target, row) for row in rows]
            values = [value for pixels, _ in labels for value in pixels]
            assert batch.targets[target].shape[1:] == (*([3] if spec.type == "normal_map" else []), SIDE, SIDE)
            assert batch.targets[target].dtype == (torch.int64 if target == "class" else torch.float32)
            torch.testing.assert_close(
                batch.targets[target].flatten().double(), torch.tensor(values).double(), rtol=0, atol=0, equal_nan=True
            )
            assert batch.counts[target] == sum(count for _, count in labels)
            assert batch.labelled[target] == sum(count > 0 for _, count in labels)
    assert sorted(seen) == list(range(1, 2 * AMOUNT, 2))


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_resident_and_streamed_batches_are_the_same_from_any_step_on(classes: dict[str, Tensor] | None) -> None:
    resident = load(scenes(weighted=classes is not None), classes=classes)
    streamed = load(scenes(lazy=True, weighted=classes is not None), "stream", 1, classes)
    whole = [content(batch) for batch in resident.epoch(1)]
    assert [content(batch) for batch in streamed.epoch(1)] == whole
    assert [content(batch) for batch in streamed.epoch(1, start=1)] == whole[1:]
    assert [content(batch) for batch in resident.epoch(1, start=2)] == whole[2:]


def test_weights_of_classes_and_of_examples_apply_to_pixels() -> None:
    examples = scenes(weighted=True)
    assert examples.weights is not None
    batches = evaluation_batches({"a": examples}, TASKS, Placement(CPU), BATCH, CLASSES, map_targets=TARGETS)
    rows = iter(range(1, 2 * AMOUNT, 2))
    for batch in batches:
        chosen = [next(rows) for _ in range(len(batch.inputs["a"]))]
        own = [float(examples.weights[row]) for row in chosen]
        for task in ("class", "edge", "depth"):
            weights, total, labelled = [], 0.0, set()
            for row, weight in zip(chosen, own, strict=True):
                for label in expected_pixels(examples, task, row)[0]:
                    missing = math.isnan(label) or label == IGNORE_INDEX
                    factor = 0.0 if missing else float(CLASSES[task][int(label)]) if task in CLASSES else 1.0
                    weights.append(factor * weight)
                    total += factor * weight
                    labelled |= {row} if not missing and weight > 0 else set()
            shown = batch.weights[task] if task in CLASSES else None
            if shown is not None:
                torch.testing.assert_close(shown.flatten(), torch.tensor(weights))
            else:
                torch.testing.assert_close(batch.weights[task], torch.tensor(own))
            assert batch.counts[task] == pytest.approx(total, rel=1e-6)  # float32 weights
            assert batch.labelled[task] == len(labelled)
            torch.testing.assert_close(batch.metric_weights[task], torch.tensor(own))


def test_an_invalid_label_is_named_with_its_example() -> None:
    examples = scenes()
    examples.maps["class"][7, 2, 3] = 3  # type: ignore[index]
    with pytest.raises(
        MtlError, match="example 7: a label of target 'class' is 3; expected a class from 0 to 2, or 255"
    ):
        load(examples)
    streamed = load(replace(examples, maps={name: Lazy(m) for name, m in examples.maps.items()}), "stream")  # type: ignore[arg-type]
    with pytest.raises(MtlError, match=r"datasets\.a: example 7: a label"):
        list(streamed.epoch(0))


def test_inputs_and_maps_share_their_route() -> None:
    examples = scenes(lazy=True)
    sources = [examples.inputs, *examples.maps.values()]
    placement = Placement(CPU)
    placed = placement.resident_group(sources)
    assert placed is not None and placement.resident_group(sources) == placed
    assert Placement(CPU, "stream").resident_group(sources) is None
    larger = Lazy(torch.empty(1, dtype=torch.uint8).expand(2**20, 600))  # together with the images more than 512 MiB
    assert placement.resident_group([examples.inputs, larger]) is None
    assert placement.group_in_memory([examples.inputs, larger]) == [examples.inputs, larger]


def test_splits_are_concatenated_with_their_maps() -> None:
    first, other = scenes(), scenes(lazy=True)
    both = concat_examples([first, other])
    assert len(both) == 2 * AMOUNT
    for target in TARGETS:
        together = torch.cat([first.maps[target][first.rows]] * 2)  # type: ignore[index]
        assert torch.equal(torch.cat(list(both.iterate_maps(target, 5))).nan_to_num(), together.nan_to_num())


@pytest.mark.parametrize("lazy", [False, True])
def test_images_and_maps_of_training_batches_are_augmented_together(lazy: bool) -> None:
    transforms: list[Any] = ["RandomHorizontalFlip", {"name": "RandomScaleCrop", "scales": [1, 1.5]}]
    examples, plain = scenes(lazy), scenes()
    sampler = samplers["proportional"].target([AMOUNT], BATCH)
    loader = Loader({"a": examples}, TASKS, sampler, 0, Placement(CPU), {"a": transforms}, None, 0, TARGETS)
    augmentation, passes = Augmentation(transforms, 0, "a", TARGETS), ShuffledEpochs(AMOUNT, 0, "a")
    assert plain.rows is not None
    rows = plain.rows[torch.from_numpy(passes.order(0, AMOUNT))].tolist()
    maps: list[dict[str, Tensor]] = [{name: plain.maps[name][row] for name in TARGETS} for row in rows]
    images, maps = augmentation([plain.inputs[row] for row in rows], [0] * AMOUNT, rows, maps)
    batches = list(loader.epoch(0))
    assert torch.equal(torch.cat([batch.inputs["a"] for batch in batches]), torch.stack(images))
    for name, target in TARGETS.items():
        expected = expand_map(torch.stack([of_example[name] for of_example in maps]), target.type)
        torch.testing.assert_close(torch.cat([b.targets[name] for b in batches]), expected, equal_nan=True)
