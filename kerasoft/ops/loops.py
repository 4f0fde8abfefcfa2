"""Branches and loops whose functions are traced once: `cond`, `switch`, `scan`, `while_loop` and what they make.

On arrays they are JAX's own (so that they also work under ``jax.jit`` and ``jax.grad``), on graph nodes the compiler's;
with KerasTensors the call with its functions becomes a part of the functional model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import tree
from ..compiler.ops import control
from ..scope import current_scope, read
from ..tensors import Call, KerasTensor, Operation, any_symbolic, infer
from ..variables import Variable
from . import elementwise as e
from .dispatch import public, tensor

__all__ = [
    "associative_scan", "cond", "fori_loop", "map", "scan", "select", "switch", "vectorized_map", "while_loop",
]  # fmt: skip


def _in_graph(*structures: Any) -> bool:
    """Whether functions may meet graph nodes: some are given, or a graph is being traced."""
    scope = current_scope()
    return (scope is not None and scope.tracing) or any(hasattr(x, "op") for x in tree.flatten(structures))


def _tensors(structure: Any) -> Any:
    """A structure with its leaves ready to compute with: variables read, numbers as arrays."""
    return tree.map_structure(lambda x: x if x is None else _tensor(x), structure)


def _tensor(x: Any) -> Any:
    x = read(x) if isinstance(x, Variable) else tensor(x)
    if hasattr(x, "shape"):
        return x
    import jax.numpy as jnp

    return jnp.asarray(x)


def _nodes(structure: Any) -> list:
    from ..compiler.ops.registry import constant

    return [x if hasattr(x, "op") else constant(np.asarray(x)) for x in tree.flatten(_tensors(structure))]


class _Loop(Operation):
    """A loop or branch with its functions in a functional model."""

    def __init__(self, run: Callable, kind: str):
        from .. import naming

        super().__init__(name=naming.auto_name(kind))
        self.run = run

    def __call__(self, *args: Any) -> Any:
        if not any_symbolic(args):
            return self.run(*args)
        outputs = infer(self.run, args, {})
        Call(self, args, {}, outputs)
        return outputs

    def get_config(self) -> dict[str, Any]:
        from ..errors import SerializationError

        raise SerializationError(
            f"'{self.name}' holds Python functions in a functional model, which cannot be saved. "
            "Put it into the `call` of a layer of your own and register that layer."
        )


# --- branches -----------------------------------------------------------------------------------------------------


def cond(pred: Any, true_fn: Callable, false_fn: Callable) -> Any:
    """``true_fn()`` if `pred`, else ``false_fn()``; both give one structure of tensors.

    >>> float(cond(True, lambda: 1.0, lambda: 2.0))
    1.0
    """
    pred = read(pred) if isinstance(pred, Variable) else pred
    if isinstance(pred, KerasTensor):
        return tree.map_structure(lambda a, b: e.where(pred, a, b), true_fn(), false_fn())
    if not hasattr(pred, "op"):
        return _branch(pred, true_fn, false_fn)
    structures: list[Any] = []

    def flat(function: Callable) -> Callable:
        def run() -> tuple:
            structures.append(function())
            return tuple(tree.flatten(structures[-1]))

        return run

    results = control.cond(pred, flat(true_fn), flat(false_fn))
    return tree.pack_as(structures[0], list(results))


def _branch(pred: Any, true_fn: Callable, false_fn: Callable) -> Any:
    import jax

    if isinstance(pred, jax.core.Tracer):
        return jax.lax.cond(jax.numpy.reshape(pred, ()), lambda: _tensors(true_fn()), lambda: _tensors(false_fn()))
    return _results((true_fn if bool(np.asarray(pred)) else false_fn)())


def _results(structure: Any) -> Any:
    """Python numbers among results as arrays; KerasTensors, nodes and None as they are."""
    return tree.map_structure(lambda x: _tensor(x) if isinstance(x, (bool, int, float, Variable)) else x, structure)


def switch(index: Any, branches: Any, *operands: Any) -> Any:
    """``branches[index](*operands)``, the index cut to the branches there are."""
    index = read(index) if isinstance(index, Variable) else index
    if any_symbolic(operands) or isinstance(index, KerasTensor):
        return _Loop(lambda i, *given: switch(i, branches, *given), "Switch")(index, *operands)
    if hasattr(index, "op"):
        result = branches[0](*operands)
        for i, branch in enumerate(branches[1:], 1):
            result = tree.map_structure(
                lambda a, b, i=i: e.where(e.greater_equal(index, i), b, a), result, branch(*operands)
            )
        return result
    if _in_graph(operands):
        return branches[int(np.clip(int(index), 0, len(branches) - 1))](*operands)
    import jax

    return jax.lax.switch(index, branches, *_tensors(list(operands)))


@public("numpy", "Select", "condlist choicelist default")
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """Element by element the choice of the first condition that is true."""
    if not isinstance(condlist, (list, tuple)) or not isinstance(choicelist, (list, tuple)):
        raise ValueError(
            f"condlist and choicelist must be lists. Received: type(condlist) = {type(condlist)}, "
            f"type(choicelist) = {type(choicelist)}"
        )
    if not condlist or not choicelist:
        raise ValueError(
            f"condlist and choicelist must not be empty. Received: condlist = {condlist}, choicelist = {choicelist}"
        )
    if len(condlist) != len(choicelist):
        raise ValueError(f"select needs one choice a condition, got {len(condlist)} and {len(choicelist)}")
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = e.where(condition, choice, result)
    return result


# --- loops --------------------------------------------------------------------------------------------------------


def fori_loop(lower: Any, upper: Any, body_fun: Callable, init_val: Any) -> Any:
    """``body_fun(i, value)`` for each i from `lower` up to but not `upper`, one after the other.

    >>> int(fori_loop(0, 4, lambda i, total: total + i, 0))
    6
    """
    if any_symbolic(lower, upper, init_val):
        return _Loop(lambda a, b, v: fori_loop(a, b, body_fun, v), "ForiLoop")(lower, upper, init_val)
    lower, upper, init_val = _tensors((lower, upper, init_val))
    if not _in_graph(lower, upper, init_val):
        import jax

        return jax.lax.fori_loop(lower, upper, body_fun, init_val)

    def step(i: Any, *values: Any) -> list:
        return [e.add(i, 1), *_nodes(body_fun(i, tree.pack_as(init_val, list(values))))]

    results = control.while_loop(lambda i, *_: e.less(i, upper), step, _nodes((lower, init_val)))
    return tree.pack_as(init_val, list(results[1:]))


def while_loop(cond: Callable, body: Callable, loop_vars: Any, maximum_iterations: int | None = None) -> Any:
    """``body(*loop_vars)`` as long as ``cond(*loop_vars)``, at most `maximum_iterations` times; no gradient.

    >>> int(while_loop(lambda i: i < 10, lambda i: i + 3, 0))
    12
    """
    if any_symbolic(loop_vars):
        return _Loop(lambda v: while_loop(cond, body, v, maximum_iterations), "WhileLoop")(loop_vars)
    several = isinstance(loop_vars, (list, tuple))
    start = tuple(_tensors(list(loop_vars) if several else [loop_vars]))

    def rounds(i: Any, *values: Any) -> Any:
        going = cond(*values)
        return going if maximum_iterations is None else e.logical_and(going, e.less(i, maximum_iterations))

    def step(i: Any, *values: Any) -> tuple:
        new = body(*values)
        return (e.add(i, 1), *(new if several else (new,)))

    if _in_graph(start):
        shape = start
        flat = control.while_loop(
            lambda i, *leaves: rounds(i, *tree.pack_as(shape, list(leaves))),
            lambda i, *leaves: _nodes(list(step(i, *tree.pack_as(shape, list(leaves))))),
            [*_nodes(np.int32(0)), *_nodes(shape)],
        )
        results = tree.pack_as(shape, list(flat[1:]))
    else:
        import jax

        first = (jax.numpy.int32(0), *start)
        results = jax.lax.while_loop(lambda c: rounds(*c), lambda c: step(*c), first)[1:]
    return tuple(results) if several else results[0]


def scan(
    f: Callable, init: Any, xs: Any = None, length: int | None = None, reverse: bool = False, unroll: Any = 1
) -> Any:
    """``carry, y = f(carry, x)`` along the first axis of `xs`: the last carry, and the ys stacked.

    >>> carry, sums = scan(lambda c, x: (c + x, c + x), 0.0, np.array([1.0, 2.0, 3.0], "float32"))
    >>> float(carry), sums.tolist()
    (6.0, [1.0, 3.0, 6.0])
    """
    if not isinstance(unroll, bool) and (not isinstance(unroll, int) or unroll < 1):
        raise ValueError(f"`unroll` must be an positive integer or boolean. Received: unroll={unroll}")
    if any_symbolic(init, xs):
        return _Loop(lambda i, x: scan(f, i, x, length, reverse, unroll), "Scan")(init, xs)
    init, xs = _tensors(init), None if xs is None else _tensors(xs)
    if not _in_graph(init, xs):
        import jax

        return jax.lax.scan(f, init, xs, length=length, reverse=reverse, unroll=unroll)
    last_y: list[Any] = []

    def step(carry: list, cells: list) -> tuple[list, list]:
        new, y = f(tree.pack_as(init, carry), None if xs is None else tree.pack_as(xs, cells))
        last_y[:] = [y]
        return _nodes(new), [] if y is None else _nodes(y)

    last, ys = control.scan(step, _nodes(init), [] if xs is None else _nodes(xs), length, reverse)
    y = last_y[0] if last_y else None
    return tree.pack_as(init, last), None if y is None else tree.pack_as(y, ys)


def map(f: Callable, xs: Any) -> Any:
    """``f(x)`` for each x along the first axis, one after the other, stacked."""
    if any_symbolic(xs):
        return _Loop(lambda x: map(f, x), "Map")(xs)
    xs = _tensors(xs)
    if not _in_graph(xs):
        import jax

        return jax.lax.map(f, xs)
    return scan(lambda carry, x: (carry, f(x)), 0, xs)[1]


def vectorized_map(function: Callable, elements: Any) -> Any:
    """``function(x)`` for each x along the first axis, all at once, stacked.

    >>> vectorized_map(lambda x: x.sum(), np.ones((2, 3), "float32")).tolist()
    [3.0, 3.0]
    """
    if any_symbolic(elements):
        return _Loop(lambda x: vectorized_map(function, x), "VectorizedMap")(elements)
    elements = _tensors(elements)
    if not _in_graph(elements):
        import jax

        return jax.vmap(function)(elements)
    return map(function, elements)


def associative_scan(f: Callable, elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """Running results along `axis` of a function `f` of two slices that may be grouped at will.

    >>> associative_scan(lambda a, b: a + b, np.arange(4)).tolist()
    [0, 1, 3, 6]
    """
    if any_symbolic(elems):
        return _Loop(lambda x: associative_scan(f, x, reverse, axis), "AssociativeScan")(elems)
    elems = _tensors(elems)
    sizes = {x.shape[axis] for x in tree.flatten(elems)}
    if len(sizes) != 1:
        raise ValueError(
            "Array inputs to associative_scan must have the same first dimension. "
            f"(saw: {[x.shape for x in tree.flatten(elems)]})"
        )
    if not any(hasattr(x, "op") for x in tree.flatten(elems)):
        import jax

        return jax.lax.associative_scan(f, elems, reverse, axis)

    def run(*leaves: Any) -> tuple:
        import jax

        return tuple(tree.flatten(jax.lax.associative_scan(f, tree.pack_as(elems, list(leaves)), reverse, axis)))

    return tree.pack_as(elems, list(control.from_jax(run)(*tree.flatten(elems))))
