"""Training from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mtlcli.api.prepared_run import Config, resolve_config
from mtlcli.errors import ConfigError
from mtlcli.training.assembly.build import build as build_run
from mtlcli.training.callbacks import Callback, checked_callbacks
from mtlcli.training.run_summary import Summary
from mtlcli.training.trainer import Trainer


def train(
    config: Config,
    *,
    overrides: Sequence[str] = (),
    run_dir: str | os.PathLike[str] | None = None,
    resume: Literal["never", "auto", "must"] = "never",
    datasets: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    plots: bool = True,
) -> Summary:
    """Train a model, as `mtl train` does, and return the summary of the run.

    Nothing is printed. Messages go to the logger `mtl` and to `log.txt` in the run folder. The seeds of Python, NumPy
    and PyTorch and the number of threads of this process are set as the configuration says.

    Args:
        config: An experiment, the path of its YAML file, or a dict of the same form.
        overrides: `KEY=VALUE` strings such as `training.epochs=5`.
        run_dir: The run folder; by default a new one under `$MTL_RUNS` or `runs/`.
        resume: If `run_dir` already holds a run: `never` is an error, `auto` resumes it (or starts one), `must`
            requires one.
        datasets: Alias → data passed from Python: a tuple (inputs, targets) of arrays or tensors, a map-style
            `torch.utils.data.Dataset`, or a dict with one of these for each split. The configuration may leave out the
            entries of these datasets, or set the options of the dataset `in_memory` in them.
        callbacks: Instances of subclasses of `Callback`, called while the run trains.
        plots: Write plots to the run folder.

    Returns:
        The summary of the run, with its metrics and its best checkpoint.

    Raises:
        ConfigError: The configuration is invalid or can't work, or the run folder is in use or holds another run.
        InterruptedRunError: The run was interrupted (Ctrl-C, SIGTERM); its state is saved.
        TypeError: One of the callbacks is no `Callback`.
        MtlError: The training failed; what was saved stays in the run folder.
    """
    callbacks = checked_callbacks(callbacks)
    if resume not in ("never", "auto", "must"):
        raise ConfigError(f"resume: expected 'never', 'auto' or 'must', got {resume!r}")
    if resume != "never" and run_dir is None:
        raise ConfigError(f"resume={resume!r} needs run_dir: the folder of the run to resume")
    experiment = resolve_config(config, overrides, datasets)
    if experiment.weighting.name == "relation":
        from mtlcli.studies.relate.for_weighting import with_relation

        if datasets and experiment.weighting.options["from"] is not None:
            message = "a relation can't be measured on data passed from Python; set `matrix` instead"
            raise ConfigError(experiment.problem("weighting.from", message))
        experiment = with_relation(experiment)
    folder = None if run_dir is None else os.fspath(run_dir)
    run = build_run(experiment, datasets)
    return Trainer(run, folder, resume=resume, callbacks=callbacks, plots=plots).fit()
