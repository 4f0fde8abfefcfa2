"""The table that `model.summary()` prints."""

from __future__ import annotations

import math
import re
import shutil
import textwrap
from typing import Any

import numpy as np


def summary_text(
    model: Any,
    line_length: int | None = None,
    positions: list | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Any = None,
) -> str:
    """The table and the totals, as Keras prints them without colours.

    Args:
        line_length: width in characters; that of the terminal (at most 88, or 108 with connections) by default.
        positions: where the columns end, as shares of the width.
        expand_nested: whether to list the layers of models inside the model.
        show_trainable: whether to say which layers are trained.
        layer_range: names (or patterns) of the first and the last layer to show.
    """
    graph = getattr(model, "_graph", None)
    chain = graph is None or _is_chain(graph)
    header, align = ["Layer (type)", "Output Shape", "Param #"], ["<", "<", ">"]
    width, stops = (88, [0.45, 0.80, 1.0]) if chain else (108, [0.3, 0.56, 0.74, 1.0])
    if not chain:
        header, align = [*header, "Connected to"], [*align, "<"]
    stops = list(positions or stops)
    if show_trainable:
        header, align, width = [*header, "Trainable"], [*align, "^"], width + 12
        stops = [p * 0.9 for p in stops] + [1.0]
    width = line_length or min(width, shutil.get_terminal_size().columns - 4)
    rows: list[list[str]] = []
    layers = model.layers if graph is None else graph.operations
    for layer in _in_range(layers, layer_range):
        _add_rows(rows, layer, None if chain else graph, show_trainable, expand_nested, 0)
    table = _table(header, rows, align, _widths(stops, width))
    return "\n".join([f'Model: "{model.name}"', *table, *_totals(model)])


def _is_chain(graph: Any) -> bool:
    by_depth: dict[int, list] = {}
    for call in graph.calls:
        by_depth.setdefault(graph.depths[call], []).append(call)
    if any(len(calls) > 1 or len(calls[0].inputs) > 1 for calls in by_depth.values()):
        return False
    inside = set(graph.calls)
    return all(sum(c in inside for c in o._inbound_nodes) < 2 for o in graph.operations)


def _in_range(layers: list, names: Any) -> list:
    if names is None:
        return layers
    first = [i for i, layer in enumerate(layers) if re.match(names[0], layer.name)]
    last = [i for i, layer in enumerate(layers) if re.match(names[1], layer.name)]
    if not first or not last:
        raise ValueError(f"Passed layer_range does not match any layer: {names}")
    a, b = min(first), max(last)
    return layers[a : b + 1] if a <= b else layers[b : a + 1]


def _add_rows(rows: list, layer: Any, graph: Any, show_trainable: bool, expand: bool, level: int) -> None:
    prefix = "   " * level + "└ " if level else ""
    row = [f"{prefix}{layer.name} ({type(layer).__name__})", _output_shape(layer), _parameters(layer)]
    if graph is not None:
        row.append(_connections(layer, graph) if level == 0 else "-")
    if show_trainable:
        weights = getattr(layer, "weights", [])
        row.append("-" if not weights else "Y" if layer.trainable else "N")
    rows.append(row)
    if expand:
        for inner in getattr(layer, "layers", []):
            _add_rows(rows, inner, graph, show_trainable, expand, level + 1)


def _parameters(layer: Any) -> str:
    if not hasattr(layer, "built"):
        return "0"
    return f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"


def _output_shape(layer: Any) -> str:
    shapes: Any = None
    if layer._inbound_nodes:
        shapes = [_shape(x.shape) for x in layer._inbound_nodes[-1].outputs]
    elif getattr(layer, "_build_shapes", None):
        try:
            made = (
                layer.output_shape
                if hasattr(layer, "output_shape")
                else layer.compute_output_shape(*layer._build_shapes.values())
            )
            shapes = [_shape(s) for s in _shapes_in(made)]
        except Exception:  # a shape that cannot be told is shown as such
            return "?"
    if not shapes:
        return "?"
    return shapes[0] if len(shapes) == 1 else f"[{', '.join(shapes)}]"


def _shapes_in(structure: Any) -> list:
    if isinstance(structure, (list, tuple)) and all(s is None or isinstance(s, int) for s in structure):
        return [structure]
    return [s for part in (structure.values() if isinstance(structure, dict) else structure) for s in _shapes_in(part)]


def _shape(shape: Any) -> str:
    return f"({', '.join(map(str, shape))})"


def _connections(layer: Any, graph: Any) -> str:
    inside = set(graph.calls)
    found = [x.history for c in layer._inbound_nodes if c in inside for x in c.inputs]
    return ", ".join(f"{h.operation.name}[{h.node_index}][{h.tensor_index}]" for h in found) or "-"


# --- drawing ------------------------------------------------------------------------------------------------------


def _widths(stops: list[float], width: int) -> list[int]:
    """Inner widths of the columns, so that the table is `width` wide."""
    made, current = [], 0
    for stop in stops:
        made.append(int(stop * width) - current + 2)
        current += made[-1] - 2
        if made[-1] < 6:
            raise ValueError("Insufficient console width to print summary.")
    excess = sum(made) + len(made) + 1 - width
    for i, size in enumerate(made):
        cut = round(excess / (len(made) - i))
        made[i] = size - cut
        excess -= cut
    return made


def _table(header: list[str], rows: list[list[str]], align: list[str], widths: list[int]) -> list[str]:
    def rule(left: str, line: str, cross: str, right: str) -> str:
        return left + cross.join(line * w for w in widths) + right

    def lines(cells: list[str], bar: str) -> list[str]:
        wrapped = [_wrapped(c, w - 2) for c, w in zip(cells, widths, strict=True)]
        height = max(map(len, wrapped))
        made = []
        for i in range(height):
            parts = [
                f" {(c[i] if i < len(c) else ''):{a}{w - 2}} " for c, a, w in zip(wrapped, align, widths, strict=True)
            ]
            made.append(bar + bar.join(parts) + bar)
        return made

    body: list[str] = []
    for i, row in enumerate(rows):
        body += ([rule("├", "─", "┼", "┤")] if i else []) + lines(row, "│")
    top = [rule("┏", "━", "┳", "┓"), *lines(header, "┃"), rule("┡", "━", "╇", "┩")]
    return [*top, *body, rule("└", "─", "┴", "┘")]


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters; a longer word ends in an ellipsis."""
    rows = textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False) or [""]
    return [row if len(row) <= width else row[: width - 1] + "…" for row in rows]


def _totals(model: Any) -> list[str]:
    optimizer = getattr(model, "optimizer", None)
    parts = {"Trainable": model.trainable_weights, "Non-trainable": model.non_trainable_weights}
    state = list(optimizer.variables) if optimizer is not None and getattr(optimizer, "built", False) else []
    if state:
        parts["Optimizer"] = state
    sizes = {name: (_count(v), _bytes(v)) for name, v in parts.items()}
    total = (sum(c for c, _ in sizes.values()), sum(b for _, b in sizes.values()))
    named = {"Total": total, **sizes}
    return [f" {name} params: {count:,} ({readable_bytes(size)})" for name, (count, size) in named.items()]


def _count(variables: list) -> int:
    return sum(math.prod(v.shape) for v in variables)


def _bytes(variables: list) -> float:
    unique = {id(v): v for v in variables}.values()
    return sum(math.prod(v.shape) * (2 if v.dtype == "bfloat16" else np.dtype(v.dtype).itemsize) for v in unique)


def readable_bytes(size: float) -> str:
    """A size with its unit.

    >>> readable_bytes(2048)
    '2.00 KB'
    """
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} PB"
