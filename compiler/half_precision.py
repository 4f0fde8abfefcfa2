"""Whether bfloat16 pays on this machine: the largest products of a graph in it, timed beside float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .costs import bound_type, flops
from .ir import Dim, Graph, Node, TensorType, bind
from .kernels.lowerings import candidates
from .kernels.measure import timed

LARGEST = 3
PRODUCTS = frozenset(
    "matmul einsum dense dense_grad_input dense_grad_kernel conv conv_fused conv_grad_input conv_grad_kernel".split()
)


def remark(graph: Graph, sizes: Mapping[str, Dim]) -> str:
    """A sentence on the graph's products in bfloat16; "" where there are none, or `sizes` lacks one."""
    nodes = [n for n in graph.nodes if n.op.name in PRODUCTS and getattr(n.type, "dtype", "") == "bfloat16"]
    nodes = sorted(nodes, key=lambda n: -flops(n, sizes))[:LARGEST]
    if not nodes:
        return ""
    half = whole = 0.0
    for n in nodes:
        types: list[Any] = [bound_type(i.type, sizes) for i in n.inputs]
        attrs = {name: bind(value, sizes) for name, value in n.attrs.items()}
        half += _best(n, types, attrs)
        whole += _best(n, [dataclasses.replace(t, dtype="float32") if _is_half(t) else t for t in types], attrs)
    found = f"the {len(nodes)} largest products take {1e3 * half:.3g} ms in bfloat16 and {1e3 * whole:.3g} ms in float32 here"
    if half > whole:
        return f"{found}: a float32 policy would be faster on this machine"
    return f"{found}: bfloat16 pays on this machine"


def _best(n: Node, types: list[Any], attrs: Mapping[str, Any]) -> float:
    """Seconds by the fastest lowering."""
    found: dict[str, Any] = {one.name: (one.run, {}) for one in candidates(n.op.name, types, attrs)}
    return min(timed(n.op.name, {"xla": (n.op.lower, {}), **found}, types, attrs).values())


def _is_half(t: Any) -> bool:
    return isinstance(t, TensorType) and t.dtype == "bfloat16"
