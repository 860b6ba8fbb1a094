"""Aggregators of the `torchjd` package."""

from __future__ import annotations

import copy
import importlib
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlcli.errors import suggest
from mtlcli.registry import weightings
from mtlcli.weighting.base import JacobianWeighting, WeightedTask
from mtlcli.weighting.solvers.gramian import combine_rows, normalize_gramian

BASES = ("Aggregator", "WeightedAggregator", "GramianWeightedAggregator")  # base classes of the aggregators
NEGLIGIBLE = 1e-6  # relative eigenvalue of the cosine matrix of float32 gradients
PLAIN = (bool, int, float, str, torch.dtype, torch.device)


@weightings.register("torchjd")
class TorchJD(JacobianWeighting):
    """TorchJD: use an aggregator of the `torchjd` package, as in `{name: torchjd, aggregator: UPGrad}`.

        update = aggregator(J)

    https://torchjd.org lists the aggregators with their papers and options. Requires the extra `mtlcli[torchjd]`.

    The scale is that of TorchJD: most aggregators return a mean over the tasks (`Mean`, `UPGrad`, `MGDA`, `DualProj`,
    …, with weights that sum to about 1), some a sum (`Sum`, `PCGrad`, `IMTLG`, …). For a mean, multiply a learning rate
    tuned for `uniform` by T.

    The logged weights are the least-squares solution of Jᵀw = update. The state of an aggregator is saved with the run;
    aggregators with random numbers use torch's global generator, which is saved too. An aggregator with a state or an
    option per task (`NashMTL`, `pref_vector`) requires all tasks in every step: TorchJD resets it, or raises an error,
    when their number changes. Many of TorchJD's solvers wait for the device.

    Args:
        tasks: The T tasks.
        aggregator: Class name in `torchjd.aggregation`. Its arguments are further options, with lists for vectors.
        **options: Arguments of the aggregator.

    References:
        Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, arXiv:2406.16232.
    """

    reuses_weights = False  # an update may be no weighted sum of the gradients
    place: Tensor
    aggregator: nn.Module

    def __init__(self, tasks: Sequence[WeightedTask | str], *, aggregator: str, **options: Any) -> None:
        super().__init__(tasks)
        self.register_buffer("place", torch.empty(0), persistent=False)  # follows the device
        # Not a submodule: TorchJD creates buffers in the first step, which load_state_dict would reject.
        object.__setattr__(self, "aggregator", _build(aggregator, options, len(self.tasks)))

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Apply the aggregator and fit the weights to its update, see `JacobianWeighting.update`."""
        with torch.autocast(jacobian.device.type, enabled=False):
            update = self.aggregator(jacobian)
        # Solve G w = J update for unit gradients, so that short ones are not lost among long ones.
        cosines, _, scales = normalize_gramian(torch, gramian)
        projections = combine_rows(update, jacobian.mT).nan_to_num_().to(gramian.dtype)
        return update, scales * (torch.linalg.pinv(cosines, rtol=NEGLIGIBLE, hermitian=True) @ (scales * projections))

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state of the aggregator, which `state_dict` includes."""
        return _capture_state(self.aggregator)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the state of the aggregator, on the device of the current run.

        Args:
            state: State from `get_extra_state`.
        """
        _restore_state(self.aggregator, state, self.place.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TorchJD:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        _move_tensors(self.aggregator, fn)
        return self


def _build(name: str, options: dict[str, Any], tasks: int) -> nn.Module:
    """Build the aggregator and test it on a Jacobian of `tasks` rows; ValueError if that fails."""
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
        raise ValueError("torchjd does not support `every`: an aggregator may return no weights that can be reused")
    if name not in classes:
        raise ValueError(
            f"torchjd has no aggregator {name!r}.{suggest(name, classes)} Choose from: {', '.join(sorted(classes))}"
        )
    try:
        with torch.device("cpu"):  # values are read, even if everything else is built on meta
            arguments = {
                key: torch.tensor(value) if isinstance(value, list) else value for key, value in options.items()
            }
            aggregator: nn.Module = classes[name](**arguments)
            _try_aggregator(copy.deepcopy(aggregator), tasks)
    except Exception as error:  # TorchJD raises errors of many types for invalid options
        raise ValueError(f"torchjd's {name}: {error} ({_describe_options(name, classes[name])})") from error
    return aggregator


@torch.no_grad()
def _try_aggregator(aggregator: nn.Module, tasks: int) -> None:
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        aggregator(torch.eye(tasks, tasks + 1) + 0.1)


def _describe_options(name: str, target: type) -> str:
    """Describe the options of an aggregator."""
    words = []
    for parameter in inspect.signature(target).parameters.values():
        required = parameter.default is parameter.empty
        default = "a function" if callable(parameter.default) else parameter.default
        words.append(parameter.name + (" (required)" if required else f" (default {default})"))
    return f"its options: {', '.join(words)}" if words else f"{name} has no options"


def _capture_state(aggregator: nn.Module) -> dict[str, Any]:
    """Return the buffers and plain attributes of the modules of an aggregator, by path and name, as plain data."""
    return {
        path: {name: _encode(value) for name, value in _members(module).items() if _is_state(module, name, value)}
        for path, module in aggregator.named_modules()
    }


def _restore_state(aggregator: nn.Module, state: dict[str, Any], device: torch.device) -> None:
    """Set the state from `_capture_state` in an aggregator with the same options, on the device."""
    modules = dict(aggregator.named_modules())
    for path, members in state.items():
        for name, value in members.items():
            setattr(modules[path], name, _decode(value, device))
        # NashMTL builds its optimization problem in its first step, and it can't be saved.
        if members.get("step") and hasattr(modules[path], "_init_optim_problem"):
            modules[path]._init_optim_problem()
    _move_tensors(aggregator, lambda tensor: tensor.to(device, copy=True))


def _move_tensors(aggregator: nn.Module, to: Callable[[Tensor], Tensor]) -> None:
    """Apply `to` to the tensors of an aggregator: buffers, and options such as `pref_vector`, which nn.Module ignores.

    Buffers of aggregators that compute on the CPU are not moved: those without the device in their `_state_key`.
    """
    for module in aggregator.modules():
        key = getattr(module, "_state_key", None)
        stays = key is not None and not (isinstance(key, tuple) and any(isinstance(x, torch.device) for x in key))
        for name, value in _members(module).items():
            if isinstance(value, Tensor) and not (stays and name in module._buffers):
                setattr(module, name, to(value))


def _members(module: nn.Module) -> dict[str, Any]:
    """Return the buffers and the attributes that an nn.Module does not have by default."""
    attributes = {name: value for name, value in vars(module).items() if name not in vars(nn.Module())}
    return {**attributes, **module._buffers}


def _is_state(module: nn.Module, name: str, value: Any) -> bool:
    """Return True if a member can change and can be saved. Tensors that are no buffers are options."""
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
