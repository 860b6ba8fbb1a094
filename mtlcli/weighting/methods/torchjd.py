"""The aggregators of the `torchjd` package."""

from __future__ import annotations

import copy
import importlib
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlcli.errors import nearest
from mtlcli.registry import weightings
from mtlcli.weighting.base import JacobianWeighting, WeightedTask
from mtlcli.weighting.solvers.gramian import combine, units

BASES = ("Aggregator", "WeightedAggregator", "GramianWeightedAggregator")  # not methods; what methods are made from
NEGLIGIBLE = 1e-6  # an eigenvalue of the cosines between gradients that are float32


@weightings.register("torchjd")
class TorchJD(JacobianWeighting):
    """Any aggregator of TorchJD: `{name: torchjd, aggregator: UPGrad}`, with the aggregator's own options beside it.

    Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024 (arXiv:2406.16232); https://torchjd.org
    lists the aggregators, their papers and their options. Needs the extra `mtlcli[torchjd]`.

        update = aggregator(J)

    Scale: TorchJD's own, as its users know it: most aggregators give a mean of the tasks (`Mean`, `UPGrad`, `MGDA`,
    `DualProj`, …: weights that sum to about 1), some a sum (`Sum`, `PCGrad`, `IMTLG`, …). The learning rate that suits
    `uniform` is for a sum, so that a mean wants T times of it.

    The weights in the log are those whose Jᵀw comes nearest to the update. What an aggregator remembers is saved with
    the run; the ones that draw random numbers draw them from torch's global generator, which is saved too. An
    aggregator that keeps something of every task, or is given something for every task (`NashMTL`, `pref_vector`),
    needs all tasks in every step: TorchJD starts it anew, or raises an error, where their number changes. An
    aggregator may wait for the device, as many of TorchJD's solvers do.

    Options:
        aggregator: the name of the class in `torchjd.aggregation`; its arguments are options too, lists for vectors.
    """

    reuses_weights = False  # an update needn't be a combination of the gradients
    place: Tensor
    aggregator: nn.Module

    def __init__(self, tasks: Sequence[WeightedTask], *, aggregator: str, **options: Any) -> None:
        super().__init__(tasks)
        self.register_buffer("place", torch.empty(0), persistent=False)  # knows the device
        # No submodule: TorchJD's buffers come into being with the first step, which load_state_dict wouldn't accept.
        object.__setattr__(self, "aggregator", _build(aggregator, options, len(self.tasks)))

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See `JacobianWeighting.update`. The weights are the least-squares solution of Jᵀw = update."""
        with torch.autocast(jacobian.device.type, enabled=False):
            update = self.aggregator(jacobian)
        # G w = J update, with every gradient scaled to the length 1, so that a short one isn't lost among long ones.
        cosines, _, scales = units(torch, gramian)
        projections = combine(update, jacobian.mT).nan_to_num_().to(gramian.dtype)
        return update, scales * (torch.linalg.pinv(cosines, rtol=NEGLIGIBLE, hermitian=True) @ (scales * projections))

    def get_extra_state(self) -> dict[str, Any]:
        """What the aggregator remembers."""
        return capture(self.aggregator)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put the aggregator where `get_extra_state` found it, on the device of the run that goes on."""
        restore(self.aggregator, state, self.place.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TorchJD:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        move(self.aggregator, fn)
        return self


def _build(name: str, options: dict[str, Any], tasks: int) -> nn.Module:
    """The aggregator, tried out on a Jacobian of `tasks` rows. ValueError where it can't be made or doesn't work."""
    try:
        package = importlib.import_module("torchjd.aggregation")
    except ModuleNotFoundError as error:
        raise ValueError("the weighting torchjd needs the package torchjd: pip install 'mtlcli[torchjd]'") from error
    classes: dict[str, Any] = {
        key: value
        for key, value in vars(package).items()
        if inspect.isclass(value) and issubclass(value, package.Aggregator) and key not in BASES
    }
    if "every" in options:
        raise ValueError("torchjd has no `every`: an aggregator's update needn't be made of weights to use again")
    if name not in classes:
        raise ValueError(
            f"torchjd has no aggregator {name!r}.{nearest(name, classes)} Choose from: {', '.join(sorted(classes))}"
        )
    try:
        with torch.device("cpu"):  # there are values to be read, also where everything else is built on meta
            given = {key: torch.tensor(value) if isinstance(value, list) else value for key, value in options.items()}
            aggregator: nn.Module = classes[name](**given)
            _try_out(copy.deepcopy(aggregator), tasks)
    except Exception as error:  # whatever TorchJD raises for options that don't fit
        raise ValueError(f"torchjd's {name}: {error} ({_signature(name, classes[name])})") from error
    return aggregator


@torch.no_grad()
def _try_out(aggregator: nn.Module, tasks: int) -> None:
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        aggregator(torch.eye(tasks, tasks + 1) + 0.1)


def _signature(name: str, target: type) -> str:
    """The options of an aggregator, in words."""
    words = []
    for parameter in inspect.signature(target).parameters.values():
        required = parameter.default is parameter.empty
        default = "a function" if callable(parameter.default) else parameter.default
        words.append(parameter.name + (" (required)" if required else f" (default {default})"))
    return f"its options: {', '.join(words)}" if words else f"{name} has no options"


PLAIN = (bool, int, float, str, torch.dtype, torch.device)


def capture(aggregator: nn.Module) -> dict[str, Any]:
    """The buffers and plain attributes of the aggregator's modules, by path and name, as a checkpoint takes them."""
    return {
        path: {name: _encode(value) for name, value in _members(module).items() if _is_state(module, name, value)}
        for path, module in aggregator.named_modules()
    }


def restore(aggregator: nn.Module, state: dict[str, Any], device: torch.device) -> None:
    """Put an aggregator of the same options where `capture` found it, on this device."""
    modules = dict(aggregator.named_modules())
    for path, members in state.items():
        for name, value in members.items():
            setattr(modules[path], name, _decode(value, device))
        # NashMTL makes its problem at its first step only, and it can't be saved.
        if members.get("step") and hasattr(modules[path], "_init_optim_problem"):
            modules[path]._init_optim_problem()
    move(aggregator, lambda tensor: tensor.to(device, copy=True))


def move(aggregator: nn.Module, to: Callable[[Tensor], Tensor]) -> None:
    """Move the tensors of an aggregator: options such as `pref_vector`, which nn.Module would leave, and buffers.

    The buffers of the ones that compute on the CPU stay there: those whose `_state_key` doesn't have the device in it.
    """
    for module in aggregator.modules():
        key = getattr(module, "_state_key", None)
        stays = key is not None and not (isinstance(key, tuple) and any(isinstance(x, torch.device) for x in key))
        for name, value in _members(module).items():
            if isinstance(value, Tensor) and not (stays and name in module._buffers):
                setattr(module, name, to(value))


def _members(module: nn.Module) -> dict[str, Any]:
    """What a module has beside what every nn.Module has: plain attributes and buffers."""
    own = {name: value for name, value in vars(module).items() if name not in vars(nn.Module())}
    return {**own, **module._buffers}


def _is_state(module: nn.Module, name: str, value: Any) -> bool:
    """Whether a member can change and can be saved; plain tensors are options."""
    if isinstance(value, Tensor):
        return name in module._buffers
    items = value if isinstance(value, tuple) else (value,)
    return all(item is None or isinstance(item, PLAIN) or _is_array(item) for item in items)


def _is_array(value: Any) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "dtype")


def _encode(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"tuple": [_encode(item) for item in value]}
    if _is_array(value):
        return {"array": torch.as_tensor(value)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    return {"device": str(value)} if isinstance(value, torch.device) else value


def _decode(value: Any, device: torch.device) -> Any:
    match value:
        case {"tuple": items}:
            return tuple(_decode(item, device) for item in items)
        case {"array": tensor}:
            return tensor.numpy(force=True).copy()
        case {"dtype": name}:
            return getattr(torch, name)
        case {"device": _}:
            return device
    return value
