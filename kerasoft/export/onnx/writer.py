"""A graph and its weights as an ONNX file."""

from __future__ import annotations

from typing import Any

from ...errors import SerializationError
from ..forward import Forward
from . import elementwise, integers, loops, normalized, structure, windows  # noqa: F401  the rules
from .builder import IR_VERSION, OPSET, Builder, element_type


def write_onnx(forward: Forward, path: str, name: str = "model", opset_version: int | None = None) -> None:
    """Writes the graph of a model to an ONNX file, checked by `onnx.checker`.

    Args:
        forward: what `trace_forward` gave.
        opset_version: of the default domain; None is 20.

    Raises:
        ImportError: the package onnx is not installed.
        SerializationError: an op that has no form in ONNX; names it and its layer.
    """
    from ...saving.files import replacing

    made = onnx_model(forward, name, opset_version)
    with replacing(path, True) as file:
        file.write(made.SerializeToString())


def onnx_model(forward: Forward, name: str = "model", opset_version: int | None = None) -> Any:
    """The `onnx.ModelProto` of a model."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError("format='onnx' needs the package onnx: pip install 'kerasoft[onnx]'") from error

    opset = OPSET if opset_version is None else opset_version
    if opset < OPSET:
        raise SerializationError(f"ONNX export writes opset {OPSET} or later, got opset_version={opset}")
    b = Builder()
    graph = forward.graph
    by_name = {n.attrs["name"]: n for n in graph.inputs}
    values = []
    for entry in forward.inputs:
        values.append(_value(onnx, entry["name"], entry))
        node = by_name.get(entry["name"])
        if node is not None:
            b.names[node] = entry["name"]
            _sizes(b, entry["name"], node)
    for n in graph.params:
        b.names[n] = b.initializer(n.attrs["name"], forward.params[n.attrs["name"]].numpy())
    b.convert(graph.nodes)
    outputs = []
    for entry, node in zip(forward.outputs, graph.outputs, strict=True):
        b.nodes.append(onnx.helper.make_node("Identity", [b.names[node]], [entry["name"]]))
        outputs.append(_value(onnx, entry["name"], entry))
    read = _read(b.nodes)  # of a kernel in another order only that copy is written
    kept = [one for one in b.initializers if one.name in read]
    made = onnx.helper.make_model(
        onnx.helper.make_graph(b.nodes, name, values, outputs, kept),
        opset_imports=[onnx.helper.make_opsetid("", opset)],
        ir_version=IR_VERSION,
        producer_name="kerasoft",
    )
    onnx.checker.check_model(made)
    return made


def _read(nodes: Any) -> set[str]:
    """The names that nodes read, those in bodies of loops too."""
    found: set[str] = set()
    for node in nodes:
        found |= set(node.input)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= _read(attribute.g.node) | {output.name for output in attribute.g.output}
    return found


def _value(onnx: Any, name: str, entry: dict) -> Any:
    sizes = [("batch" if i == 0 else f"{name}_{i}") if d is None else d for i, d in enumerate(entry["shape"])]
    return onnx.helper.make_tensor_value_info(name, element_type(entry["dtype"]), sizes)


def _sizes(b: Builder, name: str, node: Any) -> None:
    """The unknown sizes of an input, by their names in the graph."""
    for axis, d in enumerate(node.shape):
        if not isinstance(d, int) and str(d) not in b.sizes:
            taken = b.make("Gather", b.make("Shape", name), b.ints([axis]), axis=0)
            b.sizes[str(d)] = b.make("Reshape", taken, b.constant([], "int64"))
