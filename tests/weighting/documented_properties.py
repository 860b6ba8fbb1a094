"""Documented properties of each weighting's weights, and the update of its oracle for the same float32 Jacobian.

An update is compared only if the problem is well posed: if a relative change of the rows by 1e-7, the rounding of
float32, cannot change it by 1e-4. Oracles state this condition in terms of the singular values of the unit gradients,
and return None if it is violated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchjd.aggregation import UPGrad

from tests.oracles import alignment, bargaining, dual_cone, loss_weightings, min_norm, stochastic, surgery

Array = NDArray[np.float64]
ROUNDING = 1e-5  # of sums of float32 weights


def _sums(w: Array) -> bool:
    return bool(abs(w.sum() - len(w)) <= ROUNDING * max(len(w), float(np.abs(w).sum())))


def _simplex(w: Array) -> bool:
    return bool(w.min() >= 0) and _sums(w)


def _positive(w: Array) -> bool:
    return bool(w.min() > 0)


def _at_least_one(w: Array) -> bool:
    return bool(w.min() >= 1 - ROUNDING)


def _nonnegative(w: Array) -> bool:
    return bool(w.min() >= 0)


PROPERTIES: dict[str, Callable[[Array], bool]] = {
    "uniform": lambda w: bool((w == 1).all()), "fixed": lambda w: bool((w == 1).all()), "uncertainty": _positive,
    "dwa": _simplex, "rlw": _simplex, "gls": _nonnegative, "imtl_l": _positive, "stch": _nonnegative, "famo": _simplex,
    "excess_mtl": _simplex, "relation": _positive,  # R is positive in these tests
    "mgda": _simplex, "pcgrad": _at_least_one, "cagrad": _at_least_one, "gradvac": _at_least_one,
    "upgrad": _at_least_one, "dualproj": _at_least_one,
    "imtl_g": lambda w: _sums(w) or not w.any(),  # 0 if no weights sum to T
    "nash_mtl": lambda w: _nonnegative(w) and bool(w.sum() <= len(w) * (1 + ROUNDING)),  # shortened by max_norm
    "fairgrad": _simplex, "gradnorm": _simplex, "moco": _simplex, "sdmgrad": _simplex, "db_mtl": _nonnegative,
    "aligned_mtl": lambda w: bool(np.linalg.norm(w) <= len(w) ** 0.5 * (1 + ROUNDING)),  # ‖B‖ ≤ 1
    "graddrop": lambda w: bool(w.min() >= 0 and w.max() <= 1 + ROUNDING),
    "conflict_free": lambda w: True,  # properties of the update only
    "torchjd": lambda w: True,  # depends on the aggregator
}  # fmt: skip


def singular_values(rows: Array) -> Array:
    """Return the singular values of the nonzero unit gradients, relative to the largest."""
    lengths = np.linalg.norm(rows, axis=1)
    units = rows[lengths > 0] / lengths[lengths > 0, None]
    values = np.linalg.svd(units, compute_uv=False) if len(units) else np.ones(1)
    result: Array = values / values[0]
    return result


def _certain_rank(rows: Array) -> bool:
    """Return True if no singular value is between rounding and 1e-2, where errors of the rows are amplified."""
    values = singular_values(rows)
    return bool(((values < 3e-7) | (values > 1e-2)).all()) and len(values) == min(rows.shape)


def _mgda(rows: Array, **_: Any) -> Array | None:
    return len(rows) * min_norm.shortest(rows) if rows.any(1).all() else np.zeros(rows.shape[1])


def _imtl_g(rows: Array, **_: Any) -> Array | None:
    if not rows.any(1).all() or not _certain_rank(rows):
        return None
    independent, lengths = singular_values(rows).min() > 1e-2, np.linalg.norm(rows, axis=1)
    if not independent and lengths.max() > 100 * lengths.min():
        return None  # the rank of G differs from that of the unit gradients
    weights = alignment.imtl_g(rows) if independent else alignment.imtl_g_of_dependent_gradients(rows)
    return weights @ rows if np.abs(weights).sum() < 100 * len(rows) else None  # Σv must not be close to 0


def _aligned_mtl(rows: Array, **_: Any) -> Array | None:
    values = np.linalg.svd(rows, compute_uv=False)
    values = values / (values[0] or 1.0)
    certain = ((values < 3e-7) | (values > 1e-2)).all() and rows.any()
    return alignment.aligned_mtl(rows) @ rows if certain else None


def _conflict_free(rows: Array, **_: Any) -> Array | None:
    return surgery.config(rows, relative=1e-6) if _certain_rank(rows) else None


def _orders(weighting: Any, count: int) -> list[list[int]]:
    orders: list[list[int]] = weighting.get_orders(range(count)).T.tolist()
    return orders


def _pcgrad(rows: Array, weighting: Any, **_: Any) -> Array | None:
    return surgery.pcgrad(rows, _orders(weighting, len(rows))) if len(rows) > 1 else rows[0]


def _gradvac(rows: Array, weighting: Any, **_: Any) -> Array | None:
    targets = np.zeros((len(rows), len(rows)))
    return surgery.gradvac(rows, targets, _orders(weighting, len(rows)), 0.01)[0] if len(rows) > 1 else rows[0]


def _graddrop(rows: Array, weighting: Any, **_: Any) -> Array | None:
    return surgery.graddrop(rows, weighting._draw[: rows.shape[1]].double().numpy())[0]


def _db_mtl(rows: Array, losses: Array, **_: Any) -> Array | None:
    return stochastic.db_mtl([rows], [losses], 0.9, 0.0)[0] if rows.any(1).all() else None


def _moco(rows: Array, **_: Any) -> Array | None:
    if np.abs(rows).max() > 1e4:
        return None  # the bisection of the projection loses the 1 among such products
    return stochastic.moco([rows], 0.5, 0.0, 0.1, 0.5, 0.0)[0][0]


def _torchjd(rows: Array, **_: Any) -> Array | None:
    if singular_values(rows).min() < 1e-2:
        return None  # TorchJD's own Gramian is float32, and its regularization is 1e-4
    result: Array = UPGrad()(torch.from_numpy(rows)).numpy()
    return result


UPDATES: dict[str, Callable[..., Array | None]] = {
    "mgda": _mgda, "imtl_g": _imtl_g, "aligned_mtl": _aligned_mtl, "conflict_free": _conflict_free, "pcgrad": _pcgrad,
    "gradvac": _gradvac, "graddrop": _graddrop, "db_mtl": _db_mtl, "moco": _moco, "torchjd": _torchjd,
    "upgrad": lambda rows, **_: dual_cone.upgrad(rows @ rows.T) @ rows,
    "dualproj": lambda rows, **_: dual_cone.dualproj(rows @ rows.T) @ rows,
    "excess_mtl": lambda rows, **_: rows.sum(0),  # the first step is its warm-up
}  # fmt: skip
LOSSES: dict[str, Callable[[Array], Array]] = {
    "uniform": np.ones_like, "fixed": np.ones_like, "dwa": np.ones_like, "imtl_l": np.ones_like,
    "uncertainty": np.ones_like, "gls": lambda losses: loss_weightings.gls(losses)[1],
    "stch": lambda losses: loss_weightings.stch_warm_up(losses, [1.0] * len(losses))[1],
    "famo": lambda losses: len(losses) / losses / (1 / losses).sum(),
    "relation": lambda losses: 2 * (losses + 0.5 * losses.sum()), "gradnorm": np.ones_like,
}  # fmt: skip


def deviation(
    name: str, rows: Array, weights: Array, update: Array | None, losses: Array, weighting: Any
) -> float | None:
    """Return the distance of a first step to the oracle's, relative to the update; None if it is not well posed.

    rows: J [samples, t, P], float32 numbers.
    """
    scale = float(np.abs(rows).max()) if rows.size else 0.0
    if name == "sdmgrad":
        expected = stochastic.sdmgrad([np.concatenate([rows, rows[:1]])], 1.0, 20, 0.3)[0][1] if scale else None
        return None if expected is None else float(np.abs(weights - expected).max())
    first = rows[0]
    lengths = np.linalg.norm(first, axis=1)
    if name in ("nash_mtl", "fairgrad"):
        if not lengths.all() or singular_values(first).min() < 1e-2 or len(first) > first.shape[1]:
            return None
        fairness = {"nash_mtl": 1.0, "fairgrad": 2.0}[name]
        return bargaining.residual(first @ first.T / scale**2, weights, fairness) if lengths.all() else None
    if name == "cagrad":
        if not lengths.all():
            return None
        extra = weights - 1.0
        shares = extra / extra.sum() if extra.sum() > 0 else np.full(len(first), 1 / len(first))
        unit, mean = first / scale, first.mean(0) / scale
        bound = min_norm.conflict_averse_bound(unit, shares, 0.4)
        worst = float((unit @ (weights @ unit / len(first))).min())
        return (bound - worst) / (1.4 * float(np.linalg.norm(mean)) * float(lengths.max()) / scale or 1.0)
    assert update is not None
    expected_update = UPDATES[name](first, losses=losses, weighting=weighting)
    if expected_update is None:
        return None
    # float32 rows and sums: if the rows nearly cancel, the result consists of rounding errors
    total = float(np.abs(weights) @ lengths)
    if name == "torchjd":  # its logged weights are fitted to the update
        total = float(lengths.sum())
    allowed = max(float(np.linalg.norm(expected_update)), 1e-2 * total, 1e-6 * float(lengths.max()))
    return float(np.linalg.norm(update - expected_update)) / allowed if allowed else 0.0
