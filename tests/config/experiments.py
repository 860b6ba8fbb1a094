"""A small valid experiment, which tests invalidate in one place at a time."""

from pathlib import Path

from mtlcli.config import Experiment, load_experiment

GOOD = """\
seed: 3
datasets:
  images: {name: digits}
tasks:
  digit: {dataset: images, target: digit, kind: classification}
  ink:
    dataset: images
    target: ink
    kind: {name: regression}
    head: {name: mlp, hidden: [16]}
    weight: 0.5
trunk: {name: mlp, hidden: [32], features: 8}
weighting: {name: uncertainty, init: 0.5}
optimizer: {name: AdamW, lr: 1e-3, betas: [0.8, 0.99]}
scheduler: {name: CosineAnnealingLR}
training: {epochs: 2, batch_size: 32}
"""


def write_yaml(folder: Path, text: str) -> Path:
    file = folder / "good.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def load(folder: Path, text: str = GOOD, *overrides: str) -> Experiment:
    return load_experiment(write_yaml(folder, text), overrides)
