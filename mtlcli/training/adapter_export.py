"""Export of models with adapters: adapters in the format of `peft`, and models with the adapters merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mtlcli.errors import ConfigError, suggest
from mtlcli.files import atomic_write, write_text
from mtlcli.models.adapters.attachment import is_norm, unadapted_modules
from mtlcli.models.adapters.base import adapters_in
from mtlcli.models.adapters.layer_maps import is_transposed
from mtlcli.models.adapters.merging import low_rank_updates, merge
from mtlcli.models.adapters.routing import RoutedSharing
from mtlcli.models.trunks.base import Trunk
from mtlcli.training.run import Run
from mtlcli.training.run_folder import to_json

NETWORK = "network."  # attribute of a trunk with a model of another library
PREFIX = "base_model.model."  # of the names in a file of peft
HEADS = "heads.safetensors"
DESCRIPTION = "model.json"


def merged_run(run: Run, task: str | None, needs_weights: bool) -> Run:
    """Merge the adapters of a trained model into the weights, as far as that has the same effect.

    Args:
        run: The run, whose model is changed.
        task: The task to export; None for all tasks.
        needs_weights: Whether the format holds weights only, so that adapters that differ by task can't be part of it.

    Returns:
        The run with the merged model; of the given task alone, if one is given. The run itself if the adapters can't be
        merged.

    Raises:
        ConfigError: If there is no such task, or the adapters of the tasks differ and a task has to be given.
    """
    tasks = list(run.kinds)
    differ = isinstance(run.model.sharing, RoutedSharing) and len(tasks) > 1
    if task is not None and task not in tasks:
        raise ConfigError(f"--task: no task {task!r}.{suggest(task, tasks)} Choose from: {', '.join(tasks)}")
    if task is None and differ:
        if needs_weights and can_merge(run):
            raise ConfigError(
                f"the adapters of the tasks differ, so there is no one merged model: give a task with --task "
                f"({', '.join(tasks)}), or use --format peft"
            )
        return run
    if can_merge(run):
        merge(run.model, task or tasks[0])
        run = replace(run, experiment=run.experiment.model_copy(update={"adapters": None}))
    return run if task is None else _restricted(run, task)


def can_merge(run: Run) -> bool:
    """Return whether changes of weights can have the effect of the adapters of a run."""
    task = next(iter(run.kinds))
    return all(adapter.low_rank_update(task) is not None for adapter in adapters_in(run.model).values())


def _restricted(run: Run, task: str) -> Run:
    """Return the run of one task alone; its model has the head of this task only."""
    alias = run.sources[task][0]
    model, experiment = run.model, run.experiment
    for other in run.kinds.keys() - {task}:
        del model.sharing.heads[other]
    for other in run.specs.keys() - {alias}:
        del model.normalize[other]
        if model.stems is not None and other in model.stems:
            del model.stems[other]
    model.sharing.inputs = {task: alias}
    changes: dict[str, Any] = {
        "tasks": {task: experiment.tasks[task]},
        "datasets": {alias: experiment.datasets[alias]},
        "stems": {name: stem for name, stem in experiment.stems.items() if name == alias},
    }
    return replace(
        run,
        experiment=experiment.model_copy(update=changes),
        datasets={alias: run.datasets[alias]},
        specs={alias: run.specs[alias]},
        sources={task: run.sources[task]},
        kinds={task: run.kinds[task]},
    )


def export_adapters(run: Run, folder: Path, description: Mapping[str, Any]) -> list[Path]:
    """Write the adapters of a run in the format of `peft`, for the model that the trunk is made of.

    The folder has `adapter_config.json` and `adapter_model.safetensors`, which `peft.PeftModel.from_pretrained` loads,
    the heads in `heads.safetensors`, and the description of the inputs and outputs. Where the adapters differ by task,
    it has a folder with adapters and a head for each task instead.

    Args:
        run: The run, with the trained model.
        folder: The folder, which is created if it doesn't exist.
        description: Description of the model, see `export.interface`.

    Returns:
        The folders with adapters.

    Raises:
        ConfigError: If the format can't represent the adapters, or `safetensors` is missing.
    """
    trunks = [module for module in run.model.sharing.modules() if isinstance(module, Trunk)]
    if len(trunks) > 1:
        raise ConfigError(f"--format peft: the model has {len(trunks)} trunks, and peft's format holds those of one")
    entry = run.experiment.adapters
    assert entry is not None
    if not can_merge(run):
        form = f"`{entry.name}` with `arrangement: {entry.options['arrangement']}`"
        raise ConfigError(f"--format peft: peft has no adapters such as {form}; use --format onnx or safetensors")
    differ = isinstance(run.model.sharing, RoutedSharing)
    parts = {task: folder / task for task in run.kinds} if differ else {next(iter(run.kinds)): folder}
    for task, part in parts.items():
        part.mkdir(parents=True, exist_ok=True)
        config, weights = _peft_adapter(run, trunks[0], task)
        write_text(part / "adapter_config.json", to_json(config))
        _save(part / "adapter_model.safetensors", weights)
        heads = run.model.heads.items() if not differ else [(task, run.model.heads[task])]
        _save(part / HEADS, {f"{name}.{key}": w for name, head in heads for key, w in head.state_dict().items()})
    write_text(folder / DESCRIPTION, to_json(dict(description)))
    return list(parts.values())


def _save(path: Path, weights: Mapping[str, Tensor]) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise ConfigError("--format peft needs the package 'safetensors': pip install 'mtlcli[adapters]'") from error
    with atomic_write(path) as temporary:
        plain = {name: weight.detach().cpu().contiguous().clone() for name, weight in weights.items()}
        save_file(plain, temporary, metadata={"format": "pt"})


def _peft_adapter(run: Run, trunk: Trunk, task: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the configuration and the weights of the adapters of a task, as files of peft have them."""
    entry = run.experiment.adapters
    assert entry is not None
    updates = {name.removeprefix(NETWORK): update for name, update in low_rank_updates(trunk, task).items()}
    modules = {name.removeprefix(NETWORK): module for name, module in unadapted_modules(trunk).items()}
    first, weights = next(iter(updates.values())), dict[str, Tensor]()
    for name, update in updates.items():
        weights[f"{PREFIX}{name}.lora_A.weight"] = update.a
        weights[f"{PREFIX}{name}.lora_B.weight"] = update.b.view(*update.b.shape, *[1] * (update.a.dim() - 2))
    whole = []  # modules that are stored whole
    for name, module in modules.items():
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            if "norms" in entry.options["train"] and is_norm(module):
                whole.append(name)
                weights |= {f"{PREFIX}{name}.{key}": value for key, value in module.state_dict().items()}
            else:
                assert isinstance(module.bias, Tensor)
                weights[f"{PREFIX}{name}.{'base_layer.' if name in updates else ''}bias"] = module.bias
    source = "" if run.base is None else run.base.source
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": Path(source).name if source[:1] in ("/", "~", ".") else source or None,
        "target_modules": sorted(updates),
        "r": len(first.a),
        "lora_alpha": first.scale * len(first.a),
        "lora_dropout": entry.options["dropout"],
        "use_rslora": False,
        "fan_in_fan_out": any(is_transposed(modules[name]) for name in updates),
        "bias": "all" if "biases" in entry.options["train"] else "none",
        "modules_to_save": whole or None,
        "inference_mode": True,
    }, weights
