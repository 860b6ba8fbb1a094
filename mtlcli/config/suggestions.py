"""The key that was probably meant by one that does not exist: at another level, or by another tool's name for it."""

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
from mtlcli.errors import ConfigError, alike, nearest

# Keys as other tools have them → ours, by the first of these that the experiment has; * is a task or a dataset.
KEYS: dict[str, str] = {
    "training.epochs": "num_epochs n_epochs nb_epochs max_epochs total_epochs num_train_epochs epoch",
    "training.batch_size": "batchsize bs batch train_batch_size per_device_train_batch_size",
    "training.accumulate": "gradient_accumulation_steps accumulate_grad_batches grad_accumulation accumulation_steps",
    "training.clip_norm": "gradient_clip_val grad_clip gradient_clip clip_grad clip_grad_norm max_grad_norm clip",
    "training.early_stopping": "patience early_stop early_stopping_patience earlystopping",
    "training.precision": "amp fp16 bf16 mixed_precision half dtype use_amp",
    "training.device": "cuda gpu gpus accelerator use_cuda use_gpu devices",
    "training.threads": "num_threads n_threads nthreads torch_threads n_jobs",
    "training.workers": "num_workers n_workers dataloader_num_workers",
    "training.compile": "torch_compile jit",
    "training.sampling": "sampler",
    "checkpoint.every": "save_every save_freq save_interval checkpoint_every checkpoint_interval",
    "checkpoint.keep": "save_top_k keep_last save_total_limit max_to_keep",
    "evaluation.monitor.metric": "metric_for_best_model monitor_metric",
    "evaluation.batch_size": "eval_batch_size val_batch_size test_batch_size per_device_eval_batch_size",
    "optimizer.lr": "learning_rate learningrate base_lr init_lr initial_lr lr0",
    "optimizer.weight_decay": "wd l2_reg decay weightdecay",
    "optimizer": "optim optimiser opt",
    "scheduler": "lr_scheduler schedule lr_schedule lrscheduler learning_rate_scheduler",
    "seed": "random_seed random_state manual_seed rng_seed",
    "name": "experiment experiment_name run_name exp_name project title",
    "trunk": "model backbone encoder network net architecture arch body feature_extractor shared_network model_name",
    "trunk.model": "arch architecture model_name backbone variant",
    "trunk.weights": "pretrained",
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
    "tasks.*.target": "column label labels target_column target_name label_column y output outputs",
    "tasks.*.head": "decoder decoders classifier heads",
    "tasks.*.kind.classes": "num_classes n_classes num_labels",
    "tasks.*.dataset": "data dataset_name",
    "datasets.*.path": "file filename file_path filepath csv csv_path data_path data_file source url location",
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
STRENGTHS = [
    "weight",
    "lambda",
    "lambda_",
    "coefficient",
    "coef",
    "coeff",
    "alpha",
    "factor",
    "scale",
    "loss_weight",
]  # of a regularizer
# What is no key but an option of the command line.
FLAGS = {
    "the run folder is given on the command line, --run-dir FOLDER": "output_dir out_dir save_dir log_dir logdir "
    "run_dir results_dir checkpoint_dir output output_path save_path",
    "a run is resumed by the command line, --run-dir FOLDER --resume auto": "resume resume_from resume_from_checkpoint",
    "several seeds are given on the command line, mtl compare --seeds N": "seeds num_seeds n_seeds",
}


def key_hint(key: str, parent: KeyPath, fields: Mapping[str, Any], data: Any) -> str:
    """A hint for an unknown `key` of the mapping at `parent`: " Did you mean …?", or "".

    fields: the keys it may have. data: the experiment's, as far as it has the right form.
    """
    if key.partition(":")[0] in fields and ":" in key:
        return f" Is a space missing after '{key.partition(':')[0]}:'?"
    plain = key.lower().replace("-", "_")
    if flag := next((text for text, names in FLAGS.items() if plain in names.split()), None):
        return f" {flag[0].upper()}{flag[1:]}."
    if parent[:1] == ("regularizers",) and plain in STRENGTHS and "strength" in fields:
        return " Did you mean 'strength'?"
    if close := alike(plain, fields):
        return f" Did you mean {close!r}?"
    known = dict.fromkeys(_keys(data, parent))
    elsewhere = [path for path in known if path[-1] == plain and path[:-1] != parent]
    nearby = [path for path in elsewhere if len(path) == min(map(len, elsewhere))]
    if len(nearby) > 1:
        nearby = [path for path in nearby if path[0] != "evaluation"]  # whose batch size is seldom what is meant
    if nearby:
        return f" Did you mean {' or '.join(repr(dotted(_placeholder(path, parent, data))) for path in nearby[:3])}?"
    renamed = [_expanded(ours, parent, data) for ours, names in KEYS.items() if plain in names.split()]
    renamed = [path for path in renamed if path in known]
    here = [path for path in renamed if path[:-1] == parent]
    if parent:  # a word of its own there, unless it is one that all of a run's settings know
        renamed = [path for path in renamed if path[0] in ("training", "evaluation", "checkpoint")]
    if here or renamed:
        best = (here or renamed)[0]
        return f" Did you mean {(best[-1] if here else dotted(_placeholder(best, parent, data)))!r}?"
    return nearest(key, fields)


def override_for(flag: str, data: Any) -> str | None:
    """The key that an unknown option of the command line stands for: `--batch-size` → training.batch_size."""
    name = flag.lstrip("-")
    plain = name.lower().replace("-", "_")
    known = list(_keys(data, ()))
    if any(dotted(path) == name for path in known) or name.partition(".")[0] in Experiment.model_fields:
        return name
    same = [path for path in known if path[-1] == plain]
    same += [
        path for ours, names in KEYS.items() if plain in names.split() if (path := _expanded(ours, (), data)) in known
    ]
    return dotted(_placeholder(min(same, key=len), (), data)) if same else None


def takes(key: str, value: str, data: Any) -> bool:
    """Return whether the key's type accepts the value."""
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
    """The path of every key the experiment has or may have; of tasks and datasets those of one, see `_one`."""
    tasks, datasets = (_one(data, key, parent) for key in ("tasks", "datasets"))
    sections: list[KeyPath] = [
        (), ("training",), ("checkpoint",), ("evaluation",), ("evaluation", "monitor"), ("optimizer",), ("scheduler",),
        ("trunk",), ("sharing",), ("weighting",), ("training", "sampling"), ("tasks", tasks), ("tasks", tasks, "kind"),
        ("tasks", tasks, "head"), ("datasets", datasets),
    ]  # fmt: skip
    for section in sections:
        fields = _fields_at(section, data)
        yield from ((*section, key) for key in fields if section == () or key != "name")


def _fields_at(section: KeyPath, data: Any) -> Mapping[str, Any]:
    """The keys of a section; of a component's entry, by the component it names or is by default."""
    spot = follow(section, Experiment, data)
    annotation, missing = spot.annotation, section[len(spot.path) :]
    for step in missing:  # left out: by the types, and the default component
        if not is_model(annotation):
            return {}
        annotation = fields_of(annotation).get(str(step))
        annotation = follow((), annotation, {}).annotation if annotation is not None else None
    return fields_of(annotation) if annotation is not None and is_model(annotation) else {}


def _one(data: Any, key: str, parent: KeyPath) -> str:
    """The task or dataset of `parent`, or the first there is."""
    if len(parent) > 1 and parent[0] == key:
        return str(parent[1])
    named = data.get(key) if isinstance(data, Mapping) else None
    return next(iter(named), "*") if isinstance(named, Mapping) else "*"


def _expanded(pattern: str, parent: KeyPath, data: Any) -> KeyPath:
    """The path of a pattern of `KEYS`."""
    steps = pattern.split(".")
    return tuple(_one(data, steps[0], parent) if step == "*" else step for step in steps)


def _placeholder(path: KeyPath, parent: KeyPath, data: Any) -> KeyPath:
    """The path, with TASK or ALIAS for the name of one of several tasks or datasets, unless it is that of `parent`."""
    if path[0] not in ("tasks", "datasets") or len(path) < 2 or path[:2] == parent[:2]:
        return path
    named = data.get(path[0]) if isinstance(data, Mapping) else None
    if isinstance(named, Mapping) and len(named) == 1:
        return path
    return (path[0], "TASK" if path[0] == "tasks" else "ALIAS", *path[2:])


# Words of other tools for the choices there are.
CHOICES = {
    "fp32": "float32 float full 32 32-true single", "fp16": "float16 half 16 16-mixed fp16-mixed mixed amp",
    "bf16": "bfloat16 bf16-mixed", "step": "steps batch iteration", "epoch": "epochs",
    "val": "valid validation", "test": "testing", "train": "training", "auto": "none default",
}  # fmt: skip
TRUE, FALSE = ("yes", "on", "y"), ("no", "off", "n")


def value_hint(value: Any, annotation: Any) -> str:
    """A hint for a value of the wrong type: "; write …", or ""."""
    if isinstance(value, str) and (variable := re.match(r"\$([A-Za-z_][A-Za-z0-9_]*)", value)):
        return f"; an environment variable is written ${{{variable[1]}}}"
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
    """The value as YAML has to spell it: a string that looks like something else in quotes."""
    try:
        return json.dumps(value) if isinstance(value, str) and not isinstance(resolve(value), str) else str(value)
    except ValueError:
        return json.dumps(value)


def _meant(text: str, annotation: Any) -> str:
    """The same of a string."""
    word = text.strip().lower()
    if bare_type(annotation) is bool and word in (*TRUE, *FALSE):
        return f"; write {'true' if word in TRUE else 'false'}"
    choices = [one for one in _choices(annotation) if word in CHOICES.get(one, "").split() or word == one.lower()]
    if choices:
        return f"; write {choices[0]}"
    try:
        value = resolve(text.strip())
    except ValueError:
        return ""
    return f"; write {text.strip()} without quotes" if not isinstance(value, str) and fits(value, annotation) else ""


def _choices(annotation: Any) -> list[str]:
    """The strings that a type takes by name."""
    if typing.get_origin(annotation) is Literal:
        return [one for one in typing.get_args(annotation) if isinstance(one, str)]
    return [choice for one in typing.get_args(annotation) for choice in _choices(one)]
