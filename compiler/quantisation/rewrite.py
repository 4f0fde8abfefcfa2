"""The graph of integers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from ..ir import Graph, Node, rebuilt, source
from ..ops import quantised, shape
from ..ops.registry import constant, param_node
from .measure import quantised_kernel
from .plan import Plan, Scale
from .regions import Region, Weights

LARGEST_CONSTANT = 1 << 12  # elements of a float weight that stands in the graph; larger ones are params


def quantised_graph(graph: Graph, plan: Plan, scales: Mapping[Node, Scale]) -> Graph:
    """`graph` with the regions of `plan` computed in integers.

    Args:
        scales: of each wanted value, see `Plan.scales`.
    """
    floats: dict[Node, Node] = {}
    integers: dict[Node, Node] = {}
    for n in graph.nodes:
        if n in plan.inner:
            continue
        region, wanted = plan.regions.get(n), n in plan.wanted
        if region is not None:
            with source(region.name):
                made = _computed(region, integers, scales, scales[n] if wanted else None)
        elif wanted and all(i in integers for i in n.inputs) and n.op.name not in ("input", "param", "constant"):
            made = rebuilt(n, [integers[i] for i in n.inputs])
        else:
            made = n if not n.inputs else rebuilt(n, [floats[i] for i in n.inputs])
            floats[n] = made
            if wanted:
                integers[n] = quantised.quantize_op(made, scale=scales[n].value, dtype=scales[n].dtype)
            continue
        if wanted:
            integers[n] = made
            made = quantised.dequantize_op(made, scale=scales[n].value)
        floats[n] = made
    return Graph(graph.inputs, tuple(floats[o] for o in graph.outputs), graph.output_names)


def _computed(region: Region, integers: Mapping[Node, Node], scales: Mapping[Node, Scale], scale: Scale | None) -> Node:
    kernel, channel_scale = quantised_kernel(region.kernel)
    unit = 1.0 if scale is None else scale.value
    multiplier = channel_scale.astype(np.float64) * scales[region.x].value / unit
    inputs = [integers[region.x], constant(kernel)]
    inputs += [constant(v.astype(np.float32)) for v in (multiplier, region.bias.astype(np.float64) / unit)]
    add_scale = 0.0
    if region.addend is not None:
        inputs.append(integers[region.addend])
        add_scale = float(np.float32(scales[region.addend].value / unit))
    attrs = {
        "relu": region.relu,
        "upper": None if region.upper is None else float(np.float32(region.upper / unit)),
        "add_scale": add_scale,
        "dtype": "float32" if scale is None else scale.dtype,
        "digest": hashlib.blake2b(repr(kernel.shape).encode() + kernel.tobytes(), digest_size=16).hexdigest(),
    }
    if region.linear.op.name == "conv":
        return quantised.quantised_conv(*inputs, **region.linear.attrs, **attrs)
    return quantised.quantised_dense(*inputs, **attrs)


def settled(graph: Graph, weights: Weights) -> tuple[Graph, dict[str, np.ndarray]]:
    """`graph` with numbers in place of what depends on weights only: constants, and params for large floats.

    Returns:
        the graph and the array of each of its params, by name.
    """
    nodes = graph.nodes
    needed = {i for n in nodes if n not in weights for i in n.inputs} | set(graph.outputs)
    mapping: dict[Node, Node] = {}
    params: dict[str, np.ndarray] = {}
    for n in nodes:
        if n not in needed or n not in weights or n.op.name == "constant":
            continue
        value = weights[n]
        if value.size > LARGEST_CONSTANT and value.dtype == np.float32:
            name = f"weight_{len(params)}"
            params[name] = value
            mapping[n] = param_node(name, value.shape, "float32", trainable=False)
        else:
            made = constant(value, n.dtype)
            mapping[n] = made if made.type == n.type else shape.cast(made, dtype=n.dtype)
    return graph.replace(mapping), params
