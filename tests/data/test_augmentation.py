from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from mtlcli.data.augmentation import RESHAPING, UNFIT, Augmentation
from mtlcli.errors import ConfigError, MtlError
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


def test_unfit_transforms_exist_in_torchvision() -> None:
    from torchvision.transforms import v2

    assert [name for name in UNFIT | RESHAPING if not hasattr(v2, name)] == []


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


def test_torchvision_is_not_imported_without_augmentation() -> None:
    code = (
        "import sys; from mtlcli.training.assembly.build import check_experiment; "
        "from tests.training.experiments import digits; "
        "check_experiment(digits()); print('torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
