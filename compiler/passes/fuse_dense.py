"""Products of rows with a matrix become dense ops, which take bias, relu and their gradients along."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from ..ir import Graph, Node, TensorType, rebuilt, source
from ..ops import dense, shape
from ..ops.registry import item
from .fuse_convolutions import users_of
from .pass_base import Pass

SMALLEST = 64  # features; below them a product is not worth a kernel of its own
NARROWEST = 2  # columns of a kernel's gradient: XLA's product of 512 x 128 by 128 x 10 takes four times as long

DTYPES = ("float32", "bfloat16")

FORWARD, INPUT, KERNEL = "forward", "input", "kernel"


@dataclasses.dataclass(frozen=True)
class Product:
    """A node that multiplies rows by a matrix, or gives the gradient of one of the two.

    Attributes:
        kind: FORWARD: x (rows, k) by kernel (k, n); INPUT: dy (rows, n) by kernel (k, n) transposed; KERNEL: x (rows, k)
            transposed by dy (rows, n).
        left, right: the operands in that order. ends: how many last axes of left and of right are columns.
    """

    kind: str
    left: Node
    right: Node
    ends: tuple[int, int] = (1, 1)

    @property
    def operands(self) -> tuple[Node, Node]:
        return self.left, self.right

    @property
    def columns(self) -> tuple[Any, ...]:
        """The sizes that the result's last axis has, as several axes."""
        if self.kind == INPUT:
            return self.right.shape[: -self.ends[1]]
        return self.right.shape[-self.ends[1] :]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What stands in the place of a node: `make` of its new operands, reshaped to the node's shape."""

    operands: tuple[Node, ...]
    make: Callable[..., Node]


class FuseDense(Pass):
    """Makes dense ops of float32 and bfloat16 products of rows with a matrix (matmul, einsum) of at least 64 by 64 features.

    ``relu(x w + b)`` becomes one node, so does ``where(y > 0, dy w', 0)``, the gradient that passes a relu, and ``x' dy``
    with the sum of dy's rows, a bias's gradient.

    Keeps: inputs, outputs, types; values agree to rounding. Needs: gradients are taken already. Gain: the kernels of
    docs/design/0010-attention-and-transformers.md, and two passes over each activation fewer.
    """

    def find(self, graph: Graph) -> dict[Node, Plan]:
        place = {n: i for i, n in enumerate(graph.nodes)}
        users = users_of(graph)
        sums = {s[0]: (n, s[1]) for n in graph.nodes if (s := _summed_rows(n)) is not None}
        found: dict[Node, Plan] = {}
        for n in graph.nodes:
            made = product_of(n)
            if made is None:
                continue
            if made.kind == FORWARD:
                root, plan = _with_bias(n, made, users)
            elif made.kind == INPUT:
                root, plan = _with_gate(n, made, users)
            else:
                root, plan = n, Plan(made.operands, lambda x, dy, p=made: item(_kernel(p, x, dy), 0))
                total, axes = sums.get(made.right, (None, 0))
                if total is not None and axes == made.right.ndim - made.ends[1] and place[made.left] < place[total]:
                    found[total] = Plan(made.operands, lambda x, dy, p=made: item(_kernel(p, x, dy), 1))
            found[root] = plan
        return found

    def replace(self, graph: Graph, found: dict[Node, Plan]) -> Graph:
        new: dict[Node, Node] = {}

        def renewed(n: Node) -> Node:
            if n not in new:
                plan = found.get(n)
                inputs = tuple(renewed(i) for i in (n.inputs if plan is None else plan.operands))
                if plan is None:
                    new[n] = n if inputs == n.inputs else rebuilt(n, inputs)
                else:
                    with source(n.source):
                        new[n] = _shaped(plan.make(*inputs), n.shape)
            return new[n]

        for n in graph.nodes:
            if all(i in new for i in n.inputs):
                renewed(n)
        return dataclasses.replace(graph, outputs=tuple(renewed(o) for o in graph.outputs))


# --- what is a product ----------------------------------------------------------------------------------------------


def product_of(n: Node) -> Product | None:
    """How `n` is a product of rows with a matrix; None if it is none, or too small."""
    if n.op.name not in ("matmul", "einsum") or len(n.inputs) != 2:
        return None
    if any(not isinstance(i.type, TensorType) or i.dtype not in DTYPES or i.dtype != n.dtype for i in (n, *n.inputs)):
        return None
    made = _of_matmul(n) if n.op.name == "matmul" else _of_einsum(n)
    if made is None:
        return None
    left, right = made.operands
    sizes: tuple[tuple, ...] = (left.shape[-made.ends[0] :], right.shape[-made.ends[1] :], made.columns)
    if made.kind != KERNEL:
        sizes = (*sizes, right.shape)  # a matrix whose sizes are known
    if not all(isinstance(d, int) for size in sizes for d in size):
        return None
    least = NARROWEST if made.kind == KERNEL else SMALLEST
    counts = [math.prod(size) for size in sizes]
    return made if min(counts) >= least and max(counts) >= SMALLEST else None


def _of_matmul(n: Node) -> Product | None:
    x, y = n.inputs
    if y.ndim != 2:
        return None
    if _is_transposed(x):
        rows, slopes = x.inputs[0], y
        inner, outer = _before_reshape(rows), _before_reshape(slopes)
        if inner.shape[:-1] == outer.shape[:-1]:
            rows, slopes = inner, outer
        return Product(KERNEL, rows, slopes)
    if _is_transposed(y):
        return Product(INPUT, x, y.inputs[0])
    return Product(FORWARD, x, y)


