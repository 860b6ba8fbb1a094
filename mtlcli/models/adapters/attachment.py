"""Attachment of adapters to a trunk, whose own weights they freeze."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtlcli.errors import suggest
from mtlcli.models.adapters.base import Adapter, Adapters, Trained, adapters_in, install
from mtlcli.models.modules import blank_example, evaluation_mode
from mtlcli.models.named_layers import list_names
from mtlcli.models.trunks.base import Trunk
from mtlcli.specs import Shape

NETWORK = "network."  # start of the names of layers in a trunk of another library


def attach(adapters: Adapters, trunk: Trunk) -> None:
    """Add adapters to a trunk and freeze its own parameters, except for those of `Adapters.train`.

    Batch norm in the trunk keeps its statistics from then on.

    Args:
        adapters: the adapters.
        trunk: the trunk, with `input_shape`; its device may be `meta`. A module that it shares with another trunk and
            that has an adapter already is left as it is.

    Raises:
        ValueError: if a pattern matches no module that can have an adapter; the message lists the names of those.
    """
    shapes = _output_shapes(trunk)
    modules = unadapted_modules(trunk)
    suited = [name for name, module in modules.items() if name in shapes and adapters.can_adapt(module, shapes[name])]
    chosen, adapted = _select(adapters, suited, modules), adapters_in(trunk)
    _freeze_weights(modules.values(), adapters.train)
    trunk.adapted = True
    trunk.fixed = (*trunk.fixed, *(module for module in modules.values() if isinstance(module, _BatchNorm)))
    trunk.train(trunk.training)
    for name in chosen:
        if name not in adapted:
            install(modules[name], adapters.make(modules[name], shapes[name]))


def unadapted_modules(trunk: Trunk) -> dict[str, nn.Module]:
    """Collect the modules of a trunk without adapters and what they consist of.

    Args:
        trunk: the trunk.

    Returns:
        Name → module; the trunk itself has the name ''.
    """
    named = dict(trunk.named_modules())
    added = tuple(f"{name}." for name, module in named.items() if isinstance(module, Adapter))
    return {name: module for name, module in named.items() if not f"{name}.".startswith(added)}


def _output_shapes(trunk: Trunk) -> dict[str, Shape]:
    """Return the name of each module that a pass calls and that returns a tensor → shape of its output.

    A module whose weight is read without a call, such as the output projection of torch's attention, is left out.
    """
    shapes: dict[str, Shape] = {}

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def record(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape[1:])

        return record

    handles = [module.register_forward_hook(note(name)) for name, module in trunk.named_modules() if name]
    try:
        with evaluation_mode(trunk):
            x = blank_example(trunk, trunk.input_shape)
            output = trunk(x)
            if (language_model := getattr(trunk, "language_model", None)) is not None:
                language_model.logits(x, output, trunk.mask(x))
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _select(adapters: Adapters, suited: list[str], modules: Mapping[str, nn.Module]) -> list[str]:
    """Return the names that match at least one pattern."""
    for pattern in adapters.targets:
        if any(_matches(name, pattern) for name in suited):
            continue
        others = [name for name in modules if name and _matches(name, pattern)]
        if others:
            problem = f"matches only {list_names(others)}, which can't have adapters; a {adapters.adapts} can"
        else:
            problem = f"matches no {adapters.adapts} of the trunk"
        hint = suggest(pattern, [name.removeprefix(NETWORK) for name in suited])
        raise ValueError(f"{pattern!r} {problem}.{hint} Choose from: {list_names(suited) or 'none'}")
    return [name for name in suited if any(_matches(name, pattern) for pattern in adapters.targets)]


def _matches(name: str, pattern: str) -> bool:
    """Return whether a pattern matches the name of a module, with or without `network.` in front."""
    return fnmatchcase(name, pattern) or fnmatchcase(name.removeprefix(NETWORK), pattern)


def _freeze_weights(modules: Iterable[nn.Module], train: Iterable[Trained]) -> None:
    """Freeze the parameters of modules, except for biases or those of norm layers where they are to be trained."""
    biases, norms = "biases" in train, "norms" in train
    for module in modules:
        for name, parameter in module.named_parameters(recurse=False):
            parameter.requires_grad_((biases and name == "bias") or (norms and is_norm(module)))


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a norm layer, by the name of its class."""
    return "Norm" in type(module).__name__
