from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from mtlcli.config import Experiment
from mtlcli.data.augmentation import IMAGE_ONLY, NOT_FOR_MAPS, NOT_FOR_ORIENTED, OWN, RESHAPING, UNFIT, Augmentation
from mtlcli.errors import ConfigError, MtlError, OptionError
from mtlcli.specs import IGNORE_BYTE, TargetSpec
from mtlcli.training.assembly.build import check_experiment
from tests.training.experiments import digits

IMAGE = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)


def test_transforms_are_applied_in_sequence() -> None:
    from torchvision.transforms import v2

    augmentation = Augmentation([{"name": "RandomHorizontalFlip", "p": 1.0}, {"name": "RandomVerticalFlip", "p": 1.0}])
    assert [type(transform) for transform in augmentation.transforms] == [
        v2.RandomHorizontalFlip,
        v2.RandomVerticalFlip,
    ]
    assert torch.equal(augmentation([IMAGE], [0], [0])[0], IMAGE.flip(-1, -2))


def test_an_example_depends_only_on_seed_alias_pass_and_row() -> None:
    def augmented(seed: int, alias: str, number: int, row: int, among: int = 1) -> torch.Tensor:
        augmentation = Augmentation(["RandAugment", {"name": "RandomAffine", "degrees": 90}], seed, alias)
        passes, rows = [9] * (among - 1) + [number], [7] * (among - 1) + [row]
        return augmentation([IMAGE] * among, passes, rows)[-1]

    first = augmented(0, "a", 0, 0)
    assert torch.equal(first, augmented(0, "a", 0, 0, among=3))
    others = [augmented(1, "a", 0, 0), augmented(0, "b", 0, 0), augmented(0, "a", 1, 0), augmented(0, "a", 0, 1)]
    assert all(not torch.equal(first, other) for other in others)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "RandomHorizontalFlop",
            r"'RandomHorizontalFlop' is not a transform of torchvision.transforms.v2. Did you mean 'Ran",
        ),
        ("Normalize", "'Normalize' can't augment a single raw image"),
        ("functional", "'functional' is not a transform"),
        ({"name": "ScaleJitter", "target_size": [8, 8]}, "'ScaleJitter' changes the shape of an image at random"),
        ({"name": "RandomScaleCrop", "scales": [1, 0.5]}, "0.scales: scales must be numbers of at least 1"),
        ({"name": "RandomScaleCrop", "scale": 2}, "RandomScaleCrop takes no 'scale'. Did you mean 'scales'"),
        ("RandomScaleCorp", "Did you mean 'RandomScaleCrop'"),
        ("RandomZoomOut", "'RandomZoomOut' changes the shape of an image at random"),
        ({"p": 1.0}, r"needs a `name:`"),
        ({"name": "RandomCrop", "size": 8, "pading": 2}, "RandomCrop takes no 'pading'. Did you mean 'padding'"),
        ({"name": "RandomCrop"}, "RandomCrop: .*size"),
        ({"name": "RandomHorizontalFlip", "p": 2.0}, "0.p: .* in the interval"),
    ],
)
def test_invalid_transforms_are_errors(entry: str | dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation([entry])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "RandomCrop", "size": 4}, r"makes \[1, 4, 4\] of torch.uint8 of an example \[1, 8, 8\]"),
        ({"name": "RandomCrop", "size": 20}, "RandomCrop can't take an example"),
        ({"name": "RandomScaleCrop", "scales": [9]}, "scale 9 leaves no whole pixel of 8×8"),
        (
            {"name": "RandomRotation", "degrees": 30, "expand": True},
            "RandomRotation makes .* the shape must not change",
        ),
    ],
)
def test_transforms_that_do_not_fit_the_examples_are_errors(entry: dict[str, Any], message: str) -> None:
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        Augmentation([entry]).check(IMAGE)
    assert torch.equal(torch.get_rng_state(), before)


def test_named_transforms_exist_in_torchvision() -> None:
    from torchvision.transforms import v2

    named = UNFIT | RESHAPING | NOT_FOR_MAPS | NOT_FOR_ORIENTED | IMAGE_ONLY
    assert [name for name in named if not hasattr(v2, name)] == []
    assert [name for name in OWN if hasattr(v2, name)] == []


