"""The image models of timm as trunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtlcli.errors import suggest
from mtlcli.models.image_networks import ImageNetwork, check_images, to_three_channels, without_inplace
from mtlcli.models.map_networks import NO_STRIDE, PatchMap, check_map
from mtlcli.models.module_chains import chain_of
from mtlcli.registry import trunks
from mtlcli.specs import Shape


@trunks.register("timm")
class TimmTrunk(ImageNetwork):
    """A model of the library timm without its classifier: images [B, 1 or 3, H, W] → [B, F].

    F is the width that timm's models have before the classifier, e.g. 1280 for `tf_efficientnet_lite0`. Images with one
    channel are repeated to three. Vision transformers are built for the size of the images.

    With `output: map` the output is what the model averages over the positions, maps [B, F, h, w]; for a vision
    transformer, the vectors of the patches as a map. In models that timm can dilate, such as ResNets, `output_stride`
    replaces strides by dilated convolutions, so that the maps are larger.

    Stages: those of vision transformers are `embeddings`, `layer.0`, `layer.1`, …, `norm` and `pool` (or `map`); those
    of a model whose top-level modules form a chain are these modules; all other models have one stage, `network`.
    Activations: the outputs of the stages and of the model's named modules.

    Inputs are normalized by the statistics of the dataset, even with pretrained weights.

    Args:
        input_shape: shape [C, H, W] of an image, with 1 or 3 channels.
        model: timm's name of the model, e.g. `resnet18d` or `vit_tiny_patch16_224`.
        pretrained: file of pretrained weights (.pth or .safetensors) with timm's names, or with other names if all
            tensors agree in order; or the name of weights that `mtl data fetch` downloads, such as
            `efficientnet_lite0`; null or false: random initialization.
        output: `vector`, or `map` for the feature maps before the mean over their positions.
        output_stride: stride of the maps, with `output: map`; null: the model's own, 32 for most models.

    Raises:
        ValueError: if timm is not installed, the model is unknown, the inputs are not images with 1 or 3 channels, or
            the model can't process images of this size or return such maps.
    """

    by_order = True

    def __init__(
        self,
        input_shape: Shape,
        *,
        model: str,
        pretrained: str | Literal[False] | None = None,
        output: Literal["vector", "map"] = "vector",
        output_stride: Literal[8, 16, 32] | None = None,
    ) -> None:
        super().__init__()
        if output_stride is not None and output == "vector":
            raise ValueError(NO_STRIDE)
        check_images(input_shape, "timm")
        _check_name(model)
        self.pretrained, self.representation = pretrained or None, output
        trial, shape, options = _try_on_meta(model, input_shape, output, output_stride)
        on_meta = torch.empty(0).device.type == "meta"
        self.network = without_inplace(trial if on_meta else _build(model, options)).train()
        self.features, self.grid = shape[0], shape[1:]
        settings: Any = self.network.pretrained_cfg
        classifiers = settings.get("classifier") or ()
        names = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
        self.unused = tuple(f"{name}." for name in names)
        self.is_transformer = _is_transformer(self.network)
        self.chain = None if self.is_transformer else chain_of(self.network)
        if output == "map":
            check_map(shape, input_shape, "use larger images, or `output_stride: 8`")

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        if not self.is_transformer:
            return super().stages()
        network: Any = self.network

        def embed(x: Tensor) -> Tensor:
            x = network.patch_drop(network._pos_embed(network.patch_embed(to_three_channels(x))))
            return network.norm_pre(x)  # type: ignore[no-any-return]

        blocks = {f"layer.{index}": block for index, block in enumerate(network.blocks)}
        last: dict[str, Callable[[Tensor], Tensor]] = {"pool": lambda x: network.forward_head(x, pre_logits=True)}
        if self.representation == "map":
            last = {"map": PatchMap(network.num_prefix_tokens, self.grid)}
        return {"embeddings": embed, **blocks, "norm": network.norm, **last}

    def activation_names(self) -> list[str]:
        return list(self.stages()) if self.is_transformer else super().activation_names()

    def layer_parameters(self) -> dict[str, list[nn.Parameter]]:
        return self.stage_parameters() if self.is_transformer else super().layer_parameters()


def _check_name(model: str) -> None:
    try:
        import timm
    except ImportError as error:
        raise ValueError("needs the package timm: pip install 'mtlcli[vision]'") from error
    if not timm.is_model(model):  # a name such as `hf-hub:org/model` would be downloaded
        available = timm.list_models()
        raise ValueError(
            f"timm has no model {model!r}.{suggest(model, available)} It has {len(available):,}, among them resnet18, "
            "vit_tiny_patch16_224 and tf_efficientnet_lite0"
        )


def _build(model: str, options: dict[str, Any]) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(model, pretrained=False, num_classes=0, **options)
    return network


def _try_on_meta(
    model: str, input_shape: Shape, output: str, output_stride: int | None
) -> tuple[nn.Module, Shape, dict[str, Any]]:
    """Build a model on `meta`, and return it, the shape of its output, and its options for images of this size."""
    reason, wanted = "", _map_options(output_stride) if output == "map" else {}
    for options in (wanted, {**wanted, "img_size": tuple(input_shape[1:])}):
        try:
            with torch.device("meta"):
                network: Any = _build(model, options).eval()
            y = network(torch.empty(2, 3, *input_shape[1:], device="meta"))
            if output == "vector" and y.ndim == 2:
                return network, tuple(y.shape[1:]), options
            if output == "map" and _is_transformer(network):
                return network, (y.shape[2], *network.patch_embed.dynamic_feat_size(input_shape[1:])), options
            if output == "map" and y.ndim == 4 and y.shape[1] in (network.num_features, network.head_hidden_size):
                return network, tuple(y.shape[1:]), options
            reason = reason or f"it returns {list(y.shape[1:])} for an image"
        except (RuntimeError, AssertionError, ValueError, TypeError, NotImplementedError) as error:
            reason = reason or str(error).partition("\n")[0] or type(error).__name__
    shape = "×".join(map(str, input_shape))
    if output_stride is not None and "img_size" not in reason:
        reason += f"; not every model of timm has `output_stride: {output_stride}`"
    raise ValueError(f"timm's {model} can't process images of {shape}{' as maps' * (output == 'map')}: {reason}")


def _map_options(output_stride: int | None) -> dict[str, Any]:
    """Return the options of timm for feature maps, with a stride or the model's own."""
    pooled: dict[str, Any] = {"global_pool": ""}
    return pooled if output_stride is None else {**pooled, "output_stride": output_stride}


def _is_transformer(network: nn.Module) -> bool:
    from timm.models.vision_transformer import VisionTransformer

    return type(network) is VisionTransformer
