"""Configurations of models of the library `transformers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mtlcli.errors import suggest
from mtlcli.specs import Pool

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# keys of a configuration that select code, kernels or formats of weights instead of describing the network
IGNORED = ("attn_implementation", "experts_implementation", "fusion_config", "transformers_weights", "auto_map",
           "custom_pipelines", "name_or_path", "dtype", "torch_dtype", "transformers_version", "architectures",
           "use_cache", "output_hidden_states", "output_attentions", "return_dict", "torchscript", "use_kernels",
           "chunk_size_feed_forward", "pruned_heads", "kernel_config")  # fmt: skip
POOL_OF_TYPE: dict[str, Pool] = {"swin": "mean", "swinv2": "mean"}


def make_config(plain: Mapping[str, Any], strict: bool = False) -> PretrainedConfig:
    """Convert the content of a `config.json` to a configuration, without code of the model's own.

    Args:
        plain: the content, with its `model_type`.
        strict: whether a key that the model doesn't have, and that is similar to one that it has, is an error.

    Returns:
        The configuration of transformers' own class for the model type.

    Raises:
        ValueError: if the model needs code of its own, its type is unknown, or its values don't fit.
    """
    from transformers import CONFIG_MAPPING

    model_type = plain.get("model_type")
    if plain.get("auto_map") or (isinstance(model_type, str) and "--" in model_type):
        raise ValueError(
            "its `auto_map` names code of the model's own, which is never run. If transformers' own "
            f"{model_type!r} is meant, remove `auto_map` from config.json"
        )
    if plain.get("quantization_config"):
        raise ValueError("its weights are quantized (`quantization_config`); use the model with full weights")
    names = [str(name) for name in CONFIG_MAPPING]
    if not isinstance(model_type, str) or model_type not in names:
        hint = suggest(str(model_type), names)
        raise ValueError(f"transformers has no `model_type` {model_type!r}.{hint}")
    config_class = CONFIG_MAPPING[model_type]
    values = _without_ignored(plain)
    try:
        if strict and (misspelled := _misspelled_key(values, config_class)):
            raise ValueError(f"{model_type} has no key {misspelled[0]!r}.{misspelled[1]}")
        return config_class(**values)
    except ValueError:
        raise
    except Exception as error:  # of dataclasses, of the classes' own checks
        raise ValueError(f"not a configuration of {model_type}: {str(error).strip().partition(chr(10))[0]}") from error


def _without_ignored(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            str(key): _without_ignored(inner)
            for key, inner in value.items()
            if not str(key).startswith("_") and key not in IGNORED and key != "model_type"
        }
    return [_without_ignored(inner) for inner in value] if isinstance(value, list | tuple) else value


def _misspelled_key(values: Mapping[str, Any], config_class: Any) -> tuple[str, str] | None:
    """Return a key that is similar to one of the class, and a suggestion; some models read keys that no class lists."""
    own = {*config_class().to_dict(), *config_class.attribute_map}
    hints = ((key, suggest(key, own)) for key in values if key not in own)
    return next(((key, hint) for key, hint in hints if hint), None)


def reads_text(config: PretrainedConfig) -> bool:
    """Return whether a model reads texts, and not images."""
    default = type(config)()  # without further keys of the user
    return hasattr(default, "vocab_size") and not hasattr(default, "num_channels")


def own_pool(config: PretrainedConfig, causal: bool) -> Pool:
    """Return the pooling that is usual for a model.

    Args:
        config: the configuration.
        causal: whether a position sees only those before it.

    Returns:
        `last` for a causal model; `mean` for the encoder of an encoder-decoder model, and for Swin; else `cls`.
    """
    if causal:
        return "last"
    if getattr(config, "is_encoder_decoder", False):
        return "mean"
    stated = getattr(config, "classifier_pooling", None)
    if stated in ("cls", "mean"):
        return "mean" if stated == "mean" else "cls"
    return POOL_OF_TYPE.get(config.model_type, "cls")
