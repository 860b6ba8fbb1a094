"""The classification models of torchvision as trunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from mtlcli.errors import suggest
from mtlcli.models.named_layers import layers_of
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import trunks
from mtlcli.specs import Shape


@trunks.register("torchvision")
class TorchVision(Trunk):
    """A classification model of torchvision without its last layer: images [B, 1 or 3, H, W] → [B, F].

    F is the input width of the last layer, e.g. 512 for `resnet18`. Images with one channel are repeated to three. An
    auxiliary classifier is left out.

    Stages: those of a ResNet, ResNeXt or wide ResNet are `stem`, `layer1`, …, `layer4` and `pool`; those of any other
    model whose top-level modules form a chain are these modules, of which `features` often contains nearly all layers;
    all other models (the vision transformers `vit_…`) have one stage, `network`. Activations: the outputs of the stages
    and of the model's named modules, such as `layer1` and `layer1.0`.

    Inputs are normalized by the statistics of the dataset, not by those of ImageNet, even with pretrained weights. On
    the device `meta` (`mtl validate`) no weights are downloaded.

    Args:
        input_shape: shape [C, H, W] of an image, with 1 or 3 channels.
        model: torchvision's name of the model, e.g. `resnet18` or `mobilenet_v3_small`.
        weights: torchvision's name of pretrained weights, e.g. `DEFAULT` or `IMAGENET1K_V1`; null: random
            initialization.

    Raises:
        ValueError: if the model or the weights are unknown, the weights can't be downloaded, the inputs are not images
            with 1 or 3 channels, or the model can't process images of this size.
    """

    def __init__(self, input_shape: Shape, *, model: str, weights: str | None = None) -> None:
        super().__init__()
        shape = "×".join(map(str, input_shape))
        if len(input_shape) != 3 or input_shape[0] not in (1, 3):
            raise ValueError(f"torchvision models need images [C, H, W] of 1 or 3 channels, got {shape}")
        _check_names(model, weights)
        trial = _without_classifier(_build_on_meta(model)).eval()
        try:
            self.features = trial(torch.empty(2, 3, *input_shape[1:], device="meta")).shape[1]
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"torchvision's {model} can't process images of {shape}: {reason}") from error
        on_meta = torch.empty(0).device.type == "meta"
        self.network = trial.train() if on_meta else _without_classifier(_build(model, weights))
        self.chain = chain_of(self.network)

    @staticmethod
    def option_for(name: str) -> dict[str, str] | None:
        """Return the options that select the model of torchvision with this name; None if it has no such model."""
        import torchvision

        models: Any = torchvision.models
        return {"model": name} if name in models.list_models(module=models) else None

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        if self.chain is None:
            return {"network": lambda x: self.network(_to_three_channels(x))}
        stages = {name: self._stage(links) for name, links in self.chain.items()}
        name, first = next(iter(stages.items()))
        return {**stages, name: lambda x: first(_to_three_channels(x))}

    def _stage(self, links: Sequence[Link]) -> Callable[[Tensor], Tensor]:
        def stage(x: Tensor) -> Tensor:
            for link in links:
                x = link(self.network, x)
            return x

        return stage

    def layer_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Divide the parameters among the modules of the network, such as `layer1.0` or `features.3`."""
        return layers_of(self.network)

    def activation_names(self) -> list[str]:
        if self.chain is None:
            return [*(name for name, _ in self.network.named_children()), "network"]
        called = ([*(str(link.target) for link in links if link.is_module), name] for name, links in self.chain.items())
        return list(dict.fromkeys(name for names in called for name in names))

    def activations(self, x: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        modules, wanted = dict(self.network.named_modules()), set(names)
        activations: dict[str, Tensor] = {}  # torch.compile does not support dict[…]()
        self.check_activation_names(wanted - modules.keys())
        stages = self.stages()

        def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
            return lambda module, inputs, output: activations.__setitem__(name, output)

        handles = [modules[name].register_forward_hook(keep(name)) for name in wanted - stages.keys()]
        try:
            for name, stage in stages.items():
                x = stage(x)
                if name in wanted:
                    activations[name] = x
            return x, activations
        finally:
            for handle in handles:
                handle.remove()


def _to_three_channels(x: Tensor) -> Tensor:
    """[B, 1 or 3, H, W] → [B, 3, H, W]."""
    return x.expand(-1, 3, -1, -1)


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


def _without_classifier(network: nn.Module) -> nn.Module:
    """Replace the last linear layer (in SqueezeNet the last convolution) of a network by the identity.

    Top-level modules without weights no longer compute in place, since that would change the previous activation.
    """
    *_, last = (name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d))
    parent, _, name = last.rpartition(".")
    setattr(network.get_submodule(parent), name, nn.Identity())
    for child in network.children():
        if all(p.ndim < 2 for p in child.parameters()):
            for module in child.modules():
                if hasattr(module, "inplace"):
                    module.inplace = False  # type: ignore[assignment]
    return network


