from __future__ import annotations

from typing import Any

import pytest
import torch

from mtlcli.data.augmentation import UNFIT, Augmentation

IMAGE = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)


def test_transforms_follow_one_another() -> None:
    from torchvision.transforms import v2

    augmentation = Augmentation([{"name": "RandomHorizontalFlip", "p": 1.0}, {"name": "RandomVerticalFlip", "p": 1.0}])
    assert [type(transform) for transform in augmentation.transforms] == [
        v2.RandomHorizontalFlip,
        v2.RandomVerticalFlip,
    ]
    assert torch.equal(augmentation([IMAGE], [0], [0])[0], IMAGE.flip(-1, -2))


def test_an_example_depends_on_seed_alias_pass_and_row_alone() -> None:
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
            r"'RandomHorizontalFlop' is no transform of torchvision.transforms.v2. Did you mean 'Ran",
        ),
        ("Normalize", "'Normalize' can't augment a single raw image"),
        ("functional", "'functional' is no transform"),
        ({"p": 1.0}, r"needs a `name:`"),
        ({"name": "RandomCrop", "size": 8, "pading": 2}, "RandomCrop takes no 'pading'. Did you mean 'padding'"),
        ({"name": "RandomCrop"}, "RandomCrop: .*size"),
        ({"name": "RandomHorizontalFlip", "p": 2.0}, "RandomHorizontalFlip: "),
    ],
)
def test_what_is_refused(entry: str | dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation([entry])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "RandomCrop", "size": 4}, r"makes \[1, 4, 4\] of torch.uint8 of an example \[1, 8, 8\]"),
        ({"name": "RandomCrop", "size": 20}, "RandomCrop can't take an example"),
    ],
)
def test_what_does_not_fit_the_examples_is_refused(entry: dict[str, Any], message: str) -> None:
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        Augmentation([entry]).check(IMAGE)
    assert torch.equal(torch.get_rng_state(), before)


def test_unfit_transforms_are_torchvisions() -> None:
    from torchvision.transforms import v2

    assert [name for name in UNFIT if not hasattr(v2, name)] == []
