"""Rules for convolutions and pooling: ONNX has channels first, the compiler channels last."""

from __future__ import annotations

from typing import Any

import jax

from ...errors import SerializationError
from .builder import Builder, rule


def channels_first(b: Builder, name: str, rank: int) -> str:
    return b.transpose(name, (0, rank - 1, *range(1, rank - 1)))


def channels_last(b: Builder, name: str, rank: int) -> str:
    return b.transpose(name, (0, *range(2, rank), 1))


def _pads(n: Any, sizes: tuple, window: tuple) -> list[tuple[int, int]] | None:
    """(before, after) of each spatial axis; None where only ONNX Runtime will know them ("same" of unknown sizes)."""
    padding, strides = n.attrs["padding"], n.attrs["strides"]
    if not isinstance(padding, str):
        return [(int(low), int(high)) for low, high in padding]
    if padding == "valid":
        return [(0, 0)] * len(window)
    if not all(isinstance(d, int) for d in sizes):
        return None
    return [(int(low), int(high)) for low, high in jax.lax.padtype_to_pads(sizes, window, strides, "SAME")]


def _reach(window: tuple, dilation: tuple) -> tuple:
    return tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))


def _padding(n: Any, pads: list | None) -> dict[str, Any]:
    if pads is None:
        return {"auto_pad": "SAME_UPPER"}
    return {"pads": [low for low, _ in pads] + [high for _, high in pads]}


def _padded(b: Builder, n: Any, x: str, pads: list | None) -> tuple[str, list | None]:
    """Negative widths cut before the convolution, which cannot."""
    if pads is None or all(low >= 0 and high >= 0 for low, high in pads):
        return x, pads
    widths = [0, 0, *[low for low, _ in pads], 0, 0, *[high for _, high in pads]]
    return b.make("Pad", x, b.ints(widths)), [(0, 0)] * len(pads)


@rule("conv")
def conv(b: Builder, n: Any, inputs: list[str]) -> str:
    x, kernel = n.inputs
    rank, window = len(x.shape), kernel.shape[:-2]
    pads = _pads(n, x.shape[1:-1], _reach(window, n.attrs["dilation"]))
    data, pads = _padded(b, n, channels_first(b, inputs[0], rank), pads)
    weights = b.transpose(inputs[1], (rank - 1, rank - 2, *range(rank - 2)))
    made = b.make(
        "Conv",
        data,
        weights,
        kernel_shape=list(window),
        strides=list(n.attrs["strides"]),
        dilations=list(n.attrs["dilation"]),
        group=int(n.attrs["groups"]),
        **_padding(n, pads),
    )
    return channels_last(b, made, rank)


@rule("conv_grad_input")
def conv_transpose(b: Builder, n: Any, inputs: list[str]) -> str:
    y, kernel = n.inputs
    rank, window, target = len(y.shape), kernel.shape[:-2], n.attrs["input_shape"][1:-1]
    if not all(isinstance(d, int) for d in (*target, *y.shape[1:-1])):
        raise SerializationError(
            f"ONNX export needs the sizes of transposed convolution '{n.source}'; fix them with `input_signature`"
        )
    reach, strides = _reach(window, n.attrs["dilation"]), n.attrs["strides"]
    pads = _pads(n, target, reach) or []
    ends, before, after, inside = [], [], [], []
    for size, wanted, k, s, (low, high) in zip(y.shape[1:-1], target, reach, strides, pads, strict=True):
        extra = wanted - (s * (size - 1) + k - max(low, 0) - max(high, 0)) - max(-low, 0)
        inside.append(min(max(extra, 0), s - 1))
        ends.append((max(low, 0), max(high, 0) - min(extra, 0)))
        before.append(max(-low, 0))
        after.append(max(extra, 0) - inside[-1])
    made = b.make(
        "ConvTranspose",
        channels_first(b, inputs[0], rank),
        b.transpose(inputs[1], (rank - 1, rank - 2, *range(rank - 2))),
        kernel_shape=list(window),
        strides=list(strides),
        dilations=list(n.attrs["dilation"]),
        group=int(n.attrs["groups"]),
        pads=[low for low, _ in ends] + [high for _, high in ends],
        output_padding=inside,
    )
    if any((*before, *after)):
        made = b.make("Pad", made, b.ints([0, 0, *before, 0, 0, *after]))
    return channels_last(b, made, rank)


@rule("max_pool", "average_pool")
def pool(b: Builder, n: Any, inputs: list[str]) -> str:
    (x,) = n.inputs
    rank, window = len(x.shape), n.attrs["window"]
    average = {"count_include_pad": 0} if n.op.name == "average_pool" else {}
    made = b.make(
        "AveragePool" if average else "MaxPool",
        channels_first(b, inputs[0], rank),
        kernel_shape=list(window),
        strides=list(n.attrs["strides"]),
        **_padding(n, _pads(n, x.shape[1:-1], window)),
        **average,
    )
    return channels_last(b, made, rank)
