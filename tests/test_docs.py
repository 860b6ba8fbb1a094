"""What the documentation shows works."""

import re
from pathlib import Path

import pytest

from mtlcli.cli import main

DOCS = Path(__file__).parents[1] / "docs"


def test_the_weighting_of_your_own_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], plugins_forgotten: None
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / "weighting.md").read_text(), re.MULTILINE | re.DOTALL)
    plugin = tmp_path / "inverse_norm_of_the_documentation.py"
    plugin.write_text(code)
    config = str(DOCS.parent / "configs/digits.yaml")
    arguments = ["train", config, "training.epochs=1", "weighting={name: inverse_norm, every: 2}"]
    assert main([*arguments, "--plugin", str(plugin), "--run-dir", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    assert ",train,mean,cosine," in (tmp_path / "run/metrics.csv").read_text()


def test_the_regularizer_of_your_own_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], plugins_forgotten: None
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / "regularizers.md").read_text(), re.MULTILINE | re.DOTALL)
    plugin = tmp_path / "small_features_of_the_documentation.py"
    plugin.write_text(code)
    config = str(DOCS.parent / "configs/digits.yaml")
    arguments = ["train", config, "training.epochs=1", "regularizers=[{name: small_features, margin: 2.0}]"]
    assert main([*arguments, "--plugin", str(plugin), "--run-dir", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    assert ",train,regularizers.small_features,loss," in (tmp_path / "run/metrics.csv").read_text()


def test_every_file_it_names_exists() -> None:
    for document in DOCS.glob("*.md"):
        for path in re.findall(r"`((?:benchmarks|configs|scripts|docs|tests)/[\w/.]+)", document.read_text()):
            assert (DOCS.parent / path).exists(), (document.name, path)
