"""Rules for loops: the compiler's scan is ONNX's Scan; recurrent ops are written as scans first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...compiler.ir import Graph, Node
from ...compiler.ops import arithmetic as a
from ...compiler.ops import control, convolution, linalg, shape
from ...compiler.ops.registry import REGISTRY, input_node
from ...errors import SerializationError
from .builder import Builder, element_type, rule


def _value(name: str, node: Any) -> Any:
    import onnx

    sizes = [d if isinstance(d, int) else None for d in node.shape]
    return onnx.helper.make_tensor_value_info(name, element_type(node.dtype), sizes)


@rule("scan")
def scan(b: Builder, n: Any, inputs: list[str]) -> tuple:
    import onnx

    body, carried, scanned = n.attrs["body"], n.attrs["carried"], n.attrs["scanned"]
    if not scanned:
        raise SerializationError(f"ONNX export has no form for a loop over a count (layer '{n.source}')")
    inner = Builder(b)
    entries = [inner.fresh("cell") for _ in range(carried + scanned)]
    for node, name in zip(body.inputs, [*entries, *inputs[carried + scanned :]], strict=True):
        inner.names[node] = name
    inner.convert(body.nodes)
    results = [inner.make("Identity", inner.names[o]) for o in body.outputs]
    graph = onnx.helper.make_graph(
        inner.nodes,
        inner.fresh("body"),
        [_value(name, node) for name, node in zip(entries, body.inputs, strict=False)],
        [_value(name, node) for name, node in zip(results, body.outputs, strict=True)],
    )
    back = [int(n.attrs["reverse"])]
    produced = len(body.outputs) - carried
    made = b.make(
        "Scan",
        *inputs[: carried + scanned],
        outputs=len(body.outputs),
        body=graph,
        num_scan_inputs=scanned,
        scan_input_directions=back * scanned,
        scan_output_directions=back * produced,
    )
    return made if isinstance(made, tuple) else (made,)


# --- recurrent ops ------------------------------------------------------------------------------------------------


def _activation(name: str) -> Callable:
    return (lambda x: x) if name == "linear" else REGISTRY[{"swish": "silu"}.get(name, name)]


def _part(x: Any, units: int, start: int, stop: int) -> Any:
    return shape.slice_axis(x, -1, start * units, stop * units)


def _simple_rnn(states: list, x: Any, recurrent: Any, bias: Any, attrs: Any) -> list:
    z = a.add(x, linalg.matmul(states[0], recurrent))
    return [_activation(attrs["activation"])(z if bias is None else a.add(z, bias))]


def _lstm(states: list, x: Any, recurrent: Any, bias: Any, attrs: Any) -> list:
    h, c = states
    units = recurrent.shape[0]
    act, gate = _activation(attrs["activation"]), _activation(attrs["recurrent_activation"])
    z = a.add(x, linalg.matmul(h, recurrent))
    z = z if bias is None else a.add(z, bias)
    i, f, o = (gate(_part(z, units, k, k + 1)) for k in (0, 1, 3))
    c = a.add(a.multiply(f, c), a.multiply(i, act(_part(z, units, 2, 3))))
    return [a.multiply(o, act(c)), c]


def _gru(states: list, x: Any, recurrent: Any, bias: Any, attrs: Any) -> list:
    (h,) = states
    units, after = recurrent.shape[0], attrs["reset_after"]
    act, gate = _activation(attrs["activation"]), _activation(attrs["recurrent_activation"])
    if bias is not None:
        outer = shape.reshape(shape.slice_axis(bias, 0, 0, 1), shape=(3 * units,)) if after else bias
        x = a.add(x, outer)
    z_r = linalg.matmul(h, recurrent if after else _part(recurrent, units, 0, 2))
    if after and bias is not None:
        z_r = a.add(z_r, shape.reshape(shape.slice_axis(bias, 0, 1, 2), shape=(3 * units,)))
    z, r = (gate(a.add(_part(x, units, k, k + 1), _part(z_r, units, k, k + 1))) for k in (0, 1))
    if after:
        inner = a.multiply(r, _part(z_r, units, 2, 3))
    else:
        inner = linalg.matmul(a.multiply(r, h), _part(recurrent, units, 2, 3))
    new = act(a.add(_part(x, units, 2, 3), inner))
    return [a.add(a.multiply(z, h), a.multiply(a.subtract(1.0, z), new))]


def _conv_lstm(states: list, z: Any, recurrent: Any) -> list:
    h, c = states
    z = a.add(z, convolution.conv(h, recurrent, padding="same"))
    i, f, o = (_activation("sigmoid")(_part(z, h.shape[-1], k, k + 1)) for k in (0, 1, 3))
    c = a.add(a.multiply(f, c), a.multiply(i, a.tanh(_part(z, h.shape[-1], 2, 3))))
    return [a.multiply(o, a.tanh(c)), c]


_STEPS = {"simple_rnn": (_simple_rnn, 1), "lstm": (_lstm, 2), "gru": (_gru, 1)}


def as_scan(n: Any) -> Graph:
    """A recurrent node as a graph with a scan: its inputs to the sequence and the last states."""
    step, count = _STEPS[n.op.name]
    inputs = [input_node(f"r{i}", i_.shape, i_.dtype) for i, i_ in enumerate(n.inputs)]
    x, init, (kernel, recurrent) = inputs[0], inputs[1 : 1 + count], inputs[1 + count : 3 + count]
    rest = list(inputs[3 + count :])
    bias = rest.pop(0) if n.attrs["has_bias"] else None
    mask = rest.pop(0) if n.attrs["has_mask"] else None
    if n.attrs["has_dropout"]:
        raise SerializationError(f"ONNX export has no form for recurrent dropout (layer '{n.source}')")
    moments = linalg.matmul(shape.moveaxis(x, 1, 0), kernel)
    once = lambda states, now: step(states, now, recurrent, bias, n.attrs)
    return _over_time(inputs, once, moments, init, mask, bool(n.attrs["go_backwards"]))


def conv_lstm_as_scan(n: Any) -> Graph:
    """As `as_scan`, of a conv_lstm, whose input is convolved already."""
    inputs = [input_node(f"r{i}", i_.shape, i_.dtype) for i, i_ in enumerate(n.inputs)]
    z, h, c, recurrent, *mask = inputs
    once = lambda states, now: _conv_lstm(states, now, recurrent)
    return _over_time(inputs, once, shape.moveaxis(z, 1, 0), [h, c], mask[0] if mask else None, False)


def _over_time(inputs: list, step: Callable, moments: Any, init: list, mask: Any, backwards: bool) -> Graph:
    """`step` over the first axis of `moments`; a masked step (mask (b, t)) keeps the states."""
    cells: list[Node] = [moments] if mask is None else [moments, shape.transpose(mask, (1, 0))]

    def run(states: list, now: list) -> tuple[list, list]:
        new = step(states, now[0])
        if mask is not None:
            kept = shape.reshape(now[1], shape=(-1, *(1,) * (len(new[0].shape) - 1)))
            new = [a.where(kept, fresh, old) for fresh, old in zip(new, states, strict=True)]
        return new, [new[0]]

    last, sequences = control.scan(run, list(init), cells, reverse=backwards)
    sequence = shape.flip(sequences[0], 0) if backwards else sequences[0]  # in the order of processing
    outputs = (shape.moveaxis(sequence, 0, 1), *last)
    return Graph(tuple(inputs), outputs, tuple(f"out{i}" for i in range(len(outputs))))


@rule(*_STEPS, "conv_lstm")
def recurrent(b: Builder, n: Any, inputs: list[str]) -> tuple:
    graph = conv_lstm_as_scan(n) if n.op.name == "conv_lstm" else as_scan(n)
    inside = Builder(b)
    inside.nodes = b.nodes
    inside.names = dict(zip(graph.inputs, inputs, strict=True))
    inside.convert(graph.nodes)
    results = [inside.names[o] for o in graph.outputs]
    wanted = n.attrs.get("wanted")
    # Results after the states are for gradients.
    return tuple(results) if wanted is None else tuple(results[i] if i < len(results) else None for i in wanted)
