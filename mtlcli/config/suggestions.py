"""Hints for unknown keys and invalid values: keys of other sections, and names used by other tools."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from mtlcli.config.locations import KeyPath, dotted
from mtlcli.config.lookup import bare_type, fields_of, fits, follow, is_model
from mtlcli.config.scalars import resolve
from mtlcli.config.schema import Experiment
from mtlcli.config.yaml import parse
from mtlcli.errors import ConfigError, match_spelling, suggest

# our key → names in other tools. A name may belong to several keys: the first that the experiment has is suggested.
# `*` is a task or a dataset.
KEYS: dict[str, str] = {
    "training.epochs": "num_epochs n_epochs nb_epochs max_epochs total_epochs num_train_epochs epoch",
    "training.batch_size": "batchsize bs batch train_batch_size per_device_train_batch_size",
    "training.accumulate": "gradient_accumulation_steps accumulate_grad_batches grad_accumulation accumulation_steps",
    "training.clip_norm": "gradient_clip_val grad_clip gradient_clip clip_grad clip_grad_norm max_grad_norm clip",
    "training.early_stopping": "patience early_stop early_stopping_patience earlystopping",
    "training.precision": "amp fp16 bf16 mixed_precision half dtype use_amp",
    "training.normalize_losses": "normalize_loss loss_normalization loss_normalisation",
    "training.device": "cuda gpu gpus accelerator use_cuda use_gpu devices",
    "training.threads": "num_threads n_threads nthreads torch_threads n_jobs",
    "training.workers": "num_workers n_workers dataloader_num_workers",
    "training.compile": "torch_compile jit",
    "training.sampling": "sampler",
    "training.sampling.rates": "mixing_rates mixture_rates mixing ratios proportions",
    "training.sampling.limit": "max_examples max_samples examples_per_epoch samples_per_epoch",
    "checkpoint.every": "save_every save_freq save_interval checkpoint_every checkpoint_interval",
    "checkpoint.keep": "save_top_k keep_last save_total_limit max_to_keep",
    "evaluation.monitor.metric": "metric_for_best_model monitor_metric",
    "evaluation.batch_size": "eval_batch_size val_batch_size test_batch_size per_device_eval_batch_size",
    "optimizer.lr": "learning_rate learningrate base_lr init_lr initial_lr lr0",
    "optimizer.layer_decay": "layerwise_lr_decay layer_lr_decay layerwise_decay llrd lr_decay",
    "optimizer.weight_decay": "wd l2_reg decay weightdecay",
    "optimizer": "optim optimiser opt",
    "scheduler": "lr_scheduler schedule lr_schedule lrscheduler learning_rate_scheduler",
    "seed": "random_seed random_state manual_seed rng_seed",
    "name": "experiment experiment_name run_name exp_name project title",
    "trunk": "model backbone encoder network net architecture arch body feature_extractor shared_network model_name",
    "trunk.model": "arch architecture model_name backbone variant",
    "trunk.weights": "pretrained",
    "trunk.pretrained": "weights_path pretrained_path weight_file",
    "trunk.freeze": "freeze_layers frozen_layers freeze_stages frozen_stages",
    "scheduler.warmup": "warmup_steps num_warmup_steps warmup_ratio warmup_fraction",
    "trunk.init_from": "checkpoint pretrained pretrained_path init load_from",
    "trunk.features": "out_features num_features feature_dim features_dim embedding_dim output_dim output_size out_dim",
    "trunk.hidden": "hidden_sizes hidden_size hidden_dim hidden_dims hidden_units units num_layers layers",
    "trunk.dropout": "dropout_rate drop_rate dropout_p p_dropout drop",
    "weighting": "weighting_method loss_weighting mtl_method balancer balancing aggregator aggregation mtl",
    "sharing": "parameter_sharing sharing_type share",
    "regularizers": "regularization regularisation regulariser regularisers penalties auxiliary_losses",
    "tasks.*.kind": "loss losses loss_fn loss_function criterion objective type task_type problem_type problem",
    "tasks.*.weight": "loss_weights task_weights lambdas lambda loss_weight coefficient coef loss_coef",
    "tasks.*.class_weights": "class_weight weight_classes balance_classes",
    "tasks.*.where": "filter condition mask only_if subset",
    "tasks.*.target": "column label labels target_column target_name label_column y output outputs",
    "tasks.*.head": "decoder decoders classifier heads",
    "tasks.*.kind.classes": "num_classes n_classes num_labels",
    "tasks.*.dataset": "data dataset_name",
    "datasets.*.path": "file filename file_path filepath csv csv_path data_path data_file source url location",
    "datasets.*.weight_column": "sample_weight sample_weights sample_weight_column example_weights",
    "datasets.*.root": "dir directory folder data_dir data_root path",
    "datasets.*.targets": "label labels label_columns target_columns target_column y",
    "datasets.*.features": "columns inputs x feature_columns input_columns input_features",
    "datasets.*.categorical": "cat_features categorical_features categories categorical_columns cat_columns",
    "datasets.*.missing": "na_values nan_values null_values na",
    "datasets.*.delimiter": "sep separator delim",
    "datasets.*.augment": "transforms transform augmentation augmentations augs data_augmentation",
    "datasets.*.size": "image_size img_size resolution input_size resize",
    "datasets.*.val": "val_split valid_split validation_split val_size val_fraction val_ratio validation valid",
    "datasets.*.test": "test_split test_size test_fraction test_ratio",
}
# names in other tools for a regularizer's `strength`
STRENGTHS = ["weight", "lambda", "lambda_", "coefficient", "coef", "coeff", "alpha", "factor", "scale", "loss_weight"]
# command-line option → keys of other tools with the same purpose
FLAGS = {
    "set the run folder on the command line: --run-dir FOLDER": "output_dir out_dir save_dir log_dir logdir "
    "run_dir results_dir checkpoint_dir output output_path save_path",
    "resume a run on the command line: --run-dir FOLDER --resume auto": "resume resume_from resume_from_checkpoint",
    "use several seeds on the command line: mtl compare --seeds N": "seeds num_seeds n_seeds",
}


def key_hint(key: str, parent: KeyPath, fields: Mapping[str, Any], data: Any) -> str:
    """Suggest a key instead of an unknown one.

    Args:
        key: the unknown key.
        parent: path of the mapping that contains it.
        fields: the valid keys of that mapping.
        data: the experiment, as far as it is valid.

    Returns:
        The hint, such as " Did you mean …?"; empty if nothing is similar.
    """
    if key.partition(":")[0] in fields and ":" in key:
        return f" Is a space missing after '{key.partition(':')[0]}:'?"
    plain = key.lower().replace("-", "_")
    if flag := next((text for text, names in FLAGS.items() if plain in names.split()), None):
        return f" {flag[0].upper()}{flag[1:]}."
    if parent[:1] == ("regularizers",) and plain in STRENGTHS and "strength" in fields:
        return " Did you mean 'strength'?"
    if close := match_spelling(plain, fields):
        return f" Did you mean {close!r}?"
    keys = dict.fromkeys(_keys(data, parent))
    elsewhere = [path for path in keys if path[-1] == plain and path[:-1] != parent]
    nearby = [path for path in elsewhere if len(path) == min(map(len, elsewhere))]
    if len(nearby) > 1:
        nearby = [path for path in nearby if path[0] != "evaluation"]  # its batch size is rarely the intended one
    if nearby:
        return f" Did you mean {' or '.join(repr(dotted(_placeholder(path, parent, data))) for path in nearby[:3])}?"
    renamed = [_expanded(ours, parent, data) for ours, names in KEYS.items() if plain in names.split()]
    renamed = [path for path in renamed if path in keys]
    here = [path for path in renamed if path[:-1] == parent]
    if parent:  # inside a component's entry, suggest other sections only for settings of the run
        renamed = [path for path in renamed if path[0] in ("training", "evaluation", "checkpoint")]
    if here or renamed:
        best = (here or renamed)[0]
        return f" Did you mean {(best[-1] if here else dotted(_placeholder(best, parent, data)))!r}?"
    return suggest(key, fields)


def override_for(flag: str, data: Any) -> str | None:
    """Return the key with the meaning of an unknown command-line option: `--batch-size` → training.batch_size."""
    name = flag.lstrip("-")
    plain = name.lower().replace("-", "_")
    keys = list(_keys(data, ()))
    if any(dotted(path) == name for path in keys) or name.partition(".")[0] in Experiment.model_fields:
        return name
    same = [path for path in keys if path[-1] == plain]
    same += [
        path for ours, names in KEYS.items() if plain in names.split() if (path := _expanded(ours, (), data)) in keys
    ]
    return dotted(_placeholder(min(same, key=len), (), data)) if same else None


def takes(key: str, value: str, data: Any) -> bool:
    """Return whether the type of a key accepts a value."""
    path = tuple(key.split("."))
    annotation = _fields_at(path[:-1], data).get(path[-1])
    if annotation is None or path == ("training", "device"):
        return annotation is not None and re.fullmatch(r"auto|(cpu|cuda|mps)(:\d+)?", value) is not None
    try:
        read = parse(value, key).data
    except ConfigError:
        read = None
    return fits(value, annotation) or fits(read, annotation)


def _keys(data: Any, parent: KeyPath) -> Iterator[KeyPath]:
    """Yield the path of every valid key; of the tasks and datasets, those of one (see `_example`)."""
    tasks, datasets = (_example(data, key, parent) for key in ("tasks", "datasets"))
    sections: list[KeyPath] = [
        (), ("training",), ("checkpoint",), ("evaluation",), ("evaluation", "monitor"), ("optimizer",), ("scheduler",),
        ("trunk",), ("sharing",), ("weighting",), ("training", "sampling"), ("tasks", tasks), ("tasks", tasks, "kind"),
        ("tasks", tasks, "head"), ("datasets", datasets),
    ]  # fmt: skip
    for section in sections:
        fields = _fields_at(section, data)
        yield from ((*section, key) for key in fields if section == () or key != "name")


def _fields_at(section: KeyPath, data: Any) -> Mapping[str, Any]:
    """Return the keys of a section; of a component's entry, those of the named or default component."""
    position = follow(section, Experiment, data)
    annotation, missing = position.annotation, section[len(position.path) :]
    for step in missing:  # sections that are left out: by their types and the default component
        if not is_model(annotation):
            return {}
        annotation = fields_of(annotation).get(str(step))
        annotation = follow((), annotation, {}).annotation if annotation is not None else None
    return fields_of(annotation) if annotation is not None and is_model(annotation) else {}


