"""Configurations of models of the library `transformers`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mtlcli.errors import match_spelling, suggest
from mtlcli.specs import Pool

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# keys of a configuration that select code, kernels or formats of weights instead of describing the network
IGNORED = ("attn_implementation", "experts_implementation", "fusion_config", "transformers_weights", "auto_map",
           "custom_pipelines", "name_or_path", "dtype", "torch_dtype", "transformers_version", "architectures",
           "use_cache", "output_hidden_states", "output_attentions", "return_dict", "torchscript", "use_kernels",
           "chunk_size_feed_forward", "pruned_heads", "kernel_config", "use_pretrained_backbone")  # fmt: skip
LARGEST = 2**31 - 1  # number in a configuration
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
    if any(plain.get(key) for key in ("backbone", "use_timm_backbone")):
        raise ValueError("its `backbone` is a model of its own, which is not supported; use that model")
    if plain.get("quantization_config"):
        raise ValueError("its weights are quantized (`quantization_config`); use the model with full weights")
    names = [str(name) for name in CONFIG_MAPPING]
    if not isinstance(model_type, str) or model_type not in names:
        hint = suggest(str(model_type), names)
        raise ValueError(f"transformers has no `model_type` {model_type!r}.{hint}")
    config_class = CONFIG_MAPPING[model_type]
    try:
        values = _without_ignored(plain)
        if (large := _largest(values)) is not None:
            raise ValueError(f"{large[0]}: {large[1]} is too large: the maximum is {LARGEST}")
        if strict and (misspelled := _misspelled_key(values, config_class)):
            raise ValueError(f"{model_type} has no key {misspelled[0]!r}. Did you mean {misspelled[1]!r}?")
        with quiet():  # of tokens outside the vocabulary, which are those of the class where none are stated
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


def _largest(value: Any, key: str = "") -> tuple[str, int] | None:
    """Return the key and the value of an integer that is too large for the size of a network; None if there is none."""
    if isinstance(value, Mapping):
        return next((large for name, inner in value.items() if (large := _largest(inner, name))), None)
    if isinstance(value, list):
        return next((large for inner in value if (large := _largest(inner, key))), None)
    return (key, value) if isinstance(value, int) and abs(value) > LARGEST else None


def _misspelled_key(values: Mapping[str, Any], config_class: Any) -> tuple[str, str] | None:
    """Return a key that is spelled like one of the class, and that one; some models read keys that no class lists."""
    own = {*config_class().to_dict(), *config_class.attribute_map}
    meant = ((key, match_spelling(key, own)) for key in values if key not in own)
    return next(((key, other) for key, other in meant if other is not None), None)


def reads_text(config: PretrainedConfig) -> bool:
    """Return whether a model reads texts, and not images."""
    default = type(config)()  # without further keys of the user
    return hasattr(default, "vocab_size") and not hasattr(default, "num_channels")


def own_pool(config: PretrainedConfig) -> Pool:
    """Return the pooling that is usual for a model in which every position sees all others.

    Args:
        config: the configuration.

    Returns:
        `mean` for the encoder of an encoder-decoder model, and for Swin; else `cls`, unless the configuration states
        another.
    """
    if getattr(config, "is_encoder_decoder", False):
        return "mean"
    stated = getattr(config, "classifier_pooling", None)
    if stated in ("cls", "mean"):
        return "mean" if stated == "mean" else "cls"
    return POOL_OF_TYPE.get(config.model_type, "cls")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the reports of transformers in this context: what matters of them is raised."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    progress = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if progress:
            logging.enable_progress_bar()