@pytest.mark.parametrize(
    "last",
    [
        {"name": "RandomCrop", "size": [8, 8], "pad_if_needed": True},
        {"name": "Resize", "size": [8, 8]},
        {"name": "CenterCrop", "size": 8},
        {"name": "RandomResizedCrop", "size": 8},
    ],
)
def test_a_transform_may_change_the_shape_at_random_if_a_later_one_restores_it(last: dict[str, Any]) -> None:
    jitter = {"name": "ScaleJitter", "target_size": [8, 8], "scale_range": [0.5, 1.5]}
    Augmentation([jitter, "RandomHorizontalFlip", last]).check(IMAGE)
    for transforms in ([last, jitter], [jitter, {"name": "RandomCrop", "size": 8}], [jitter, "Resize"]):
        with pytest.raises(OptionError, match="'ScaleJitter' changes the shape of an image at random"):
            Augmentation(transforms)


def test_a_transform_that_fails_on_some_examples_is_reported() -> None:
    augmentation = Augmentation([{"name": "RandomCrop", "size": 8}], alias="images")
    augmentation.check(IMAGE)
    before = torch.get_rng_state()
    with pytest.raises(MtlError, match="augmenting example 5 of dataset 'images': RandomCrop can't take an example"):
        augmentation([IMAGE, IMAGE[:, :7]], [0, 0], [3, 5])
    wider = Augmentation(["RandomHorizontalFlip", {"name": "Pad", "padding": 1}], alias="images")
    with pytest.raises(MtlError, match=r"RandomHorizontalFlip, Pad makes \[1, 10, 10\]"):
        wider([IMAGE], [0], [0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "RandomCrop", "size": 9}, "RandomCrop can't take an example"),
        ({"name": "Pad", "padding": 2}, r"Pad makes \[1, 12, 12\]"),
        ({"name": "RandomRotation", "degrees": 30, "expand": True}, "RandomRotation makes"),
    ],
)
def test_validation_reports_transforms_that_training_would(entry: Any, message: str) -> None:
    experiment = digits(datasets={"digits": {"name": "digits", "augment": ["RandomHorizontalFlip", entry]}})
    with pytest.raises(ConfigError, match=rf"datasets\.digits\.augment: .*{message}"):
        check_experiment(experiment)


def test_validation_accepts_transforms_that_fit() -> None:
    augment = ["RandAugment", {"name": "RandomCrop", "size": 8, "padding": 1}]
    check_experiment(digits(datasets={"digits": {"name": "digits", "augment": augment}}))