def _example(data: Any, key: str, parent: KeyPath) -> str:
    """Return the task or dataset that contains `parent`, or the first one."""
    if len(parent) > 1 and parent[0] == key:
        return str(parent[1])
    named = data.get(key) if isinstance(data, Mapping) else None
    return next(iter(named), "*") if isinstance(named, Mapping) else "*"


def _expanded(pattern: str, parent: KeyPath, data: Any) -> KeyPath:
    """Return the path of a pattern of `KEYS`."""
    steps = pattern.split(".")
    return tuple(_example(data, steps[0], parent) if step == "*" else step for step in steps)


def _placeholder(path: KeyPath, parent: KeyPath, data: Any) -> KeyPath:
    """Replace the name of one of several tasks or datasets by TASK or ALIAS, unless it contains `parent`."""
    if path[0] not in ("tasks", "datasets") or len(path) < 2 or path[:2] == parent[:2]:
        return path
    named = data.get(path[0]) if isinstance(data, Mapping) else None
    if isinstance(named, Mapping) and len(named) == 1:
        return path
    return (path[0], "TASK" if path[0] == "tasks" else "ALIAS", *path[2:])


# our choice → words of other tools
CHOICES = {
    "fp32": "float32 float full 32 32-true single", "fp16": "float16 half 16 16-mixed fp16-mixed mixed amp",
    "bf16": "bfloat16 bf16-mixed", "step": "steps batch iteration", "epoch": "epochs",
    "val": "valid validation", "test": "testing", "train": "training", "auto": "none default",
}  # fmt: skip
TRUE, FALSE = ("yes", "on", "y"), ("no", "off", "n")


