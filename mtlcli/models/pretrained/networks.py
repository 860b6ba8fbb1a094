"""Networks of the library `transformers`: built from a configuration, with random or pretrained weights."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtlcli.errors import MtlError
from mtlcli.files import quote_path
from mtlcli.models.pretrained.configs import quiet

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ATTENTION = "mtl_sdpa"
MAX_LISTED = 5  # keys that a message lists


def build_network(config: PretrainedConfig, weights: Sequence[Path], attention: str) -> nn.Module:
    """Build the network of a configuration, without heads: for an encoder-decoder model its encoder.

    Args:
        config: the configuration.
        weights: safetensors files; none for random weights. On the device `meta` they are not read.
        attention: `sdpa` or `eager`; a model without `sdpa` is built with `eager`.

    Returns:
        The network, float32, on the default device.

    Raises:
        ValueError: if the network can't be built, or the files hold the weights of another network.
    """
    encoded = getattr(config, "is_encoder_decoder", False)  # the class of an encoder changes it
    network = instantiate(_class_of(config), config, weights, attention)
    if encoded:
        network = network.get_encoder()
    for module in network.modules():
        # the state dict has all buffers, so that a network that was built on `meta` is complete after loading
        module._non_persistent_buffers_set.clear()
    assert isinstance(network, nn.Module)
    return network.train()


def instantiate(network_class: Any, config: PretrainedConfig, weights: Sequence[Path], attention: str) -> Any:
    """Build a network of a class of `transformers`, see `build_network`.

    Args:
        network_class: the class.
        config: the configuration.
        weights: safetensors files; none for random weights. On the device `meta` they are not read.
        attention: `sdpa` or `eager`; a model without `sdpa` is built with `eager`.

    Returns:
        The network.

    Raises:
        ValueError: if the network can't be built, or the files hold the weights of another network.
    """
    fused = attention == "sdpa" and network_class._supports_sdpa
    options: dict[str, Any] = {"attn_implementation": _register_attention() if fused else "eager"}
    if "add_pooling_layer" in inspect.signature(network_class).parameters:
        options["add_pooling_layer"] = False
    config.use_cache = False
    with quiet():
        if weights and torch.empty(0).device.type != "meta":
            network = _load(network_class, config, weights, options)
        else:
            try:
                network = network_class._from_config(config, dtype=torch.float32, **options)
            except (MtlError, MemoryError):
                raise
            except Exception as error:  # of the network's own code, for values that don't fit
                raise ValueError(f"no {config.model_type} can be built: {_first_line(error)}") from error
            if weights:
                check_weights(network, weights)
    return network


def _register_attention() -> str:
    """Register sdpa with masks whose construction doesn't wait for the device, and return its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def make_mask(*args: Any, **keywords: Any) -> Tensor | None:
        mask = keywords.get("attention_mask")
        if mask is not None and is_expanded(mask):
            mask = None
        if mask is not None and mask.device.type != "cpu":  # whether it is all True is not read
            keywords["allow_is_bidirectional_skip"] = keywords["allow_is_causal_skip"] = False
        made: Tensor | None = sdpa_mask(*args, **{**keywords, "attention_mask": mask})
        return made

    AttentionInterface.register(ATTENTION, sdpa_attention_forward)
    AttentionMaskInterface.register(ATTENTION, make_mask)
    return ATTENTION


def all_valid(rows: int, length: int, device: torch.device) -> Tensor:
    """Return a mask without padding, which is recognized without reading it.

    Args:
        rows: number of rows.
        length: number of positions.
        device: its device.

    Returns:
        True, bool [rows, length], expanded from one value.
    """
    return torch.ones(1, 1, dtype=torch.bool, device=device).expand(rows, length)


def is_expanded(mask: Tensor) -> bool:
    """Return whether all values of a mask are the same value in memory."""
    return mask.numel() > 1 and all(
        size == 1 or step == 0 for size, step in zip(mask.shape, mask.stride(), strict=True)
    )


