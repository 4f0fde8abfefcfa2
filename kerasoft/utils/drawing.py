"""A model as a graph: DOT text, and a picture drawn by Graphviz, or by Matplotlib where Graphviz is absent."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
from typing import Any


@dataclasses.dataclass
class Dot:
    """A graph of labelled boxes: `nodes` (identifier -> lines of its label) and `edges` between identifiers."""

    nodes: dict[str, list[str]]
    edges: list[tuple[str, str]]
    rankdir: str = "TB"
    dpi: int | None = 200
    splines: str = "ortho"

    def to_string(self) -> str:
        """The graph in the DOT language."""
        lines = ["digraph G {", f"rankdir={self.rankdir};", "concentrate=True;", f"splines={self.splines};"]
        lines += [f"dpi={self.dpi};"] if self.dpi else []
        lines.append("node [shape=box];")
        for key, label in self.nodes.items():
            text = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in label)
            lines.append(f'{key} [label="{text}"];')
        lines += [f"{a} -> {b};" for a, b in self.edges]
        return "\n".join([*lines, "}"]) + "\n"

    def write(self, path: Any, format: str = "dot") -> None:
        """Writes DOT text, or a picture ("png", "pdf", "svg")."""
        if format in ("dot", "raw"):
            pathlib.Path(path).write_text(self.to_string())
        elif shutil.which("dot"):
            subprocess.run(["dot", f"-T{format}", "-o", os.fspath(path)], input=self.to_string(), text=True, check=True)
        else:
            _draw(self, path, format)


def model_to_dot(
    model: Any,
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: int | None = 200,
    subgraph: bool = False,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    splines: str = "ortho",
    **kwargs: Any,
) -> Dot:
    """The graph of a built model's layers.

    Args:
        show_shapes, show_dtype: of inputs and outputs.
        show_layer_names, show_layer_activations, show_trainable: what else a box tells.
        rankdir: "TB" from top to bottom, "LR" from left to right.
        expand_nested: whether the layers of models inside are shown.
        dpi: of the picture.
        subgraph: accepted; models inside are not framed.
        splines: how Graphviz draws edges: "ortho", "curved", "line".

    Raises:
        ValueError: the model is not built.
    """
    from ..models import Model, Sequential
    from ..tensors import Call

    if kwargs.pop("layer_range", None) is not None:
        raise ValueError("Argument `layer_range` is no longer supported.")
    if kwargs:
        raise ValueError(f"Unrecognized keyword arguments: {kwargs}")
    if not model.built:
        raise ValueError("This model has not yet been built. Build the model first by calling `build()` or by calling the model on a batch of data.")  # fmt: skip
    dot = Dot({}, [], rankdir, dpi, splines)
    places: dict[int, str] = {}

    def label(layer: Any, call: Any) -> list[str]:
        lines = [f"{layer.name} ({type(layer).__name__})" if show_layer_names else type(layer).__name__]
        if show_layer_activations and hasattr(layer, "activation"):
            activation = layer.activation
            lines.append(f"Activation: {getattr(activation, 'name', getattr(activation, '__name__', activation))}")
        inputs = call.inputs if call else getattr(layer, "inputs", [])
        outputs = call.outputs if call else getattr(layer, "outputs", [])
        if show_shapes:
            lines.append(f"Input shape: {_each(inputs, 'shape')}")
            lines.append(f"Output shape: {_each(outputs, 'shape')}")
        if show_dtype:
            lines.append(f"Output dtype: {_each(outputs, 'dtype')}")
        if show_trainable and hasattr(layer, "trainable"):
            lines.append("Trainable" if layer.trainable else "Non-trainable")
        return lines

    def nested(layer: Any) -> Any:
        inner = layer._functional if isinstance(layer, Sequential) else layer
        return inner if expand_nested and isinstance(layer, Model) and hasattr(inner, "_graph") else None

    def add(function: Any) -> None:
        used = {id(c) for c in function._graph.calls}
        for operation in function.operations:
            calls: list[Call] = [c for c in operation._inbound_nodes if id(c) in used]
            inner = nested(operation)
            if inner is None or not calls:
                key = f"n{len(dot.nodes)}"
                dot.nodes[key] = label(operation, calls[0] if calls else None)
                for call in calls:
                    places.update({id(x): key for x in call.outputs})
                    edges = [(places[id(x)], key) for x in call.inputs if id(x) in places]
                    dot.edges.extend(edge for edge in edges if edge not in dot.edges)
            else:
                for call in calls:
                    add(inner)
                    for outside, inside in zip(call.inputs, inner.inputs, strict=True):
                        dot.edges.append((places[id(outside)], places[id(inside)]))
                    places.update({id(o): places[id(i)] for o, i in zip(call.outputs, inner.outputs, strict=True)})

    function = model._functional if isinstance(model, Sequential) else model
    if hasattr(function, "_graph"):
        add(function)
    elif isinstance(model, Sequential):
        for index, layer in enumerate(model.layers):
            dot.nodes[f"n{index}"] = label(layer, None)
            dot.edges += [(f"n{index - 1}", f"n{index}")] if index else []
    else:
        dot.nodes["n0"] = label(model, None)
    return dot


def _each(tensors: list, attribute: str) -> str:
    values = [str(getattr(x, attribute)) for x in tensors]
    return ", ".join(values) if values else "?"


def plot_model(
    model: Any,
    to_file: Any = "model.png",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = False,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: int | None = 200,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    splines: str = "ortho",
    **kwargs: Any,
) -> Any:
    """Writes a picture of a built model to a file; arguments as in `model_to_dot`.

    Graphviz draws it where its program `dot` is installed, Matplotlib otherwise. In a notebook the picture is the result.
    """
    dot = model_to_dot(
        model,
        show_shapes=show_shapes,
        show_dtype=show_dtype,
        show_layer_names=show_layer_names,
        rankdir=rankdir,
        expand_nested=expand_nested,
        dpi=dpi,
        show_layer_activations=show_layer_activations,
        show_trainable=show_trainable,
        splines=splines,
        **kwargs,
    )
    path = pathlib.Path(to_file)
    dot.write(path, path.suffix[1:] or "png")
    if path.suffix != ".pdf" and _in_notebook():
        from IPython import display

        return display.Image(filename=str(path))
    return None


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return get_ipython() is not None


def _draw(dot: Dot, path: Any, format: str) -> None:
    """Rows of boxes, each row below what it reads."""
    from matplotlib.figure import Figure

    from ..compiler.picture import COLOURS, Box, place_boxes

    boxes = {key: Box("\n".join(label)) for key, label in dot.nodes.items()}
    for a, b in dot.edges:
        boxes[b].before.add(boxes[a])
    for box in boxes.values():  # nodes are in topological order
        box.row = 1 + max((b.row for b in box.before), default=-1)
    place_boxes(list(boxes.values()))
    rows, lines = 1 + max(b.row for b in boxes.values()), max(b.label.count("\n") + 1 for b in boxes.values())
    left, right = min(b.x for b in boxes.values()) - 0.6, max(b.x for b in boxes.values()) + 0.6
    wide, high = 3.4, 0.18 * lines + 0.5  # inches
    scale = min(1.0, 150 / (rows * high), 150 / (wide * (right - left)))
    figure = Figure(figsize=(max(3.0, wide * (right - left)) * scale, rows * high * scale + 0.2))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(wide * left, wide * right)
    axes.set_ylim(rows * high, -0.2)
    kinds = list(dict.fromkeys(b.label.partition(" ")[2] or b.label for b in boxes.values()))
    for box in boxes.values():
        y = box.row * high
        for b in box.before:
            end = b.row * high + 0.18 * lines
            axes.annotate(
                "", (wide * box.x, y - 0.03), (wide * b.x, end), arrowprops={"arrowstyle": "-|>", "color": "#777777"}
            )
        colour = COLOURS[kinds.index(box.label.partition(" ")[2] or box.label) % len(COLOURS)]
        axes.text(
            wide * box.x, y, box.label, ha="center", va="top", fontsize=8 * scale,
            bbox={"boxstyle": "round,pad=0.3", "fc": colour, "ec": "#999999"},
        )  # fmt: skip
    figure.savefig(path, format=format, dpi=min(dot.dpi or 100, 100))
