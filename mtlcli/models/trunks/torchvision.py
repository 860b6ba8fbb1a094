"""Any of torchvision's classification models as a trunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from mtlcli.errors import nearest
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import trunks
from mtlcli.specs import Shape


@trunks.register("torchvision")
class TorchVision(Trunk):
    """A classification model of torchvision without its last layer: images [B, 1 or 3, H, W] → [B, features].

    features is the width of what the last layer was given, e.g. 512 for `resnet18`. Images of one channel are repeated
    to three. Activations: the outputs of the model's own modules by name: its children, such as `layer1`, and theirs,
    such as `layer1.0`; and those of the stages. An auxiliary classifier is left out.
    Stages: a ResNet's, ResNeXt's or wide ResNet's are `stem`, `layer1`, …, `layer4` and `pool`; for every other model
    whose top-level modules are a chain, these modules (see `models.chain`), of which `features` is often nearly all;
    for the rest (the vision transformers `vit_…`) there is one, `network`.
    Inputs come normalized by the dataset's own statistics, not by ImageNet's, with pretrained weights too.
    On the meta device (`mtl validate`) no weights are fetched.

    ValueError for an unknown model or unknown weights, weights that can't be fetched, inputs that aren't images of one
    or three channels, or images of a size the model can't take.

    Options:
        model: torchvision's name of the model, e.g. `resnet18` or `mobilenet_v3_small`.
        weights: torchvision's name of pretrained weights, e.g. `DEFAULT` or `IMAGENET1K_V1`; none: random ones.
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
            raise ValueError(f"torchvision's {model} can't take images of {shape}: {reason}") from error
        on_meta = torch.empty(0).device.type == "meta"
        self.network = trial.train() if on_meta else _without_classifier(_build(model, weights))
        self.chain = chain_of(self.network)

    @staticmethod
    def option_for(name: str) -> dict[str, str] | None:
        """The option that chooses torchvision's model of that name; None where there is none."""
        import torchvision

        models: Any = torchvision.models
        return {"model": name} if name in models.list_models(module=models) else None

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        if self.chain is None:
            return {"network": lambda x: self.network(_three(x))}
        stages = {name: self._stage(links) for name, links in self.chain.items()}
        name, first = next(iter(stages.items()))
        return {**stages, name: lambda x: first(_three(x))}

    def _stage(self, links: Sequence[Link]) -> Callable[[Tensor], Tensor]:
        def stage(x: Tensor) -> Tensor:
            for link in links:
                x = link(self.network, x)
            return x

        return stage

    def activation_names(self) -> list[str]:
        if self.chain is None:
            return [*(name for name, _ in self.network.named_children()), "network"]
        called = ([*(str(one.target) for one in links if one.is_module), name] for name, links in self.chain.items())
        return list(dict.fromkeys(name for names in called for name in names))

    def activations(self, x: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        modules, wanted = dict(self.network.named_modules()), set(names)
        found: dict[str, Tensor] = {}  # dict[…]() is nothing that torch.compile knows
        self.known(wanted - modules.keys())
        stages = self.stages()

        def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
            return lambda module, inputs, output: found.__setitem__(name, output)

        handles = [modules[name].register_forward_hook(keep(name)) for name in wanted - stages.keys()]
        try:
            for name, stage in stages.items():
                x = stage(x)
                if name in wanted:
                    found[name] = x
            return x, found
        finally:
            for handle in handles:
                handle.remove()


def _three(x: Tensor) -> Tensor:
    """[B, 1 or 3, H, W] → [B, 3, H, W]."""
    return x.expand(-1, 3, -1, -1)


def _check_names(model: str, weights: str | None) -> None:
    import torchvision

    models: Any = torchvision.models
    known = models.list_models(module=models)
    if model not in known:
        raise ValueError(
            f"torchvision has no classification model {model!r}.{nearest(model, known)} "
            f"It has {len(known)}, among them resnet18, mobilenet_v3_small and efficientnet_b0"
        )
    there = ["DEFAULT", *models.get_model_weights(model).__members__]
    if weights is not None and weights not in there:
        raise ValueError(
            f"{model} has no weights {weights!r}.{nearest(weights, there)} Choose from: {', '.join(there)}"
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
            f"the weights {weights} of {model} can't be fetched: {error}. "
            f"Place the file in {torch.hub.get_dir()}/checkpoints by hand, or leave `weights` out"
        ) from error
    if getattr(network, "aux_logits", False):
        network.aux_logits, network.AuxLogits = False, None  # inception_v3 with weights: built with its auxiliary head
    if hasattr(network, "transform_input"):  # GoogLeNet and Inception with weights: inputs normalized by ImageNet's
        network.transform_input = False
    assert isinstance(network, nn.Module)
    return network


def _build_on_meta(model: str) -> nn.Module:
    """The model without memory for its weights."""
    try:
        with torch.device("meta"):
            return _build(model, None)
    except NotImplementedError:  # RegNet computes its widths with tensors
        with torch.device("cpu"):
            return _build(model, None).to("meta")


def _without_classifier(network: nn.Module) -> nn.Module:
    """The network with its last linear layer (SqueezeNet: its last convolution) replaced by the identity.

    What has no weights at the top level doesn't compute in place any more: that changed the activation before it.
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


MEANS: tuple[Any, ...] = ("mean", torch.mean, F.adaptive_avg_pool2d)  # over a map, as networks spell it


@dataclass(frozen=True)
class Link:
    """One operation of a chain: a module's (target: its path), a tensor's method (its name), or a function.

    further: its arguments beside the tensor that comes along the chain.
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


def chain_of(network: nn.Module) -> Chain | None:
    """The network's stages in order, name → its operations; None where its top-level modules are no chain.

    torch.fx records what `forward` calls, so that all stages together are exactly what the network computes; what it
    does in training and in evaluation has to be the same but for what its modules do.

    A stage is a top-level module with a matrix of weights (convolutions, linear layers) and those without that follow
    it: norms, activation functions, pools. The mean over the maps begins a last stage.
    A stage is called as its last module, whose output is the stage's; but the first one `stem`, where it is several
    modules and others with weights follow, and one without weights `pool`.
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
    return {_name(network, groups, at): group for at, group in enumerate(groups)}


class _TopLevel(fx.Tracer):
    """Looks into the network's own `forward` alone."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _links(network: nn.Module) -> list[Link] | None:
    try:
        first, *nodes, last = _TopLevel().trace(network).nodes
    except (fx.proxy.TraceError, TypeError):  # what it calls depends on the values it is given
        return None
    links, before = [], first
    for node in nodes:
        further, keywords = tuple(node.args[1:]), dict(node.kwargs)
        inputs: list[fx.Node] = []
        fx.node.map_arg((further, keywords), inputs.append)
        if node.args[:1] != (before,) or inputs:
            return None
        assert node.op in ("call_module", "call_method", "call_function")
        links.append(Link(node.target, node.op == "call_module", further, keywords))
        before = node
    return links if last.args == (before,) else None


def _has_weights(network: nn.Module, links: Sequence[Link]) -> bool:
    modules = [network.get_submodule(str(link.target)) for link in links if link.is_module]
    return any(p.ndim > 1 for module in modules for p in module.parameters())


def _is_mean(network: nn.Module, link: Link) -> bool:
    if not link.is_module:
        return link.target in MEANS
    inner = network.get_submodule(str(link.target)).modules()
    return not _has_weights(network, [link]) and any(isinstance(module, nn.AdaptiveAvgPool2d) for module in inner)


def _is_full(network: nn.Module, group: Sequence[Link]) -> bool:
    """Whether another module with weights is no part of this stage."""
    return _has_weights(network, group) and not _is_mean(network, group[0])


def _name(network: nn.Module, groups: Sequence[Sequence[Link]], at: int) -> str:
    modules = [str(link.target) for link in groups[at] if link.is_module]
    if at == 0 and len(modules) > 1 and any(_is_full(network, group) for group in groups[1:]):
        return "stem"
    return modules[-1] if _has_weights(network, groups[at]) else "pool"
