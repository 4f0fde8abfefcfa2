"""lstm, gru and their gradients by oneDNN: float32, no masks. See compiler/kernels/cpp/onednn/recurrent.cpp.

Never by rule: kernels of our own take less time here (docs/design/0009-recurrent-kernels.md). The forward pass of a training
step gives gates and cells to the gradient, which oneDNN does not show, so oneDNN computes forward only where these are
not wanted; its gradient computes the forward pass again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..ops.recurrent import plain
from ..ops.recurrent_steps import optional
from .lowerings import lowering
from .recurrent import is_float32, none, or_none

_STATES = {"lstm": 2, "gru": 1}


def _fits_forward(types: Sequence[Any], attrs: Mapping[str, Any], states: int) -> bool:
    shown = attrs["wanted"] is not None and max(attrs["wanted"], default=0) <= states
    return plain(attrs) and shown and not attrs["has_mask"] and is_float32(types)


def _fits_backward(types: Sequence[Any], attrs: Mapping[str, Any]) -> bool:
    return not attrs["has_mask"] and is_float32(types)


def _in_order(x: Any, go_backwards: bool) -> Any:
    return jnp.flip(x, 1) if go_backwards else x


def _given(inputs: Sequence[Any], states: int) -> tuple[list[Any], Sequence[Any]]:
    """x, h, c, kernels as the calls take them, and the other inputs."""
    x, *start = inputs[: 1 + states]
    kernel, recurrent, *rest = inputs[1 + states :]
    return [x, start[0], start[1] if states == 2 else none(), kernel, recurrent], rest


def _like(*arrays: Any) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(a.shape, jnp.float32) for a in arrays]


def _register(kind: str, states: int) -> None:
    offer: dict[str, Any] = {"needs": "onednn", "prefer": lambda types, attrs, threads: False}

    @lowering(kind, "onednn", fits=lambda types, attrs: _fits_forward(types, attrs, states), **offer)
    def forward(*inputs: Any, **attrs: Any) -> tuple:
        (x, h, c, kernel, recurrent), rest = _given(inputs, states)
        (bias,) = optional(rest, attrs["has_bias"])
        sequence = jax.ShapeDtypeStruct((*x.shape[:2], recurrent.shape[0]), jnp.float32)
        call = jax.ffi.ffi_call("kerasoft.onednn_recurrent", [sequence, *_like(h, c)])
        x = _in_order(x, attrs["go_backwards"])
        made = call(x, h, c, kernel, recurrent, or_none(bias), is_lstm=kind == "lstm")
        return tuple(made[i] for i in attrs["wanted"])

    @lowering(f"{kind}_grad", "onednn", fits=_fits_backward, **offer)
    def backward(*inputs: Any, **attrs: Any) -> tuple:
        (x, h, c, kernel, recurrent), rest = _given(inputs, states)
        kept = (True, True, states == 2)
        has_sequence, has_h, *has_c = attrs["has_gradients"]
        bias, _, _, _, *given = optional(rest, attrs["has_bias"], *kept, has_sequence, has_h, any(has_c))
        gradients = [or_none(g) for g in given]
        wanted = attrs["wanted"] if attrs["wanted"] is not None else tuple(range(4 + states - 1 + (bias is not None)))
        results = _like(x if 0 in wanted else none(), h, c, kernel, recurrent, or_none(bias))
        call = jax.ffi.ffi_call("kerasoft.onednn_recurrent_grad", results)
        backwards = attrs["go_backwards"]
        arrays = (_in_order(x, backwards), h, c, kernel, recurrent, or_none(bias), *gradients)
        dx, dh, dc, *others = call(*arrays, is_lstm=kind == "lstm")
        dx = _in_order(dx, backwards) if 0 in wanted else dx
        found = [dx, dh, dc, *others] if states == 2 else [dx, dh, *others]
        return tuple(found[i] for i in wanted)


for _kind, _states in _STATES.items():
    _register(_kind, _states)
