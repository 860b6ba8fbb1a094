"""Random input for `mtl validate`: exit code 0, or 2 and one message for each problem; never a traceback.

MTL_FUZZ_EXAMPLES: how many cases, all three tests together; other ones every time, where it is set.
"""

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from mtlcli.cli import main
from mtlcli.config import dump_yaml
from tests.config.experiments import GOOD
from tests.config.generated import experiments, files, overrides

EXAMPLES = int(os.environ.get("MTL_FUZZ_EXAMPLES", "210"))
fuzzed = settings(
    max_examples=max(1, EXAMPLES // 3),
    derandomize="MTL_FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(autouse=True)
def elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, without data."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MTL_DATA", str(folder / "data"))


def assert_an_answer_in_words(*arguments: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["validate", "--", *arguments])
    lines = err.getvalue().splitlines()
    assert code in (0, 2)
    assert any(line.startswith("error: ") for line in lines) == (code == 2)
    assert "Traceback" not in err.getvalue()
    assert all(line.startswith(("error: ", "warning: ")) and line.isprintable() for line in lines), lines


@fuzzed
@given(content=files())
def test_random_files(folder: Path, content: bytes) -> None:
    (folder / "fuzz.yaml").write_bytes(content)
    assert_an_answer_in_words("fuzz.yaml")


@fuzzed
@given(plain=experiments())
def test_random_experiments(folder: Path, plain: dict[str, Any]) -> None:
    (folder / "fuzz.yaml").write_text(dump_yaml(plain), encoding="utf-8", errors="surrogatepass")
    assert_an_answer_in_words("fuzz.yaml")


@fuzzed
@given(override=overrides())
def test_random_overrides(folder: Path, override: str) -> None:
    (folder / "fuzz.yaml").write_text(GOOD, encoding="utf-8")
    assert_an_answer_in_words("fuzz.yaml", override)
