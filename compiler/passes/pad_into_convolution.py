"""Zeros around a convolution's input are padding of the convolution."""

from __future__ import annotations

import jax

from ..ir import Node, is_static
from ..ops import convolution
from .pass_base import Rule, RulePass


class PadIntoConvolution(RulePass):
    """Makes ``conv(pad(x), k)`` a convolution of x with wider padding.

    Keeps: inputs, outputs, types, values. Leaves alone: padding of batch or channels, between cells, or with other
    numbers than zero. Needs: nothing. Gain: the padded copy of x is never made.
    """

    @property
    def rules(self) -> tuple[Rule, ...]:  # type: ignore[override]
        return RULES


def _find(n: Node) -> tuple | None:
    if n.op.name != "conv" or n.inputs[0].op.name != "pad":
        return None
    pad = n.inputs[0]
    config = pad.attrs["config"]
    if pad.attrs["value"] != 0 or any(between for *_, between in config):
        return None
    if config[0] != (0, 0, 0) or config[-1] != (0, 0, 0):
        return None
    padding = n.attrs["padding"]
    if isinstance(padding, str):
        sizes = pad.shape[1:-1]
        if not all(map(is_static, sizes)) and padding != "valid":
            return None
        reach = [d * (k - 1) + 1 for d, k in zip(n.attrs["dilation"], n.inputs[1].shape)]
        if padding == "valid":
            padding = tuple((0, 0) for _ in sizes)
        else:
            padding = tuple(jax.lax.padtype_to_pads(sizes, reach, n.attrs["strides"], padding.upper()))
    return tuple((lo + a, hi + b) for (lo, hi, _), (a, b) in zip(config[1:-1], padding))


def _replace(n: Node, padding: tuple) -> Node:
    pad, kernel = n.inputs
    return convolution.conv_op(pad.inputs[0], kernel, **{**n.attrs, "padding": padding})


RULES = (Rule("conv of a padded input", _find, _replace),)
