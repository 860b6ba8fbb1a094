import logging
import os
import sys
from collections.abc import Generator, Iterator

import pytest

from mtlcli.cli.app import SPINS
from mtlcli.cores import usable_cores

os.environ.setdefault("MTL_TRACEBACK", "1")  # unexpected errors fail a test with their traceback
os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # as on the command line, before the import of torch
os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))  # numbers don't depend on the load of the machine


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape names that aren't UTF-8 in captured output, which xdist can't send to the main process."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed every test, so that its random numbers don't depend on the tests before it."""
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def reset_log() -> None:
    """Reset the log, which commands of other tests send to stderr."""
    log = logging.getLogger("mtl")
    log.propagate, log.handlers = True, []
    log.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def reset_loaded_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each test without plugins, and remove those that it loads and the components that it registers."""
    from mtlcli.registry import REGISTRIES

    for registry in REGISTRIES.values():
        registry.names()  # loads the components of the package, so that they are not removed
        monkeypatch.setattr(registry, "_components", dict(registry._components))
    monkeypatch.setattr("mtlcli.plugins._loaded_plugins", {})
    monkeypatch.setattr("mtlcli.error_origin._plugins", set())


@pytest.fixture(scope="session", autouse=True)
def no_plots() -> Iterator[None]:
    """Draw no plots of runs, which take most of the time of a small run (see `plots`)."""
    from mtlcli.training.callbacks import Callback

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mtlcli.training.report.plot_history", lambda *_: None)
        patched.setattr("mtlcli.training.report.ClassResults", _NoResults)
        patched.setattr("mtlcli.training.trainer.PredictionPlots", lambda *_: Callback())
        yield


class _NoResults:
    """Results of classes that are not plotted."""

    def __init__(self, *_: object) -> None: ...

    def receive(self, *_: object) -> None: ...

    def write(self, *_: object) -> None: ...


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a temporary cache folder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the plots of runs."""
    from mtlcli.training.class_plots import ClassResults
    from mtlcli.training.history import plot_history
    from mtlcli.training.prediction_plots import PredictionPlots

    monkeypatch.setattr("mtlcli.training.trainer.PredictionPlots", PredictionPlots)
    monkeypatch.setattr("mtlcli.training.report.plot_history", plot_history)
    monkeypatch.setattr("mtlcli.training.report.ClassResults", ClassResults)
