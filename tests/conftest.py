import logging
import os
import sys
from collections.abc import Generator, Iterator

import pytest

from mtlcli.cli import SPINS
from mtlcli.cores import usable_cores

os.environ.setdefault("MTL_TRACEBACK", "1")  # what nothing has explained fails a test with its traceback
os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # as the command line has it; before torch is imported
os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))  # no test's numbers depend on the machine's load


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what captured output holds of names that aren't UTF-8: xdist can't send it to the main process."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Give every test the same random numbers, whichever tests ran before it in the process."""
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def log_of_one_test() -> None:
    """Undo what commands before the test have done to the log, which is to send it to stderr and nowhere else."""
    log = logging.getLogger("mtl")
    log.propagate, log.handlers = True, []
    log.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def plugins_of_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget after a test which plugins it loaded: studies pass them on to their processes."""
    for module, name in (("mtlcli.plugins", "_loaded_plugins"), ("mtlcli.error_origin", "_plugins")):
        if module in sys.modules:
            monkeypatch.setattr(sys.modules[module], name, getattr(sys.modules[module], name).copy())


@pytest.fixture(scope="session", autouse=True)
def no_plots() -> Iterator[None]:
    """Runs draw no plots of their history, which take most of the time of one as small as a test's. See `plots`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mtlcli.training.report.plot_history", lambda *_: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache folder is left alone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that wants them: its runs draw their plots."""
    from mtlcli.training.plots import plot_history

    monkeypatch.setattr("mtlcli.training.report.plot_history", plot_history)


@pytest.fixture
def plugins_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test registers is gone after it."""
    from mtlcli.registry import REGISTRIES

    for registry in REGISTRIES.values():
        registry.names()
        monkeypatch.setattr(registry, "_components", dict(registry._components))
    monkeypatch.setattr("mtlcli.plugins._loaded_plugins", {})
    monkeypatch.setattr("mtlcli.error_origin._plugins", set())
