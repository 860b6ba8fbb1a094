"""The classification models of torchvision as trunks."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from mtlcli.errors import suggest
from mtlcli.models.image_networks import ImageNetwork, check_images, last_layer, without_layer
from mtlcli.models.map_networks import NO_STRIDE, check_map, cut_at_mean, dilate
from mtlcli.models.module_chains import Chain, chain_of, run_chain
from mtlcli.registry import trunks
from mtlcli.specs import Shape

AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # classifiers of GoogLeNet and Inception


@trunks.register("torchvision")
class TorchVision(ImageNetwork):
    """A classification model of torchvision without its last layer: images [B, 1 or 3, H, W] → [B, F].

    F is the input width of the last layer, e.g. 512 for `resnet18`. Images with one channel are repeated to three. An
    auxiliary classifier is left out.

    With `output: map` the output is what the model averages over the positions, maps [B, F, h, w]. In ResNets, ResNeXts
    and wide ResNets, `output_stride` replaces strides of the last stages by dilated convolutions, so that the maps are
    larger: h = H / output_stride, rounded up. In networks of bottlenecks this is torchvision's
    `replace_stride_with_dilation`; those of basic blocks (`resnet18`, `resnet34`) are dilated in the same way.

    Stages: those of a ResNet, ResNeXt or wide ResNet are `stem`, `layer1`, …, `layer4` and `pool`; those of any other
    model whose top-level modules form a chain are these modules, of which `features` often contains nearly all layers;
    all other models (the vision transformers `vit_…`) have one stage, `network`. The stages of maps are the same
    without `pool`. Activations: the outputs of the stages and of the model's named modules, such as `layer1` and
    `layer1.0`.

    Inputs are normalized by the statistics of the dataset, not by those of ImageNet, even with pretrained weights. On
    the device `meta` (`mtl validate`) no weights are downloaded.

    Args:
        input_shape: shape [C, H, W] of an image, with 1 or 3 channels.
        model: torchvision's name of the model, e.g. `resnet18` or `mobilenet_v3_small`.
        weights: torchvision's name of pretrained weights, which it downloads, e.g. `DEFAULT` or `IMAGENET1K_V1`; null:
            random initialization.
        pretrained: file of pretrained weights, as torchvision publishes them (.pth, or .safetensors), or the name of
            weights that `mtl data fetch` downloads, such as `mobilenet_v2`.
        output: `vector`, or `map` for the feature maps before the mean over their positions.
        output_stride: stride of the maps of a ResNet, with `output: map`; null: the model's own, 32 for most models.

    Raises:
        ValueError: if the model or the weights are unknown, the weights can't be downloaded, the inputs are not images
            with 1 or 3 channels, or the model can't process images of this size or return such maps.
    """

    def __init__(
        self,
        input_shape: Shape,
        *,
        model: str,
        weights: str | None = None,
        pretrained: str | None = None,
        output: Literal["vector", "map"] = "vector",
        output_stride: Literal[8, 16, 32] | None = None,
    ) -> None:
        super().__init__()
        if output_stride is not None and output == "vector":
            raise ValueError(NO_STRIDE)
        if weights is not None and pretrained is not None:
            raise ValueError("expected one of the options `weights` and `pretrained`, not both")
        self.pretrained = pretrained
        check_images(input_shape, "torchvision")
        _check_names(model, weights)
        trial = _build_on_meta(model)
        classifier = last_layer(trial)
        self.unused = (f"{classifier}.", *AUXILIARY)
        trial = without_layer(trial, classifier).eval()
        chain = None if output == "vector" else _return_maps(model, trial, output_stride)
        shape = _trial_shape(model, trial, chain, input_shape)
        self.features = shape[0]
        on_meta = torch.empty(0).device.type == "meta"
        self.network = trial.train() if on_meta else without_layer(_build(model, weights), classifier)
        if chain is None:
            self.chain = chain_of(self.network)
        else:
            self.representation, self.chain = "map", chain
            check_map(shape, input_shape, "use larger images, or a ResNet with `output_stride: 8`")
            if not on_meta:
                _return_maps(model, self.network, output_stride)
            self.unused += tuple(
                f"{name}." for name, module in self.network.named_children() if isinstance(module, nn.Identity)
            )

    @staticmethod
    def option_for(name: str) -> dict[str, str] | None:
        """Return the options that select the model of torchvision with this name; None if it has no such model."""
        import torchvision

        models: Any = torchvision.models
        return {"model": name} if name in models.list_models(module=models) else None


def _check_names(model: str, weights: str | None) -> None:
    import torchvision

    models: Any = torchvision.models
    available = models.list_models(module=models)
    if model not in available:
        raise ValueError(
            f"torchvision has no classification model {model!r}.{suggest(model, available)} "
            f"It has {len(available)}, among them resnet18, mobilenet_v3_small and efficientnet_b0"
        )
    names = ["DEFAULT", *models.get_model_weights(model).__members__]
    if weights is not None and weights not in names:
        raise ValueError(
            f"{model} has no weights {weights!r}.{suggest(weights, names)} Choose from: {', '.join(names)}"
        )


def _trial_shape(model: str, trial: nn.Module, chain: Chain | None, input_shape: Shape) -> Shape:
    """Return the shape of the output for one image, from a network on `meta`."""
    x = torch.empty(2, 3, *input_shape[1:], device="meta")
    try:
        return tuple((trial(x) if chain is None else run_chain(trial, chain, x)).shape[1:])
    except (RuntimeError, AssertionError, ValueError) as error:
        reason, shape = str(error).partition("\n")[0], "×".join(map(str, input_shape))
        raise ValueError(f"torchvision's {model} can't process images of {shape}: {reason}") from error


def _return_maps(model: str, network: nn.Module, output_stride: int | None) -> Chain:
    """Let a network return its feature maps, with a given stride, and return its stages."""
    import torchvision

    try:
        chain = cut_at_mean(network, chain_of(network))
    except ValueError as error:
        raise ValueError(f"output: {model} can't return feature maps, since {error}") from error
    if isinstance(network, torchvision.models.ResNet):
        if output_stride is not None:
            dilate([network.layer2, network.layer3, network.layer4], 8, output_stride)
    elif output_stride is not None:
        raise ValueError(
            f"output_stride: {model} can't be dilated, only ResNets, ResNeXts and wide ResNets (`resnet50`). Remove it "
            "for the model's own stride"
        )
    return chain


def _build(model: str, weights: str | None) -> nn.Module:
    import torchvision

    models: Any = torchvision.models
    options: dict[str, Any] = {}
    if weights is None and model in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    try:
        network = models.get_model(model, weights=weights, **options)
    except OSError as error:
        raise ValueError(
            f"the weights {weights} of {model} can't be downloaded: {error}. "
            f"Place the file in {torch.hub.get_dir()}/checkpoints manually, or omit `weights`"
        ) from error
    if getattr(network, "aux_logits", False):
        network.aux_logits, network.AuxLogits = (
            False,
            None,
        )  # inception_v3 with weights has its auxiliary head
    if hasattr(network, "transform_input"):  # GoogLeNet and Inception with weights convert ImageNet's normalization
        network.transform_input = False
    assert isinstance(network, nn.Module)
    return network


def _build_on_meta(model: str) -> nn.Module:
    """Build a model on `meta`, without memory for its parameters."""
    try:
        with torch.device("meta"):
            return _build(model, None)
    except NotImplementedError:  # RegNet computes its widths with tensors
        with torch.device("cpu"):
            return _build(model, None).to("meta")
