"""`mtl init`: a first experiment to start from."""

from __future__ import annotations

from shlex import quote
from typing import Annotated

import typer

from mtlcli.errors import ConfigError
from mtlcli.files import given_path

STARTER = """\
# An experiment of `mtl`: three tasks on the same images of handwritten digits share one network.
#   mtl validate {file}    check it
#   mtl train {file}       train it; any key can be set: training.epochs=5 weighting.name=uncertainty
# Whatever is left out has a default. `mtl list` lists what can be named here, `mtl show NAME` its options.

seed: 0

# Your name for a dataset: the registered one. This one ships with scikit-learn: 1,797 images of 8×8.
datasets:
  digits: {{name: digits}}

# Each task is a target of a dataset (`mtl show digits` lists them), a kind (loss and metrics) and a weight.
tasks:
  digit: {{dataset: digits, target: digit, kind: classification, weight: 1.0}}
  parity: {{dataset: digits, target: parity, kind: binary}}
  ink: {{dataset: digits, target: ink, kind: regression, head: {{name: mlp, hidden: [32]}}}}

# The shared network: input → features.
trunk: {{name: mlp, hidden: [128], features: 64}}

# How the three losses become one update: fixed (the tasks' weights), uniform, uncertainty, dwa, …
weighting: {{name: fixed}}

optimizer: {{name: Adam, lr: 2.0e-3}}
scheduler: {{name: CosineAnnealingLR}}

training: {{epochs: 20, batch_size: 64}}

# The figure that picks the best epoch: a task's metric, or the mean of the tasks' primary ones.
evaluation: {{split: val, monitor: {{task: mean, metric: primary}}}}
"""


def init(
    name: Annotated[str, typer.Argument(help="Name of the experiment; NAME.yaml is written.")] = "experiment",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented experiment to start from. It trains as it is, with no data to fetch."""
    if not name:
        raise ConfigError("the experiment has no name; NAME.yaml is to be written")
    file = given_path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml", "experiment")
    try:
        with file.open("w" if force else "x", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(STARTER.format(file=quote(str(file))))
    except FileExistsError as error:
        raise ConfigError(f"{file} is there already; --force overwrites it") from error
    except OSError as error:
        raise ConfigError(f"{file}: can't be written: {error.strerror or error}") from error
    print(f"wrote {file}; next: mtl train {quote(str(file))}")
