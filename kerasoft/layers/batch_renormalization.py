"""Batch renormalization: what `BatchNormalization(renorm=True)` adds.

In training the batch's statistics are corrected towards moving ones: (x - mean) / stddev * r + d with
r = stddev / renorm_stddev and d = (mean - renorm_mean) / renorm_stddev, both without a gradient.

Source: Ioffe 2017.
"""

from __future__ import annotations

from typing import Any

from .. import initializers, ops


def checked_clipping(clipping: dict | None) -> dict:
    """The bounds of r and d by name.

    Raises:
        ValueError: an unknown name, or bounds that exclude each other.
    """
    clipping = dict(clipping or {})
    keys = ["rmax", "rmin", "dmax"]
    if set(clipping) - set(keys):
        raise ValueError(f"Received invalid keys for `renorm_clipping` argument: {clipping}. Supported values: {keys}.")
    rmax, rmin, dmax = (clipping.get(key) for key in keys)
    if rmax is not None and rmin is not None and rmax < rmin:
        raise ValueError(
            f"rmax should be greater than rmin in the `renorm_clipping` argument. Received: rmax={rmax}, rmin={rmin}."
        )
    if dmax is not None and dmax < 0:
        raise ValueError(f"dmax should be non-negative in the `renorm_clipping` argument. Received: dmax={dmax}.")
    return clipping


def build_renormalization(layer: Any, channels: int) -> None:
    """Makes the three further states of a BatchNormalization."""

    def again(initializer: Any) -> Any:
        return initializer.clone() if isinstance(initializer, initializers.Initializer) else initializer

    def root(shape: Any, dtype: Any = None) -> Any:
        return ops.sqrt(again(layer.moving_variance_initializer)(shape, dtype=dtype))

    made = (
        ("moving_stddev", root),
        ("renorm_mean", again(layer.moving_mean_initializer)),
        ("renorm_stddev", root),
    )
    for name, initializer in made:
        weight = layer.add_weight(
            name=name, shape=(channels,), initializer=initializer, trainable=False, autocast=False
        )
        setattr(layer, name, weight)


def renormalized(layer: Any, mean: Any, variance: Any) -> tuple[Any, Any]:
    """The corrections r and d for a batch; moves all moving statistics."""
    stddev = ops.sqrt(ops.add(variance, layer.epsilon))
    floor = ops.maximum(layer.renorm_stddev, layer.epsilon**0.5)
    r = ops.divide(stddev, floor)
    d = ops.divide(ops.subtract(mean, layer.renorm_mean), floor)
    clipping = layer.renorm_clipping
    if clipping.get("rmin") is not None:
        r = ops.maximum(r, clipping["rmin"])
    if clipping.get("rmax") is not None:
        r = ops.minimum(r, clipping["rmax"])
    if clipping.get("dmax") is not None:
        d = ops.clip(d, -clipping["dmax"], clipping["dmax"])
    for state, batch, momentum in (
        (layer.renorm_mean, mean, layer.renorm_momentum),
        (layer.renorm_stddev, stddev, layer.renorm_momentum),
        (layer.moving_mean, mean, layer.momentum),
        (layer.moving_stddev, stddev, layer.momentum),
    ):
        state.assign(ops.add(ops.multiply(state, momentum), ops.multiply(batch, 1.0 - momentum)))
    layer.moving_variance.assign(ops.relu(ops.subtract(ops.square(layer.moving_stddev), layer.epsilon)))
    return ops.stop_gradient(r), ops.stop_gradient(d)
