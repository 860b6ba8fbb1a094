"""torchmetrics, without what its image, audio and plotting parts load when it is imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from lightning_utilities.core import imports

NOT_NEEDED = ("torchvision", "scipy", "matplotlib")


def import_torchmetrics() -> None:
    """Call this before any `from torchmetrics… import …`.

    The first import of torchmetrics loads torchvision, scipy.signal and pyplot where they are installed: 2 of its 2.2
    seconds and most of its memory, and no metric here needs them. So they are told missing while it is imported, to it
    alone; whoever wants its image metrics or plots as well imports torchmetrics first.
    """
    with _told_missing():
        import torchmetrics  # noqa: F401


@contextmanager
def _told_missing() -> Iterator[None]:
    package_available = imports.package_available

    class Cache(imports.RequirementCache):
        def __bool__(self) -> bool:
            return self.requirement not in NOT_NEEDED and super().__bool__()

    def available(name: str, *rest: Any) -> bool:
        return name not in NOT_NEEDED and package_available(name, *rest)

    with patch.multiple(imports, RequirementCache=Cache, package_available=available):
        yield