CLASS, DEPTH = TargetSpec("class_map", 64), TargetSpec("depth_map")
UNCHANGED = [
    "ColorJitter", "GaussianBlur", "GaussianNoise", "Grayscale", "Identity", "RGB", "RandomAdjustSharpness",
    "RandomAutocontrast", "RandomChannelPermutation", "RandomEqualize", "RandomErasing", "RandomGrayscale",
    "RandomInvert", "RandomPhotometricDistort", "RandomPosterize", "RandomSolarize",
]  # fmt: skip
COLORS: dict[str, dict[str, Any]] = {
    "ColorJitter": {"brightness": 0.5, "hue": 0.2}, "GaussianBlur": {"kernel_size": 3},
    "Grayscale": {"num_output_channels": 3}, "RandomAdjustSharpness": {"sharpness_factor": 3, "p": 1},
    "RandomAutocontrast": {"p": 1}, "RandomEqualize": {"p": 1}, "RandomErasing": {"p": 1}, "RandomGrayscale": {"p": 1},
    "RandomInvert": {"p": 1}, "RandomPosterize": {"bits": 2, "p": 1}, "RandomSolarize": {"threshold": 100, "p": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", UNCHANGED)
def test_colors_change_in_the_image_only(name: str) -> None:
    image = torch.randint(50, 200, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if name == "GaussianNoise":
        image = image / 255
    augmentation = Augmentation([{"name": name, **COLORS.get(name, {})}], targets={"class": CLASS, "depth": DEPTH})
    augmentation.check(image)
    maps = {"class": image[0], "depth": image[0] + 0.5}
    [changed], [same] = augmentation([image], [0], [0], [maps])
    assert name in ("Identity", "RGB") or not torch.equal(changed, image)
    assert all(torch.equal(same[target], stored) for target, stored in maps.items())


NEAREST = {"interpolation": "nearest", "fill": IGNORE_BYTE}


@pytest.mark.parametrize(
    "transform",
    [
        "RandomHorizontalFlip",
        "RandomVerticalFlip",
        {"name": "RandomRotation", "degrees": 180, **NEAREST},
        {"name": "RandomAffine", "degrees": 60, "scale": [0.5, 2], "shear": 30, "translate": [0.3, 0.3], **NEAREST},
        {"name": "RandomPerspective", "p": 0.9, **NEAREST},
        {"name": "ElasticTransform", "alpha": 500.0, **NEAREST},
        {"name": "RandomCrop", "size": [24, 32], "padding": 6, "fill": IGNORE_BYTE},
        {"name": "RandomCrop", "size": [24, 32], "padding": 6, "padding_mode": "reflect"},
        {"name": "RandomResizedCrop", "size": [24, 32], "interpolation": "nearest"},
    ],
)
def test_a_map_moves_as_the_image_does(transform: str | dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 64, (24, 32), dtype=torch.uint8, generator=generator)
    augmentation = Augmentation([transform, "RandomHorizontalFlip"], targets={"class": CLASS})
    augmentation.check(label[None])
    rows = range(12)
    images, maps = augmentation([label[None]] * 12, [0] * 12, rows, [{"class": label}] * 12)
    for image, of_example in zip(images, maps, strict=True):
        assert torch.equal(image[0], of_example["class"])
    assert any(not torch.equal(image[0], label) for image in images)


def test_maps_do_not_change_the_draws() -> None:
    transforms = ["RandomHorizontalFlip", "RandomScaleCrop", {"name": "RandomAffine", "degrees": 20, "fill": 7}]
    image = torch.arange(3 * 24 * 32).view(3, 24, 32).remainder(251).to(torch.uint8)
    rows, maps = range(6), [{"class": IMAGE[0].repeat(3, 4), "depth": IMAGE[0].repeat(3, 4).float()}] * 6
    augmentation = Augmentation(transforms, 3, "a", {"class": CLASS, "depth": DEPTH})
    together, warped = augmentation([image] * 6, [1] * 6, rows, maps)
    alone = Augmentation(transforms, 3, "a")([image] * 6, [1] * 6, rows)
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))
    [again] = augmentation([image], [1], [4], maps[:1])[1]
    assert all(torch.equal(again[target].nan_to_num(-1), warped[4][target].nan_to_num(-1)) for target in again)


@pytest.mark.parametrize(
    ("entry", "targets", "message"),
    [
        ("RandAugment", {"class": CLASS}, r"1: RandAugment transforms images alone, but .* for each pixel \(class\)"),
        ("ElasticTransform", {"depth": DEPTH}, r"1: ElasticTransform bends the image, .* are unknown \(depth\)"),
        (
            {"name": "RandomCrop", "size": 8, "padding": 1, "padding_mode": "edge"},
            {"class": CLASS, "depth": DEPTH},
            r"1: RandomCrop repeats the image at its border, .*\(depth\). Leave out `padding_mode`",
        ),
        (
            {"name": "RandomAffine", "degrees": 0, "shear": [30, 31]},
            {"class": CLASS, "depth": DEPTH},
            r"RandomAffine scales one direction by 1\.\d+ and another one by 0\.\d+, .*\(depth\).*no `shear`",
        ),
        (
            {"name": "RandomResizedCrop", "size": 8},
            {"normals": TargetSpec("normal_map", 3)},
            r"RandomResizedCrop scales one direction .* set `ratio: \[1, 1\]`",
        ),
    ],
)
def test_transforms_that_maps_cannot_follow_are_errors(
    entry: str | dict[str, Any], targets: dict[str, TargetSpec], message: str
) -> None:
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    entry = {**entry, "size": 64} if isinstance(entry, dict) and "size" in entry else entry
    Augmentation(["RandomHorizontalFlip", entry], targets={"one": TargetSpec("classes", 3)}).check(image)
    with pytest.raises(ValueError, match=message):
        Augmentation(["RandomHorizontalFlip", entry], targets=targets).check(image)


def test_validation_checks_the_maps_of_tasks_only() -> None:
    def rooms(*transforms: Any) -> Experiment:
        """An experiment on the classes of scenes, which have depth and normals, too."""
        return digits(
            datasets={"rooms": {"name": "scenes", "augment": list(transforms)}},
            tasks={"class": {"dataset": "rooms", "target": "class", "kind": "segmentation", "head": "fcn"}},
            trunk={"name": "unet", "widths": [4, 4]},
        )

    check_experiment(rooms("RandomScaleCrop", "ElasticTransform"))
    with pytest.raises(ConfigError, match=r"datasets\.rooms\.augment\.1: RandAugment .*each pixel \(class\)"):
        check_experiment(rooms("RandomScaleCrop", "RandAugment"))


def test_equal_scales_may_differ_by_the_rounding_of_a_crop() -> None:
    crop = {"name": "RandomResizedCrop", "size": [24, 32], "ratio": [4 / 3, 4 / 3], "scale": [0.3, 1.0]}
    Augmentation([crop], targets={"depth": DEPTH}).check(torch.zeros(3, 24, 32, dtype=torch.uint8))


def test_torchvision_is_not_imported_without_augmentation() -> None:
    code = (
        "import sys; from mtlcli.training.assembly.build import check_experiment; "
        "from tests.training.experiments import digits; "
        "check_experiment(digits()); print('torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
