import os

import pytest

from mtlcli.cli import SPINS

os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # as the command line has it; before torch is imported


@pytest.fixture
def plugins_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test registers is gone after it."""
    from mtlcli.registry import REGISTRIES

    for registry in REGISTRIES.values():
        registry.names()
        monkeypatch.setattr(registry, "_components", dict(registry._components))