def _is_transposed(n: Node) -> bool:
    return n.op.name == "transpose" and n.ndim == 2 and tuple(n.attrs["axes"]) == (1, 0)


def _before_reshape(rows: Node) -> Node:
    """What `rows` were before their leading axes were joined."""
    if rows.op.name != "reshape" or rows.inputs[0].ndim < 2 or rows.inputs[0].shape[-1] != rows.shape[-1]:
        return rows
    return rows.inputs[0]


def _of_einsum(n: Node) -> Product | None:
    terms, result = n.attrs["equation"].split("->")
    one, other = terms.split(",")
    summed = set(one) & set(other) - set(result)
    if set(one) & set(other) & set(result) or (set(one) ^ set(other)) - set(result) or not summed:
        return None
    for (left, a), (right, b) in (
        ((one, n.inputs[0]), (other, n.inputs[1])),
        ((other, n.inputs[1]), (one, n.inputs[0])),
    ):
        rows = "".join(c for c in result if c in left)
        columns = "".join(c for c in result if c in right)
        inner = "".join(c for c in left if c in summed)
        if not rows or not columns or result != rows + columns:
            continue
        if left == rows + inner and right == inner + columns:
            return Product(FORWARD, a, b, (len(inner), len(columns)))
        if left == rows + inner and right == columns + inner:
            return Product(INPUT, a, b, (len(inner), len(inner)))
        if left == inner + rows and right == inner + columns:
            return Product(KERNEL, a, b, (len(rows), len(columns)))
    return None


def _summed_rows(n: Node) -> tuple[Node, int] | None:
    """What `n` sums, and over how many leading axes."""
    if n.op.name != "sum" or n.attrs.get("keepdims") or not isinstance(n.attrs.get("axis"), tuple):
        return None
    x = n.inputs[0]
    axes = sorted(a % x.ndim for a in n.attrs["axis"])
    return (x, len(axes)) if axes == list(range(len(axes))) and x.dtype in DTYPES else None


# --- what goes with it ------------------------------------------------------------------------------------------------


def _flat(x: Node, ends: int) -> Node:
    """`x` with its last `ends` axes as one."""
    return x if ends == 1 else shape.reshape(x, shape=(*x.shape[:-ends], math.prod(x.shape[-ends:])))


def _matrix(x: Node, ends: int) -> Node:
    return x if x.ndim == 2 else shape.reshape(x, shape=(math.prod(x.shape[:-ends]), math.prod(x.shape[-ends:])))


def _shaped(n: Node, wanted: tuple) -> Node:
    return n if n.shape == wanted else shape.reshape(n, shape=wanted)


def _kernel(p: Product, x: Node, dy: Node) -> Node:
    return dense.dense_grad_kernel(_flat(x, p.ends[0]), _flat(dy, p.ends[1]))


def _only_user(n: Node, users: dict[Node, list[Node]]) -> Node | None:
    """The one node that reads `n`, which is no output of the graph."""
    found = users.get(n, [])
    return found[0] if len(found) == 1 and found[0] is not n else None


def _with_bias(n: Node, p: Product, users: dict[Node, list[Node]]) -> tuple[Node, Plan]:
    """The root of ``relu(product + bias)``, as much of it as there is, and its plan."""
    root, bias, relu = n, None, False
    user = _only_user(n, users)
    if user is not None and user.op.name == "add" and user.type == n.type and user.inputs[0] is not user.inputs[1]:
        other = user.inputs[1 if user.inputs[0] is n else 0]
        if _is_row(other, p.columns):
            root, bias = user, other
            user = _only_user(root, users)
    if user is not None and user.op.name == "relu":
        root, relu = user, True

    def make(x: Node, kernel: Node, *row: Node) -> Node:
        rest = [_shaped(r, (math.prod(p.columns),)) for r in row]
        left, right = _flat(x, p.ends[0]), _matrix(kernel, p.ends[1])
        return dense.dense_op(left, right, *rest, has_bias=bool(row), relu=relu)

    return root, Plan((*p.operands, *([] if bias is None else [bias])), make)


def _is_row(bias: Node, columns: tuple) -> bool:
    """Whether `bias` is one number for each of `columns`, the same for all rows."""
    if not isinstance(bias.type, TensorType) or bias.dtype != "float32" or bias.ndim < len(columns):
        return False
    lead = bias.ndim - len(columns)
    return bias.shape[lead:] == columns and all(isinstance(d, int) and d == 1 for d in bias.shape[:lead])


def _with_gate(n: Node, p: Product, users: dict[Node, list[Node]]) -> tuple[Node, Plan]:
    """The root of ``where(gate > 0, product, 0)``, or the product alone, and its plan."""
    root, gate = n, None
    user = _only_user(n, users)
    if user is not None and user.op.name == "where" and user.inputs[1] is n and _is_zero(user.inputs[2]):
        test = user.inputs[0]
        if test.op.name == "greater" and _is_zero(test.inputs[1]) and test.inputs[0].type == n.type == user.type:
            root, gate = user, test.inputs[0]

    def make(dy: Node, kernel: Node, *extra: Node) -> Node:
        left, right = _flat(dy, p.ends[0]), _matrix(kernel, p.ends[1])
        rest = [_flat(g, len(p.columns)) for g in extra]
        return dense.dense_grad_input(left, right, *rest, gated=bool(extra))

    return root, Plan((*p.operands, *([] if gate is None else [gate])), make)


def _is_zero(n: Node) -> bool:
    if n.op.name == "zeros_like":
        return True
    if n.op.name in ("broadcast_to", "full"):
        return _is_zero(n.inputs[0]) if n.inputs else n.attrs.get("value") == 0
    return n.op.name == "constant" and not n.attrs["value"].value.any()
