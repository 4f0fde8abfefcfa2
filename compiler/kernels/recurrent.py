"""lstm, gru, simple_rnn, conv_lstm and their gradients as native kernels (cpp/recurrent*.cpp, cpp/conv_lstm.cpp): all steps in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..ops.recurrent import plain
from ..ops.recurrent_steps import optional
from .lowerings import lowering

# How many states a cell has, and how many values a unit of it keeps of each step for the gradient.
_CELLS = {"lstm": (2, 4), "gru": (1, 4), "simple_rnn": (1, 0)}


def is_float32(types: Sequence[Any]) -> bool:
    return all(t.dtype == jnp.float32 or t.dtype == bool for t in types) and all(d > 0 for t in types for d in t.shape)


def _fits(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return plain(attrs) and is_float32(types)


def _pays(types: Sequence[Any], attrs: Mapping[str, Any], threads: int) -> bool:
    """Large kernels for a row or two: packing them costs more than the products."""
    batch, steps, _ = types[0].shape
    weights = max(t.shape[0] * t.shape[1] for t in types if len(t.shape) == 2)
    return batch * steps >= 4 or weights < 2**18


def none() -> jax.Array:
    return jnp.zeros((0,), jnp.float32)


def or_none(array: Any) -> Any:
    return none() if array is None else array


def _mask(mask: Any) -> Any:
    return jnp.zeros((0,), bool) if mask is None else mask.astype(bool)


def _forward(kind: str, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> tuple:
    states, saved = _CELLS[kind]
    x, *start = inputs[: 1 + states]
    kernel, recurrent, *rest = inputs[1 + states :]
    bias, mask = optional(rest, attrs["has_bias"], attrs["has_mask"])
    (batch, steps, _), units = x.shape, recurrent.shape[0]
    shapes: dict[str, tuple[int, ...]] = {"sequence": (batch, steps, units), "h": (batch, units)}
    if kind == "lstm":
        shapes["c"] = (batch, units)
    if saved:
        shapes["gates"] = (steps, batch, saved * units)
    if kind == "lstm":
        shapes["cells"] = (steps, batch, units)
    names = tuple(shapes) if attrs["wanted"] is None else tuple(tuple(shapes)[i] for i in attrs["wanted"])
    needed = {"h", "c", *names}
    results = jax.ffi.ffi_call(
        f"kerasoft.{kind}",
        [
            jax.ShapeDtypeStruct(shapes[name] if name in needed and name in shapes else (0,), x.dtype)
            for name in ("sequence", "h", "c", "cells", "gates")
        ],
    )(
        x,
        start[0],
        start[1] if kind == "lstm" else none(),
        kernel,
        recurrent,
        or_none(bias),
        _mask(mask),
        go_backwards=attrs["go_backwards"],
    )
    found = dict(zip(("sequence", "h", "c", "cells", "gates"), results))
    return tuple(found[name] for name in names)


def _backward(kind: str, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> tuple:
    states, saved = _CELLS[kind]
    x, *start = inputs[: 1 + states]
    kernel, recurrent, *rest = inputs[1 + states :]
    kept = (True, saved > 0, kind == "lstm")
    has_h, *has_c = attrs["has_gradients"][1:]
    bias, mask, sequence, gates, cells, d_sequence, dh, dc = optional(
        rest, attrs["has_bias"], attrs["has_mask"], *kept, attrs["has_gradients"][0], has_h, any(has_c)
    )
    shapes = [x.shape, *(s.shape for s in start), kernel.shape, recurrent.shape]
    if bias is not None:
        shapes.append(bias.shape)
    wanted = attrs["wanted"] if attrs["wanted"] is not None else tuple(range(len(shapes)))
    if 0 not in wanted:
        shapes[0] = (0,)
    of_cell = shapes.pop(2) if kind == "lstm" else (0,)
    of_bias = shapes.pop() if bias is not None else (0,)
    results = list(
        jax.ffi.ffi_call(
            f"kerasoft.{kind}_grad",
            [
                jax.ShapeDtypeStruct(shape, x.dtype)
                for shape in (shapes[0], shapes[1], of_cell, shapes[2], shapes[3], of_bias)
            ],
        )(
            x,
            start[0],
            start[1] if kind == "lstm" else none(),
            kernel,
            recurrent,
            _mask(mask),
            sequence,
            *map(or_none, (gates, cells, d_sequence, dh, dc)),
            go_backwards=attrs["go_backwards"],
        )
    )
    if kind != "lstm":
        results.pop(2)
    return tuple(results[i] for i in wanted)


def _register(kind: str) -> None:
    @lowering(kind, "native", fits=_fits, needs="native", prefer=_pays)
    def forward(*inputs, **attrs):
        return _forward(kind, inputs, attrs)

    @lowering(f"{kind}_grad", "native", fits=lambda types, attrs: is_float32(types), needs="native", prefer=_pays)
    def backward(*inputs, **attrs):
        return _backward(kind, inputs, attrs)


for _kind in _CELLS:
    _register(_kind)


# --- conv_lstm ----------------------------------------------------------------------------------------------------


def _call_conv_lstm(given: Sequence[Any], names: Sequence[str], shapes: Mapping[str, tuple], wanted: Any) -> tuple:
    """Those of the results `names` that are `wanted`; `given` as cpp/conv_lstm.cpp takes it."""
    read = {names[i] for i in wanted} if wanted is not None else set(names)
    order = ("sequence", "h", "c", "cells", "gates")
    results = jax.ffi.ffi_call(
        "kerasoft.conv_lstm",
        [jax.ShapeDtypeStruct(shapes[n] if n in read or n in ("h", "c") else (0,), given[0].dtype) for n in order],
        input_output_aliases={0: 4} if "gates" in read else {},
    )(*given)
    found = dict(zip(order, results))
    return tuple(found[name] for i, name in enumerate(names) if wanted is None or i in wanted)


@lowering("conv_lstm", "native", fits=lambda types, attrs: is_float32(types), needs="native")
def _conv_lstm(z, h0, c0, kernel, *rest, has_mask, wanted):
    (mask,) = optional(rest, has_mask)
    sequence = (*z.shape[:-1], kernel.shape[-2])
    names = ("sequence", "h", "c", "gates", "cells")
    shapes = dict(zip(names, (sequence, h0.shape, c0.shape, z.shape, sequence)))
    return _call_conv_lstm((z, none(), none(), h0, c0, kernel, _mask(mask)), names, shapes, wanted)


@lowering("conv_lstm_of_input", "native", fits=lambda types, attrs: is_float32(types), needs="native")
def _conv_lstm_of_input(x, input_kernel, *rest, has_bias, has_mask, wanted):
    bias, h0, c0, kernel, mask = optional(rest, has_bias, True, True, True, has_mask)
    names = ("sequence", "h", "c")
    shapes = dict(zip(names, ((*x.shape[:-1], kernel.shape[-2]), h0.shape, c0.shape))) | {"gates": (0,), "cells": (0,)}
    return _call_conv_lstm((x, input_kernel, or_none(bias), h0, c0, kernel, _mask(mask)), names, shapes, wanted)


@lowering("conv_lstm_grad", "native", fits=lambda types, attrs: is_float32(types), needs="native")
def _conv_lstm_grad(c0, kernel, *rest, has_mask, has_gradients, wanted):
    mask, gates, cells, d_sequence, dh, dc = optional(rest, has_mask, True, True, *has_gradients)
    results = jax.ffi.ffi_call(
        "kerasoft.conv_lstm_grad",
        [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (gates, c0, c0)],
        input_output_aliases={3: 0},
    )(c0, kernel, _mask(mask), gates, cells, *map(or_none, (d_sequence, dh, dc)))
    return tuple(r for i, r in enumerate(results) if wanted is None or i in wanted)
