"""Idle steps: what an optimizer does to a row of a table that a batch does not look up, many steps at once.

The gradient of such a row is zero, and so all that its steps depend on, but for the row itself, is the time when it was
last touched. For each such time a few coefficients are kept and moved on at every step (`Idle.advance`): how much of the
weight is left after its decay, and how far a unit of momentum has carried it. When the row is looked up again, or wanted
for any other reason, they bring it up to date (`Idle.catch_up`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..compiler.rows import HISTORY

TOLERANCE = 3e-8  # of the way that a row goes in its idle steps
MOST_NODES = 16  # the native kernels have room for as many: kMostNodes in compiler/kernels/cpp/adam_rows.cpp


@dataclasses.dataclass(frozen=True)
class Idle:
    """An optimizer's idle steps.

    Attributes:
        first: the coefficients of a row that has just been touched, none if idle rows do not move.
        advance: ``advance(coefficients, age, learning_rate, iteration) -> coefficients``, one idle step more: float32[h]
            for each time h of the last touch, `age` counting this step as 1 right after the touch.
        catch_up: ``catch_up(param, slots, coefficients, gap) -> (param, slots)``: float32[n, d] after the float32[n, 1]
            idle steps of `gap`; coefficients are float32[n, 1]. Slots that stay may be left out.
        adam: given if the optimizer's steps are Adam's.
    """

    first: tuple[float, ...]
    advance: Callable[[Sequence[Any], Any, Any, Any], Sequence[Any]]
    catch_up: Callable[[Any, Mapping[str, Any], Sequence[Any], Any], tuple[Any, Mapping[str, Any]]]
    adam: AdamSteps | None = None


@dataclasses.dataclass(frozen=True)
class AdamSteps:
    """Adam's numbers, for kernels that make its steps on rows.

    Attributes:
        rate: ``rate(learning_rate, iteration)``, bias corrected. scales: of the nodes in `scaled`.
    """

    beta_1: float
    beta_2: float
    epsilon: float
    rate: Callable[[Any, Any], Any]
    scales: tuple[float, ...]


def power(base: float, gap: Any) -> Any:
    """base^gap for whole numbers gap >= 0."""
    if base <= 0.0:
        return ops.cast(ops.equal(gap, 0.0), "float32")
    return ops.exp(gap * float(np.log(base)))


def moving(decay: float | None, terms: int, step: Callable, carry: Callable, fading: Mapping[str, float]) -> Idle:
    """``w <- (1 - rate decay) w - (what momentum adds)``, where the coefficients of `terms` sums say how much that is.

    Args:
        decay: decoupled weight decay.
        step: ``step(age, learning_rate, iteration)``: what a step adds to each of the sums, float32[h].
        carry: ``carry(slots, sums)``: the way of the row, float32[n, d].
        fading: slots that shrink by a factor each step.
    """
    first = ((1.0,) if decay else ()) + (0.0,) * terms

    def advance(coefficients, age, learning_rate, iteration):
        added = step(age, learning_rate, iteration) if terms else ()
        if decay:
            left = [c - c * (decay * learning_rate) for c in coefficients]
            return [left[0], *(c + a for c, a in zip(left[1:], added, strict=True))]
        return [c + a for c, a in zip(coefficients, added, strict=True)]

    def catch_up(param, slots, coefficients, gap):
        sums = list(coefficients)
        if decay:
            param = param * sums.pop(0)
        if terms:
            param = param - carry(slots, sums)
        return param, {name: slots[name] * power(factor, gap) for name, factor in fading.items()}

    return Idle(first, advance, catch_up)


def still(decay: float | None, fading: Mapping[str, float] | None = None) -> Idle:
    """A step without gradient moves a row by its decay only."""
    return moving(decay, 0, lambda *_: (), lambda *_: None, fading or {})


def coasting(decay: float | None, slot: str, factor: float, gain: float, fading: Mapping[str, float]) -> Idle:
    """Momentum ``m <- factor m`` goes on: ``w <- w - gain m``."""
    table = gain * factor ** np.arange(HISTORY + 1, dtype=np.float64)
    table[0] = 0.0

    def step(age, learning_rate, iteration):
        return (_at(table, age),)

    def carry(slots, sums):
        return slots[slot] * sums[0]

    return moving(decay, 1, step, carry, {slot: factor, **fading})


def scaled(
    decay: float | None,
    rate: Callable[[Any, Any], Any],
    beta: float,
    shrink: float,
    epsilon: float,
    scale: Callable[[Mapping[str, Any]], Any],
    fading: Mapping[str, float],
) -> Idle | str:
    """Adam's kin: ``w <- w - rate beta^j m / (shrink^j s + epsilon)`` in the idle step j. Or why that cannot be summed.

    The sum over j of ``a_j / (shrink^j s + epsilon)`` is linear in the a_j, and a smooth function of j: between a few
    nodes j_k it is interpolated, ``sum_k c_k / (shrink^j_k s + epsilon)`` with ``c_k = sum_j a_j l_k(j)``, Lagrange's
    polynomials l_k. The c_k are the coefficients.

    Args:
        rate: ``rate(learning_rate, iteration)``. scale: s, out of the slots.
    """
    found = nodes(beta, shrink)
    if found is None:
        return f"momentum that fades by {beta:g} a step and a scale that shrinks by {shrink:g} have no short common sum"
    places, weights = found

    def step(age, learning_rate, iteration):
        now = rate(learning_rate, iteration)
        return [_at(column, age) * now for column in weights.T]

    def carry(slots, sums):
        s, total = scale(slots), None
        for place, c in zip(places, sums, strict=True):
            part = c / (s * float(shrink**place) + epsilon)
            total = part if total is None else total + part
        return slots["momentum"] * total

    return moving(decay, len(places), step, carry, fading)


def _at(table: np.ndarray, age: Any) -> Any:
    """Values of a table over ages, which ends with 0 where it is shorter than `HISTORY`."""
    last = float(len(table) - 1)
    return ops.take(table.astype(np.float32), ops.cast(ops.clip(age, 0.0, last), "int32"), axis=0)


@functools.lru_cache(maxsize=64)
def nodes(beta: float, shrink: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Places j_k and weights ``beta^j l_k(j)``, float64[ages, k], of the interpolation in `scaled`; None: too many.

    Tried: more and more Chebyshev nodes over ranges of several lengths, until the sums over the first g idle steps are
    right within `TOLERANCE` for every g and every relation of epsilon to s.
    """
    if beta <= 0.0:
        return np.zeros(0), np.zeros((1, 0))
    if shrink >= 1.0:
        ages = np.arange(_length(beta) + 1, dtype=np.float64)
        return np.zeros(1), _ended(beta**ages * (ages > 0))[:, None]
    length = _length(beta)
    ages = np.arange(1, length + 1, dtype=np.float64)
    powers = beta**ages
    ratio = np.concatenate([[0.0], np.logspace(-4, 4, 33)]) * shrink ** (length / 2)
    values = 1.0 / (shrink ** ages[:, None] + ratio)  # [ages, ratios]
    exact = np.cumsum(powers[:, None] * values, axis=0)
    for count in range(1, MOST_NODES + 1):
        best = None
        for reach in np.geomspace(min(4.0 * count, length), length, 24):
            turned = np.cos((2 * np.arange(count) + 1) / (2 * count) * np.pi)
            places = 1.0 + (reach - 1.0) * (1.0 - turned) / 2
            basis = _lagrange(places, ages) * powers[:, None]
            sums = np.cumsum(basis, axis=0)
            error = np.max(np.abs(sums @ (1.0 / (shrink ** places[:, None] + ratio)) / exact - 1.0))
            if np.abs(sums).sum(axis=1).max() < 8.0 * powers.sum() and (best is None or error < best[0]):
                best = error, places, basis
        if best is not None and best[0] < TOLERANCE:
            return best[1], _ended(np.concatenate([np.zeros((1, count)), best[2]]))
    return None


def _length(beta: float) -> int:
    """The number of idle steps after which momentum carries no further, or `HISTORY` if that is less."""
    return min(HISTORY, max(1, int(np.ceil(np.log(1e-10) / np.log(beta)))))


def _ended(table: np.ndarray) -> np.ndarray:
    """With a row of zeros at the end, unless it covers all ages."""
    return table if len(table) > HISTORY else np.concatenate([table, np.zeros_like(table[:1])])


def _lagrange(places: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Lagrange's polynomials of `places`, float64[len(at), len(places)]."""
    columns = []
    for k, place in enumerate(places):
        others = np.delete(places, k)
        columns.append(np.prod((at[:, None] - others) / (place - others), axis=1))
    return np.stack(columns, axis=1)
