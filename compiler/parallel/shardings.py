"""How a value is spread over the workers that share a model's tensors, and what an op does to that.

A value is replicated, split along one axis into parts of equal size, or partial: its sum over the workers is the value.
`spec_of` says for an op which axes of its inputs and results are one and the same, by labels. If all that carry a label are
split there, the op computes on parts alone; where a result does not carry it the result is partial, if the op is a sum over it.

Source: Xu et al., "GSPMD", 2021; Shoeybi et al., "Megatron-LM", 2019.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ..ir import Node, TensorType, TupleType, is_static

Label = Any
Term = tuple[Label | None, ...]


@dataclasses.dataclass(frozen=True)
class Sharding:
    """Replicated, split along `axis`, or `partial`."""

    axis: int | None = None
    partial: bool = False

    def __str__(self) -> str:
        return "partial" if self.partial else "whole" if self.axis is None else f"axis {self.axis}"


WHOLE, PARTIAL = Sharding(), Sharding(partial=True)


@dataclasses.dataclass(frozen=True)
class Spec:
    """Labels of an op's axes; None for an axis along which it cannot be split.

    Attributes:
        inputs, outputs: a term for each. summed: labels over which the op sums.
        linear: whether partial inputs give a partial result: "all" (all inputs are partial or count once, as in a sum),
            "first" (the first may be partial), "" (none).
    """

    inputs: tuple[Term, ...]
    outputs: tuple[Term, ...]
    summed: frozenset = frozenset()
    linear: str = ""


ELEMENTWISE = frozenset(
    """add subtract multiply divide divide_no_nan floor_divide mod power maximum minimum atan2 logaddexp equal not_equal
    greater greater_equal less less_equal logical_and logical_or logical_xor logical_not isnan isinf isfinite bitwise_and
    bitwise_or bitwise_xor left_shift right_shift negative absolute sign square sqrt rsqrt reciprocal exp exp2 expm1 log log1p
    log2 log10 sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh erf erfinv floor ceil trunc stop_gradient round
    where clip relu relu6 sigmoid softplus softsign log_sigmoid silu mish hard_sigmoid hard_tanh hard_silu selu gelu elu celu
    leaky_relu cast zeros_like ones_like sigmoid_cross_entropy""".split()
)
REDUCING = frozenset("sum mean max min prod all any count_nonzero logsumexp argmax argmin standardize".split())
LINEAR = {
    "add": "all", "subtract": "all", "negative": "first", "multiply": "one", "divide": "first", "reshape": "first",
    "transpose": "first", "sum": "first", "mean": "first", "broadcast_to": "first",
}  # fmt: skip


def spec_of(n: Node) -> Spec | None:
    """The labels of a node; None: it computes on whole values only."""
    name = n.op.name
    if not all(isinstance(i.type, TensorType) for i in n.inputs) and name != "item":
        return None
    if name in ELEMENTWISE:
        spec = _elementwise(n)
    elif name in REDUCING:
        spec = _reducing(n)
    else:
        rule = _RULES.get(name)
        spec = rule(n) if rule is not None else None
    return dataclasses.replace(spec, linear=LINEAR.get(name, "")) if spec is not None else None


def _shapes(n: Node) -> list[tuple]:
    return [tuple(i.type.shape) for i in n.inputs]  # type: ignore[union-attr]


def _elementwise(n: Node) -> Spec | None:
    if not isinstance(n.type, TensorType):
        return None
    rank = len(n.shape)
    terms = []
    for shape in _shapes(n):
        start = rank - len(shape)
        terms.append(
            tuple(
                k + start if is_static(d) and d == n.shape[k + start] and d > 1 else None for k, d in enumerate(shape)
            )
        )
    out = tuple(k if is_static(d) and d > 1 else None for k, d in enumerate(n.shape))
    return Spec(tuple(terms), (out,))


def _reducing(n: Node) -> Spec | None:
    shape = _shapes(n)[0]
    axes = n.attrs.get("axis")
    axes = tuple(range(len(shape))) if axes is None else (axes,) if isinstance(axes, int) else tuple(axes)
    axes = tuple(a % len(shape) for a in axes)
    sums = n.op.name == "sum"
    inside = tuple(k if k not in axes or sums else None for k in range(len(shape)))
    if isinstance(n.type, TupleType):  # standardize: results of the same rank
        outs = tuple(tuple(k if k not in axes else None for k in range(len(shape))) for _ in n.type.items)
        return Spec((inside,), outs)
    kept = tuple(k if k not in axes else None for k in range(len(shape)))
    if len(n.shape) < len(shape):
        kept = tuple(k for k in range(len(shape)) if k not in axes)
    return Spec((inside,), (kept,), frozenset(axes) if sums else frozenset())


def _reshape(n: Node) -> Spec | None:
    """Axes whose outer edge is the same number of elements from the end: a part of one is a part of the other."""
    edges: dict[Any, int] = {}
    old, new = _shapes(n)[0], tuple(n.shape)

    def outer(shape: tuple) -> list:
        found: list[Any] = []
        total: Any = 1
        for d in reversed(shape):
            total = total * d if is_static(d) and is_static(total) else None
            found.append(total)
        return found[::-1]

    there = outer(old)
    for k, edge in enumerate(outer(new)):
        if edge is not None and is_static(new[k]) and new[k] > 1:
            edges[edge] = k
    term = tuple(
        f"e{edge}" if edge is not None and is_static(d) and d > 1 and edge in edges else None
        for d, edge in zip(old, there)
    )
    out: list[Label | None] = [None] * len(new)
    for label, edge in zip(term, there):
        if label is not None:
            out[edges[edge]] = label
    return Spec((term,), (tuple(out),))


def _broadcast(n: Node) -> Spec:
    old, new = _shapes(n)[0], tuple(n.shape)
    start = len(new) - len(old)
    term = tuple(k + start if is_static(d) and d == new[k + start] and d > 1 else None for k, d in enumerate(old))
    out = tuple(k if k in term else None for k in range(len(new)))
    return Spec((term,), (out,))


def _transpose(n: Node) -> Spec:
    axes = n.attrs["axes"]
    return Spec((tuple(range(len(axes))),), (tuple(axes),))


def _concatenate(n: Node) -> Spec:
    axis = n.attrs["axis"] % len(n.shape)
    term = tuple(k if k != axis else None for k in range(len(n.shape)))
    return Spec((term,) * len(n.inputs), (term,))


def _same_size(n: Node) -> Spec:
    """Slices, pads and the like: axes that keep their size are labelled if the op leaves them alone."""
    old, new = _shapes(n)[0], tuple(n.shape)
    term = tuple(k if is_static(d) and d == new[k] and _untouched(n, k) else None for k, d in enumerate(old))
    return Spec((term,), (term,))


def _untouched(n: Node, axis: int) -> bool:
    if n.op.name == "strided_slice":
        return n.attrs["start"][axis] == 0 and n.attrs["stride"][axis] == 1
    config = n.attrs["config"][axis]
    return all(v == 0 for v in config)


def _softmax(n: Node) -> Spec:
    axis = n.attrs["axis"]
    axes = {a % len(n.shape) for a in ((axis,) if isinstance(axis, int) else tuple(axis))}
    term = tuple(k if k not in axes else None for k in range(len(n.shape)))
    return Spec((term,), (term,))


def _matmul(n: Node) -> Spec:
    x, y = _shapes(n)
    rank = len(n.shape)

    def batch(shape: tuple) -> Term:
        start = rank - len(shape)
        return tuple(
            f"b{k + start}" if is_static(d) and d > 1 and d == n.shape[k + start] else None
            for k, d in enumerate(shape[:-2])
        )

    out = tuple(f"b{k}" for k in range(rank - 2))
    return Spec(((*batch(x), "m", "k"), (*batch(y), "k", "n")), ((*out, "m", "n"),), frozenset(("k",)))


def _einsum(n: Node) -> Spec | None:
    left, right = n.attrs["equation"].split("->")
    terms = tuple(tuple(term) for term in left.split(","))
    if any(len(set(term)) < len(term) for term in terms):
        return None
    return Spec(terms, (tuple(right),), frozenset(left) - set(right) - {","})


def _lookup(n: Node) -> Spec:
    table, ids = _shapes(n)
    inner = tuple(f"d{k}" for k in range(1, len(table)))
    return Spec(((None, *inner), (None,) * len(ids)), ((*(None,) * len(ids), *inner),))


def _scatter_rows(n: Node) -> Spec:
    rows, ids = _shapes(n)
    inner = tuple(f"d{k}" for k in range(1, len(rows) - len(ids) + 1))
    return Spec(((*(None,) * len(ids), *inner), (None,) * len(ids)), ((None, *inner),))


def _channels(shape: tuple, label: Label = "c") -> Term:
    return (*(None,) * (len(shape) - 1), label)


def _conv(n: Node) -> Spec | None:
    if n.attrs["groups"] != 1:
        return None
    first, second = _shapes(n)
    window = (None,) * (len(n.attrs["strides"]))
    kernel = (*window, "c", "f")
    if n.op.name == "conv":
        return Spec((_channels(first), kernel), (_channels(tuple(n.shape), "f"),), frozenset("c"))
    if n.op.name == "conv_grad_input":
        return Spec((_channels(first, "f"), kernel), (_channels(tuple(n.shape)),), frozenset("f"))
    return Spec((_channels(first), _channels(second, "f")), (kernel,))


def _pool(n: Node) -> Spec:
    return Spec(tuple(map(_channels, _shapes(n))), (_channels(tuple(n.shape)),))


def _batch_norm(n: Node) -> Spec:
    terms = []
    for k, shape in enumerate(_shapes(n)):
        is_valid = n.attrs["has_valid"] and k == len(n.inputs) - 1
        terms.append((None,) * len(shape) if is_valid else _channels(shape))
    return Spec(tuple(terms), tuple(_channels(tuple(t.shape)) for t in n.type.items))  # type: ignore[union-attr]


def _attention(n: Node) -> Spec | None:
    """Heads; those of keys may be fewer, each for a group of heads of queries."""
    if n.attrs.get("of_bias"):
        return None
    shapes = _shapes(n)
    by_head: Term = (None, None, "h", None)
    terms: list[Term] = [by_head] * 3
    heads = shapes[0][2]
    more = sum(bool(n.attrs[name]) for name in ("has_mask", "has_bias"))
    for shape in shapes[3 : 3 + more]:
        terms.append((None, "h" if shape[1] == heads else None, None, None))
    saved: Term = (None, "h", None, None)
    if n.op.name == "attention":
        return Spec(tuple(terms), (by_head, saved))
    return Spec((*terms, by_head, saved, by_head), (by_head,) * 3)


def _barrier(n: Node) -> Spec:
    term = tuple(k if is_static(d) and d > 1 else None for k, d in enumerate(n.shape))
    return Spec((term, (None,) * len(_shapes(n)[1])), (term,))


def _vjp(n: Node) -> Spec | None:
    """The gradient of an elementwise op on arrays of one shape."""
    if n.attrs["of"] not in ELEMENTWISE:
        return None
    shapes = _shapes(n)
    if any(s != shapes[0] for s in shapes):
        return None
    term = tuple(k if is_static(d) and d > 1 else None for k, d in enumerate(shapes[0]))
    return Spec((term,) * len(shapes), (term,) * len(n.type.items))  # type: ignore[union-attr]


_RULES: dict[str, Callable[[Node], Spec | None]] = {
    "reshape": _reshape,
    "broadcast_to": _broadcast,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "strided_slice": _same_size,
    "pad": _same_size,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "matmul": _matmul,
    "einsum": _einsum,
    "embedding_lookup": _lookup,
    "scatter_rows": _scatter_rows,
    "conv": _conv,
    "conv_grad_input": _conv,
    "conv_grad_kernel": _conv,
    "max_pool": _pool,
    "max_pool_grad": _pool,
    "average_pool": _pool,
    "average_pool_grad": _pool,
    "batch_norm": _batch_norm,
    "batch_norm_grad": _batch_norm,
    "attention": _attention,
    "attention_grad": _attention,
    "barrier": _barrier,
    "vjp": _vjp,
}