def _class_of(config: PretrainedConfig) -> Any:
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING

    for mapping in (MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING):
        if type(config) in mapping:
            network_class = mapping[type(config)]
            return network_class[0] if isinstance(network_class, tuple | list) else network_class
    raise ValueError(f"transformers has no network without heads for model_type {config.model_type!r}")


def _load(network_class: Any, config: PretrainedConfig, weights: Sequence[Path], options: dict[str, Any]) -> Any:
    state = read_weights(weights)
    try:
        network, report = network_class.from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
            **options,
        )
    except (RuntimeError, ValueError, OSError, TypeError, KeyError) as error:
        raise ValueError(f"{_named(weights)} can't be loaded: {_first_line(error)}") from error
    if mismatched := sorted(str(entry[0]) for entry in report.get("mismatched_keys", ())):
        raise ValueError(f"{_named(weights)} has weights of another shape than config.json: {_listed(mismatched)}")
    if missing := sorted(report.get("missing_keys", ())):
        raise ValueError(f"{_named(weights)} lacks weights of {config.model_type}: {_listed(missing)}")
    return network


def check_weights(network: nn.Module, weights: Sequence[Path]) -> None:
    """Compare the names and shapes in safetensors files with a network, without reading their tensors.

    Files that name fewer than half of the weights are not compared: transformers may rename their weights when it loads
    them.

    Args:
        network: the network; its device may be `meta`.
        weights: the files.

    Raises:
        ValueError: if a file can't be read, or weights are missing or have another shape.
    """
    shapes = _read_shapes(weights)
    prefix = f"{getattr(network, 'base_model_prefix', '')}."
    stored = {_modern(name.removeprefix(prefix)): shape for name, shape in shapes.items()}
    expected = {name.removeprefix(prefix): tuple(p.shape) for name, p in network.named_parameters()}
    missing = [name for name in expected if name not in stored]
    if len(missing) > len(expected) // 2:
        return
    if missing:
        raise ValueError(f"{_named(weights)} lacks weights of the model: {_listed(missing)}")
    other = [name for name, shape in expected.items() if stored[name] != shape]
    if other:
        raise ValueError(f"{_named(weights)} has weights of another shape than config.json: {_listed(other)}")


def _modern(name: str) -> str:
    """Return the present name of a weight: the first files of BERT have other names for those of a norm."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _read_shapes(weights: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ValueError("needs the package safetensors: pip install 'mtlcli[text]'") from error
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weights:
        try:
            with safe_open(path, "pt") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except Exception as error:  # SafetensorError derives from Exception
            raise ValueError(f"{quote_path(path)} is not a safetensors file: {_first_line(error)}") from error
    return shapes


def read_weights(weights: Sequence[Path]) -> dict[str, Tensor]:
    """Read safetensors files.

    Args:
        weights: the files.

    Returns:
        Name → tensor, of all files.

    Raises:
        ValueError: if a file can't be read.
    """
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError("needs the package safetensors: pip install 'mtlcli[text]'") from error
    state: dict[str, Tensor] = {}
    for path in weights:
        try:
            state |= load_file(path)
        except Exception as error:  # SafetensorError derives from Exception
            raise ValueError(f"{quote_path(path)} is not a safetensors file: {_first_line(error)}") from error
    return state


def _named(weights: Sequence[Path]) -> str:
    return quote_path(weights[0] if len(weights) == 1 else weights[0].parent)


def _listed(keys: Sequence[str]) -> str:
    omitted = len(keys) - MAX_LISTED
    return ", ".join(keys[:MAX_LISTED]) + (f", and {omitted} more" if omitted > 0 else "")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def is_causal(network: nn.Module) -> bool:
    """Return whether a position of the network's output depends only on the positions up to it."""
    return any(getattr(module, "is_causal", False) is True for module in network.modules())