def value_hint(value: Any, annotation: Any) -> str:
    """Return a hint for a value of the wrong type, such as "; write …"; empty if there is nothing to suggest."""
    if isinstance(value, str) and (variable := re.match(r"\$([A-Za-z_][A-Za-z0-9_]*)", value)):
        return f"; write ${{{variable[1]}}} for an environment variable"
    if is_model(annotation) and isinstance(value, str) and re.match(r"\w+:\S", value):
        return "; is a space missing after the colon?"
    if is_model(annotation) and not isinstance(value, dict) and value is not None:
        return f"; its keys are {', '.join(fields_of(annotation))}"
    if value is not None and not isinstance(value, list) and fits([value], annotation):
        return "; write it as a list of one" if isinstance(value, dict) else f"; write [{_spelled(value)}]"
    if isinstance(value, int | float) and not isinstance(value, bool) and fits(str(value), annotation):
        return "; write it in quotes"
    if isinstance(value, float) and value.is_integer() and fits(int(value), annotation):
        return f"; write {int(value)}"
    return _meant(value, annotation) if isinstance(value, str) else ""


def _spelled(value: Any) -> str:
    """Return the value as written in YAML: a string that would resolve to another type is quoted."""
    try:
        return json.dumps(value) if isinstance(value, str) and not isinstance(resolve(value), str) else str(value)
    except ValueError:
        return json.dumps(value)


def _meant(text: str, annotation: Any) -> str:
    """Return the hint for a string."""
    word = text.strip().lower()
    if bare_type(annotation) is bool and word in (*TRUE, *FALSE):
        return f"; write {'true' if word in TRUE else 'false'}"
    choices = [c for c in _choices(annotation) if word in CHOICES.get(c, "").split() or word == c.lower()]
    if choices:
        return f"; write {choices[0]}"
    try:
        value = resolve(text.strip())
    except ValueError:
        return ""
    return f"; write {text.strip()} without quotes" if not isinstance(value, str) and fits(value, annotation) else ""


def _choices(annotation: Any) -> list[str]:
    """Return the strings that a type lists as its values."""
    if typing.get_origin(annotation) is Literal:
        return [value for value in typing.get_args(annotation) if isinstance(value, str)]
    return [choice for branch in typing.get_args(annotation) for choice in _choices(branch)]
