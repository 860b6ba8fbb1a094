"""`mtl init`: an example experiment."""

from __future__ import annotations

from shlex import quote
from typing import Annotated

import typer

from mtlcli.cli.arguments import examples
from mtlcli.errors import ConfigError
from mtlcli.files import given_path

STARTER = """\
# An experiment of `mtl`: three tasks on the same images of handwritten digits share one network.
#   mtl validate {file}    check it
#   mtl train {file}       train it; any key can be set: training.epochs=5 weighting=uncertainty
# Keys that are left out have defaults. `mtl list` lists all components, `mtl show NAME` the options of one.

seed: 0

# Alias → dataset. This one is included in scikit-learn: 1,797 images of 8×8 pixels.
datasets:
  digits: {{name: digits}}

# Each task has a target of a dataset (`mtl show digits` lists them), a kind (loss and metrics) and a weight.
tasks:
  digit: {{dataset: digits, target: digit, kind: classification, weight: 1.0}}
  parity: {{dataset: digits, target: parity, kind: binary}}
  ink: {{dataset: digits, target: ink, kind: regression, head: {{name: mlp, hidden: [32]}}}}

# The shared network: input → features.
trunk: {{name: mlp, hidden: [128], features: 64}}

# Combination of the three losses into one update: fixed (the tasks' weights), uniform, uncertainty, dwa, …
weighting: {{name: fixed}}

optimizer: {{name: Adam, lr: 2.0e-3}}
scheduler: {{name: CosineAnnealingLR}}

training: {{epochs: 20, batch_size: 64}}

# The monitored metric selects the best epoch: a task's metric, or the mean of all primary metrics.
evaluation: {{split: val, monitor: {{task: mean, metric: primary}}}}
"""


@examples("mtl init my_experiment --force", "mtl init cars --images labels.csv")
def init(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the experiment, written to NAME.yaml.")
    ] = "experiment",
    images: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE",
            help="Write an experiment for your own images: a table with a column of their paths and columns of labels.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented experiment that can be trained unchanged.

    Without `--images`, it is an example with the handwritten digits of scikit-learn, which needs no download. With it,
    the columns of labels become tasks.
    """
    if not name:
        raise ConfigError("the name of the experiment is empty; it is needed for NAME.yaml")
    file = given_path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml", "experiment")
    text = STARTER.format(file=quote(str(file)))
    if images is not None:
        from mtlcli.api.image_experiment import propose_image_experiment

        text = propose_image_experiment(given_path(images, "--images"), str(file))
    try:
        with file.open("w" if force else "x", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{file} exists already; use --force to overwrite it") from error
    except OSError as error:
        raise ConfigError(f"{file}: can't be written: {error.strerror or error}") from error
    print(f"wrote {file}; next: mtl train {quote(str(file))}")