MEANS: tuple[Any, ...] = ("mean", torch.mean, F.adaptive_avg_pool2d)  # operations for the mean over a feature map


@dataclass(frozen=True)
class Link:
    """One operation of a chain: a call of a module, of a method of the tensor, or of a function.

    Attributes:
        target: path of the module, name of the method, or the function.
        is_module: whether `target` is the path of a module.
        further: positional arguments after the tensor.
        keywords: keyword arguments.
    """

    target: str | Callable[..., Any]
    is_module: bool
    further: tuple[Any, ...]
    keywords: dict[str, Any]

    def __call__(self, network: nn.Module, x: Tensor) -> Tensor:
        operation: Any = self.target
        if isinstance(self.target, str):
            operation = network.get_submodule(self.target) if self.is_module else getattr(Tensor, self.target)
        out: Tensor = operation(x, *self.further, **self.keywords)
        return out


Chain = dict[str, list[Link]]
"""Name of a stage → its operations, in order."""


def chain_of(network: nn.Module) -> Chain | None:
    """Split a network into a chain of stages.

    torch.fx records the calls of `forward`, so that all stages together compute exactly what the network computes. The
    calls must be the same in training and in evaluation mode.

    A stage consists of a top-level module with a weight matrix (convolutions, linear layers) and the following modules
    without one: norms, activation functions, pools. The mean over the feature maps begins the last stage. A stage has
    the name of its last module with two exceptions: the first stage is `stem` if it has several modules and other
    stages with weights follow, and a stage without weights is `pool`.

    Args:
        network: the network, whose training mode is left unchanged.

    Returns:
        Name → operations of each stage, in order; None if the top-level modules are not a chain.
    """
    training = network.training
    links, evaluated = (_links(network.train(mode)) for mode in (True, False))
    network.train(training)
    if links is None or links != evaluated:
        return None
    groups: list[list[Link]] = []
    for link in links:
        if not groups or _is_mean(network, link) or (_has_weights(network, [link]) and _is_full(network, groups[-1])):
            groups.append([])
        groups[-1].append(link)
    return {_name(network, groups, index): group for index, group in enumerate(groups)}


class _TopLevel(fx.Tracer):
    """A tracer that records the calls of the network's own `forward` only."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return True: no module is traced further."""
        return True


def _links(network: nn.Module) -> list[Link] | None:
    try:
        first, *nodes, last = _TopLevel().trace(network).nodes
    except (fx.proxy.TraceError, TypeError):  # the calls depend on the values of the input
        return None
    links, previous = [], first
    for node in nodes:
        further, keywords = tuple(node.args[1:]), dict(node.kwargs)
        inputs: list[fx.Node] = []
        fx.node.map_arg((further, keywords), inputs.append)
        if node.args[:1] != (previous,) or inputs:
            return None
        assert node.op in ("call_module", "call_method", "call_function")
        links.append(Link(node.target, node.op == "call_module", further, keywords))
        previous = node
    return links if last.args == (previous,) else None


def _has_weights(network: nn.Module, links: Sequence[Link]) -> bool:
    modules = [network.get_submodule(str(link.target)) for link in links if link.is_module]
    return any(p.ndim > 1 for module in modules for p in module.parameters())


def _is_mean(network: nn.Module, link: Link) -> bool:
    if not link.is_module:
        return link.target in MEANS
    inner = network.get_submodule(str(link.target)).modules()
    return not _has_weights(network, [link]) and any(isinstance(module, nn.AdaptiveAvgPool2d) for module in inner)


def _is_full(network: nn.Module, group: Sequence[Link]) -> bool:
    """Return whether a further module with weights begins a new stage."""
    return _has_weights(network, group) and not _is_mean(network, group[0])


def _name(network: nn.Module, groups: Sequence[Sequence[Link]], index: int) -> str:
    modules = [str(link.target) for link in groups[index] if link.is_module]
    if index == 0 and len(modules) > 1 and any(_is_full(network, group) for group in groups[1:]):
        return "stem"
    return modules[-1] if _has_weights(network, groups[index]) else "pool"
