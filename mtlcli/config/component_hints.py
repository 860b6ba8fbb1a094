"""Hints for unknown component names: components of other groups, and names used by other tools."""

from __future__ import annotations

from typing import Any

from mtlcli.errors import match_spelling, suggest
from mtlcli.registry import REGISTRIES, Registry

# our name → names in other tools and papers
NAMES: dict[str, dict[str, str]] = {
    "kind": {
        "classification": "cross_entropy crossentropy ce multiclass softmax nll categorical crossentropyloss",
        "regression": "mse mse_loss l2 mae l1 huber smooth_l1 squared_error mean_squared_error real mseloss l1loss",
        "binary": "bce bce_with_logits logistic sigmoid binary_classification binary_cross_entropy bcewithlogitsloss",
        "multilabel": "multilabel_classification multi_label_classification",
        "tagging": "token_classification tokenclassification ner pos sequence_labeling tokens",
        "similarity": "sts cosine cosine_similarity cosent semantic_similarity",
        "contrastive": "infonce info_nce ntxent multiple_negatives multiple_negatives_ranking retrieval",
    },
    "weighting": {
        "uniform": "ew equal equal_weighting equal_weights sum mean average",
        "fixed": "linear linear_scalarization scalarization ls static manual constant weighted_sum",
        "uncertainty": "uw kendall homoscedastic uncertainty_weighting automatic_weighted_loss",
        "conflict_free": "config",
        "rlw": "random random_loss_weighting",
        "dwa": "dynamic_weight_average",
        "mgda": "mgda_ub",
        "aligned_mtl": "amtl alignedmtl",
        "stch": "tchebycheff chebyshev",
    },
    "sharing": {
        "hard": "hps hard_parameter_sharing shared_bottom hard_sharing shared bottom",
        "none": "stl single single_task independent separate null",
        "mmoe": "moe multi_gate_mixture_of_experts",
    },
    "trunk": {
        "mlp": "dense fc fully_connected feedforward linear",
        "cnn": "conv convnet convolutional",
        "torchvision": "resnet vgg efficientnet mobilenet densenet convnext vit swin",
    },
    "stem": {
        "linear": "dense fc mlp",
        "conv": "cnn convolution",
        "tabular": "embedding table",
        "resize": "interpolate",
    },
    "head": {"linear": "dense fc"},
    "regularizer": {"l2": "ridge weight_decay", "l1": "lasso"},
    "scheduler": {
        "CosineAnnealingLR": "cosine cosine_annealing",
        "StepLR": "step",
        "MultiStepLR": "multistep multi_step",
        "ExponentialLR": "exponential exp",
        "ReduceLROnPlateau": "plateau reduce_on_plateau",
        "OneCycleLR": "onecycle one_cycle 1cycle",
        "LinearLR": "linear",
        "PolynomialLR": "poly polynomial",
        "warmup_cosine": "cosine_warmup cosine_with_warmup linear_warmup_cosine get_cosine_schedule_with_warmup",
        "warmup_linear": "linear_warmup linear_with_warmup get_linear_schedule_with_warmup",
        "ConstantLR": "constant",
    },
}
NOTHING = ("none", "no", "off", "false")
NOTHING_OF = {
    "scheduler": " For a constant learning rate, use scheduler: null.",
    "weighting": " For a sum of losses, use weighting: uniform, or fixed with the tasks' weights.",
}
ENTRIES = {
    "dataset": "datasets.ALIAS", "stem": "stems.ALIAS", "sampling": "training.sampling", "head": "tasks.TASK.head",
    "kind": "tasks.TASK.kind", "adapter": "adapters",
}  # fmt: skip


def component_hint(registry: Registry[Any], name: str) -> str:
    """Return a hint for an unknown name, such as " Did you mean …?"; empty if nothing is similar."""
    names = registry.names()
    if close := match_spelling(name, names):
        return f" Did you mean {close!r}?"
    if name.lower() in NOTHING:
        return NOTHING_OF.get(registry.group, "")
    plain = name.lower().replace("-", "_").replace(" ", "_")
    synonyms = [ours for ours, theirs in NAMES.get(registry.group, {}).items() if plain in theirs.split()]
    others = [other for other in REGISTRIES.values() if other is not registry]
    if synonyms:  # `trunk: conv` means `cnn` rather than the stem `conv`
        others = [other for other in others if other.group != "stem"]
    for other in [registry, *others]:
        if other is not registry and name in other.names():
            article = "an" if other.group[0] in "aeiou" else "a"
            return f" {name!r} is {article} {other.group}: {_entry(other, name)}."
        for offering in other.names():
            option_for = getattr(other[offering].target, "option_for", None)
            if option_for is not None and (option := option_for(name.lower())) is not None:
                entry = ", ".join(f"{key}: {value}" for key, value in {"name": offering, **option}.items())
                return f" {name!r} is a {offering} {next(iter(option))}: {_entry(other, f'{{{entry}}}')}."
    items = [item.strip() for item in name.split(",")]
    if len(items) > 1 and set(items) <= set(names) and registry.group in REGISTRIES.keys() - ENTRIES.keys():
        return f" To compare several, use mtl compare --vary {registry.group}={','.join(items)}."
    if any(ours in names for ours in synonyms):
        return f" Did you mean {next(ours for ours in synonyms if ours in names)!r}?"
    return suggest(name, names)


def _entry(registry: Registry[Any], value: str) -> str:
    """Return a component's entry as written in YAML."""
    if registry.group == "regularizer":
        return f"regularizers: [{value if value[0] == '{' else f'{{name: {value}}}'}]"
    return f"{ENTRIES.get(registry.group, registry.group)}: {value}"
