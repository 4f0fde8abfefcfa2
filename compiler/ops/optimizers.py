"""Steps of optimizers as one op, where one pass over memory pays."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .registry import item, op


def _adam(
    param: Any, gradient: Any, m: Any, v: Any, alpha: Any, *, beta_1: float, beta_2: float, epsilon: float
) -> tuple:
    """param, gradient, m, v (n), alpha () -> param, m and v after the step."""
    m = m + (gradient - m) * (1.0 - beta_1)
    v = v + (jnp.square(gradient) - v) * (1.0 - beta_2)
    return param - m * alpha / (jnp.sqrt(v) + epsilon), m, v


adam_op = op("adam", lower=_adam)


def adam(param: Any, gradient: Any, m: Any, v: Any, alpha: Any, beta_1: float, beta_2: float, epsilon: float) -> tuple:
    """(param, m, v) after a step of Adam: all float (n), alpha () the learning rate with its bias correction.

    m <- m + (g - m) (1 - beta_1), v <- v + (g^2 - v) (1 - beta_2), param <- param - alpha m / (sqrt(v) + epsilon).

    Source: Kingma and Ba, Adam: A Method for Stochastic Optimization, section 2.
    """
    made = adam_op(param, gradient, m, v, alpha, beta_1=float(beta_1), beta_2=float(beta_2), epsilon=float(epsilon))
    return tuple(item(made, i) for i in range(3))
